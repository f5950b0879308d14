//! The facts of the architecture (`ARCHITECTURE.md`) as ordinary tests. It has no opinion on taste.
//!
//! The scanners read Rust by its tokens: comments and literals are blanked, `use` trees are spread out to whole
//! paths, parts under `#[cfg(test)]` are left out where a rule is about the product alone. They know no macros
//! and no types, so they can be outwitted; they guard against drift, not against intent. Each has a small case
//! below that shows that it can fail.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The rows of the house, lowest first: a module names its own row and those before it.
const ROWS: [&[&str]; 6] = [
    &[
        "address", "console", "error", "failures", "limits", "message", "secret", "topic",
    ],
    &["protocol", "token", "ws"],
    &["shard"],
    &["mesh"],
    &["accepted", "admin", "client", "net"],
    &["broker", "config", "link", "main", "serve"],
];

/// Modules that may name one above them: who, whom, why.
const ROW_EXCEPTIONS: [(&str, &str, &str); 1] = [(
    "message",
    "protocol",
    "`Kind::detect` asks the JSON checker what untyped bytes are",
)];

/// Modules that are plain functions of their arguments: the rows up to `shard`.
const PURE_ROWS: usize = 3;

/// What a pure module does not name: sockets, clocks, threads, environment, files, randomness.
const IMPURE: [&str; 16] = [
    "crossbeam_channel",
    "crossbeam_utils",
    "fastrand",
    "getrandom",
    "rand",
    "rustix",
    "socket2",
    "std::env",
    "std::fs",
    "std::net",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "tokio",
];

/// What of it is a plain value all the same (and is in `core` too).
const PURE_ALL_THE_SAME: [&str; 7] = [
    "std::net::IpAddr",
    "std::net::Ipv4Addr",
    "std::net::Ipv6Addr",
    "std::net::SocketAddr",
    "std::net::SocketAddrV4",
    "std::net::SocketAddrV6",
    "std::net::AddrParseError",
];

/// The files that may hold unsafe code, if their first lines say so. A new home is an architecture change.
const UNSAFE_HOMES: [&str; 5] = [
    "benches/drivers/raw.rs",
    "ffi/",
    "src/mesh/ring.rs",
    "src/net/",
    "tests/common/seccomp.rs",
];

/// A longer file says in its first lines which single table or state machine it is.
const FILE_LINES_MAX: usize = 900;

// ---------------------------------------------------------------------------------------------- the facts

#[test]
fn pure_modules_name_nothing_impure() {
    verify(|file, findings| {
        let is_pure = ROWS[..PURE_ROWS]
            .iter()
            .any(|row| file.module().is_some_and(|module| row.contains(&module)));
        if is_pure {
            for (line, path) in impure_paths(&without_tests(&code(&file.text))) {
                findings.push(file.at(line, &format!("a pure module names {path}")));
            }
        }
    });
}

#[test]
fn modules_name_only_the_rows_below() {
    verify(|file, findings| {
        if let Some(module) = file.module() {
            for (line, what) in steps_up(module, &file.module_path(), &file.text) {
                findings.push(file.at(line, &what));
            }
        }
    });
}

#[test]
fn exceptions_from_the_rows_are_still_needed() {
    let files = rust_files();
    let exists = |name: &str| files.iter().any(|file| file.module() == Some(name));
    for (module, named, _) in ROW_EXCEPTIONS {
        let is_used = files
            .iter()
            .filter(|file| file.module() == Some(module))
            .any(|file| {
                let code = without_tests(&code(&file.text));
                let mut paths = paths(&code).into_iter();
                paths.any(|(_, path)| names_module(&file.module_path(), &path) == Some(named))
            });
        assert!(
            is_used || !exists(module) || !exists(named),
            "{module} does not name {named} any more: take the exception out"
        );
    }
}

#[test]
fn async_stops_at_the_edge() {
    verify(|file, findings| {
        let is_edge = file
            .module()
            .is_some_and(|module| ROWS[4].contains(&module));
        if file.path.starts_with("src/") && !is_edge {
            for line in lines_with_word(&without_tests(&code(&file.text)), &["async", "await"]) {
                findings.push(file.at(line, "async outside the edge"));
            }
        }
    });
}

#[test]
fn unsafe_stays_at_home() {
    verify(|file, findings| {
        if !may_be_unsafe(&file.path, &file.text) {
            for line in lines_with_word(&code(&file.text), &["unsafe"]) {
                findings.push(file.at(line, "unsafe away from its homes, or unannounced"));
            }
        }
    });
}

#[test]
fn only_the_binary_chooses_an_allocator() {
    verify(|file, findings| {
        if file.path != "src/main.rs" {
            for line in lines_with_word(&code(&file.text), &["mimalloc", "global_allocator"]) {
                findings.push(file.at(line, "an allocator outside main.rs"));
            }
        }
    });
}

#[test]
fn files_open_with_what_they_are() {
    verify(|file, findings| {
        if !opens_with_a_sentence(&file.text) {
            findings.push(file.at(1, "the first line is no `//! Sentence.`"));
        }
    });
}

#[test]
fn long_files_say_which_single_thing_they_are() {
    verify(|file, findings| {
        if file.path.starts_with("src/") && is_too_long(&file.text) {
            findings.push(file.at(FILE_LINES_MAX, "too long to be about one noun"));
        }
    });
}

#[test]
fn nothing_is_left_undone() {
    verify(|file, findings| {
        for line in unfinished_code(&code(&file.text)) {
            findings.push(file.at(line, "code that is not there yet"));
        }
    });
    let mut findings = Vec::new();
    for file in text_files() {
        for line in lines_with_word(&file.text, &[concat!("TO", "DO"), concat!("FIX", "ME")]) {
            findings.push(file.at(line, "a note is no plan"));
        }
    }
    assert_none(&findings);
}

#[test]
fn tests_do_not_sleep() {
    verify(|file, findings| {
        let code = code(&file.text);
        let is_test = file.path.starts_with("tests/") || file.path.contains("/tests/");
        for line in sleeping_lines(&code, is_test) {
            findings.push(file.at(line, "a test sleeps; wait for the event instead"));
        }
    });
}

#[test]
fn no_file_names_a_machine() {
    let patterns = machine_paths(env!("CARGO_MANIFEST_DIR"));
    let mut findings = Vec::new();
    for file in text_files() {
        for (line, pattern) in lines_naming(&file.text, &patterns) {
            findings.push(file.at(line, &format!("a path of somebody's machine ({pattern})")));
        }
        if file.path.ends_with("package-lock.json") {
            for (line, _) in lines_naming(&file.text, &["\"resolved\"".to_owned()]) {
                findings.push(file.at(line, "a lock file that ties everybody to one registry"));
            }
        }
    }
    assert_none(&findings);
}

#[test]
fn dependencies_say_why() {
    let mut findings = Vec::new();
    for file in text_files() {
        if file.path.ends_with("Cargo.toml") {
            for line in unexplained_dependencies(&file.text) {
                findings.push(file.at(line, "a dependency without a word of why"));
            }
        }
    }
    assert_none(&findings);
}

#[test]
fn links_between_documents_resolve() {
    let files = text_files();
    let paths: BTreeSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".md")) {
        for (line, link) in links(&file.text) {
            let (target, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let Some(target) = resolve(&file.path, target) else {
                findings.push(file.at(line, &format!("{link} leaves the repository")));
                continue;
            };
            let folder = format!("{target}/");
            if !paths.contains(target.as_str())
                && !paths.iter().any(|path| path.starts_with(&folder))
            {
                findings.push(file.at(line, &format!("{link} leads nowhere")));
            } else if !anchor.is_empty() {
                let text = files.iter().find(|file| file.path == target);
                if !text.is_some_and(|file| anchors(&file.text).contains(anchor)) {
                    findings.push(file.at(line, &format!("{link}: no such heading")));
                }
            }
        }
    }
    assert_none(&findings);
}

// ---------------------------------------------------------------------------------------------- the files

struct File {
    /// From the root, with `/`.
    path: String,
    text: String,
}

impl File {
    fn at(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path)
    }

    /// The module of the crate that this file belongs to; `main` for the binary, none for `lib.rs`.
    fn module(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        let module = inside.split('/').next()?;
        let module = module.strip_suffix(".rs").unwrap_or(module);
        (module != "lib").then_some(module)
    }

    /// `["net", "listener"]` for `src/net/listener.rs`.
    fn module_path(&self) -> Vec<&str> {
        let inside = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let inside = inside.strip_suffix(".rs").unwrap_or(inside);
        let inside = inside.strip_suffix("/mod").unwrap_or(inside);
        inside.split('/').collect()
    }
}

/// Every file that is or will be in the repository and is text.
fn text_files() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let listed = Command::new("git")
        .args([
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            "-z",
        ])
        .current_dir(root)
        .output();
    let mut paths: Vec<PathBuf> = match listed {
        Ok(output) if output.status.success() && !output.stdout.is_empty() => {
            let names = String::from_utf8_lossy(&output.stdout).into_owned();
            names.split_terminator('\0').map(PathBuf::from).collect()
        }
        // An unpacked archive: what stands here is what there is.
        _ => walk(root, root),
    };
    paths.sort();
    paths.dedup();
    let files: Vec<File> = paths
        .into_iter()
        .filter_map(|path| {
            // Deleted files are still listed; pictures are not UTF-8.
            let text = fs::read_to_string(root.join(&path)).ok()?;
            let path = path.to_str()?.to_owned();
            Some(File { path, text })
        })
        .collect();
    assert!(
        files.iter().any(|file| file.path == "src/lib.rs"),
        "the files were not found, so nothing was checked"
    );
    files
}

fn walk(root: &Path, folder: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap_or_default();
        if ["target", "node_modules", ".git"].contains(&name) {
            continue;
        }
        if path.is_dir() {
            paths.extend(walk(root, &path));
        } else {
            paths.push(path.strip_prefix(root).unwrap().to_owned());
        }
    }
    paths
}

fn rust_files() -> Vec<File> {
    let mut files = text_files();
    files.retain(|file| file.path.ends_with(".rs"));
    files
}

/// Runs a check over every Rust file.
fn verify(check: impl Fn(&File, &mut Vec<String>)) {
    let mut findings = Vec::new();
    for file in rust_files() {
        check(&file, &mut findings);
    }
    assert_none(&findings);
}

fn assert_none(findings: &[String]) {
    assert!(
        findings.is_empty(),
        "{} findings:\n{}",
        findings.len(),
        findings.join("\n")
    );
}

// -------------------------------------------------------------------------------------- the Rust scanners

/// The text with comments and literals blanked, line by line as before.
fn code(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        let size = comment_size(rest)
            .or_else(|| literal_size(rest, &out))
            .unwrap_or(0);
        if size == 0 {
            let next = rest.chars().next().unwrap();
            out.push(next);
            at += next.len_utf8();
        } else {
            let blanked = rest[..size].chars();
            out.extend(blanked.map(|c| if c == '\n' { '\n' } else { ' ' }));
            at += size;
        }
    }
    out
}

fn comment_size(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if !rest.starts_with("/*") {
        return None;
    }
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return Some(at);
            }
        } else {
            at += rest[at..].chars().next().unwrap().len_utf8();
        }
    }
    Some(rest.len())
}

/// The size of the string or character literal that begins here; `before` tells `r"` from the end of `for"`.
fn literal_size(rest: &str, before: &str) -> Option<usize> {
    let in_word = before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
    let prefix = rest.len() - rest.trim_start_matches(['b', 'c', 'r']).len();
    if prefix > 0 && (in_word || prefix > 2) {
        return None;
    }
    let body = &rest[prefix..];
    if rest[..prefix].contains('r') {
        let hashes = body.len() - body.trim_start_matches('#').len();
        if !body[hashes..].starts_with('"') {
            return None;
        }
        let end = format!("\"{}", "#".repeat(hashes));
        let size = body[hashes + 1..].find(&end)? + hashes + 1 + end.len();
        return Some(prefix + size);
    }
    let quote = body.chars().next().filter(|c| ['"', '\''].contains(c))?;
    if quote == '\'' {
        // A lifetime has no closing quote after one character.
        let mut inside = body[1..].chars();
        let first = inside.next()?;
        if first != '\\' && inside.next() != Some('\'') {
            return None;
        }
    }
    let mut escaped = false;
    for (index, c) in body.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some(prefix + index + 1),
            _ => {}
        }
    }
    Some(rest.len())
}

/// Blanks what is under `#[cfg(test)]` (or `all(test, ..)`). Takes blanked code.
fn without_tests(code: &str) -> String {
    let mut out = code.to_owned();
    for (start, end) in test_parts(code) {
        let blank: String = code[start..end]
            .chars()
            .map(|c| if c == '\n' { '\n' } else { ' ' })
            .collect();
        out.replace_range(start..end, &blank);
    }
    out
}

/// Where the parts under `#[cfg(test)]` begin and end.
fn test_parts(code: &str) -> Vec<(usize, usize)> {
    let mut parts = Vec::new();
    let mut from = 0;
    while let Some(found) = code[from..].find("cfg(") {
        let at = from + found;
        let Some(close) = closing(&code[at + 3..], '(', ')').map(|size| at + 3 + size) else {
            break;
        };
        from = close;
        let condition = &code[at..close];
        if lines_with_word(condition, &["test"]).is_empty() || condition.contains("not(test") {
            continue;
        }
        if code[..at].ends_with("#![") {
            return vec![(0, code.len())];
        }
        if !code[..at].ends_with("#[") {
            continue;
        }
        // The item ends at its first `;`, or with the block that opens before one.
        let item = &code[close..];
        let end = match item.find(['{', ';']) {
            Some(open) if item[open..].starts_with('{') => {
                closing(&item[open..], '{', '}').map_or(code.len(), |size| close + open + size)
            }
            Some(semicolon) => close + semicolon + 1,
            None => code.len(),
        };
        parts.push((at, end));
        from = end;
    }
    parts
}

/// The size of the bracketed text that begins here, brackets included.
fn closing(text: &str, open: char, close: char) -> Option<usize> {
    let mut depth = 0;
    for (index, c) in text.char_indices() {
        if c == open {
            depth += 1;
        } else if c == close {
            depth -= 1;
            if depth == 0 {
                return Some(index + 1);
            }
        }
    }
    None
}

/// The paths that code names, with their lines: `use` trees spread out, so `use a::{b, c::*}` is `a::b` and `a::c::*`.
fn paths(code: &str) -> Vec<(usize, String)> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let (line, token) = &tokens[at];
        if token == "use" {
            at += 1;
            spread(&tokens, &mut at, "", &mut found);
        } else if is_word(token) {
            let mut path = token.clone();
            while at + 2 < tokens.len() && tokens[at + 1].1 == "::" && is_word(&tokens[at + 2].1) {
                write!(path, "::{}", tokens[at + 2].1).unwrap();
                at += 2;
            }
            found.push((*line, path));
            at += 1;
        } else {
            at += 1;
        }
    }
    found
}

/// One branch of a `use` tree, up to the `,`, `}` or `;` behind it.
fn spread(
    tokens: &[(usize, String)],
    at: &mut usize,
    prefix: &str,
    found: &mut Vec<(usize, String)>,
) {
    let mut path = prefix.to_owned();
    while let Some((line, token)) = tokens.get(*at) {
        match token.as_str() {
            "::" => *at += 1,
            "{" => {
                *at += 1;
                while tokens.get(*at).is_some_and(|(_, token)| token != "}") {
                    spread(tokens, at, &path, found);
                    *at += usize::from(tokens.get(*at).is_some_and(|(_, token)| token == ","));
                }
                *at += 1;
                return;
            }
            "as" => *at += 2,
            word if is_word(word) || word == "*" => {
                if !path.is_empty() {
                    path += "::";
                }
                // `self` in braces is the path before it.
                path += word;
                *at += 1;
                let ends = tokens.get(*at).is_none_or(|(_, token)| token != "::");
                if ends {
                    let whole = path.strip_suffix("::self").unwrap_or(&path);
                    found.push((*line, whole.to_owned()));
                }
            }
            _ => return,
        }
    }
}

/// Words, `::` and single other characters, with their lines.
fn tokens(code: &str) -> Vec<(usize, String)> {
    let mut tokens: Vec<(usize, String)> = Vec::new();
    for (index, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let size = if is_word_char(first) {
                rest.find(|c| !is_word_char(c)).unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            tokens.push((index + 1, rest[..size].to_owned()));
            rest = rest[size..].trim_start();
        }
    }
    tokens
}

fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn is_word(token: &str) -> bool {
    token.starts_with(is_word_char)
}

fn lines_with_word(text: &str, words: &[&str]) -> Vec<usize> {
    let tokens = tokens(text).into_iter();
    let lines: BTreeSet<usize> = tokens
        .filter(|(_, token)| words.contains(&token.as_str()))
        .map(|(line, _)| line)
        .collect();
    lines.into_iter().collect()
}

/// The impure names among the paths; importing the parent of one, or all of it, counts.
fn impure_paths(code: &str) -> Vec<(usize, String)> {
    let within = |path: &str, module: &str| {
        path.strip_prefix(module)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    let mut found = paths(code);
    found.retain(|(_, path)| {
        let path = match path.strip_prefix("core::") {
            Some(rest) => format!("std::{rest}"),
            None => path.clone(),
        };
        let parent = path.strip_suffix("::*").unwrap_or(&path);
        let is_pure = PURE_ALL_THE_SAME.iter().any(|value| within(&path, value));
        !is_pure
            && IMPURE.iter().any(|impure| {
                within(&path, impure)
                    || parent.contains("::") && within(impure, parent)
                    || path.ends_with("::*") && within(impure, parent)
            })
    });
    found
}

/// Places where a module names one that is not below it.
fn steps_up(module: &str, module_path: &[&str], text: &str) -> Vec<(usize, String)> {
    let row = |name: &str| ROWS.iter().position(|row| row.contains(&name));
    let Some(own_row) = row(module) else {
        return vec![(1, format!("{module} has no row in tests/tidy.rs"))];
    };
    let mut found = Vec::new();
    for (line, path) in paths(&without_tests(&code(text))) {
        let Some(named) = names_module(module_path, &path) else {
            continue;
        };
        let is_excused = ROW_EXCEPTIONS
            .iter()
            .any(|&(who, whom, _)| (who, whom) == (module, named));
        if row(named).is_some_and(|row| row > own_row) && !is_excused {
            found.push((
                line,
                format!("{module} names {named}, which stands above it"),
            ));
        }
    }
    found
}

/// The module of the crate that a path leads to, if it is written from the root.
fn names_module<'a>(module_path: &[&str], path: &'a str) -> Option<&'a str> {
    let mut rest = path.split("::").peekable();
    let mut depth = module_path.len();
    match rest.next()? {
        "crate" => {}
        // The binary names the library by its name.
        "pubsub" if module_path == ["main"] => {}
        "super" => {
            depth -= 1;
            while rest.next_if_eq(&"super").is_some() {
                depth = depth.checked_sub(1)?;
            }
            if depth > 0 {
                return None;
            }
        }
        _ => return None,
    }
    rest.next()
}

/// The `//!` lines at the top.
fn opening(text: &str) -> String {
    let lines = text.lines().take_while(|line| line.starts_with("//!"));
    lines.collect::<Vec<_>>().join("\n")
}

fn opens_with_a_sentence(text: &str) -> bool {
    let first = text.lines().next().unwrap_or_default();
    first.starts_with("//! ") && first.contains(' ') && opening(text).contains(['.', ':'])
}

fn may_be_unsafe(path: &str, text: &str) -> bool {
    let is_home = UNSAFE_HOMES.iter().any(|home| {
        if home.ends_with('/') {
            path.starts_with(home)
        } else {
            path == *home
        }
    });
    is_home && opening(text).contains("nsafe")
}

fn is_too_long(text: &str) -> bool {
    let says_why = ["table", "state machine"]
        .iter()
        .any(|what| opening(text).contains(what));
    text.lines().count() > FILE_LINES_MAX && !says_why
}

fn unfinished_code(code: &str) -> Vec<usize> {
    let tokens = tokens(code);
    let pairs = tokens.windows(2);
    pairs
        .filter(|pair| ["todo", "unimplemented"].contains(&pair[0].1.as_str()) && pair[1].1 == "!")
        .map(|pair| pair[0].0)
        .collect()
}

/// Lines that sleep, in a test file or in the test parts of another.
fn sleeping_lines(code: &str, is_test: bool) -> Vec<usize> {
    let product = without_tests(code);
    let sleeps = |code: &str| -> Vec<(usize, String)> {
        let mut found = paths(code);
        found.retain(|(_, path)| path.ends_with("thread::sleep") || path.ends_with("time::sleep"));
        found
    };
    let mut found = sleeps(code);
    if !is_test {
        let allowed = sleeps(&product);
        found.retain(|place| !allowed.contains(place));
    }
    found.into_iter().map(|(line, _)| line).collect()
}

// ------------------------------------------------------------------------------------- the text scanners

/// Folders in which people and build machines keep their files, and the one in which this checkout stands.
fn machine_paths(checkout: &str) -> Vec<String> {
    let mut patterns: Vec<String> = [
        concat!("/ho", "me/"),
        concat!("/ro", "ot/"),
        concat!("/Us", "ers/"),
    ]
    .map(str::to_owned)
    .into();
    // Folders of every system say nothing about a machine.
    const COMMON: [&str; 14] = [
        "app", "bin", "dev", "etc", "lib", "mnt", "opt", "proc", "run", "srv", "sys", "tmp", "usr",
        "var",
    ];
    if let Some(first) = checkout.split('/').nth(1).filter(|name| !name.is_empty())
        && !COMMON.contains(&first)
    {
        patterns.push(format!("/{first}/"));
    }
    patterns
}

/// Lines with a pattern that does not go on a word before it (`a/home/b` is a path of ours).
fn lines_naming<'a>(text: &str, patterns: &'a [String]) -> Vec<(usize, &'a str)> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for pattern in patterns {
            let starts_here = |(at, _): (usize, &str)| {
                !line[..at].ends_with(|c: char| is_word_char(c) || "./-}".contains(c))
            };
            if line.match_indices(pattern.as_str()).any(starts_here) {
                found.push((index + 1, pattern.as_str()));
            }
        }
    }
    found
}

/// Lines of a manifest that bring a crate without a comment.
fn unexplained_dependencies(manifest: &str) -> Vec<usize> {
    let mut in_dependencies = false;
    let mut found = Vec::new();
    for (index, line) in manifest.lines().enumerate() {
        if line.starts_with('[') {
            let section = line.split(']').next().unwrap_or_default();
            in_dependencies = section.ends_with("dependencies");
        } else if in_dependencies && line.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            let why = line.split_once('#').map_or("", |(_, why)| why.trim());
            if line.contains('=') && why.is_empty() {
                found.push(index + 1);
            }
        }
    }
    found
}

/// The lines of a document outside its code blocks, with code spans blanked; a span may go on over lines.
fn prose(document: &str) -> Vec<(usize, String)> {
    let (mut in_block, mut in_span) = (false, false);
    let mut lines = Vec::new();
    for (index, line) in document.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            // A span ends with its paragraph, closed or not.
            in_span &= !line.trim().is_empty();
            let mut text = String::new();
            for c in line.chars() {
                in_span ^= c == '`';
                text.push(if in_span || c == '`' { ' ' } else { c });
            }
            lines.push((index + 1, text));
        }
    }
    lines
}

/// The links of a document to other files and headings, with their lines.
fn links(document: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (line, text) in prose(document) {
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split([')', ' ']).next().unwrap_or_default();
            if !target.contains("://") && !target.starts_with("mailto:") {
                found.push((line, target.to_owned()));
            }
        }
    }
    found
}

/// The anchors of a document's headings, as forges write them.
fn anchors(document: &str) -> BTreeSet<String> {
    let mut in_block = false;
    let mut found = BTreeSet::new();
    for line in document.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        }
        let title = line.trim_start_matches('#');
        if !in_block && title.len() < line.len() && title.starts_with(' ') {
            let title = title.trim().to_lowercase();
            let kept = title
                .chars()
                .filter(|&c| is_word_char(c) || c == '-' || c == ' ');
            found.insert(kept.map(|c| if c == ' ' { '-' } else { c }).collect());
        }
    }
    found
}

/// The path from the root that `target` in `document` means; none if it leads out.
fn resolve(document: &str, target: &str) -> Option<String> {
    if target.is_empty() {
        return Some(document.to_owned());
    }
    let mut parts: Vec<&str> = document.split('/').collect();
    parts.pop();
    for part in target.trim_end_matches('/').split('/') {
        match part {
            "." => {}
            ".." => {
                parts.pop()?;
            }
            _ => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

// ---------------------------------------------------------------------------------- the scanners can fail

#[test]
fn comments_and_literals_are_blanked() {
    let check = |text: &str, expected: &str| {
        let code = code(text);
        assert_eq!(code.chars().count(), text.chars().count(), "{text}");
        assert_eq!(code.lines().count(), text.lines().count(), "{text}");
        let words: Vec<&str> = code.split_whitespace().collect();
        assert_eq!(words.join(" "), expected, "{text}");
    };
    check("a // unsafe\nb", "a b");
    check("a /* x /* y */ z */ b", "a b");
    check("/// \"doc\nb", "b");
    check(r#"f("un\"safe") + 1"#, "f( ) + 1");
    check(r##"r#"a"b"# c"##, "c");
    check("let c = '\"'; d", "let c = ; d");
    check("'\\'' x", "x");
    check("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)");
    check("b'x' br\"y\" c\"z\" for", "for");
    check("\"a\nb\" c", "c");
    check("\"ä\" 'ä' c", "c");
    check("attr\"x\"", "attr");
    check("\"never ends", "");
}

#[test]
fn test_parts_are_found() {
    let check = |text: &str, expected: &[&str]| {
        let left = without_tests(&code(text));
        let words: Vec<String> = tokens(&left)
            .into_iter()
            .map(|(_, token)| token)
            .filter(|token| token.starts_with("word"))
            .collect();
        assert_eq!(words, expected, "{text}");
    };
    check(
        "word1; #[cfg(test)] mod tests { fn f() { word2 } } word3",
        &["word1", "word3"],
    );
    check("#[cfg(test)] use word1::x; word2", &["word2"]);
    check(
        "#[cfg(all(test, unix))] #[allow(x)] fn f() { word1 } word2",
        &["word2"],
    );
    check("#[cfg(not(test))] fn f() { word1 }", &["word1"]);
    check("#[cfg(target_os = \"linux\")] fn f() { word1 }", &["word1"]);
    check("#![cfg(test)]\nword1", &[]);
    check("// #[cfg(test)]\nfn f() { word1 }", &["word1"]);
}

#[test]
fn use_trees_are_spread_out() {
    let check = |text: &str, expected: &[&str]| {
        let found: Vec<String> = paths(text).into_iter().map(|(_, path)| path).collect();
        assert_eq!(found, expected, "{text}");
    };
    check("use a::b;", &["a::b"]);
    check(
        "use a::{b, c::{d as e, f::*}, self};",
        &["a::b", "a::c::d", "a::c::f::*", "a"],
    );
    check(
        "use std::time::{\n    Duration,\n    Instant,\n};",
        &["std::time::Duration", "std::time::Instant"],
    );
    check("a::b(c)", &["a::b", "c"]);
    check("use {a::b, c};", &["a::b", "c"]);
    assert_eq!(paths("\nuse a::{\nb,\nc};")[1], (4, "a::c".to_owned()));
}

#[test]
fn impurity_is_seen() {
    let check = |text: &str, count: usize| {
        assert_eq!(
            impure_paths(&without_tests(&code(text))).len(),
            count,
            "{text}"
        );
    };
    check("use std::time::Duration; use std::collections::HashMap;", 0);
    check("use std::net::{IpAddr, SocketAddr};", 0);
    check("use core::net::IpAddr;", 0);
    check("use std::time::{Duration, Instant};", 1);
    check("let now = std::time::SystemTime::now();", 1);
    check("use std::time;", 1);
    check("use std::time::*; use std::*;", 2);
    check("use std::net::TcpStream; use core::net::*;", 2);
    check("use std::{thread, env, fs};", 3);
    check(
        "use tokio::sync; rustix::net::send(); crossbeam_channel::bounded(1)",
        3,
    );
    check("#[cfg(test)] mod tests { use std::thread; }", 0);
    check("// use std::thread;\nlet tokio_like = 1;", 0);
}

#[test]
fn steps_up_are_seen() {
    let check = |path: &str, text: &str, count: usize| {
        let file = File {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        let found = steps_up(file.module().unwrap(), &file.module_path(), text);
        assert_eq!(found.len(), count, "{path} {text} {found:?}");
    };
    check(
        "src/shard/router.rs",
        "use crate::topic::Topic; use crate::ws::frame;",
        0,
    );
    check("src/shard/router.rs", "use crate::mesh::ring;", 1);
    check(
        "src/shard/router.rs",
        "use crate::{topic::Topic, net::control};",
        1,
    );
    check(
        "src/shard/router.rs",
        "let x = crate::config::Config::default();",
        1,
    );
    check("src/shard/router.rs", "use super::super::net::control;", 1);
    check(
        "src/shard/router.rs",
        "use super::fanout; use super::net;",
        0,
    );
    check("src/shard/mod.rs", "use super::mesh::ring;", 1);
    check("src/topic/tree.rs", "use crate::address::ShardId;", 0);
    check("src/message.rs", "crate::protocol::json::validate(x)", 0);
    check("src/message.rs", "use crate::ws::frame;", 1);
    check("src/main.rs", "use pubsub::broker::Broker;", 0);
    check("src/attic.rs", "", 1);
    check(
        "src/topic/mod.rs",
        "#[cfg(test)] mod tests { use crate::shard::Shard; }",
        0,
    );
}

#[test]
fn unsafe_needs_a_home_and_a_word() {
    let check = |path: &str, text: &str, expected: bool| {
        assert_eq!(may_be_unsafe(path, text), expected, "{path} {text}");
    };
    check(
        "src/mesh/ring.rs",
        "//! A ring. Unsafe inside: the slots.\n",
        true,
    );
    check("src/mesh/ring.rs", "//! A ring.\nunsafe {}", false);
    check(
        "src/net/uring.rs",
        "//! Unsafe: the kernel keeps our buffers.\n",
        true,
    );
    check("src/topic/tree.rs", "//! Unsafe for speed.\n", false);
    assert_eq!(
        lines_with_word("a\nunsafe {}\nunsafe_code", &["unsafe"]),
        [2]
    );
}

#[test]
fn openings_and_lengths_are_seen() {
    assert!(opens_with_a_sentence("//! What it is.\n"));
    for text in [
        "",
        "use std::fmt;",
        "// What it is.",
        "//!",
        "//! Masking\n",
    ] {
        assert!(!opens_with_a_sentence(text), "{text}");
    }
    let long = "x\n".repeat(FILE_LINES_MAX + 1);
    assert!(is_too_long(&long));
    assert!(!is_too_long(&format!("//! The table of options.\n{long}")));
    assert!(!is_too_long("x\n"));
}

#[test]
fn unfinished_code_is_seen() {
    let check = |text: &str, expected: &[usize]| {
        assert_eq!(unfinished_code(&code(text)), expected, "{text}");
    };
    check("fn f() {\n    todo!()\n}", &[2]);
    check("unimplemented!(\"x\")", &[1]);
    check("// todo!()\nlet todo = 1; f(\"todo!\")", &[]);
    let note = format!("// {}{}: later", "TO", "DO");
    assert_eq!(lines_with_word(&note, &[concat!("TO", "DO")]), [1]);
}

#[test]
fn sleep_is_seen() {
    let check = |text: &str, is_test: bool, expected: &[usize]| {
        assert_eq!(sleeping_lines(&code(text), is_test), expected, "{text}");
    };
    check("std::thread::sleep(x)", true, &[1]);
    check("thread::sleep(x)", false, &[]);
    check(
        "fn f() {}\n#[cfg(test)] mod tests { thread::sleep(x) }",
        false,
        &[2],
    );
    check("tokio::time::sleep(x).await", true, &[1]);
    check("use std::thread::{self, sleep};", true, &[1]);
    check("let sleep = 1;", true, &[]);
}

#[test]
fn machines_are_seen() {
    let patterns = machine_paths("/somewhere/else/pubsub");
    assert_eq!(patterns.len(), 4);
    assert_eq!(machine_paths("/usr/src/pubsub").len(), 3);
    let check = |text: &str, count: usize| {
        assert_eq!(lines_naming(text, &patterns).len(), count, "{text}");
    };
    check("see /somewhere/else", 1);
    check(concat!("cd /ho", "me/me/x"), 1);
    check(concat!("tests/ho", "me/x"), 0);
    check("/etc/pubsub.toml", 0);
}

#[test]
fn dependencies_without_a_reason_are_seen() {
    let manifest = "[package]\nname = \"x\"\n[dependencies]\na = \"1\" # why\nb = \"1\"\n\
                    [target.'cfg(x)'.dev-dependencies] # e\nc = \"1\" #\n[lints]\nd = 1\n";
    assert_eq!(unexplained_dependencies(manifest), [5, 7]);
}

#[test]
fn links_are_found_and_resolved() {
    let document = "# A `code` Title, so\n[a](b.md) [c](https://example.com) `[d](e)` [f](#g)\n```\n[h](i)\n# j\n```\n";
    assert_eq!(
        links(document),
        [(2, "b.md".to_owned()), (2, "#g".to_owned())]
    );
    let spans = "`a\nb [c](d)` [e](f.md)\n`open\n\n[g](h.md)";
    assert_eq!(
        links(spans),
        [(2, "f.md".to_owned()), (5, "h.md".to_owned())]
    );
    assert!(anchors(document).contains("a-code-title-so"));
    assert_eq!(anchors(document).len(), 1);
    let check = |document: &str, target: &str, expected: Option<&str>| {
        assert_eq!(resolve(document, target).as_deref(), expected, "{target}");
    };
    check("docs/a.md", "b.md", Some("docs/b.md"));
    check("docs/a.md", "../README.md", Some("README.md"));
    check("docs/a.md", "./c/", Some("docs/c"));
    check("docs/a.md", "", Some("docs/a.md"));
    check("README.md", "../x", None);
}
