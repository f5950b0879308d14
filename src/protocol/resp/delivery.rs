//! A delivery: what a subscriber is told of a message, once for all subscribers of one filter.

use super::reply::{bulk_size, header_size, write_bulk, write_push};
use super::{Kind, Version};
use crate::message::Message;
use crate::topic::{Filter, Topic};

/// The push for every subscriber of one filter: `message`, channel and payload, or `pmessage`, pattern, channel and
/// payload. The payload is the bytes that came, whatever they are.
pub fn encode_delivery(
    version: Version,
    message: &Message,
    topic: &Topic,
    filter: &Filter,
    out: &mut Vec<u8>,
) {
    let (kind, pattern) = kind(filter);
    write_push(version, 3 + usize::from(pattern.is_some()), out);
    write_bulk(kind.message_word().as_bytes(), out);
    if let Some(pattern) = pattern {
        write_bulk(pattern, out);
    }
    write_bulk(topic.as_bytes(), out);
    write_bulk(message.payload.bytes(), out);
}

/// The bytes that [`encode_delivery`] appends. Of both versions the same.
pub fn delivery_size(
    _version: Version,
    message: &Message,
    topic: &Topic,
    filter: &Filter,
) -> usize {
    let (kind, pattern) = kind(filter);
    header_size(3)
        + bulk_size(kind.message_word().len())
        + pattern.map_or(0, |pattern| bulk_size(pattern.len()))
        + bulk_size(topic.as_bytes().len())
        + bulk_size(message.payload.bytes().len())
}

/// As what a filter was subscribed to, and its pattern if it has one.
fn kind(filter: &Filter) -> (Kind, Option<&[u8]>) {
    match filter {
        Filter::Exact(_) | Filter::Dotted(_) => (Kind::Channel, None),
        Filter::Shard(_) => (Kind::Shard, None),
        Filter::Shard(_) => (Kind::Shard, None),
        Filter::Glob(pattern) => (Kind::Pattern, Some(pattern)),
    }
}
