//! The steps of `cargo xtask test`, in the order in which they run.

use std::process::Command;

use crate::Verdict;
use crate::process::{cargo, first_line, run};
use crate::setup;
use crate::tally::Tally;

/// A step. The order is that of the closing table: what fails fast comes first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    Setup,
    Fmt,
    Clippy,
    Test,
    Doc,
    Loom,
}

impl Step {
    pub const ALL: [Step; 6] = [
        Step::Setup,
        Step::Fmt,
        Step::Clippy,
        Step::Test,
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
            Step::Doc => "doc",
            Step::Loom => "loom",
        }
    }

    /// What it does, said before it starts.
    pub fn about(self) -> &'static str {
        match self {
            Step::Setup => "Node, its packages and Chromium, for the tests with real clients",
            Step::Fmt => "is the code formatted?",
            Step::Clippy => "lints of every target, warnings are errors",
            Step::Test => {
                "every test of the workspace: unit, property, simulation, end to end, tidy"
            }
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
    fn what_the_toolchain_lacks_is_skipped_aloud() {
        let (verdict, _) = component("no-such-part", &["no-such-part"]);
        assert!(matches!(verdict, Verdict::Skipped(why) if why.contains("no-such-part")));
    }
}
