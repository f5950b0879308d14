//! The project's own commands: `cargo xtask test` is the whole gate, here and in CI; `cargo xtask fuzz` goes on for as
//! long as one lets it; `cargo xtask install` puts the library for C programs where it is used.
//!
//! The gate says what it does before it does it, goes on after a failed step so that one run shows everything, and ends
//! with a table of the steps and one line that counts the tests.

mod autobahn;
mod debian;
mod fuzz;
mod install;
mod process;
mod setup;
mod soak;
mod steps;
mod tally;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use fuzz::Plan;
use install::Installation;
use steps::Step;
use tally::Tally;

const USAGE: &str = "\
usage: cargo xtask test [--only STEP[,STEP...]] [--list]
       cargo xtask fuzz [TARGET] [--minutes N] [--keep]
       cargo xtask soak [--io DRIVER[,DRIVER...]] [--only CHECK[,CHECK...]] [--list]
       cargo xtask install [--prefix DIR] [--destdir DIR] [--debug]

  test          set up what the tests need, check format and lints, run every test, build the documents
  --only STEPS  only these steps, in their usual order
  --list        name the steps and end

  fuzz          fuzz each target (or one), installing cargo-fuzz if it is missing
  --minutes N   for so long each (10)
  --keep        put what was found, minimised, into fuzz/corpus
  soak          measure the figures of the promises at full size, for minutes, on a release build
  --io DRIVERS  with these drivers: uring, epoll; by default with each that this build has
  --only CHECKS only these checks
  --list        name the checks and end

  install       build libpubsub and put it with its header and pubsub.pc under a prefix
  --prefix DIR  this one (/usr/local)
  --destdir DIR write to DIR/PREFIX, for packages
  --debug       without optimisation
";

/// What became of a step.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Verdict {
    Passed,
    Failed,
    /// Not done, or not all of it, and why.
    Skipped(String),
}

/// A line of the closing table.
struct Report {
    step: Step,
    verdict: Verdict,
    tally: Tally,
    time: Duration,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match parse(&arguments) {
        Ok(Request::Test(steps)) => test(&steps),
        Ok(Request::Fuzz(plan)) => {
            if plan.carry_out() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Ok(Request::Install(installation)) => {
            if installation.carry_out() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Ok(Request::List) => {
            for step in Step::ALL {
                println!("{:8} {}", step.name(), step.about());
            }
            ExitCode::SUCCESS
        }
        Ok(Request::Soak { drivers, only }) => soak::run(&drivers, &only),
        Ok(Request::ListChecks) => {
            println!("{}", soak::names().join("\n"));
            ExitCode::SUCCESS
        }
        Ok(Request::Help) => {
            print!("{USAGE}");
            ExitCode::SUCCESS
        }
        Err(wrong) => {
            eprint!("{wrong}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

#[derive(PartialEq, Eq, Debug)]
enum Request {
    Test(Vec<Step>),
    Fuzz(Plan),
    Install(Installation),
    List,
    Soak {
        drivers: Vec<String>,
        only: Vec<String>,
    },
    ListChecks,
    Help,
}

fn parse(arguments: &[String]) -> Result<Request, String> {
    let mut words = arguments.iter().map(String::as_str);
    match words.next() {
        Some("test") => {}
        Some("fuzz") => return Plan::parse(words).map(Request::Fuzz),
        Some("install") => return Installation::parse(words).map(Request::Install),
        Some("soak") => return parse_soak(words),
        Some("help" | "--help" | "-h") => return Ok(Request::Help),
        Some(other) => return Err(format!("no such command: {other}")),
        None => return Err("a command is missing".to_owned()),
    }
    let mut only = Vec::new();
    while let Some(word) = words.next() {
        let names = match word {
            "--list" => return Ok(Request::List),
            "--help" | "-h" => return Ok(Request::Help),
            "--only" => words.next().ok_or("--only wants the names of steps")?,
            _ => word
                .strip_prefix("--only=")
                .ok_or_else(|| format!("no such option: {word}"))?,
        };
        for name in names.split(',') {
            let step = Step::ALL.into_iter().find(|step| step.name() == name);
            only.push(step.ok_or_else(|| format!("no such step: {name} (see --list)"))?);
        }
    }
    let all = only.is_empty();
    Ok(Request::Test(
        Step::ALL
            .into_iter()
            .filter(|step| all || only.contains(step))
            .collect(),
    ))
}

/// The drivers that a broker may have, the preferred one first.
const DRIVERS: [&str; 2] = ["uring", "epoll"];

fn parse_soak<'a>(mut words: impl Iterator<Item = &'a str>) -> Result<Request, String> {
    let (mut drivers, mut only) = (Vec::new(), Vec::new());
    while let Some(word) = words.next() {
        let (list, known, what) = match word {
            "--list" => return Ok(Request::ListChecks),
            "--help" | "-h" => return Ok(Request::Help),
            "--io" => (&mut drivers, DRIVERS.to_vec(), "driver"),
            "--only" => (&mut only, soak::names(), "check"),
            _ => return Err(format!("no such option: {word}")),
        };
        let names = words
            .next()
            .ok_or_else(|| format!("{word} wants the name of a {what}"))?;
        for name in names.split(',') {
            if !known.contains(&name) {
                return Err(format!("no such {what}: {name}"));
            }
            list.push(name.to_owned());
        }
    }
    if drivers.is_empty() {
        drivers = DRIVERS.map(str::to_owned).to_vec();
    }
    Ok(Request::Soak { drivers, only })
}

fn test(steps: &[Step]) -> ExitCode {
    let reports: Vec<Report> = steps
        .iter()
        .map(|&step| {
            println!("\n== {}: {}", step.name(), step.about());
            let start = Instant::now();
            let (verdict, tally) = step.run();
            Report {
                step,
                verdict,
                tally,
                time: start.elapsed(),
            }
        })
        .collect();
    print!("\n{}", closing(&reports));
    if reports
        .iter()
        .any(|report| report.verdict == Verdict::Failed)
    {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// The table of the steps, then the line that counts the tests.
///
/// A step that failed without a failing test (it did not build, a format is off, a process died) counts as one
/// failed test: whoever reads the last line only shall not miss it.
fn closing(reports: &[Report]) -> String {
    let mut text = format!("{:8} {:>9}  result\n", "step", "seconds");
    let mut total = Tally::default();
    for report in reports {
        let verdict = match &report.verdict {
            Verdict::Passed => "passed".to_owned(),
            Verdict::Failed => "FAILED".to_owned(),
            Verdict::Skipped(why) => format!("skipped: {why}"),
        };
        let seconds = report.time.as_secs_f64();
        text += &format!("{:8} {seconds:>9.1}  {verdict}\n", report.step.name());
        total += report.tally;
        if report.verdict == Verdict::Failed && report.tally.failed == 0 {
            total.failed += 1;
        }
    }
    text + &format!("\n{total}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read() {
        let check = |line: &str, expected: Result<Request, &str>| {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            let expected = expected.map_err(str::to_owned);
            assert_eq!(parse(&words), expected, "{line}");
        };
        let all = || Step::ALL.to_vec();
        check("test", Ok(Request::Test(all())));
        check(
            "test --only loom,fmt",
            Ok(Request::Test(vec![Step::Fmt, Step::Loom])),
        );
        check(
            "test --only=fmt --only doc",
            Ok(Request::Test(vec![Step::Fmt, Step::Doc])),
        );
        check("test --list", Ok(Request::List));
        check("fuzz", Ok(Request::Fuzz(Plan::default())));
        check("--help", Ok(Request::Help));
        check("", Err("a command is missing"));
        check("tset", Err("no such command: tset"));
        check("test --only", Err("--only wants the names of steps"));
        check("test --only x", Err("no such step: x (see --list)"));
        check("test --fast", Err("no such option: --fast"));
        let soak = |drivers: &[&str], only: &[&str]| {
            let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            Ok(Request::Soak {
                drivers: owned(drivers),
                only: owned(only),
            })
        };
        check("soak", soak(&["uring", "epoll"], &[]));
        check("soak --io epoll", soak(&["epoll"], &[]));
        check(
            "soak --only idle,churn --io uring",
            soak(&["uring"], &["idle", "churn"]),
        );
        check("soak --list", Ok(Request::ListChecks));
        check("soak --io kqueue", Err("no such driver: kqueue"));
        check("soak --only all", Err("no such check: all"));
        check("soak --only", Err("--only wants the name of a check"));
    }

    #[test]
    fn the_last_line_counts_the_tests_and_hides_no_failure() {
        let report = |step, verdict, passed, failed, skipped| Report {
            step,
            verdict,
            tally: Tally {
                passed,
                failed,
                skipped,
            },
            time: Duration::from_millis(1234),
        };
        let text = closing(&[
            report(Step::Setup, Verdict::Skipped("no npm".to_owned()), 0, 0, 0),
            report(Step::Fmt, Verdict::Failed, 0, 0, 0),
            report(Step::Test, Verdict::Failed, 40, 2, 1),
            report(Step::Loom, Verdict::Passed, 2, 0, 0),
        ]);
        assert!(
            text.contains("setup          1.2  skipped: no npm\n"),
            "{text}"
        );
        assert_eq!(text.lines().last(), Some("42 passed, 3 failed, 1 skipped"));
    }
}
