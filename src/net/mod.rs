//! The edge: sockets, clock, threads.

pub mod affinity;
pub mod control;
