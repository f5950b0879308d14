//! The programs in `tests/clients`: other people's client libraries with cases of ours, each said by a line, `ok CASE`
//! or `FAILED CASE`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::broker::run_command_within;
use super::missing_node;

/// How long a program may take. Each of its waits has a shorter deadline of its own.
const CASES_TIME: Duration = Duration::from_secs(180);

/// A program in `clients/node`, which uses these packages.
///
/// # Errors
/// Why it can't be run here.
pub fn node(program: &str, packages: &[&str]) -> Result<Command, String> {
    let folder = clients().join("node");
    if let Some(why) = missing_node(&folder) {
        return Err(why);
    }
    for package in packages {
        let wanted = node_major_wanted(&folder.join("node_modules").join(package));
        let major = node_major();
        if major < wanted {
            return Err(format!(
                "{package} wants Node {wanted:?}, this is {major:?}"
            ));
        }
    }
    let mut node = Command::new("node");
    node.arg(program).current_dir(&folder);
    Ok(node)
}

/// A program in `clients/python`, with the packages that `cargo xtask test --only setup` installs for it.
///
/// # Errors
/// Why it can't be run here.
pub fn python(program: &str) -> Result<Command, String> {
    let folder = clients().join("python");
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python");
    let read = |path: PathBuf| fs::read_to_string(path).ok();
    // Left there by the one who installed them.
    let asked = read(folder.join("requirements.txt"));
    if asked.is_none() || asked != read(installed.join("requirements.txt")) {
        return Err("no packages: run `cargo xtask test --only setup`".to_owned());
    }
    let mut python = Command::new(installed.join("bin/python"));
    python.arg(program).current_dir(&folder);
    Ok(python)
}

/// Runs a program: it ends well, and not before it has passed so many cases.
pub fn run_cases(program: &mut Command, at_least: usize) {
    let finished = run_command_within(program, CASES_TIME);
    println!("{}", finished.stdout);
    assert_eq!(
        finished.code,
        Some(0),
        "{}\n{}",
        finished.stdout,
        finished.stderr
    );
    let cases = finished
        .stdout
        .lines()
        .filter(|line| line.starts_with("ok "))
        .count();
    assert!(cases >= at_least, "only {cases} cases ran");
}

fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// The 20 of `v20.1.2`.
fn node_major() -> Option<u32> {
    let output = Command::new("node").arg("--version").output().ok()?;
    let version = String::from_utf8(output.stdout).ok()?;
    first_number(&version)
}

/// The 20 of `"engines": {"node": ">= 20.0.0"}`; none of a package that says nothing.
fn node_major_wanted(package: &Path) -> Option<u32> {
    let text = fs::read_to_string(package.join("package.json")).ok()?;
    let package: Value = serde_json::from_str(&text).ok()?;
    first_number(package["engines"]["node"].as_str()?)
}

fn first_number(text: &str) -> Option<u32> {
    text.split(|letter: char| !letter.is_ascii_digit())
        .find_map(|digits| digits.parse().ok())
}
