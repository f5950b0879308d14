//! The file of the tokens that peers have accepted: read at the broker's start, and written anew when the list changes.
//!
//! Shard 0 keeps the list and tells of its changes; this has a copy of its own and a thread of its own, so no client waits
//! for a disk. Changes that come together are written together, `WRITE_DELAY` after the first of them. A write replaces
//! the file: a new one beside it is written and synced, and takes its name, so whatever happens there is a whole file.
//! Where the shards have rings the thread has one, too (tokio-uring), and otherwise it uses ordinary calls. Async stops
//! here.
//!
//! Invariant: the copy is what the file has, or is about to have.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, select};
use serde::{Deserialize, Serialize};
use tokio_uring::Runtime;

use crate::address::is_name;
use crate::limits::ACCEPTED_MAX;
use crate::shard::Acceptance;
use crate::shard::peer::TokenChange;

/// The version of the file.
const VERSION: u32 = 1;
/// How long changes are collected before they are written: a disk takes about this long for one.
const WRITE_DELAY: Duration = Duration::from_millis(50);
/// After a write that failed.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// Changes that may wait for the disk. A peer accepts no more before half of them are written.
pub const CHANGES_MAX: usize = 64 * 1024;
/// The file is the owner's alone: ids let people in.
const MODE: u32 = 0o600;

/// As it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    accepted: Vec<Line>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    peer: String,
    token: String,
    id: String,
}

/// Reads a list; a file that is not there is an empty one.
///
/// # Errors
/// A sentence on a file that cannot be read, or is none of ours.
pub fn read(path: &Path) -> Result<Vec<Acceptance>, String> {
    match fs::read(path) {
        Ok(text) => parse(&text),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error.to_string()),
    }
    .map_err(|reason| format!("accept-list {}: {reason}", path.display()))
}

fn parse(text: &[u8]) -> Result<Vec<Acceptance>, String> {
    let file: File = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if file.version != VERSION {
        return Err(format!("is of version {}, not {VERSION}", file.version));
    }
    if file.accepted.len() > ACCEPTED_MAX {
        return Err(format!("has more than {ACCEPTED_MAX} tokens"));
    }
    let mut tokens = HashSet::new();
    let mut ids = HashSet::new();
    for Line { peer, token, id } in &file.accepted {
        for text in [peer, token, id] {
            if !is_name(text.as_bytes()) {
                return Err(format!("{text:?} is no name of a peer, a token or an id"));
            }
        }
        if !tokens.insert((peer, token)) || !ids.insert(id) {
            return Err(format!(
                "the token {token:?} of {peer:?}, or its id, is there twice"
            ));
        }
    }
    let accepted = file.accepted.into_iter();
    Ok(accepted
        .map(|Line { peer, token, id }| Acceptance {
            peer: peer.into(),
            token: token.into(),
            id: id.into(),
        })
        .collect())
}

/// The list, by peer and token.
#[derive(Default)]
struct List(BTreeMap<(Bytes, Bytes), Bytes>);

impl List {
    fn new(accepted: Vec<Acceptance>) -> List {
        let mut list = List::default();
        for acceptance in accepted {
            list.apply(TokenChange::Accepted(acceptance));
        }
        list
    }

    fn apply(&mut self, change: TokenChange) {
        match change {
            TokenChange::Accepted(Acceptance { peer, token, id }) => {
                self.0.insert((peer, token), id);
            }
            TokenChange::Rejected { peer, token } => {
                self.0.remove(&(peer, token));
            }
        }
    }

    /// A line each, for people who look.
    fn text(&self) -> Vec<u8> {
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        let mut out = format!("{{\"version\":{VERSION},\"accepted\":[");
        for (index, ((peer, token), id)) in self.0.iter().enumerate() {
            let line = Line {
                peer: text(peer),
                token: text(token),
                id: text(id),
            };
            out += if index == 0 { "\n" } else { ",\n" };
            out += &serde_json::to_string(&line).expect("three texts");
        }
        out += "\n]}\n";
        out.into_bytes()
    }
}

/// Writes the file, by a ring where there is one.
struct Writer {
    path: PathBuf,
    ring: Option<Runtime>,
}

impl Writer {
    fn write(&self, text: Vec<u8>) -> io::Result<()> {
        let mut new = self.path.clone().into_os_string();
        new.push(".new");
        let new = PathBuf::from(new);
        let file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(MODE)
            .open(&new)?;
        // A bare name is in the working directory.
        let directory = self
            .path
            .parent()
            .filter(|path| !path.as_os_str().is_empty());
        let directory = fs::File::open(directory.unwrap_or(Path::new(".")))?;
        match &self.ring {
            Some(ring) => ring.block_on(self.write_by_ring(text, file, &new, directory)),
            None => self.write_by_calls(&text, file, &new, &directory),
        }
    }

    fn write_by_calls(
        &self,
        text: &[u8],
        mut file: fs::File,
        new: &Path,
        directory: &fs::File,
    ) -> io::Result<()> {
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(new, &self.path)?;
        // The name is on the disk only with the directory.
        directory.sync_all()
    }

    async fn write_by_ring(
        &self,
        text: Vec<u8>,
        file: fs::File,
        new: &Path,
        directory: fs::File,
    ) -> io::Result<()> {
        let file = tokio_uring::fs::File::from_std(file);
        file.write_all_at(text, 0).await.0?;
        file.sync_all().await?;
        file.close().await?;
        tokio_uring::fs::rename(new, &self.path).await?;
        let directory = tokio_uring::fs::File::from_std(directory);
        directory.sync_all().await?;
        directory.close().await
    }
}

/// The thread that writes. Dropped, it writes what it has been told, and ends.
pub struct Keeper {
    finish: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Writes the list once, to see that it can be, and from then on whenever `changes` tells of one.
    ///
    /// # Errors
    /// What the file system says.
    pub fn start(
        path: &Path,
        accepted: Vec<Acceptance>,
        changes: Receiver<TokenChange>,
        has_ring: bool,
    ) -> io::Result<Keeper> {
        let (finish, finished) = bounded(1);
        let (begun, beginning) = bounded(1);
        let path = path.to_owned();
        let thread = std::thread::Builder::new()
            .name("accepted".to_owned())
            .spawn(move || {
                // A ring is its thread's. Without one for us, though the shards have theirs, calls do as well.
                let mut builder = tokio_uring::builder();
                builder.entries(8);
                let ring = has_ring.then(|| Runtime::new(&builder).ok()).flatten();
                let writer = Writer { path, ring };
                let mut list = List::new(accepted);
                let written = writer.write(list.text());
                let is_begun = written.is_ok();
                let _ = begun.send(written);
                if is_begun {
                    keep(&mut list, &writer, &changes, &finished);
                }
            })?;
        let keeper = Keeper {
            finish: Some(finish),
            thread: Some(thread),
        };
        let written = beginning.recv();
        written.unwrap_or_else(|_| Err(io::Error::other("the thread ended at once")))?;
        Ok(keeper)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.finish = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Writes changes until it is told that there will be no more.
fn keep(
    list: &mut List,
    writer: &Writer,
    changes: &Receiver<TokenChange>,
    finished: &Receiver<()>,
) {
    let mut is_last = false;
    while !is_last {
        select! {
            recv(changes) -> change => match change {
                Ok(change) => list.apply(change),
                Err(_) => return,
            },
            recv(finished) -> _ => {
                is_last = true;
                if changes.is_empty() {
                    return;
                }
            }
        }
        let until = Instant::now() + WRITE_DELAY;
        is_last |= collect(list, changes, finished, until);
        while let Err(error) = writer.write(list.text()) {
            tracing::error!(path = %writer.path.display(), %error, "the accepted tokens can't be written");
            if is_last {
                return;
            }
            is_last |= collect(list, changes, finished, Instant::now() + RETRY_DELAY);
        }
    }
}

/// Takes what comes until this moment, or until there will be no more: then all that has come, and true.
fn collect(
    list: &mut List,
    changes: &Receiver<TokenChange>,
    finished: &Receiver<()>,
    until: Instant,
) -> bool {
    loop {
        let is_finished = !matches!(finished.try_recv(), Err(TryRecvError::Empty));
        if is_finished {
            changes.try_iter().for_each(|change| list.apply(change));
            return true;
        }
        select! {
            recv(changes) -> change => match change {
                Ok(change) => list.apply(change),
                Err(_) => return true,
            },
            recv(finished) -> _ => {}
            default(until.saturating_duration_since(Instant::now())) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::unbounded;

    use super::*;

    fn acceptance(peer: &str, token: &str, id: &str) -> Acceptance {
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        Acceptance {
            peer: bytes(peer),
            token: bytes(token),
            id: bytes(id),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let all = vec![
            acceptance("one", "a", "x"),
            acceptance("one", "ü \"quoted\"", "y"),
            acceptance("two", "a", "z"),
        ];
        let text = List::new(all.clone()).text();
        assert_eq!(parse(&text), Ok(all));
        assert_eq!(parse(&List::default().text()), Ok(Vec::new()));
    }

    #[test]
    fn what_is_none_of_ours_is_refused() {
        let line = |peer: &str, token: &str, id: &str| {
            format!(r#"{{"peer":"{peer}","token":"{token}","id":"{id}"}}"#)
        };
        let file =
            |lines: &[String]| format!(r#"{{"version":1,"accepted":[{}]}}"#, lines.join(","));
        let good = line("one", "a", "x");
        for (text, complaint) in [
            (String::new(), "EOF"),
            ("[]".to_owned(), "invalid"),
            ("{}".to_owned(), "missing field"),
            (r#"{"version":2,"accepted":[]}"#.to_owned(), "version 2"),
            (r#"{"version":1,"accepted":[],"more":1}"#.to_owned(), "more"),
            (file(&[line("", "a", "x")]), "no name"),
            (file(&[line("one", r"a\n", "x")]), "no name"),
            (file(&[line("one", "a", &"x".repeat(256))]), "no name"),
            (file(&[good.clone(), line("one", "a", "y")]), "twice"),
            (file(&[good.clone(), line("two", "b", "x")]), "twice"),
            (file(&[good.replace("peer", "Peer")]), "Peer"),
        ] {
            let refused = parse(text.as_bytes()).unwrap_err();
            assert!(refused.contains(complaint), "{text}: {refused}");
        }
        assert_eq!(parse(file(&[good]).as_bytes()).unwrap().len(), 1);
    }

    #[test]
    fn a_keeper_writes_by_ring_and_by_calls_and_finishes_what_it_was_told() {
        for has_ring in [true, false] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("accepted.json");
            assert_eq!(read(&path), Ok(Vec::new()));
            let (changes, told) = unbounded();
            let first = vec![acceptance("one", "a", "x")];
            let keeper = Keeper::start(&path, first.clone(), told, has_ring).unwrap();
            assert_eq!(read(&path).unwrap(), first, "it is there from the start");
            let mode = fs::metadata(&path).unwrap().permissions();
            assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, MODE);
            let second = acceptance("one", "b", "y");
            changes.send(TokenChange::Accepted(second.clone())).unwrap();
            changes
                .send(TokenChange::Rejected {
                    peer: Bytes::from_static(b"one"),
                    token: Bytes::from_static(b"a"),
                })
                .unwrap();
            drop(keeper);
            assert_eq!(read(&path).unwrap(), [second]);
            let files = fs::read_dir(directory.path()).unwrap();
            assert_eq!(files.count(), 1, "no other file is left");
        }
    }

    #[test]
    fn what_can_t_be_written_is_said_at_the_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("nowhere/accepted.json");
        for has_ring in [true, false] {
            let (_changes, told) = unbounded();
            let refused = Keeper::start(&path, Vec::new(), told, has_ring);
            assert_eq!(
                refused.err().map(|error| error.kind()),
                Some(ErrorKind::NotFound)
            );
        }
        assert!(
            read(directory.path())
                .unwrap_err()
                .starts_with("accept-list ")
        );
    }
}
