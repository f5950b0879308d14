//! RESP: what Redis, Valkey and their like speak.
//!
//! A subscriber that also publishes says `HELLO 3` first: under RESP2 a connection with a subscription may not
//! publish.

use super::Incoming;

/// What a publisher sends.
pub fn publication(topic: &str, text: &str) -> String {
    command(&["PUBLISH", topic, text])
}

/// What a subscriber gets; under RESP3 its first byte is `>`.
pub fn delivery(topic: &str, text: &str) -> String {
    command(&["message", topic, text])
}

fn command(words: &[&str]) -> String {
    let mut text = format!("*{}\r\n", words.len());
    for word in words {
        text += &format!("${}\r\n{word}\r\n", word.len());
    }
    text
}

/// What a new connection says.
pub fn open(topic: Option<&str>, publishes: bool, out: &mut Vec<u8>) {
    if let Some(topic) = topic {
        if publishes {
            out.extend_from_slice(command(&["HELLO", "3"]).as_bytes());
        }
        out.extend_from_slice(command(&["SUBSCRIBE", topic]).as_bytes());
    }
}

/// Is this the beginning of a delivery? Not if it is too short to tell.
pub fn is_delivery(stream: &[u8]) -> bool {
    stream
        .get(1..)
        .is_some_and(|rest| rest.starts_with(b"3\r\n$7\r\nmessage\r\n"))
}

/// Reads what is no delivery.
pub fn read(stream: &[u8]) -> Result<Option<(usize, Incoming)>, String> {
    let Some(size) = size(stream)? else {
        return Ok(None);
    };
    let unit = &stream[..size];
    let incoming = match unit[0] {
        b':' => Incoming::Ack,
        b'-' => Incoming::Refused(String::from_utf8_lossy(unit).trim_end().to_owned()),
        b'*' | b'>' if unit[1..].starts_with(b"3\r\n$9\r\nsubscribe\r\n") => Incoming::Ready,
        _ => Incoming::Other,
    };
    Ok(Some((size, incoming)))
}

/// Values in values: more is nothing that a server says to us.
const VALUES_MAX: u64 = 10_000;

/// The size of the value at the beginning; none if it is not all there.
fn size(stream: &[u8]) -> Result<Option<usize>, String> {
    let (mut at, mut values) = (0, 1u64);
    while values > 0 {
        let rest = &stream[at..];
        let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") else {
            return match rest.len() {
                0..=65_536 => Ok(None),
                _ => Err("a line without an end".to_owned()),
            };
        };
        let line = &rest[..end];
        at += end + 2;
        values -= 1;
        let wrong = || format!("no RESP: {}", String::from_utf8_lossy(line));
        let number = || -> Result<i64, String> {
            let digits = std::str::from_utf8(&line[1..]).map_err(|_| wrong())?;
            digits.parse().map_err(|_| wrong())
        };
        match line.first() {
            Some(b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(') => {}
            Some(b'$' | b'=' | b'!') => {
                // -1 is null.
                if let Ok(size) = usize::try_from(number()?) {
                    at = at.checked_add(size + 2).ok_or_else(wrong)?;
                }
            }
            Some(b'*' | b'>' | b'~') => values += number()?.max(0) as u64,
            Some(b'%') => values += number()?.clamp(0, VALUES_MAX as i64) as u64 * 2,
            _ => return Err(wrong()),
        }
        if values > VALUES_MAX {
            return Err(wrong());
        }
        if at > stream.len() {
            return Ok(None);
        }
    }
    Ok(Some(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let check = |text: &str, expected: Incoming| {
            for rest in ["", ":1\r\n"] {
                let stream = format!("{text}{rest}");
                let read = read(stream.as_bytes());
                assert_eq!(read, Ok(Some((text.len(), expected.clone()))), "{stream:?}");
            }
            for cut in 0..text.len() {
                let piece = &text.as_bytes()[..cut];
                assert_eq!(read(piece), Ok(None), "{text:?} cut at {cut}");
            }
        };
        check(":12\r\n", Incoming::Ack);
        check("+OK\r\n", Incoming::Other);
        check("$-1\r\n", Incoming::Other);
        check("$3\r\n\r\nx\r\n", Incoming::Other);
        check("-NOAUTH no\r\n", Incoming::Refused("-NOAUTH no".to_owned()));
        check(
            "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n",
            Incoming::Ready,
        );
        check(
            ">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n",
            Incoming::Ready,
        );
        check("%2\r\n+proto\r\n:3\r\n+modules\r\n*0\r\n", Incoming::Other);
        check("*-1\r\n", Incoming::Other);
        check("*2\r\n*1\r\n_\r\n#t\r\n", Incoming::Other);
    }

    #[test]
    fn other_bytes_are_refused() {
        for text in [
            "HTTP/1.1 400\r\n",
            "\r\n",
            "$x\r\n",
            "*99999999\r\n",
            "*9223372036854775807\r\n",
        ] {
            assert!(read(text.as_bytes()).is_err(), "{text:?}");
        }
        assert!(read(&[b'+'; 70_000]).is_err());
    }
}
