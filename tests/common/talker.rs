//! A program that is spoken to by lines.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};

use super::DEADLINE;
use super::broker::lines;

/// A running program; killed when dropped.
pub struct Talker {
    child: Child,
    heard: Receiver<String>,
}

impl Talker {
    /// Starts it.
    pub fn start(command: &mut Command) -> Talker {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let heard = lines(child.stdout.take().expect("stdout is piped"));
        Talker { child, heard }
    }

    /// The next line, which begins so.
    pub fn expect(&mut self, beginning: &str) -> String {
        let line = self.line(beginning);
        assert!(line.starts_with(beginning), "{line:?} for {beginning:?}");
        line
    }

    /// It says these last lines, in any order, and ends well.
    pub fn expect_end(&mut self, mut lines: Vec<&str>) {
        while !lines.is_empty() {
            let line = self.line("the end");
            let known = lines.iter().position(|known| *known == line);
            lines.remove(known.unwrap_or_else(|| panic!("{line:?}, not one of {lines:?}")));
        }
        let more = self.heard.recv_timeout(DEADLINE);
        assert_eq!(more, Err(RecvTimeoutError::Disconnected));
        let status = super::broker::wait_exit(&mut self.child, DEADLINE);
        assert!(status.is_some_and(|status| status.success()), "{status:?}");
    }

    /// The next lines are these.
    pub fn expect_lines(&mut self, lines: &[&str]) {
        for expected in lines {
            assert_eq!(self.line(expected), *expected, "of {lines:?}");
        }
    }

    /// Types a line.
    pub fn say(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("stdin is piped");
        writeln!(stdin, "{line}").expect("it reads");
    }

    fn line(&mut self, what: &str) -> String {
        self.heard
            .recv_timeout(DEADLINE)
            .unwrap_or_else(|error| panic!("{error} where {what:?} was waited for"))
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
