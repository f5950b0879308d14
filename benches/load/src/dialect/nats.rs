//! The NATS client protocol, as text.

use super::Incoming;

/// A delivery begins with it.
pub const DELIVERY: &[u8] = b"MSG ";
/// The answer to a ping.
pub const PONG: &[u8] = b"PONG\r\n";

/// What a publisher sends.
pub fn publication(topic: &str, text: &str) -> String {
    format!("PUB {topic} {}\r\n{text}\r\n", text.len())
}

/// What a subscriber gets; its one subscription has the id 1.
pub fn delivery(topic: &str, text: &str) -> String {
    format!("MSG {topic} 1 {}\r\n{text}\r\n", text.len())
}

/// What a new connection says. The pong to its ping is the barrier behind the subscription.
pub fn open(topic: Option<&str>, out: &mut Vec<u8>) {
    out.extend_from_slice(
        b"CONNECT {\"verbose\":false,\"pedantic\":false,\"echo\":true,\"name\":\"pubsub bench\"}\r\n",
    );
    if let Some(topic) = topic {
        out.extend_from_slice(format!("SUB {topic} 1\r\nPING\r\n").as_bytes());
    }
}

/// Reads what is no delivery.
pub fn read(stream: &[u8]) -> Result<Option<(usize, Incoming)>, String> {
    let Some(end) = stream.windows(2).position(|pair| pair == b"\r\n") else {
        return match stream.len() {
            0..=65_536 => Ok(None),
            _ => Err("a line without an end".to_owned()),
        };
    };
    let line = &stream[..end];
    let incoming = match line.split(|byte| *byte == b' ').next() {
        Some(b"PING") => Incoming::Ping,
        Some(b"PONG") => Incoming::Ready,
        Some(b"-ERR") => Incoming::Refused(String::from_utf8_lossy(line).into_owned()),
        Some(b"INFO" | b"+OK") => Incoming::Other,
        _ => return Err(format!("no NATS: {}", String::from_utf8_lossy(line))),
    };
    Ok(Some((end + 2, incoming)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let check = |text: &str, expected: Incoming| {
            let stream = format!("{text}PONG\r\n");
            let read = read(stream.as_bytes());
            assert_eq!(read, Ok(Some((text.len(), expected))), "{stream:?}");
        };
        check("PING\r\n", Incoming::Ping);
        check("PONG\r\n", Incoming::Ready);
        check("INFO {\"max_payload\":1}\r\n", Incoming::Other);
        check("+OK\r\n", Incoming::Other);
        check("-ERR 'no'\r\n", Incoming::Refused("-ERR 'no'".to_owned()));
        assert_eq!(read(b""), Ok(None));
        assert_eq!(read(b"PING\r"), Ok(None));
    }

    #[test]
    fn other_bytes_are_refused() {
        assert!(read(b"HTTP/1.1 400 Bad\r\n").is_err());
        assert!(read(b"\r\n").is_err());
        assert!(read(&[b'I'; 70_000]).is_err());
    }
}
