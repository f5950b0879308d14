//! The steps of `cargo xtask test`, in the order in which they run.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use crate::Verdict;
use crate::process::{cargo, first_line, root, run};
use crate::tally::Tally;
use crate::{autobahn, setup};

/// A step. The order is that of the closing table: what fails fast comes first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    Setup,
    Fmt,
    Clippy,
    Test,
    Autobahn,
    Epoll,
    Doc,
    Loom,
}

impl Step {
    pub const ALL: [Step; 8] = [
        Step::Setup,
        Step::Fmt,
        Step::Clippy,
        Step::Test,
        Step::Autobahn,
        Step::Epoll,
        Step::Doc,
        Step::Loom,
    ];

    /// As `--only` names it.
    pub fn name(self) -> &'static str {
        match self {
            Step::Setup => "setup",
            Step::Fmt => "fmt",
            Step::Clippy => "clippy",
            Step::Test => "test",
            Step::Autobahn => "autobahn",
            Step::Epoll => "epoll",
            Step::Doc => "doc",
            Step::Loom => "loom",
        }
    }

    /// What it does, said before it starts.
    pub fn about(self) -> &'static str {
        match self {
            Step::Setup => {
                "Node, Python, their packages, gcc, valgrind, Redis' tools, Chromium, nginx, HAProxy, Autobahn: what real clients need"
            }
            Step::Fmt => "is the code formatted?",
            Step::Clippy => "lints of every target, warnings are errors",
            Step::Test => {
                "every test of the workspace: unit, property, simulation, end to end, tidy"
            }
            Step::Autobahn => "RFC 6455 as the Autobahn test suite reads it",
            Step::Epoll => "the end-to-end tests once more, without io_uring",
            Step::Doc => "the crate's documents, warnings are errors",
            Step::Loom => "ring and doorbell in all interleavings of small models",
        }
    }

    /// Does it.
    pub fn run(self) -> (Verdict, Tally) {
        match self {
            Step::Setup => (setup::run(), Tally::default()),
            Step::Fmt => component("fmt", &["fmt", "--all", "--check"]),
            Step::Clippy => {
                let lint = "clippy --workspace --all-targets -- -D warnings";
                component("clippy", &lint.split(' ').collect::<Vec<_>>())
            }
            Step::Test => tests(&mut cargo(&["test", "--workspace", "--no-fail-fast"])),
            Step::Autobahn => autobahn::run(),
            Step::Epoll => epoll(),
            Step::Doc => {
                let mut command = cargo(&["doc", "--workspace", "--no-deps"]);
                let (ended_well, tally) = run(command.env("RUSTDOCFLAGS", "-D warnings"));
                (verdict(ended_well), tally)
            }
            Step::Loom => {
                // Release, since loom runs each test thousands of times. A target folder of its own: the flag
                // would have everything built anew here and then again there. A flag of our own (see
                // `src/mesh/sync.rs`): tokio drops its sockets under plain `loom`.
                // Without the link-time optimisation of a release, which costs more than it saves here.
                let mut command = cargo(&["test", "--release", "--lib", "--target-dir"]);
                command.args(["target/loom", "mesh::"]);
                command.env("CARGO_PROFILE_RELEASE_LTO", "off");
                command.env("CARGO_PROFILE_RELEASE_DEBUG", "none");
                tests(command.env("RUSTFLAGS", "--cfg pubsub_loom"))
            }
        }
    }
}

fn verdict(ended_well: bool) -> Verdict {
    if ended_well {
        Verdict::Passed
    } else {
        Verdict::Failed
    }
}

/// Runs a part of the toolchain that a minimal installation lacks.
fn component(name: &str, arguments: &[&str]) -> (Verdict, Tally) {
    if first_line("cargo", &[name, "--version"]).is_none() {
        let why = format!("this toolchain has no cargo {name}");
        println!("skipped: {why}");
        return (Verdict::Skipped(why), Tally::default());
    }
    let (ended_well, tally) = run(&mut cargo(arguments));
    (verdict(ended_well), tally)
}

/// Runs the end-to-end tests on epoll, if it was not epoll that ran them already.
fn epoll() -> (Verdict, Tally) {
    let was_asked_for = std::env::var("E2E_IO").is_ok_and(|io| io == "epoll");
    if was_asked_for || !has_ring() {
        let why = "the tests ran on epoll already".to_owned();
        println!("skipped: {why}");
        return (Verdict::Skipped(why), Tally::default());
    }
    let mut command = cargo(&["test", "--no-fail-fast"]);
    for name in end_to_end() {
        command.args(["--test", &name]);
    }
    tests(command.env("E2E_IO", "epoll"))
}

/// The test files that start a broker, but those that choose its driver themselves.
fn end_to_end() -> Vec<String> {
    let files = fs::read_dir(root().join("tests"));
    let paths = files
        .into_iter()
        .flatten()
        .flatten()
        .map(|file| file.path());
    let mut names: Vec<String> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .filter(|path| fs::read_to_string(path).is_ok_and(|text| text.contains("\nmod common;\n")))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .filter(|name| !name.starts_with("uring"))
        .collect();
    names.sort();
    names
}

/// Does a broker start here that must have io_uring?
fn has_ring() -> bool {
    let mut command = cargo(&["run", "--quiet", "--bin", "pubsub", "--"]);
    command.args(["--io", "uring", "--listen", "127.0.0.1:0", "--admin", "off"]);
    command.stdin(Stdio::null()).stderr(Stdio::null());
    let Ok(mut child) = command.stdout(Stdio::piped()).spawn() else {
        return false;
    };
    let output = child.stdout.take().expect("stdout is piped");
    let mut line = String::new();
    let is_read = BufReader::new(output).read_line(&mut line).is_ok();
    let _ = child.kill();
    let _ = child.wait();
    is_read && line.starts_with("pubsub ready")
}

/// Runs tests. Finding none is a failure: a filter that fits nothing proves nothing.
fn tests(command: &mut Command) -> (Verdict, Tally) {
    let (ended_well, tally) = run(command);
    if ended_well && tally == Tally::default() {
        println!("no test ran");
        return (Verdict::Failed, tally);
    }
    (verdict(ended_well), tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_must_be_found_and_pass() {
        let check = |script: &str, expected: Verdict| {
            let (verdict, _) = tests(Command::new("sh").args(["-c", script]));
            assert_eq!(verdict, expected, "{script}");
        };
        let one = "echo 'test result: ok. 1 passed; 0 failed; 0 ignored'";
        check(one, Verdict::Passed);
        check(&format!("{one}; exit 101"), Verdict::Failed);
        check("true", Verdict::Failed);
    }

    #[test]
    fn end_to_end_tests_are_found() {
        let names = end_to_end();
        for name in [
            "native",
            "delivery",
            "dwsps",
            "redis_clients",
            "limits",
            "websocket",
            "binary",
        ] {
            assert!(names.iter().any(|found| found == name), "{name}: {names:?}");
        }
        for name in ["uring", "tidy", "configuration"] {
            assert!(names.iter().all(|found| found != name), "{name}: {names:?}");
        }
    }

    #[test]
    fn what_the_toolchain_lacks_is_skipped_aloud() {
        let (verdict, _) = component("no-such-part", &["no-such-part"]);
        assert!(matches!(verdict, Verdict::Skipped(why) if why.contains("no-such-part")));
    }
}
