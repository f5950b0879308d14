//! The README's chapter on C programs: what it says is done, and comes to what it says. And the programs of `examples/c`.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::{has, pkg_config, prefix, root, skip, succeed};

mod common;

/// The code blocks of this language in a chapter of the README.
fn blocks(chapter: &str, language: &str) -> Vec<String> {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let from = readme.find(&format!("\n## {chapter}\n")).unwrap() + 4;
    let text = &readme[from..];
    let text = &text[..text.find("\n## ").unwrap_or(text.len())];
    let opening = format!("\n```{language}\n");
    let blocks = text.split(&opening).skip(1);
    blocks
        .map(|block| block.split("\n```").next().unwrap().to_owned() + "\n")
        .collect()
}

/// A program that is ended with its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(command: &mut Command) -> (Running, impl FnMut() -> String + use<>) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (Running(child), move || lines.next().unwrap().unwrap())
}

#[test]
fn the_readme_embeds_a_broker_and_talks_to_it() {
    if !has("gcc") || !has("pkg-config") {
        return skip(
            "the_readme_embeds_a_broker_and_talks_to_it",
            "no gcc or no pkg-config",
        );
    }
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("work");
    fs::create_dir(&folder).unwrap();
    for program in blocks("Inside a C program", "c") {
        let name = program
            .strip_prefix("/* ")
            .unwrap()
            .split(' ')
            .next()
            .unwrap();
        // Another broker may have the port, or the socket.
        let program = program.replace("127.0.0.1:8000", "127.0.0.1:0");
        let program = program.replace("/tmp/hub.sock", folder.join("hub.sock").to_str().unwrap());
        fs::write(folder.join(name), program).unwrap();
    }
    let [commands] = &blocks("Inside a C program", "sh")[..] else {
        panic!("there is one way")
    };
    // As it is written, but where it stands (a checkout, and a folder of the reader's), and without the minutes that an
    // optimised build takes.
    let (install, rest) = commands.split_once('\n').unwrap();
    let script =
        format!("set -eu\ntrap 'kill 0' EXIT\n(cd \"$ROOT\" && {install} --debug)\n{rest}\nwait\n");
    let own_home = std::env::var_os("HOME").unwrap_or_default();
    let of_tool = |name: &str, folder: &str| {
        let folder = Path::new(&own_home).join(folder);
        std::env::var_os(name).unwrap_or(folder.into())
    };
    let mut bash = Command::new("bash");
    bash.args(["-c", &script])
        .current_dir(&folder)
        .process_group(0);
    bash.env("ROOT", root()).env("HOME", home.path());
    bash.env("CARGO_HOME", of_tool("CARGO_HOME", ".cargo"));
    bash.env("RUSTUP_HOME", of_tool("RUSTUP_HOME", ".rustup"));
    let (running, mut line) = run(&mut bash);
    let mut left = vec!["\"hello\"", "5 + 4 = 9"];
    while !left.is_empty() {
        let said = line();
        left.retain(|expected| *expected != said);
    }
    // The hub goes on for ever, and is a child of the shell.
    let group = format!("-{}", running.0.id());
    succeed(Command::new("kill").args(["--", &group]));
}

#[test]
fn the_examples_are_made_by_their_makefile_and_work() {
    if !has("gcc") || !has("make") || !has("pkg-config") {
        return skip(
            "the_examples_are_made_by_their_makefile_and_work",
            "no gcc, make or pkg-config",
        );
    }
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    for entry in fs::read_dir(root().join("examples/c")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "c") || path.ends_with("Makefile")
        {
            fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
        }
    }
    let mut make = Command::new("make");
    make.current_dir(folder)
        .env("PKG_CONFIG_PATH", prefix().join("lib/pkgconfig"));
    succeed(make.env("CFLAGS", "-g -Wall -Wextra -Werror -pedantic"));
    assert!(!pkg_config(&["--modversion"]).is_empty());

    let socket = format!("unix:{}", folder.join("hub.sock").display());
    let (mut hub, mut line) =
        run(Command::new(folder.join("request_reply")).args(["serve", &socket]));
    assert_eq!(line(), "waiting for peers");
    let (_peer, mut of_peer) =
        run(Command::new(folder.join("request_reply")).args(["answer", &socket]));
    assert_eq!(line(), "calc-1 is here");
    assert_eq!(line(), "5 + 4 = 9");
    assert!(hub.0.wait().unwrap().success());
    assert!(of_peer().starts_with("the hub is gone"));

    // Ends in order when a line comes.
    let (mut epoll, mut line) = run(Command::new(folder.join("epoll")).arg("127.0.0.1:0"));
    assert!(line().starts_with("epoll on 127.0.0.1:"));
    drop(epoll.0.stdin.take());
    assert!(epoll.0.wait().unwrap().success());

    // Whoever is not let in is told why.
    let (_admission, mut line) = run(Command::new(folder.join("admission")).arg("127.0.0.1:0"));
    let line = line();
    let address = line.strip_prefix("admission on ").unwrap();
    for (ticket, status) in [("blue", "101"), ("red", "401")] {
        let mut socket = std::net::TcpStream::connect(address).unwrap();
        let request = format!(
            "GET /?ticket={ticket} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        );
        std::io::Write::write_all(&mut socket, request.as_bytes()).unwrap();
        let mut answer = [0; 12];
        socket.read_exact(&mut answer).unwrap();
        assert_eq!(answer, *format!("HTTP/1.1 {status}").as_bytes(), "{ticket}");
    }
    for (name, arguments) in [("chat", &["127.0.0.1:0"][..]), ("blocking", &[])] {
        let (mut program, mut line) = run(Command::new(folder.join(name)).args(arguments));
        if name == "chat" {
            assert!(line().starts_with("chat on 127.0.0.1:"));
        } else {
            assert_eq!(
                program.0.wait().unwrap().code(),
                Some(2),
                "it says how it is used"
            );
        }
    }
}
