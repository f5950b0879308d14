//! The broker under load: a process, seen through `/proc` and its operators' port.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Which broker is started.
pub struct Options {
    /// A release build.
    pub binary: PathBuf,
    /// The value of `--io`.
    pub driver: String,
}

/// A running broker; killed when dropped.
pub struct Broker {
    child: Child,
    /// Where clients connect.
    pub listen: String,
    admin: String,
}

impl Broker {
    /// On ports of its own, with two shards and these further arguments.
    pub fn start(options: &Options, arguments: &[&str]) -> Broker {
        let mut child = Command::new(&options.binary)
            .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .args(["--shards", "2", "--log", "warn", "--io", &options.driver])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the broker was just built");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("stdout is piped");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("a pipe can be read");
        let address = |name: &str| {
            line.split_whitespace()
                .find_map(|word| word.strip_prefix(name))
                .unwrap_or_else(|| panic!("no {name} in the ready line {line:?}"))
                .to_owned()
        };
        Broker {
            listen: address("listen="),
            admin: address("admin="),
            child,
        }
    }

    fn proc(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.child.id()))
    }

    fn status(&self, field: &str) -> u64 {
        let status = fs::read_to_string(self.proc("status")).expect("the broker runs");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(field))
            .expect("a field of /proc/PID/status");
        let kib: u64 = line
            .trim_start_matches(':')
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .expect("a number of kB");
        kib * 1024
    }

    /// Resident memory now, in bytes.
    pub fn rss(&self) -> u64 {
        self.status("VmRSS")
    }

    /// Forgets the peak of the resident memory; gives what is resident now.
    pub fn reset_peak(&self) -> u64 {
        fs::write(self.proc("clear_refs"), "5").expect("clear_refs of our own child");
        self.rss()
    }

    /// The peak since then, in bytes.
    pub fn peak(&self) -> u64 {
        self.status("VmHWM")
    }

    /// Open descriptors.
    pub fn descriptors(&self) -> u64 {
        let entries = fs::read_dir(self.proc("fd")).expect("the broker runs");
        entries.count() as u64
    }

    /// One of the sums of `/stats`.
    pub fn sum(&self, name: &str) -> u64 {
        let mut stream = TcpStream::connect(&self.admin).expect("the operators' port");
        let request = format!(
            "GET /stats HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.admin
        );
        stream.write_all(request.as_bytes()).expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        number_in(&answer, name).unwrap_or_else(|| panic!("no {name} in {answer}"))
    }

    /// Waits until a sum is what it should be; false after `within`.
    pub fn wait_for(&self, name: &str, wanted: u64, within: Duration) -> bool {
        let begun = Instant::now();
        while self.sum(name) != wanted {
            if begun.elapsed() > within {
                return false;
            }
            sleep(Duration::from_millis(20));
        }
        true
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -{name}");
    }

    /// Waits for its end; the exit code.
    pub fn wait_exit(&mut self, within: Duration) -> Option<i32> {
        let begun = Instant::now();
        while begun.elapsed() < within {
            if let Ok(Some(status)) = self.child.try_wait() {
                return status.code();
            }
            sleep(Duration::from_millis(5));
        }
        None
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The sums come before the shards' own numbers of the same name.
fn number_in(json: &str, name: &str) -> Option<u64> {
    let key = format!("\"{name}\":");
    let at = json.find(&key)? + key.len();
    let digits: String = json[at..]
        .trim_start()
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_found() {
        let json = r#"{"connections":12,"x": 7,"shards":[{"connections":5}]}"#;
        assert_eq!(number_in(json, "connections"), Some(12));
        assert_eq!(number_in(json, "x"), Some(7));
        assert_eq!(number_in(json, "y"), None);
    }
}
