//! A delivery: what a peer that subscribes is told of a message, once for all subscribers of one filter.

use crate::message::Message;
use crate::topic::{Filter, Topic};

/// The whole frame.
pub fn encode_delivery(_message: &Message, _topic: &Topic, _filter: &Filter, _out: &mut Vec<u8>) {}

/// The bytes that [`encode_delivery`] appends.
pub fn delivery_size(_message: &Message, _topic: &Topic, _filter: &Filter) -> usize {
    0
}
