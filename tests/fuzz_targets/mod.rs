//! The bodies of the fuzz targets: plain functions of bytes, which panic if something is wrong.
//!
//! `fuzz/fuzz_targets` hands them what libFuzzer thinks up; `tests/fuzz_corpora.rs` hands them the committed inputs and
//! random changes of these, so that the ordinary test command keeps what fuzzing has found. A body is deterministic
//! and takes any bytes. What the bytes of a target mean is said where the target begins, and nowhere else.

pub mod calls;
pub mod clusterws;
pub mod filters;
pub mod frames;
pub mod handshake;
pub mod input;
pub mod interest;
pub mod native;
pub mod peer;
pub mod peers;
pub mod proxy;
pub mod received;
pub mod resp;
pub mod shard;
pub mod shards;
pub mod speakers;
pub mod tokens;
pub mod topic_tree;
pub mod values;

/// A target's name and its body.
pub type Target = (&'static str, fn(&[u8]));

/// Every target by the name of its corpus.
pub const TARGETS: [Target; 12] = [
    ("clusterws", clusterws::run),
    ("filters", filters::run),
    ("frames", frames::run),
    ("handshake", handshake::run),
    ("interest", interest::run),
    ("native", native::run),
    ("peer", peer::run),
    ("proxy", proxy::run),
    ("resp", resp::run),
    ("shard", shard::run),
    ("tokens", tokens::run),
    ("topic_tree", topic_tree::run),
];
