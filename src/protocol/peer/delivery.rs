//! A delivery: what a peer that subscribes is told of a message, once for all subscribers of one filter.
//!
//! MESSAGE: the topic (name), the kind of the filter and the filter as it was written (name), the payload. One that came
//! with attachments is written as JSON, with them in their places.

use super::super::payload::{raw_size, write_raw};
use super::fields::{SIZE_BYTES, kind_byte, write_frame};
use super::{EventType, FilterKind};
use crate::message::{Kind, Message};
use crate::topic::{Filter, Topic};

/// The whole frame.
pub fn encode_delivery(message: &Message, topic: &Topic, filter: &Filter, out: &mut Vec<u8>) {
    let kind = if message.attachments.is_empty() {
        message.payload.kind()
    } else {
        Kind::Json
    };
    write_frame(EventType::Message as u8, out, |frame| {
        frame.name(topic.as_bytes());
        frame
            .u8(FilterKind::of(filter) as u8)
            .name(filter.written());
        frame.u8(kind_byte(kind));
        write_raw(&message.payload, &message.attachments, frame.out());
    });
}

/// The bytes that [`encode_delivery`] appends.
pub fn delivery_size(message: &Message, topic: &Topic, filter: &Filter) -> usize {
    /// The frame's type, the two lengths, and the kinds of filter and payload.
    const FIXED: usize = SIZE_BYTES + 1 + 2 + 1 + 2 + 1;
    FIXED
        + topic.as_bytes().len()
        + filter.written().len()
        + raw_size(&message.payload, &message.attachments)
}
