//! `include/pubsub.h` is what the source says, and clean as C99 and as C++17.

use std::fs;
use std::path::Path;
use std::process::Command;

use cbindgen::{Builder, Config};

mod common;

/// In the order in which a person reads them.
const SOURCES: [&str; 7] = [
    "version", "status", "options", "broker", "link", "http", "event",
];

/// What the header opens with: the rules that every function keeps.
const OPENING: &str = include_str!("../opening.h");
/// What only a header can say.
const CLOSING: &str = include_str!("../closing.h");

#[test]
fn the_header_is_fresh() {
    let written = header();
    let path = common::root().join("include/pubsub.h");
    if std::env::var_os("PUBSUB_REGENERATE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &written).unwrap();
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == written,
        "{} is stale: PUBSUB_REGENERATE=1 cargo test -p pubsub-ffi --test header",
        path.display()
    );
}

fn header() -> String {
    let ffi = Path::new(env!("CARGO_MANIFEST_DIR"));
    let version = env!("CARGO_PKG_VERSION");
    let config = Config::from_file(ffi.join("cbindgen.toml")).unwrap();
    let mut builder = Builder::new()
        .with_config(config)
        .with_header(OPENING.trim_end())
        .with_after_include(format!("\n#define PUBSUB_VERSION \"{version}\""));
    for source in SOURCES {
        builder = builder.with_src(ffi.join(format!("src/{source}.rs")));
    }
    builder = builder.with_src(ffi.join("src/call.rs"));
    let mut written = Vec::new();
    builder.generate().unwrap().write(&mut written);
    let written = for_c(&String::from_utf8(written).unwrap());
    // A trailer of cbindgen would stand behind the guard.
    let end = "#endif  /* PUBSUB_H */";
    assert!(written.contains(end));
    written.replace(end, &format!("{CLOSING}\n{end}"))
}

/// Comments as C people read them: a short one on one line, and no headings of Rust's, whose sentences stay.
fn for_c(header: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in header.lines() {
        let length = lines.len();
        if line.trim() == "* # Safety" {
            continue;
        }
        if line.trim() == "*/" && length >= 2 && lines[length - 2].trim() == "/**" {
            let text = lines[length - 1].trim().trim_start_matches("* ").to_owned();
            lines.pop();
            let opening = lines.pop().unwrap_or_default();
            lines.push(format!("{opening} {text} */"));
        } else {
            lines.push(line.to_owned());
        }
    }
    lines.join("\n") + "\n"
}

#[test]
fn every_function_is_documented_and_inside_the_boundary() {
    let ffi = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut functions = 0;
    for source in SOURCES.iter().chain(&["call"]) {
        let text = fs::read_to_string(ffi.join(format!("src/{source}.rs"))).unwrap();
        for (at, _) in text.match_indices("#[unsafe(no_mangle)]") {
            let (before, function) = (&text[..at], &text[at..]);
            let name = function.split("fn ").nth(1).unwrap();
            let name = &name[..name.find('(').unwrap()];
            let document = before.lines().last().unwrap_or_default();
            assert!(document.starts_with("/// "), "{name} has no document");
            let body = function.split("\n}\n").next().unwrap();
            let contained = ["boundary(", "counting(", "making(", "{ call("];
            let is_contained = contained.iter().any(|entry| body.contains(entry));
            // These only pass on what another one takes, or read a constant.
            let passes_on = body.contains("_with(");
            let constant = ["pubsub_version", "pubsub_last_error", "pubsub_status_text"];
            assert!(
                is_contained || passes_on || constant.contains(&name),
                "{name} may unwind"
            );
            functions += 1;
        }
    }
    assert!(functions >= 50, "only {functions} were found");
}

#[test]
fn it_is_clean_as_c99_and_as_cpp17() {
    let folder = tempfile::tempdir().unwrap();
    for (compiler, standard, name) in [
        ("gcc", "-std=c99", "header.c"),
        ("gcc", "-std=c11", "header.c"),
        ("g++", "-std=c++17", "header.cc"),
    ] {
        if !common::has(compiler) {
            return common::skip("it_is_clean_as_c99_and_as_cpp17", &format!("no {compiler}"));
        }
        let source = folder.path().join(name);
        let text = "#include <pubsub.h>\n#include <pubsub.h>\nint main(void) { return pubsub_to_service().type != 0; }\n";
        fs::write(&source, text).unwrap();
        let output = Command::new(compiler)
            .args([
                standard,
                "-Wall",
                "-Wextra",
                "-Werror",
                "-pedantic",
                "-Wconversion",
            ])
            .arg("-fsyntax-only")
            .arg("-I")
            .arg(common::root().join("include"))
            .arg(&source)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{compiler} {standard}: {said}");
    }
}
