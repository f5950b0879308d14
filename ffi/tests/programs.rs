//! The programs of `tests/c`, each as it is, with AddressSanitizer, and under valgrind.
//!
//! They end by themselves, with 0 and without a word: the library prints nothing, and neither do they if all is well.

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{compile, has, prefix, skip, succeed};

mod common;

/// How a program is run.
#[derive(Clone, Copy)]
enum Manner {
    Plain,
    /// It is compiled with AddressSanitizer, which also sees what the library does to its memory.
    Sanitized,
    /// Every access of program and library is watched. On epoll: valgrind does not know what a ring writes.
    Watched,
}

fn check(name: &str, manner: Manner, arguments: &[&str]) {
    if !has("gcc") || !has("pkg-config") {
        return skip(name, "no gcc or no pkg-config");
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/c/{name}.c"));
    let program = |suffix: &str| -> PathBuf {
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{suffix}"))
    };
    let mut command = match manner {
        Manner::Plain => {
            let program = program("plain");
            compile(&source, &program, &[]);
            Command::new(program)
        }
        Manner::Sanitized => {
            let program = program("sanitized");
            compile(
                &source,
                &program,
                &["-fsanitize=address,undefined", "-fno-sanitize-recover"],
            );
            let mut command = Command::new(program);
            // Programs end with a broker that runs, whose memory is no leak.
            command.env("ASAN_OPTIONS", "detect_leaks=0:abort_on_error=1");
            command
        }
        Manner::Watched => {
            if !has("valgrind") {
                return skip(name, "no valgrind");
            }
            let program = program("watched");
            compile(&source, &program, &[]);
            let mut command = Command::new("valgrind");
            command.args(["--quiet", "--error-exitcode=99"]);
            // A child has not the stacks of its parent's threads, so that to it all that they hold is lost.
            if name != "forked" {
                command.args(["--leak-check=full", "--show-leak-kinds=definite"]);
                command.arg("--errors-for-leak-kinds=definite");
                // Names are known after the library has gone, too.
                command.arg("--keep-debuginfo=yes");
                let known = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c/valgrind.supp");
                command.arg(format!("--suppressions={}", known.display()));
            }
            command.arg(program).env("PUBSUB_IO", "epoll");
            command
        }
    };
    command.args(arguments);
    // For those that load the library themselves.
    command.env("LD_LIBRARY_PATH", prefix().join("lib"));
    let output = succeed(&mut command);
    assert!(output.stdout.is_empty(), "{name} printed something");
    assert!(
        output.stderr.is_empty(),
        "{name} said: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A test for each program and manner; some with an argument where all takes too long.
macro_rules! programs {
    ($($name:ident $(($($argument:literal),+))?: $about:literal,)+) => {
        $(
            #[doc = $about]
            mod $name {
                use super::{Manner, check};

                #[test]
                fn runs() {
                    check(stringify!($name), Manner::Plain, &[]);
                }

                #[test]
                fn runs_with_address_sanitizer() {
                    check(stringify!($name), Manner::Sanitized, &[$($($argument),+)?]);
                }

                #[test]
                fn runs_under_valgrind() {
                    check(stringify!($name), Manner::Watched, &[$($($argument),+)?]);
                }
            }
        )+
    };
}

programs! {
    api: "Every function as it is meant.",
    misuse: "Every handle and argument as it must not be.",
    threads: "Many publish, one drains.",
    loops: "epoll, and blocking.",
    closing: "Links that end in the middle of a batch, brokers that end before links.",
    exits: "A program that just ends.",
    forked: "A child has handles and no threads.",
    fault: "A shard that fails.",
    manners: "Signals and standard streams are the host's.",
    slow: "A host that does not drain.",
    processes: "Two processes over a Unix socket.",
    unloading("5"): "Loading and unloading the library.",
}
