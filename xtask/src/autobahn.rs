//! The Autobahn test suite: a client that breaks RFC 6455 in 301 ways, and judges how `/echo` of the conformance
//! broker takes it.
//!
//! The suite runs on Python 2.7 only. Where there is one, with its pip, the suite is installed under `target/`;
//! where not, the step says that it is skipped. Families 12 and 13 are left out: they are about compression, which is
//! not offered. It runs on both drivers; the environment's `E2E_IO` chooses one, as in the end-to-end tests.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::Verdict;
use crate::process::{self, cargo, first_line, root};
use crate::tally::Tally;

/// The suite, of the one version whose cases we count.
const PACKAGE: &str = "autobahntestsuite==25.10.1";

/// The families, what each is about, and how many cases it has.
const FAMILIES: [(u32, &str, usize); 9] = [
    (1, "framing", 16),
    (2, "pings and pongs", 11),
    (3, "reserved bits", 7),
    (4, "opcodes", 10),
    (5, "fragmentation", 20),
    (6, "UTF-8", 145),
    (7, "closing", 37),
    (9, "limits", 54),
    (10, "automatic fragmentation", 1),
];

/// The agent's name in the report.
const AGENT: &str = "pubsub";

fn folder() -> PathBuf {
    root().join("target/autobahn")
}

/// Installs the suite, if it is not there.
///
/// # Errors
/// Why it can't be had here.
pub fn install() -> Result<(), String> {
    let python = python().ok_or("no Python 2.7, which the Autobahn test suite runs on")?;
    if folder().join("bin/wstest").exists() {
        println!("{PACKAGE} is installed");
        return Ok(());
    }
    if first_line(&python, &["-m", "pip", "--version"]).is_none() {
        return Err("Python 2.7 has no pip to install the Autobahn test suite with".to_owned());
    }
    // As packages of a user whose home is our folder: a virtual environment without needing virtualenv.
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--user", "--quiet"])
        .args(["--disable-pip-version-check", "--no-warn-script-location"])
        .arg(PACKAGE)
        .env("PYTHONUSERBASE", folder());
    if process::run(&mut pip).0 {
        Ok(())
    } else {
        Err(format!("pip could not install {PACKAGE}"))
    }
}

/// A Python 2.7: of the system, or one that pyenv carries.
fn python() -> Option<String> {
    let is_right = |program: &str| {
        let version = "import sys; print(\"%d.%d\" % sys.version_info[:2])";
        first_line(program, &["-c", version]).as_deref() == Some("2.7")
    };
    let system = ["python2.7", "python2"].map(str::to_owned);
    let pyenv = || {
        let versions = Command::new("pyenv").args(["versions", "--bare"]).output();
        let versions = String::from_utf8(versions.ok()?.stdout).ok()?;
        let version = versions.lines().find(|line| line.starts_with("2.7."))?;
        let prefix = first_line("pyenv", &["prefix", version])?;
        Some(format!("{prefix}/bin/python2.7"))
    };
    system
        .into_iter()
        .chain(pyenv())
        .find(|program| is_right(program))
}

/// Runs all cases; each is a test.
pub fn run() -> (Verdict, Tally) {
    if let Err(why) = install() {
        println!("skipped: {why}");
        return (Verdict::Skipped(why), Tally::default());
    }
    let drivers = match env::var("E2E_IO") {
        Ok(io) => vec![io],
        // What runs here, and what runs everywhere.
        Err(_) => vec!["auto".to_owned(), "epoll".to_owned()],
    };
    let (mut verdict, mut all) = (Verdict::Passed, Tally::default());
    for io in drivers {
        match drive(&io) {
            Ok(cases) => {
                let (text, tally) = judge(&cases);
                print!("{text}");
                if tally.failed > 0 {
                    let reports = folder().join("reports");
                    println!("what was said in each case: {}", reports.display());
                    verdict = Verdict::Failed;
                }
                all.passed += tally.passed;
                all.failed += tally.failed;
                all.skipped += tally.skipped;
            }
            Err(why) => {
                println!("{why}");
                verdict = Verdict::Failed;
            }
        }
        if verdict == Verdict::Failed {
            break;
        }
    }
    (verdict, all)
}

/// Ends the broker with the run.
struct Broker(Child);

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a broker, lets the suite at it, and gives what it says of each case.
fn drive(io: &str) -> Result<BTreeMap<String, Case>, String> {
    if !process::run(&mut cargo(&["build", "--example", "conformance"])).0 {
        return Err("the conformance broker does not build".to_owned());
    }
    // cargo becomes the broker (it execs), so ending the one ends the other.
    let mut broker = cargo(&["run", "--quiet", "--example", "conformance", "--"]);
    broker.args(["--listen", "127.0.0.1:0", "--admin", "off"]);
    broker.args(["--io", io]);
    let broker = broker.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut broker = Broker(broker.map_err(|error| format!("the broker: {error}"))?);
    let mut ready = String::new();
    // Asked for as a pipe just above.
    let output = broker.0.stdout.take().expect("stdout is piped");
    let _ = BufReader::new(output).read_line(&mut ready);
    let address = ready
        .split_whitespace()
        .find_map(|word| word.strip_prefix("listen="))
        .ok_or("the broker did not get ready")?;

    let reports = folder().join("reports");
    let _ = fs::remove_dir_all(&reports);
    let specification = folder().join("fuzzingclient.json");
    let cases: Vec<String> = FAMILIES.map(|(family, ..)| format!("{family}.*")).into();
    let text = json!({
        "outdir": reports,
        "servers": [{"agent": AGENT, "url": format!("ws://{address}/echo")}],
        "cases": cases,
        // Its own patience is 1 s, less than a loaded machine may keep one of the two waiting.
        "options": {"openHandshakeTimeout": 10, "closeHandshakeTimeout": 10, "serverConnectionDropTimeout": 10},
        "exclude-cases": [],
        "exclude-agent-cases": {},
    });
    let failed = |error: std::io::Error| format!("{}: {error}", folder().display());
    fs::write(&specification, text.to_string()).map_err(failed)?;
    // A line for each case is too much for the eye.
    let log = File::create(folder().join("wstest.log")).map_err(failed)?;
    let errors = log.try_clone().map_err(failed)?;
    let python = python().ok_or("Python 2.7 is gone")?;
    println!("$ wstest --mode fuzzingclient (against ws://{address}/echo)");
    let ended = Command::new(python)
        .arg(folder().join("bin/wstest"))
        .args(["--mode", "fuzzingclient", "--spec"])
        .arg(&specification)
        .current_dir(folder())
        .env("PYTHONUSERBASE", folder())
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .status()
        .map_err(failed)?;
    let index = fs::read(reports.join("index.json")).map_err(|_| {
        format!(
            "wstest wrote no report ({ended}): {}/wstest.log",
            folder().display()
        )
    })?;
    read(&serde_json::from_slice(&index).map_err(|error| format!("its report: {error}"))?)
}

/// What the suite says of a case: of what was sent, and of how the connection was closed.
#[derive(PartialEq, Eq, Debug)]
struct Case {
    behavior: String,
    behavior_close: String,
    milliseconds: u64,
}

impl Case {
    /// `NON-STRICT` is no pass: whatever can be done strictly is.
    fn passes(&self) -> bool {
        [&self.behavior, &self.behavior_close]
            .iter()
            .all(|word| ["OK", "INFORMATIONAL"].contains(&word.as_str()))
    }
}

/// The cases of the suite's `index.json`.
fn read(index: &Value) -> Result<BTreeMap<String, Case>, String> {
    let cases = index[AGENT].as_object().ok_or("the report has no agent")?;
    let word = |case: &Value, name: &str| case[name].as_str().unwrap_or("none").to_owned();
    let cases = cases.iter().map(|(id, case)| {
        let read = Case {
            behavior: word(case, "behavior"),
            behavior_close: word(case, "behaviorClose"),
            milliseconds: case["duration"].as_u64().unwrap_or(0),
        };
        (id.clone(), read)
    });
    Ok(cases.collect())
}

/// A table by family, a line for each case that does not pass, and the count. A case that is not in the report has
/// failed.
fn judge(cases: &BTreeMap<String, Case>) -> (String, Tally) {
    let words = ["OK", "INFORMATIONAL", "NON-STRICT"];
    let mut text = format!(
        "{:>6}  {:24} {:>5} {:>4} {:>13} {:>10} {:>6} {:>8}\n",
        "family", "about", "cases", words[0], words[1], words[2], "failed", "seconds"
    );
    let (mut remarks, mut tally) = (String::new(), Tally::default());
    for (family, about, count) in FAMILIES {
        let of_family: Vec<_> = cases
            .iter()
            .filter(|(id, _)| id.split('.').next() == Some(&family.to_string()))
            .collect();
        let counts = words.map(|word| {
            let is = |(_, case): &&(&String, &Case)| case.behavior == word;
            of_family.iter().filter(is).count()
        });
        let passed = of_family.iter().filter(|(_, case)| case.passes()).count();
        let failed = count.max(of_family.len()) - counts.iter().sum::<usize>();
        let seconds = of_family
            .iter()
            .map(|(_, case)| case.milliseconds)
            .sum::<u64>() as f64
            / 1e3;
        text += &format!(
            "{family:>6}  {about:24} {count:>5} {:>4} {:>13} {:>10} {failed:>6} {seconds:>8.1}\n",
            counts[0], counts[1], counts[2]
        );
        for (id, case) in &of_family {
            if !case.passes() {
                remarks += &format!(
                    "case {id}: {}, close {}\n",
                    case.behavior, case.behavior_close
                );
            }
        }
        if of_family.len() < count {
            remarks += &format!(
                "family {family}: {} cases did not run\n",
                count - of_family.len()
            );
        }
        tally += Tally {
            passed,
            failed: count.max(of_family.len()) - passed,
            skipped: 0,
        };
    }
    (text + &remarks, tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A report in which all is well, but for these changes.
    fn report(changes: &[(&str, &str, &str)]) -> BTreeMap<String, Case> {
        let mut cases = serde_json::Map::new();
        for (family, _, count) in FAMILIES {
            for case in 1..=count {
                let fine = json!({"behavior": "OK", "behaviorClose": "OK", "duration": 2});
                cases.insert(format!("{family}.{case}"), fine);
            }
        }
        for (id, name, word) in changes {
            if word.is_empty() {
                cases.remove(*id);
            } else {
                cases[*id][name] = json!(word);
            }
        }
        read(&json!({AGENT: cases})).unwrap()
    }

    #[test]
    fn every_case_is_judged() {
        let check = |changes: &[(&str, &str, &str)], expected: &str, remark: &str| {
            let (text, tally) = judge(&report(changes));
            assert_eq!(tally.to_string(), expected, "{text}");
            assert!(text.contains(remark), "{text}");
        };
        check(&[], "301 passed, 0 failed, 0 skipped", "");
        check(
            &[
                ("7.6", "behavior", "INFORMATIONAL"),
                ("7.6", "behaviorClose", "INFORMATIONAL"),
            ],
            "301 passed, 0 failed, 0 skipped",
            " 36             1 ",
        );
        check(
            &[("6.4", "behavior", "NON-STRICT")],
            "300 passed, 1 failed, 0 skipped",
            "case 6.4: NON-STRICT, close OK\n",
        );
        check(
            &[("10.1", "behavior", "FAILED")],
            "300 passed, 1 failed, 0 skipped",
            "case 10.1: FAILED, close OK\n",
        );
        check(
            &[("1.1", "behaviorClose", "UNCLEAN")],
            "300 passed, 1 failed, 0 skipped",
            "case 1.1: OK, close UNCLEAN\n",
        );
        check(
            &[("9.54", "", "")],
            "300 passed, 1 failed, 0 skipped",
            "family 9: 1 cases did not run\n",
        );
        assert!(read(&json!({})).is_err());
    }
}
