//! A realtime publish/subscribe broker.
//!
//! The modules in reading order, each knowing only those above it:
//! nouns ([`address`], [`topic`], [`message`], [`limits`], [`error`], [`secret`], [`failures`]), formats ([`ws`],
//! [`protocol`], [`token`]), logic ([`shard`]), carriage ([`mesh`]), edge ([`net`], [`admin`]), assembly
//! ([`config`], [`broker`], [`serve`]).
//! `ARCHITECTURE.md` follows a publish through them.

pub mod accepted;
pub mod address;
pub mod admin;
pub mod broker;
pub mod client;
pub mod config;
pub mod console;
pub mod error;
pub mod failures;
pub mod limits;
pub mod link;
pub mod mesh;
pub mod message;
pub mod net;
pub mod protocol;
pub mod secret;
pub mod serve;
pub mod shard;
pub mod token;
pub mod topic;
pub mod ws;
