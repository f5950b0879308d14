//! What the tests of the library share: a prefix that it is installed to once, and programs that are compiled against it.

// Each test file compiles this module for itself and uses only a part of it.
#![allow(dead_code)]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

/// The root of the workspace.
pub fn root() -> PathBuf {
    // The folder of this package stands directly in the root.
    let ffi = Path::new(env!("CARGO_MANIFEST_DIR"));
    ffi.parent().unwrap().to_owned()
}

/// Is this program here?
pub fn has(program: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    found.is_ok_and(|status| status.success())
}

/// Says that a test was skipped, and why: past libtest's capture, so that it is counted.
pub fn skip(name: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {name}: {why}");
}

/// The flags that every program is compiled with.
pub const STRICT: [&str; 6] = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-g"];

/// The prefix that the library of this source is installed to, by the command that people use.
pub fn prefix() -> &'static Path {
    static PREFIX: OnceLock<PathBuf> = OnceLock::new();
    PREFIX.get_or_init(|| {
        // Test files run one after the other, each in a process of its own.
        let prefix = Path::new(env!("CARGO_TARGET_TMPDIR")).join("prefix");
        let mut install = Command::new(env!("CARGO"));
        install.args(["xtask", "install", "--debug", "--prefix"]);
        succeed(install.arg(&prefix).current_dir(root()));
        prefix
    })
}

/// Compiles a program against the installed library, with what pkg-config says.
pub fn compile(source: &Path, program: &Path, flags: &[&str]) {
    let mut gcc = Command::new("gcc");
    gcc.args(STRICT)
        .args(flags)
        .arg(source)
        .arg("-o")
        .arg(program);
    gcc.args(pkg_config(&["--cflags", "--libs"]));
    gcc.args(["-lpthread", "-ldl"]);
    gcc.arg(format!("-Wl,-rpath,{}", prefix().join("lib").display()));
    succeed(&mut gcc);
}

/// What pkg-config says of the installed library.
pub fn pkg_config(arguments: &[&str]) -> Vec<String> {
    let mut command = Command::new("pkg-config");
    command.args(arguments).arg("pubsub");
    command.env("PKG_CONFIG_PATH", prefix().join("lib/pkgconfig"));
    let output = succeed(&mut command);
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().map(str::to_owned).collect()
}

/// Runs it; a failure shows all that it said.
pub fn succeed(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}
