//! What is installed: names, versions, what is to be seen of it, and programs that link to it in each manner.

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{STRICT, has, pkg_config, prefix, root, skip, succeed};

mod common;

fn shared() -> PathBuf {
    prefix().join("lib/libpubsub.so.0")
}

/// What a tool says about the shared library.
fn told(tool: &str, arguments: &[&str]) -> String {
    let output = succeed(Command::new(tool).args(arguments).arg(shared()));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn only_the_functions_of_the_header_are_to_be_seen_with_a_version_each() {
    if !has("nm") {
        return skip("only_the_functions_of_the_header_are_to_be_seen", "no nm");
    }
    let seen = told(
        "nm",
        &["--dynamic", "--defined-only", "--with-symbol-versions"],
    );
    let mut seen: Vec<&str> = seen
        .lines()
        .filter_map(|line| line.split(' ').nth(2))
        .collect();
    seen.retain(|name| *name != "PUBSUB_0" && *name != "PUBSUB_0@@PUBSUB_0");
    let header = std::fs::read_to_string(root().join("include/pubsub.h")).unwrap();
    let declared =
        |name: &str| header.contains(&format!(" {name}(")) || header.contains(&format!("*{name}("));
    for symbol in &seen {
        let name = symbol.strip_suffix("@@PUBSUB_0");
        assert!(name.is_some_and(declared), "{symbol} is to be seen");
    }
    assert!(seen.len() >= 50, "{seen:?}");
}

#[test]
fn it_has_its_name_and_brings_no_allocator() {
    if !has("readelf") || !has("nm") {
        return skip(
            "it_has_its_name_and_brings_no_allocator",
            "no readelf or no nm",
        );
    }
    let dynamic = told("readelf", &["--dynamic", "--wide"]);
    assert!(dynamic.contains("soname: [libpubsub.so.0]"), "{dynamic}");
    let needed = dynamic.lines().filter(|line| line.contains("(NEEDED)"));
    for library in needed {
        let known = [
            "libc.so",
            "libm.so",
            "libgcc_s.so",
            "ld-linux",
            "libpthread.so",
            "libdl.so",
        ];
        assert!(
            known.iter().any(|known| library.contains(known)),
            "{library}"
        );
    }
    // All symbols: this build is not stripped.
    let all = told("nm", &[]);
    assert!(
        all.contains("pubsub_version"),
        "it has no symbols, so nothing was checked"
    );
    for allocator in ["mi_malloc", "je_malloc", "mi_heap"] {
        assert!(!all.contains(allocator), "{allocator}");
    }
}

#[test]
fn programs_link_to_it_shared_and_static() {
    if !has("gcc") || !has("pkg-config") {
        return skip(
            "programs_link_to_it_shared_and_static",
            "no gcc or no pkg-config",
        );
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c/loops.c");
    let folder = tempfile::tempdir().unwrap();
    let archive = prefix().join("lib/libpubsub.a").display().to_string();
    let of_static = pkg_config(&["--static", "--libs-only-l"]);
    let of_static = of_static.iter().filter(|word| *word != "-lpubsub");
    let of_static: Vec<String> = std::iter::once(archive).chain(of_static.cloned()).collect();
    for (name, flags) in [
        ("shared", pkg_config(&["--libs"])),
        // The library within the program, the system's outside.
        ("archive", of_static),
        // Nothing outside.
        ("static", {
            let mut words = vec!["-static".to_owned()];
            words.extend(pkg_config(&["--static", "--libs"]));
            words
        }),
    ] {
        let program = folder.path().join(name);
        let mut gcc = Command::new("gcc");
        gcc.args(STRICT).arg(&source).arg("-o").arg(&program);
        gcc.args(pkg_config(&["--cflags"]))
            .args(flags)
            .arg("-lpthread");
        succeed(&mut gcc);
        let mut run = Command::new(&program);
        if name == "shared" {
            run.env("LD_LIBRARY_PATH", prefix().join("lib"));
        }
        succeed(&mut run);
    }
}

#[test]
fn packages_are_written_below_another_folder() {
    let folder = tempfile::tempdir().unwrap();
    let mut install = Command::new(env!("CARGO"));
    install.args([
        "xtask",
        "install",
        "--debug",
        "--prefix",
        "/opt/pubsub",
        "--destdir",
    ]);
    succeed(install.arg(folder.path()).current_dir(root()));
    let lib = folder.path().join("opt/pubsub/lib");
    for name in [
        "libpubsub.so",
        "libpubsub.so.0",
        "libpubsub.a",
        "pkgconfig/pubsub.pc",
    ] {
        assert!(lib.join(name).exists(), "{name}");
    }
    assert!(folder.path().join("opt/pubsub/include/pubsub.h").exists());
    let about = std::fs::read_to_string(lib.join("pkgconfig/pubsub.pc")).unwrap();
    assert!(about.starts_with("prefix=/opt/pubsub\n"), "{about}");
    assert!(!about.contains('@'), "{about}");
}
