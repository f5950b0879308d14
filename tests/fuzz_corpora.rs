//! The committed inputs of the fuzz targets, and random changes of these, as ordinary tests.
//!
//! `cargo xtask fuzz` looks for new inputs and keeps them in `fuzz/corpus`; `fuzz/seeds` holds those that somebody
//! wrote, and those that once found a bug. Here all of them pass through the same functions without a fuzzer. A
//! failure prints the input, or the seed of the change: `PUBSUB_FUZZ_SEED=N` does the same changes again.

mod fuzz_targets;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fuzz_targets::TARGETS;

/// Changes of committed inputs, for each target.
const CHANGES: usize = 3_000;
/// After so long a slow machine, or a slow target, has done enough.
const TIME_MAX: Duration = Duration::from_secs(2);
/// The largest input that a change makes.
const BYTES_MAX: usize = 16_384;

#[test]
fn clusterws() {
    replay("clusterws");
}

#[test]
fn filters() {
    replay("filters");
}

#[test]
fn frames() {
    replay("frames");
}

#[test]
fn handshake() {
    replay("handshake");
}

#[test]
fn interest() {
    replay("interest");
}

#[test]
fn native() {
    replay("native");
}

#[test]
fn peer() {
    replay("peer");
}

#[test]
fn resp() {
    replay("resp");
}

#[test]
fn proxy() {
    replay("proxy");
}

#[test]
fn shard() {
    replay("shard");
}

#[test]
fn tokens() {
    replay("tokens");
}

#[test]
fn topic_tree() {
    replay("topic_tree");
}

/// The program of each target is a line of the manifest and a file, and here is a test of its name.
#[test]
fn every_target_is_fuzzed_and_replayed() {
    let manifest = fs::read_to_string(folder("").join("Cargo.toml")).unwrap();
    let here = include_str!("fuzz_corpora.rs");
    for (name, _) in TARGETS {
        assert!(folder("fuzz_targets").join(format!("{name}.rs")).exists());
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
        assert!(here.contains(&format!("replay(\"{name}\")")), "{name}");
    }
    let programs = fs::read_dir(folder("fuzz_targets")).unwrap().count();
    assert_eq!(programs, TARGETS.len(), "a program without a target");
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz")
        .join(name)
}

/// The committed inputs of a target with their names, in the order of these.
fn inputs(target: &str) -> Vec<(String, Vec<u8>)> {
    let mut inputs = Vec::new();
    for kind in ["seeds", "corpus"] {
        // A fuzzer that runs meanwhile may take a file away again.
        for entry in fs::read_dir(folder(kind).join(target))
            .into_iter()
            .flatten()
        {
            let path = entry.unwrap().path();
            if let Ok(bytes) = fs::read(&path) {
                let name = path.file_name().unwrap().to_string_lossy();
                inputs.push((format!("{kind}/{target}/{name}"), bytes));
            }
        }
    }
    inputs.sort();
    inputs
}

fn replay(target: &str) {
    let (_, run) = TARGETS
        .into_iter()
        .find(|(name, _)| *name == target)
        .unwrap();
    let inputs = inputs(target);
    assert!(!inputs.is_empty(), "no inputs for {target}");
    for (name, bytes) in &inputs {
        attempt(run, bytes, || format!("fuzz/{name}"));
    }
    let seed = match std::env::var("PUBSUB_FUZZ_SEED") {
        Ok(seed) => seed.parse().expect("PUBSUB_FUZZ_SEED is a number"),
        Err(_) => fastrand::u64(..),
    };
    println!("{target}: {} inputs, changes by seed {seed}", inputs.len());
    let mut random = fastrand::Rng::with_seed(seed);
    let start = Instant::now();
    for change in 0..CHANGES {
        let bytes = changed(&inputs, &mut random);
        attempt(run, &bytes, || {
            format!(
                "change {change} of PUBSUB_FUZZ_SEED={seed}: {}",
                bytes.escape_ascii()
            )
        });
        if start.elapsed() > TIME_MAX {
            println!("{target}: time is up after {change} changes");
            break;
        }
    }
}

/// Runs a target; says which input it was if it fails.
fn attempt(run: fn(&[u8]), bytes: &[u8], name: impl FnOnce() -> String) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(bytes))) {
        println!("{} bytes failed: {}", bytes.len(), name());
        resume_unwind(panic);
    }
}

/// An input that differs in a few places from one that is known, as libFuzzer would change it.
fn changed(inputs: &[(String, Vec<u8>)], random: &mut fastrand::Rng) -> Vec<u8> {
    let any = |random: &mut fastrand::Rng| &inputs[random.usize(..inputs.len())].1;
    let mut bytes = any(random).clone();
    for _ in 0..random.usize(1..=4) {
        let at = random.usize(..=bytes.len());
        match random.u8(..6) {
            0 if at < bytes.len() => bytes[at] = random.u8(..),
            1 if at < bytes.len() => bytes[at] ^= 1 << random.u8(..8),
            2 => bytes.insert(at, random.u8(..)),
            3 => {
                let end = bytes.len().min(at + random.usize(1..=16));
                bytes.drain(at..end);
            }
            4 => {
                let end = bytes.len().min(at + random.usize(1..=16));
                let again = bytes[at..end].to_vec();
                let to = random.usize(..=bytes.len());
                bytes.splice(to..to, again);
            }
            _ => {
                // The beginning of one, the end of another.
                let other = any(random);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[random.usize(..=other.len())..]);
            }
        }
    }
    bytes.truncate(BYTES_MAX);
    bytes
}
