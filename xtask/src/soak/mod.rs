//! `cargo xtask soak`: the figures of the promises, at full size, against a release build.
//!
//! The tests show that each bound holds, with counts and shortened timings. What is promised in megabytes and
//! milliseconds is measured here, by minutes of load on a real broker, and printed as a table. Memory and
//! counts are exact wherever this runs; times are those of this machine and of whoever else uses it.

mod broker;
mod client;
mod connections;
mod drain;
mod facts;
mod latency;
mod memory;

use std::process::{Command, ExitCode};
use std::time::Instant;

use crate::process;

use broker::Options;

/// What is measured.
struct Check {
    /// As `--only` names it.
    name: &'static str,
    run: fn(&Options) -> Vec<Row>,
}

const CHECKS: [Check; 11] = [
    check("idle", memory::idle),
    check("non-readers", memory::non_readers),
    check("replies", memory::replies),
    check("subscriptions", memory::subscriptions),
    check("heads", memory::heads),
    check("churn", connections::churn),
    check("stuck", connections::stuck),
    check("dead", connections::dead),
    check("fairness", latency::fairness),
    check("stall", latency::stall),
    check("drain", drain::drain),
];

const fn check(name: &'static str, run: fn(&Options) -> Vec<Row>) -> Check {
    Check { name, run }
}

/// The names that `--only` takes.
pub fn names() -> Vec<&'static str> {
    CHECKS.iter().map(|check| check.name).collect()
}

/// One line of the table.
#[derive(Clone, Debug)]
struct Row {
    /// The number of the promise.
    promise: u8,
    /// What was promised.
    figure: String,
    measured: String,
    ok: bool,
}

impl Row {
    fn new(promise: u8, figure: impl Into<String>, measured: impl Into<String>, ok: bool) -> Row {
        Row {
            promise,
            figure: figure.into(),
            measured: measured.into(),
            ok,
        }
    }
}

/// Measures with each driver; the drivers that this build lacks are said to be skipped.
pub fn run(drivers: &[String], only: &[String]) -> ExitCode {
    print!("{}", facts::facts());
    let build = ["build", "--release", "--bin", "pubsub"];
    if !process::run(&mut process::cargo(&build)).0 {
        return ExitCode::FAILURE;
    }
    let binary = process::root().join("target/release/pubsub");
    let mut is_ok = true;
    for driver in drivers {
        let options = Options {
            binary: binary.clone(),
            driver: driver.clone(),
        };
        if let Err(why) = has_driver(&options) {
            println!("\nskipped: {driver}: {why}");
            continue;
        }
        let mut rows = Vec::new();
        for check in &CHECKS {
            if !only.is_empty() && !only.iter().any(|name| name == check.name) {
                continue;
            }
            println!("\n== {driver}: {}", check.name);
            let begun = Instant::now();
            let measured = (check.run)(&options);
            for row in &measured {
                print!("{}", line(row));
            }
            println!("({:.1} s)", begun.elapsed().as_secs_f64());
            rows.extend(measured);
        }
        rows.sort_by_key(|row| row.promise);
        is_ok &= rows.iter().all(|row| row.ok);
        print!("\n{}", table(driver, &rows));
    }
    if is_ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Does this build know the driver? `check-config` does not tell: it starts nothing.
fn has_driver(options: &Options) -> Result<(), String> {
    let output = Command::new(&options.binary)
        .args(["--io", &options.driver, "--listen", "256.0.0.1:0"])
        .args(["--admin", "off", "--insecure-open"])
        .output()
        .map_err(|error| error.to_string())?;
    // An address that nobody has: with a driver, this is what it complains of.
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if said.contains("256.0.0.1") {
        Ok(())
    } else {
        Err(said.trim().to_owned())
    }
}

fn line(row: &Row) -> String {
    let ok = if row.ok { "ok" } else { "MISSED" };
    format!(
        "| {:>2} | {:66} | {:55} | {ok:6} |\n",
        row.promise, row.figure, row.measured
    )
}

fn table(driver: &str, rows: &[Row]) -> String {
    let mut text = format!("{driver}\n\n");
    text += &format!(
        "| {:2} | {:66} | {:55} | {:6} |\n",
        "P", "figure", "measured", "ok"
    );
    text += &format!(
        "| -- | {} | {} | ------ |\n",
        "-".repeat(66),
        "-".repeat(55)
    );
    for row in rows {
        text += &line(row);
    }
    let missed = rows.iter().filter(|row| !row.ok).count();
    text + &format!("\n{} figures, {missed} missed\n", rows.len())
}

/// Bytes as MiB, for the table.
fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / MIB as f64)
}

const MIB: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_figure_is_seen() {
        let rows = [
            Row::new(7, "idle", mib(3 * MIB), true),
            Row::new(9, "p99", "30 ms", false),
        ];
        let text = table("epoll", &rows);
        assert!(text.contains("|  7 | idle"), "{text}");
        assert!(text.contains("3.0 MiB"), "{text}");
        assert!(text.contains("MISSED"), "{text}");
        assert_eq!(text.lines().last(), Some("2 figures, 1 missed"));
    }

    #[test]
    fn names_are_unique() {
        let mut names = names();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
