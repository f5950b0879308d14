//! Publications that nobody subscribes to, from one connection, many on their way: what a publish costs by itself.
//!
//! `pubsub bench` has no such scenario, since it has nothing to check there: no delivery. Here the answers are
//! counted, and each must be one to a publication. User time is wanted, which the kernel tells in hundredths of a
//! second and by a sample at each tick; a run of two seconds is good to about a percent.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::sample::Method;
use crate::server::{Server, pin};

/// Publications in one write.
const BATCH: usize = 128;
/// Publications without an answer, at most.
const WINDOW: usize = 1024;
/// Bytes of the message.
const MESSAGE_SIZE: usize = 128;
/// `/proc` counts in hundredths of a second everywhere (`USER_HZ`).
const TICKS: f64 = 100.0;
/// Nothing comes for so long: it never will.
const PATIENCE: Duration = Duration::from_secs(5);

const TOPIC: &str = "bench.000000";

/// Loads a server, and reports as `pubsub bench` does, as far as it goes.
///
/// # Errors
/// The server broke off, or answered otherwise.
pub fn run(server: &Server, method: &Method) -> Result<Value, String> {
    // On a thread of its own, as it is pinned.
    std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            pin(&[method.generator_cpu])?;
            load(server, method)
        });
        run.join().expect("nothing in it panics")
    })
}

fn load(server: &Server, method: &Method) -> Result<Value, String> {
    let is_redis = server.address().0 == "redis";
    let mut line = Line::open(server.port(), is_redis)?;
    let io = |error: std::io::Error| format!("the connection: {error}");
    line.until(Duration::from_secs_f64(method.warm_up()))
        .map_err(io)?;
    let before = (Usage::of(server.pid())?, line.answered, Instant::now());
    line.until(Duration::from_secs_f64(method.seconds))
        .map_err(io)?;
    let after = (Usage::of(server.pid())?, line.answered, Instant::now());
    let publishes = (after.1 - before.1) as f64;
    let each = |spent: f64| (spent * 1e10 / publishes).round() / 10.0;
    Ok(json!({
        "scenario": "nobody",
        "protocol": server.address().0,
        "load": { "window": WINDOW },
        "message_bytes": MESSAGE_SIZE,
        "published": publishes,
        "publishes_per_second": (publishes / (after.2 - before.2).as_secs_f64()).round(),
        "user_ns_per_publish": each(after.0.user - before.0.user),
        "cpu_ns_per_publish": each(after.0.user + after.0.system - before.0.user - before.0.system),
        "right": true,
    }))
}

/// CPU seconds of a process.
struct Usage {
    user: f64,
    system: f64,
}

impl Usage {
    fn of(pid: u32) -> Result<Usage, String> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat"))
            .map_err(|error| format!("process {pid}: {error}"))?;
        Usage::parse(&text).ok_or_else(|| format!("process {pid} has a strange stat"))
    }

    /// proc_pid_stat(5): the name, which may hold anything, ends at the last parenthesis; `utime` and `stime` are the
    /// 12th and 13th fields behind it.
    fn parse(stat: &str) -> Option<Usage> {
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_whitespace().skip(11);
        let mut seconds = || Some(fields.next()?.parse::<f64>().ok()? / TICKS);
        Some(Usage {
            user: seconds()?,
            system: seconds()?,
        })
    }
}

/// The connection.
struct Line {
    stream: TcpStream,
    batch: Vec<u8>,
    is_redis: bool,
    /// Answers that came.
    answered: u64,
    sent: u64,
    /// What of the answers is not whole.
    rest: Vec<u8>,
}

impl Line {
    fn open(port: u16, is_redis: bool) -> Result<Line, String> {
        let open = || -> std::io::Result<Line> {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            let one = publication(is_redis);
            Ok(Line {
                stream,
                batch: one.repeat(BATCH),
                is_redis,
                answered: 0,
                sent: 0,
                rest: Vec::new(),
            })
        };
        let mut line = open().map_err(|error| format!("no connection: {error}"))?;
        if !is_redis {
            line.upgrade()
                .map_err(|error| format!("no upgrade: {error}"))?;
        }
        Ok(line)
    }

    fn upgrade(&mut self) -> std::io::Result<()> {
        self.stream.write_all(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        )?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        match head.starts_with(b"HTTP/1.1 101") {
            true => Ok(()),
            false => Err(std::io::Error::other("the server answers otherwise")),
        }
    }

    /// Publishes for so long, and waits for the last answer.
    fn until(&mut self, time: Duration) -> std::io::Result<()> {
        let began = Instant::now();
        let mut buffer = vec![0; 64 * 1024];
        while began.elapsed() < time {
            while self.sent - self.answered + (BATCH as u64) <= WINDOW as u64 {
                self.stream.write_all(&self.batch)?;
                self.sent += BATCH as u64;
            }
            self.hear(&mut buffer)?;
        }
        while self.answered < self.sent {
            self.hear(&mut buffer)?;
        }
        Ok(())
    }

    fn hear(&mut self, buffer: &mut [u8]) -> std::io::Result<()> {
        let size = self.stream.read(buffer)?;
        if size == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.rest.extend_from_slice(&buffer[..size]);
        let counted = match self.is_redis {
            true => redis_answers(&self.rest),
            false => native_acks(&self.rest),
        };
        let (answers, size) = counted.map_err(std::io::Error::other)?;
        self.answered += answers;
        self.rest.drain(..size);
        Ok(())
    }
}

/// As it goes out.
fn publication(is_redis: bool) -> Vec<u8> {
    let message = "x".repeat(MESSAGE_SIZE);
    if is_redis {
        let (topic, size) = (TOPIC.len(), MESSAGE_SIZE);
        return format!("*3\r\n$7\r\nPUBLISH\r\n${topic}\r\n{TOPIC}\r\n${size}\r\n{message}\r\n")
            .into_bytes();
    }
    let text = format!(r#"{{"type":"publish","topic":"{TOPIC}","message":"{message}"}}"#);
    // RFC 6455, 5.2; one masking key is as good as another here.
    let key = [0x5a, 0x13, 0xe7, 0x9c];
    let mut frame = vec![0x81, 0x80 | 126];
    frame.extend_from_slice(&(text.len() as u16).to_be_bytes());
    frame.extend_from_slice(&key);
    frame.extend(text.bytes().enumerate().map(|(i, byte)| byte ^ key[i % 4]));
    frame
}

/// Whole answers, and their bytes: "nobody got it".
fn redis_answers(bytes: &[u8]) -> Result<(u64, usize), String> {
    let whole = bytes.len() / 4;
    let is_right = bytes[..whole * 4].chunks(4).all(|four| four == b":0\r\n");
    match is_right {
        true => Ok((whole as u64, whole * 4)),
        false => Err("an answer that is no \":0\"".to_owned()),
    }
}

/// Whole frames, which all must be acks, and their bytes.
fn native_acks(bytes: &[u8]) -> Result<(u64, usize), String> {
    let (mut count, mut at) = (0, 0);
    loop {
        let (size, header) = match &bytes[at..] {
            &[0x81, size @ 0..=125, ..] => (usize::from(size), 2),
            &[0x81, 126, high, low, ..] => (usize::from(u16::from_be_bytes([high, low])), 4),
            &[first, _, ..] if first != 0x81 => return Err("a frame that is no text".to_owned()),
            [_, 127, ..] => return Err("an ack longer than any".to_owned()),
            _ => return Ok((count, at)),
        };
        let Some(text) = bytes.get(at + header..at + header + size) else {
            return Ok((count, at));
        };
        if !text.starts_with(br#"{"type":"ack","action":"publish""#) {
            return Err(format!("no ack: {}", String::from_utf8_lossy(text)));
        }
        count += 1;
        at += header + size;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted() {
        assert_eq!(redis_answers(b":0\r\n:0\r\n:0"), Ok((2, 8)));
        assert!(redis_answers(b":0\r\n:1\r\n").is_err());
        let ack = br#"{"type":"ack","action":"publish","topic":"a"}"#;
        let mut bytes = vec![0x81, ack.len() as u8];
        bytes.extend_from_slice(ack);
        let one = bytes.len();
        bytes.extend_from_slice(&bytes.clone());
        for cut in 0..bytes.len() {
            let whole = cut / one;
            assert_eq!(native_acks(&bytes[..cut]), Ok((whole as u64, whole * one)));
        }
        assert_eq!(native_acks(&bytes), Ok((2, 2 * one)));
        assert!(native_acks(b"\x81\x02{}").is_err());
        assert!(native_acks(b"\x88\x00").is_err());
    }

    #[test]
    fn cpu_time_is_read() {
        let stat = "7 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20";
        let usage = Usage::parse(stat).unwrap();
        assert_eq!((usage.user, usage.system), (2.5, 0.5));
        assert!(Usage::of(std::process::id()).unwrap().user >= 0.0);
    }
}
