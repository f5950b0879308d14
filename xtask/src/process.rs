//! Running other programs: said before, seen while it lasts, its test counts taken from what it prints.

use std::env;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use crate::tally::Tally;

/// The root of the workspace.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    // The folder of this package stands directly in the root; `parent` is only `None` for `/`.
    here.parent().unwrap_or(here).to_owned()
}

/// A cargo command with these arguments, by the cargo that runs us.
pub fn cargo(arguments: &[&str]) -> Command {
    let program = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root());
    command
}

/// Says the command, runs it, passes on its output; true if it ended well, and the tests that it reported.
pub fn run(command: &mut Command) -> (bool, Tally) {
    println!("$ {}", written(command));
    // The output goes through us to be counted, so cargo can't see the terminal by itself.
    let colour = if std::io::stderr().is_terminal() {
        "always"
    } else {
        "never"
    };
    let child = command
        .env("CARGO_TERM_COLOR", colour)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            eprintln!("can't start it: {error}");
            return (false, Tally::default());
        }
    };
    // Both were asked for as pipes just above.
    let output = child.stdout.take().expect("stdout is piped");
    let errors = child.stderr.take().expect("stderr is piped");
    let errors = thread::spawn(move || {
        let mut skips = Vec::new();
        each_line(errors, |line| {
            eprintln!("{line}");
            if line.starts_with("skipped: ") {
                skips.push(line.to_owned());
            }
        });
        skips
    });
    let mut tally = Tally::default();
    each_line(output, |line| {
        println!("{line}");
        tally.take_result(line);
    });
    // The thread only reads and prints; it panics only if printing does, and then so would we.
    for line in errors.join().expect("reading standard error") {
        tally.take_skip(&line);
    }
    let ended_well = child.wait().is_ok_and(|status| status.success());
    (ended_well, tally)
}

/// The first line that a command prints, if it can be run and ends well.
pub fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().next().unwrap_or_default().to_owned();
    output.status.success().then_some(line)
}

fn each_line(source: impl Read, mut take: impl FnMut(&str)) {
    let mut source = BufReader::new(source);
    let mut line = Vec::new();
    // Tests may print what is not UTF-8.
    while matches!(source.read_until(b'\n', &mut line), Ok(count) if count > 0) {
        take(String::from_utf8_lossy(&line).trim_end_matches('\n'));
        line.clear();
    }
}

fn written(command: &Command) -> String {
    let mut text = String::new();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            text += &format!("{}={:?} ", name.display(), value);
        }
    }
    if let Some(program) = Path::new(command.get_program()).file_name() {
        text += &program.to_string_lossy();
    }
    for argument in command.get_args() {
        text += &format!(" {}", argument.display());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_taken_from_both_streams() {
        let script = "echo 'test result: ok. 2 passed; 0 failed; 0 ignored'; \
                      echo 'skipped: x: no y' >&2; printf 'no end\\377'";
        let (ended_well, tally) = run(Command::new("sh").args(["-c", script]));
        assert!(ended_well);
        assert_eq!(tally.to_string(), "1 passed, 0 failed, 1 skipped");
    }

    #[test]
    fn failures_are_seen() {
        assert!(!run(Command::new("sh").args(["-c", "exit 3"])).0);
        assert!(!run(&mut Command::new("no-such-program-at-all")).0);
        assert_eq!(first_line("no-such-program-at-all", &[]), None);
        assert_eq!(
            first_line("sh", &["-c", "echo a; echo b"]).as_deref(),
            Some("a")
        );
    }
}
