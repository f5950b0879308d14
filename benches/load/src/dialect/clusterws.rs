//! ClusterWS, as its clients 3.x speak it, in text mode.
//!
//! There are no answers: a subscription is silent, and so is a publication to a channel that the sender is not
//! subscribed to, which goes nowhere. The server's ping is one byte in a binary frame, and so is the answer.

use serde_json::Value;

use super::Incoming;

/// Every publication and delivery begins with it.
pub const PUBLICATION: &[u8] = br##"{"#":["p",""##;
/// The answer to a ping.
pub const PONG: &[u8] = b"A";

const PING: &[u8] = b"9";

/// What a publisher sends, and a subscriber gets.
pub fn publication(channel: &str, data: &str) -> String {
    format!(r##"{{"#":["p","{channel}",{data}]}}"##)
}

/// What a subscriber sends.
pub fn subscription(channel: &str) -> Vec<u8> {
    format!(r##"{{"#":["s","s","{channel}"]}}"##).into_bytes()
}

/// Is this the configuration, which comes first?
///
/// # Errors
/// It is something else, or asks for binary frames, which are not spoken here.
pub fn check_configuration(text: &[u8]) -> Result<(), String> {
    let told = || String::from_utf8_lossy(text).into_owned();
    let message: Value = serde_json::from_slice(text).unwrap_or_default();
    let (kind, name, settings) = (&message["#"][0], &message["#"][1], &message["#"][2]);
    if kind != "s" || name != "c" || !settings["ping"].is_u64() {
        return Err(format!("no configuration of ClusterWS: {}", told()));
    }
    match settings["binary"] == false {
        true => Ok(()),
        false => Err(format!("only the text mode is spoken here: {}", told())),
    }
}

/// What is no delivery.
pub fn read(message: &[u8]) -> Incoming {
    match message {
        PING => Incoming::Ping,
        _ => Incoming::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_read() {
        let check = |text: &str, expected: Option<&str>| {
            let refusal = check_configuration(text.as_bytes()).err();
            let as_expected = match (&refusal, expected) {
                (Some(refusal), Some(reason)) => refusal.contains(reason),
                (refusal, expected) => refusal.is_none() && expected.is_none(),
            };
            assert!(as_expected, "{text}: {refusal:?}");
        };
        let config = r##"{"#":["s","c",{"ping":20000,"binary":false}]}"##;
        check(config, None);
        check(&config.replace("false", "true"), Some("text mode"));
        check(&config.replace('#', "m"), Some("no configuration"));
        check(&config.replace("\"c\"", "\"s\""), Some("no configuration"));
        check(&config.replace("20000", "null"), Some("no configuration"));
        check("9", Some("no configuration"));
        check("", Some("no configuration"));
    }

    #[test]
    fn pings_are_read() {
        let check = |text: &str, expected| assert_eq!(read(text.as_bytes()), expected, "{text}");
        check("9", Incoming::Ping);
        check("#0", Incoming::Other);
        check("", Incoming::Other);
        check(r##"{"#":["e","event",1]}"##, Incoming::Other);
    }
}
