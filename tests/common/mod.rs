//! A real broker on ports of its own, and clients that speak to it: what every end-to-end test stands on.
//!
//! Nothing here sleeps. Whatever is waited for is an event with a deadline ([`DEADLINE`]); a test whose event does
//! not come fails with a sentence that names it and with the last lines of the broker's log.

// Each test file compiles this module for itself and uses only a part of it.
#![allow(dead_code, unused_imports)]

pub mod admin;
pub mod broker;
pub mod browser;
pub mod cases;
pub mod client;
pub mod clusterws;
pub mod malformed;
pub mod option;
pub mod peer;
pub mod raw;
pub mod redis;
pub mod resp;
pub mod seccomp;
pub mod server;
pub mod speaker;
pub mod talker;
pub mod visitor;

use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

pub use broker::{Broker, Finished, run};
pub use browser::Browser;
pub use client::{Client, End, clients_by_shard, pair_on_two_shards};
pub use clusterws::Clusterws;
pub use peer::Peer;
pub use raw::Raw;
pub use redis::Redis;
pub use resp::RespServer;
pub use server::Server;
pub use speaker::{Protocol, Speaker};
pub use talker::Talker;

/// How long an event may take before its absence is a failure.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Asks until the answer is there. Each question should cost a round trip, which paces the loop.
pub fn wait_for<T>(what: &str, mut question: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = question() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {DEADLINE:?} for {what}");
    }
}

/// Says that a test, or a part of it, is skipped, and why: past libtest's capture, so that it is counted.
pub fn skip(name: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {name}: {why}");
}

/// The seed of a random test: `E2E_SEED` replays one, otherwise it is new. Printed, so that a failure shows it.
pub fn seed() -> u64 {
    let seed = std::env::var("E2E_SEED").ok().map_or_else(
        || fastrand::u64(..),
        |text| text.parse().expect("E2E_SEED is a number"),
    );
    println!("replay with E2E_SEED={seed}");
    seed
}

/// Why what is in this folder can't be run by Node here, if so. `cargo xtask test --only setup` brings both.
pub fn missing_node(folder: &Path) -> Option<String> {
    if Command::new("node").arg("--version").output().is_err() {
        return Some("there is no node".to_owned());
    }
    // npm writes its own lock file last; `xtask` looks at the same.
    let written = |name: &str| std::fs::metadata(folder.join(name))?.modified();
    let asked = written("package-lock.json").expect("a lock file");
    let is_there = written("node_modules/.package-lock.json").is_ok_and(|then| then >= asked);
    (!is_there).then(|| format!("no packages: run `npm ci` in {}", folder.display()))
}
