//! Native JSON, and the text that every protocol here delivers.

use super::Incoming;

/// Every publication and delivery begins with it.
pub const PUBLICATION: &[u8] = br#"{"type":"publish","topic":""#;

/// What a publisher sends.
pub fn publication(topic: &str, message: &str) -> String {
    format!(r#"{{"type":"publish","topic":"{topic}","message":"{message}"}}"#)
}

/// What a subscriber gets: the broker adds its time and the filter that matched.
pub fn delivery(topic: &str, message: &str) -> String {
    format!(
        r#"{{"type":"publish","topic":"{topic}","message":"{message}","timestamp":"2018-02-16T00:31:37.123Z","context":"{topic}"}}"#
    )
}

/// What a subscriber sends.
pub fn subscription(topic: &str) -> Vec<u8> {
    format!(r#"{{"type":"subscribe","topic":"{topic}"}}"#).into_bytes()
}

/// What is no delivery.
pub fn read(text: &[u8]) -> Incoming {
    if text.starts_with(br#"{"type":"ack","action":"publish""#) {
        return Incoming::Ack;
    }
    if text.starts_with(br#"{"type":"ack","action":"subscribe""#) {
        return Incoming::Ready;
    }
    // The rest is rare, and may be parsed.
    let Ok(object) = serde_json::from_slice::<serde_json::Value>(text) else {
        return Incoming::Garbled;
    };
    match object["type"].as_str() {
        Some("gap") => Incoming::Gap(object["count"].as_u64().unwrap_or(0)),
        Some("error") => Incoming::Refused(object.to_string()),
        _ => Incoming::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let check = |text: &str, expected| assert_eq!(read(text.as_bytes()), expected, "{text}");
        check(
            r#"{"type":"ack","action":"publish","timestamp":"2018-02-16T00:31:37.123Z","topic":"b"}"#,
            Incoming::Ack,
        );
        check(
            r#"{"type":"ack","action":"subscribe","timestamp":"2018-02-16T00:31:37.123Z","topic":"b"}"#,
            Incoming::Ready,
        );
        check(
            r#"{"type":"gap","topic":"b","count":41}"#,
            Incoming::Gap(41),
        );
        check(r#"{"type":"pong"}"#, Incoming::Other);
        check("{", Incoming::Garbled);
        let refusal = r#"{"action":"publish","code":"not_allowed","reason":"no","type":"error"}"#;
        check(refusal, Incoming::Refused(refusal.to_owned()));
    }
}
