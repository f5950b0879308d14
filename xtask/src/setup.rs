//! What the tests with real clients need and cargo can't bring: Node and Python with the packages of their clients, a C
//! compiler and valgrind, the tools of Redis, a Chromium for the console, nginx and HAProxy, and the Autobahn test suite.
//!
//! Nothing here fails the gate: without these, the tests that want them say that they skipped. What is there
//! already is left as it is, so that a second run needs no network.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::Verdict;
use crate::autobahn;
use crate::debian;
use crate::process::{self, first_line, root};

/// The oldest Node that the clients are written for.
const NODE_MAJOR_MIN: u32 = 18;

/// The folders with a `package-lock.json`.
const NODE_FOLDERS: [&str; 2] = ["tests/clients/node", "examples/node"];

/// What the Python clients are, and where they are installed. A copy of the first in the second says that they are; the
/// tests look for it.
const PYTHON_REQUIREMENTS: &str = "tests/clients/python/requirements.txt";
const PYTHON_FOLDER: &str = "target/python";

/// The tools of Redis that are clients.
const REDIS_TOOLS: [&str; 2] = ["redis-cli", "redis-benchmark"];

/// The names under which distributions install the browser.
const CHROMIUM_NAMES: [&str; 4] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
];

/// What programs in C take, and where Debian has it.
const C_TOOLS: [(&str, &str); 6] = [
    ("gcc", "gcc"),
    ("g++", "g++"),
    ("make", "make"),
    ("pkg-config", "pkg-config"),
    ("nm", "binutils"),
    ("valgrind", "valgrind"),
];

/// Sets everything up; skipped with the reasons, if something could not be had.
pub fn run() -> Verdict {
    let mut missing = Vec::new();
    match node() {
        Ok(()) => {
            let folders = NODE_FOLDERS.map(|folder| packages(&root().join(folder), folder));
            missing.extend(folders.into_iter().filter_map(Result::err));
        }
        Err(why) => missing.push(why),
    }
    missing.extend(python(&root().join(PYTHON_FOLDER)).err());
    missing.extend(c_tools().err());
    missing.extend(redis_tools().err());
    missing.extend(chromium().err());
    missing.extend(debian::install().err());
    missing.extend(autobahn::install().err());
    for why in &missing {
        println!("skipped: {why}");
    }
    if missing.is_empty() {
        Verdict::Passed
    } else {
        Verdict::Skipped(missing.join("; "))
    }
}

fn node() -> Result<(), String> {
    let present = || {
        let version = first_line("node", &["--version"])?;
        let recent = major(&version)? >= NODE_MAJOR_MIN;
        first_line("npm", &["--version"])?;
        recent.then_some(version)
    };
    if present().is_none() {
        println!("Node {NODE_MAJOR_MIN} or later with npm is not here");
        install(&["nodejs", "npm"])?;
    }
    let version = present().ok_or("Node is still too old or has no npm")?;
    println!("Node {version}");
    Ok(())
}

/// The 20 of `v20.1.2`.
fn major(version: &str) -> Option<u32> {
    let numbers = version.strip_prefix('v')?;
    numbers.split('.').next()?.parse().ok()
}

fn packages(path: &Path, folder: &str) -> Result<(), String> {
    if !path.join("package-lock.json").exists() {
        return Err(format!("{folder} is not there"));
    }
    if is_installed(path) {
        println!("{folder}: its packages are installed");
        return Ok(());
    }
    let mut npm = Command::new("npm");
    npm.args(["ci", "--no-audit", "--no-fund"])
        .current_dir(path);
    match process::run(&mut npm) {
        (true, _) => Ok(()),
        (false, _) => Err(format!("npm could not install the packages of {folder}")),
    }
}

/// npm writes its own lock file last; if that is not older than ours, everything is there.
fn is_installed(path: &Path) -> bool {
    let written = |name: &str| fs::metadata(path.join(name)).and_then(|file| file.modified());
    match (
        written("package-lock.json"),
        written("node_modules/.package-lock.json"),
    ) {
        (Ok(asked), Ok(installed)) => installed >= asked,
        _ => false,
    }
}

/// The packages of the Python clients, in a virtual environment of their own.
fn python(folder: &Path) -> Result<(), String> {
    let requirements = root().join(PYTHON_REQUIREMENTS);
    let asked =
        fs::read(&requirements).map_err(|_| format!("{PYTHON_REQUIREMENTS} is not there"))?;
    let python = folder.join("bin/python");
    if let Some(version) = python_with(folder, &asked) {
        println!("{version}: its packages are installed");
        return Ok(());
    }
    // Debian has it in a package of its own.
    if first_line("python3", &["-c", "import ensurepip, venv"]).is_none() {
        println!("Python with its virtual environments is not here");
        install(&["python3", "python3-venv"])?;
    }
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv", "--clear"]).arg(folder);
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet"])
        .args(["--disable-pip-version-check", "--requirement"])
        .arg(&requirements);
    if !process::run(&mut venv).0 || !process::run(&mut pip).0 {
        return Err("the packages of the Python clients could not be installed".to_owned());
    }
    let said = folder.join("requirements.txt");
    fs::write(&said, asked).map_err(|error| format!("{}: {error}", said.display()))
}

/// The version of the Python there, if it runs and has these packages.
fn python_with(folder: &Path, asked: &[u8]) -> Option<String> {
    let installed = fs::read(folder.join("requirements.txt")).ok()?;
    let python = folder.join("bin/python").display().to_string();
    first_line(&python, &["--version"]).filter(|_| installed == asked)
}

fn c_tools() -> Result<(), String> {
    let is_missing = |tool: &&(&str, &str)| first_line(tool.0, &["--version"]).is_none();
    let missing: Vec<&str> = C_TOOLS
        .iter()
        .filter(is_missing)
        .map(|tool| tool.1)
        .collect();
    if !missing.is_empty() {
        println!("{} is not here", missing.join(", "));
        install(&missing)?;
    }
    match C_TOOLS.iter().find(is_missing) {
        Some((tool, _)) => Err(format!("{tool} does not start")),
        None => {
            println!("the tools for programs in C are here");
            Ok(())
        }
    }
}

fn redis_tools() -> Result<(), String> {
    let present = || {
        let versions = REDIS_TOOLS.map(|tool| first_line(tool, &["--version"]));
        versions.into_iter().collect::<Option<Vec<_>>>()
    };
    if present().is_none() {
        println!("redis-cli and redis-benchmark are not here");
        install(&["redis-tools"])?;
    }
    let versions = present().ok_or("redis-cli or redis-benchmark does not start")?;
    println!("{}", versions.join(", "));
    Ok(())
}

fn chromium() -> Result<(), String> {
    let present = || {
        CHROMIUM_NAMES
            .iter()
            .find_map(|name| first_line(name, &["--version"]))
    };
    if present().is_none() {
        println!("Chromium is not here (only the test of the console page wants it)");
        install(&["chromium"])?;
    }
    let version = present().ok_or("Chromium does not start")?;
    println!("{version}");
    Ok(())
}

/// Installs packages of the distribution, where we may.
fn install(packages: &[&str]) -> Result<(), String> {
    let names = packages.join(" and ");
    if first_line("apt-get", &["--version"]).is_none() {
        return Err(format!("no {names}, and no apt-get to install it with"));
    }
    let is_root = first_line("id", &["-u"]).as_deref() == Some("0");
    if !is_root && first_line("sudo", &["-n", "true"]).is_none() {
        return Err(format!("no {names}, and no right to install it"));
    }
    let apt_get = |arguments: &[&str]| {
        let mut words = vec!["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"];
        words.extend(arguments);
        if !is_root {
            words.splice(0..0, ["sudo", "-n"]);
        }
        process::run(Command::new(words[0]).args(&words[1..])).0
    };
    // A failed update is no reason to give up: the lists at hand may do.
    apt_get(&["update", "-q"]);
    let mut arguments = vec!["install", "-q", "-y", "--no-install-recommends"];
    arguments.extend(packages);
    if apt_get(&arguments) {
        Ok(())
    } else {
        Err(format!("apt-get could not install {names}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_versions_are_read() {
        for (version, expected) in [
            ("v20.20.2", Some(20)),
            ("v9", Some(9)),
            ("20.1", None),
            ("vx.1", None),
            ("", None),
        ] {
            assert_eq!(major(version), expected, "{version}");
        }
    }

    #[test]
    fn a_folder_without_a_lock_file_is_said_to_be_missing() {
        let nowhere = Path::new("no/such/folder");
        assert_eq!(
            packages(nowhere, "no/such/folder"),
            Err("no/such/folder is not there".to_owned())
        );
        assert!(!is_installed(nowhere));
    }

    #[test]
    fn python_is_there_with_what_was_asked_for() {
        let folder = root().join("target/python-of-a-test");
        let _ = fs::remove_dir_all(&folder);
        assert_eq!(python_with(&folder, b"a==1\n"), None);
        fs::create_dir_all(folder.join("bin")).unwrap();
        fs::write(folder.join("requirements.txt"), "a==1\n").unwrap();
        assert_eq!(python_with(&folder, b"a==1\n"), None, "it does not run");
        // Whatever has a version will do.
        std::os::unix::fs::symlink("/usr/bin/env", folder.join("bin/python")).unwrap();
        assert!(python_with(&folder, b"a==1\n").is_some());
        assert_eq!(python_with(&folder, b"a==2\n"), None, "of another package");
        fs::remove_dir_all(&folder).unwrap();
    }
}
