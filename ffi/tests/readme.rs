//! The README's chapter on C programs: what it says is done, and comes to what it says. And the programs of `examples/c`.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
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

/// A program that is ended with its test, and whatever it has started.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

/// Starts a program, which ends after a minute in any case, and reads its lines.
fn run(program: &Path, arguments: &[&str]) -> (Running, impl FnMut() -> String + use<>) {
    let mut command = Command::new("timeout");
    command.arg("60").arg(program).args(arguments);
    start(&mut command)
}

fn start(command: &mut Command) -> (Running, impl FnMut() -> String + use<>) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = move || lines.next().expect("one more line").unwrap();
    (Running(child), line)
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
    // optimised build takes. The last two lines are for two terminals.
    let lines: Vec<&str> = commands.lines().collect();
    let [install, rest @ .., hub, peer] = &lines[..] else {
        panic!("there is something to run")
    };
    let install = format!("(cd \"$ROOT\" && {install} --debug)");
    let exports: Vec<&str> = rest
        .iter()
        .filter(|line| line.starts_with("export "))
        .copied()
        .collect();
    let bash = |script: &str| {
        let own_home = std::env::var_os("HOME").unwrap_or_default();
        let of_tool = |name: &str, folder: &str| {
            let folder = Path::new(&own_home).join(folder);
            std::env::var_os(name).unwrap_or(folder.into())
        };
        let mut bash = Command::new("timeout");
        bash.args(["300", "bash", "-euc", script])
            .current_dir(&folder);
        bash.env("ROOT", root()).env("HOME", home.path());
        bash.env("CARGO_HOME", of_tool("CARGO_HOME", ".cargo"));
        bash.env("RUSTUP_HOME", of_tool("RUSTUP_HOME", ".rustup"));
        bash
    };
    succeed(&mut bash(&format!("{install}\n{}", rest.join("\n"))));
    let terminal = |line: &str| bash(&format!("{}\nexec {line}", exports.join("\n")));
    let (_hub, mut of_hub) = start(&mut terminal(hub));
    assert_eq!(of_hub(), "ready");
    let (_peer, mut of_peer) = start(&mut terminal(peer));
    assert_eq!(of_peer(), "5 + 4 = 9");
    assert_eq!(of_hub(), "\"hello\"");
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
    let (mut hub, mut line) = run(&folder.join("request_reply"), &["serve", &socket]);
    assert_eq!(line(), "waiting for peers");
    let (_peer, mut of_peer) = run(&folder.join("request_reply"), &["answer", &socket]);
    assert_eq!(line(), "calc-1 is here");
    assert_eq!(line(), "5 + 4 = 9");
    assert!(hub.0.wait().unwrap().success());
    assert!(of_peer().starts_with("the hub is gone"));

    // Ends in order when a line comes.
    let (mut epoll, mut line) = run(&folder.join("epoll"), &["127.0.0.1:0"]);
    assert!(line().starts_with("epoll on 127.0.0.1:"));
    drop(epoll.0.stdin.take());
    assert!(epoll.0.wait().unwrap().success());

    // Whoever is not let in is told why.
    let (_admission, mut line) = run(&folder.join("admission"), &["127.0.0.1:0"]);
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
        let (mut program, mut line) = run(&folder.join(name), arguments);
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
