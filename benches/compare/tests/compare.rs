//! A whole run in small: the broker on both drivers beside the floor; and what is refused.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const COMPARE: &str = env!("CARGO_BIN_EXE_pubsub-compare");

fn compare(arguments: &str, folder: &Path) -> Output {
    Command::new(COMPARE)
        .args(arguments.split_whitespace())
        .arg("--out")
        .arg(folder)
        .env("PATH", "/nowhere")
        .output()
        .unwrap()
}

/// Why there can be no run here, if so.
fn obstacle() -> Option<&'static str> {
    if !Path::new(COMPARE).with_file_name("pubsub").exists() {
        return Some("the broker is not built: cargo build");
    }
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    (cpus < 2).then_some("it needs two CPUs")
}

fn skip(name: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {name}: {why}");
}

#[test]
fn a_run_measures_all_and_keeps_it() {
    if let Some(why) = obstacle() {
        return skip("a_run_measures_all_and_keeps_it", why);
    }
    let folder = tempfile::tempdir().unwrap();
    let output = compare(
        "--with floor-joined,uring,epoll --rounds 1 --seconds 0.2 --only fanout,rooms --name x",
        folder.path(),
    );
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if said.contains("io_uring") {
        return skip("a_run_measures_all_and_keeps_it", "io_uring is refused");
    }
    assert!(output.status.success(), "{output:?}");
    let json = std::fs::read_to_string(folder.path().join("x.json")).unwrap();
    let results: Value = serde_json::from_str(&json).unwrap();
    let samples = results["samples"].as_array().unwrap();
    assert_eq!(samples.len(), 6);
    for sample in samples {
        let cost = sample["figures"]["cpu_us_per_delivery"].as_f64();
        assert!(cost.is_some_and(|cost| cost > 0.0), "{sample:#}");
        assert_eq!(sample["report"]["right"], true);
    }
    let goal = |text: &str| {
        let goals = results["goals"].as_array().unwrap();
        goals.iter().find(|goal| goal["goal"] == text).unwrap()
    };
    let median = |contender: &str| {
        let medians = results["medians"].as_array().unwrap();
        let of = |entry: &&Value| entry["point"] == "fanout" && entry["contender"] == contender;
        let entry = medians.iter().find(of).unwrap();
        entry["figures"]["cpu_us_per_delivery"]["median"].as_f64()
    };
    let ratio = median("epoll").unwrap() / median("uring").unwrap();
    let told = goal("fanout: CPU per delivery, epoll / uring")["value"].as_f64();
    assert!((told.unwrap() - ratio).abs() < 1e-9);
    let unmeasured = goal("fanout: CPU per delivery / bun");
    assert_eq!(unmeasured["verdict"], "not measured");
    for expected in ["fanout", "rooms", "floor-joined", "not measured"] {
        assert!(said.contains(expected), "{said}");
    }
    let chart = std::fs::read_to_string(folder.path().join("x.svg")).unwrap();
    assert_eq!(chart.matches("<rect").count(), 6);
    assert!(!folder.path().join("x-sweep.svg").exists());
}

#[test]
fn protocols_are_measured_beside_each_other() {
    let name = "protocols_are_measured_beside_each_other";
    if let Some(why) = obstacle() {
        return skip(name, why);
    }
    let folder = tempfile::tempdir().unwrap();
    let broker = Path::new(COMPARE).with_file_name("pubsub");
    let arguments = format!(
        "--with uring,epoll-resp,uring-resp,uring-clusterws,uring-mixed,before --before {} \
         --rounds 1 --seconds 0.2 --only mixed,clusterws,nobody,single --name x",
        broker.display()
    );
    let output = compare(&arguments, folder.path());
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if said.contains("io_uring") {
        return skip(name, "io_uring is refused");
    }
    assert!(output.status.success(), "{output:?}");
    let json = std::fs::read_to_string(folder.path().join("x.json")).unwrap();
    let results: Value = serde_json::from_str(&json).unwrap();
    let samples = results["samples"].as_array().unwrap();
    let count = |point: &str| {
        let of = samples.iter().filter(|sample| sample["point"] == point);
        of.count()
    };
    let counts = ["mixed", "clusterws", "nobody", "single"].map(count);
    assert_eq!(counts, [4, 2, 4, 2]);
    let goals = results["goals"].as_array().unwrap();
    for text in [
        "mixed: CPU per delivery / mean of native, RESP and ClusterWS",
        "clusterws: CPU per delivery, uring-clusterws / uring",
        "single: CPU per delivery / before",
    ] {
        let goal = goals.iter().find(|goal| goal["goal"] == text).unwrap();
        assert!(goal["value"].as_f64().is_some(), "{goal}");
    }
}

#[test]
fn what_cannot_be_measured_is_refused() {
    if let Some(why) = obstacle() {
        return skip("what_cannot_be_measured_is_refused", why);
    }
    let folder = tempfile::tempdir().unwrap();
    let check = |arguments: &str, expected: &str| {
        let output = compare(arguments, folder.path());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments}: {output:?}");
        assert!(said.contains(expected), "{arguments}: {said}");
    };
    check(
        "--with redis",
        "redis is not there: pubsub-compare --install",
    );
    check("--with uring,nats --only many", "nats is not there");
    check("--with node --only shards", "takes part");
    check("--with uring --rounds 0", "--rounds");
    check("--with uring --seconds 0", "--seconds");
    check("--with uring --binary /nowhere/pubsub", "--binary");
    check("--with uring --before /nowhere/pubsub", "--before");
    check("--with before", "before is not there: --before PATH");
    check("--only walk", "walk");
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 0, "a run that was refused leaves nothing");
}
