//! A server of somebody else's before or behind the broker: found, configured in a folder of its own, waited for.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::Receiver;
use std::thread;

use tempfile::TempDir;

use super::broker::lines;
use super::wait_for;

/// Where `cargo xtask test --only setup` unpacks what the system lacks.
const UNPACKED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/debian");
const FOLDERS: [&str; 3] = ["usr/sbin", "usr/local/sbin", "usr/bin"];
/// How often another port is tried, because somebody was quicker.
const PORTS_MAX: usize = 5;

/// A running server, on a port of its own.
pub struct Server {
    child: Child,
    /// Where it listens.
    pub address: String,
    output: Mutex<Receiver<String>>,
    _folder: TempDir,
}

/// The command for a program of the system or of `target/debian`; none if it is not here.
pub fn command(name: &str) -> Option<Command> {
    let at = |root: &str| {
        let mut paths = FOLDERS
            .map(|folder| Path::new(root).join(folder).join(name))
            .into_iter();
        paths.find(|path| path.exists())
    };
    if let Some(program) = at("/") {
        return Some(Command::new(program));
    }
    let mut command = Command::new(at(UNPACKED)?);
    let folders = fs::read_dir(Path::new(UNPACKED).join("usr/lib"));
    let libraries: Vec<PathBuf> = folders
        .into_iter()
        .flatten()
        .flatten()
        .map(|of| of.path())
        .collect();
    let libraries = std::env::join_paths(libraries).expect("paths without colons");
    command.env("LD_LIBRARY_PATH", libraries);
    Some(command)
}

impl Server {
    /// Starts it on a free port of 127.0.0.1 and waits until it accepts. `configure` is given that port and an empty
    /// folder, and makes the arguments.
    pub fn start(name: &str, configure: impl Fn(u16, &Path) -> Vec<String>) -> Option<Server> {
        for _ in 0..PORTS_MAX {
            let folder = tempfile::tempdir().expect("a folder");
            let port = free_port();
            let mut command = command(name)?;
            command
                .args(configure(port, folder.path()))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped());
            let mut child = command.spawn().expect("it starts");
            let output = lines(child.stderr.take().expect("stderr is piped"));
            let address = format!("127.0.0.1:{port}");
            let has_ended = wait_for("the server to accept", || {
                match child.try_wait().expect("the child can be asked") {
                    Some(status) => Some(Some(status)),
                    None => TcpStream::connect(&address).is_ok().then_some(None),
                }
            });
            let Some(status) = has_ended else {
                return Some(Server {
                    child,
                    address,
                    output: Mutex::new(output),
                    _folder: folder,
                });
            };
            let said: Vec<String> = output.iter().collect();
            let is_taken = said
                .iter()
                .any(|line| line.to_lowercase().contains("in use"));
            assert!(is_taken, "{name} ended with {status}: {said:#?}");
        }
        panic!("no port is free for {name}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let output = self.output.lock().unwrap();
            let said: Vec<String> = output.try_iter().collect();
            eprintln!("--- the server said ---\n{}", said.join("\n"));
        }
    }
}

/// A port that nobody listens to now.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("it is bound").port()
}

/// The fenced blocks of this language on a page of the documents.
pub fn blocks(page: &str, language: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs")
        .join(page);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{page}: {error}"));
    let start = format!("```{language}\n");
    let parts = text.split(&start[..]).skip(1);
    parts
        .map(|part| part.split("```").next().unwrap_or_default().to_owned())
        .collect()
}

/// The text with these parts replaced, each of which is there.
pub fn replaced(mut text: String, parts: &[(&str, &str)]) -> String {
    for (part, by) in parts {
        assert!(text.contains(part), "no {part:?} in {text}");
        text = text.replace(part, by);
    }
    text
}
