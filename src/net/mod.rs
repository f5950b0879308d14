//! The edge: sockets, clock, threads.

pub mod control;
