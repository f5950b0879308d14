//! The shard: a pure state machine that takes bytes, parcels of other shards and the time, and gives effects.

pub mod auth;
pub mod metrics;
pub mod slow;
