//! A delivery: what a subscriber is told of a message, once for all subscribers of one filter.

use super::super::json::{string_size, write_string};
use super::Stamp;
use super::payload::{payload_size, write_payload};
use crate::message::Message;
use crate::topic::Topic;

const TYPE_AND_TOPIC: &[u8] = br#"{"type":"publish","topic":"#;
const MESSAGE: &[u8] = br#","message":"#;
const TIMESTAMP: &[u8] = br#","timestamp":""#;
const CONTEXT: &[u8] = br#","context":"#;

/// The JSON text of a delivery, for every subscriber of one filter: the publisher's object, or one made for a
/// message of another protocol, and `context`, the filter as written.
pub fn encode_delivery(message: &Message, topic: &Topic, context: &[u8], out: &mut Vec<u8>) {
    match &message.envelope {
        Some(envelope) => out.extend_from_slice(envelope),
        None => {
            out.extend_from_slice(TYPE_AND_TOPIC);
            write_string(topic.as_bytes(), out);
            out.extend_from_slice(MESSAGE);
            write_payload(&message.payload, &message.attachments, out);
            out.extend_from_slice(TIMESTAMP);
            out.extend_from_slice(Stamp::new(message.unix_ms).as_bytes());
            out.push(b'"');
        }
    }
    out.extend_from_slice(CONTEXT);
    write_string(context, out);
    out.push(b'}');
}

/// The bytes that [`encode_delivery`] appends, so that a frame's header can be written first.
pub fn delivery_size(message: &Message, topic: &Topic, context: &[u8]) -> usize {
    let object = match &message.envelope {
        Some(envelope) => envelope.len(),
        None => {
            let stamp = size_of_val(Stamp::new(0).as_bytes()) + 1;
            TYPE_AND_TOPIC.len()
                + string_size(topic.as_bytes())
                + MESSAGE.len()
                + payload_size(&message.payload, &message.attachments)
                + TIMESTAMP.len()
                + stamp
        }
    };
    object + CONTEXT.len() + string_size(context) + 1
}
