//! What stands: calls that hold until another takes them back, and are said again over each connection.
//!
//! The host's end writes the frames. Type, ticket and some fields are read here where `docs/protocols/peer.md` puts them,
//! without the copies that the broker's reader makes; a test holds every call to it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use crate::limits::Limits;
use crate::protocol::peer::CallType;
use crate::protocol::peer::call::{Call, write_call};

/// What can stand: the last word on it counts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Key {
    // In the order in which they are said again.
    Watch,
    /// The event, as it is written in the frame.
    Handle(Bytes),
    /// The filter, likewise.
    Subscribe(Bytes),
    Token(Bytes),
}

/// What stands, and the ticket of the call that made it so.
pub(super) type Standing = BTreeMap<Key, (Stands, u64)>;

#[derive(Clone, Debug)]
pub(super) enum Stands {
    /// A call of this type with these bytes behind its ticket.
    As(CallType, Bytes),
    /// A token with its id, empty if none is known yet.
    Accepted(Bytes),
    Rejected,
}

pub(super) fn is(frame: &[u8], kind: CallType) -> bool {
    frame.first() == Some(&(kind as u8))
}

/// Where the fields behind a ticket begin: behind the type and the ticket.
pub(super) const TICKET_END: usize = 1 + size_of::<u64>();

/// The ticket of a call, 0 for none.
pub(super) fn ticket_of(frame: &[u8]) -> u64 {
    const WITHOUT: [CallType; 6] = [
        CallType::Hello,
        CallType::Reply,
        CallType::Fail,
        CallType::Admit,
        CallType::Alive,
        CallType::Bye,
    ];
    if WITHOUT.iter().any(|&kind| is(frame, kind)) {
        return 0;
    }
    let ticket = frame.get(1..).and_then(|rest| rest.first_chunk());
    ticket.map_or(0, |ticket| u64::from_le_bytes(*ticket))
}

/// How long a request may take; none for other calls.
pub(super) fn time_of(frame: &[u8]) -> Option<Duration> {
    if !is(frame, CallType::Request) {
        return None;
    }
    let time_ms = frame.get(TICKET_END..)?.first_chunk()?;
    Some(match u32::from_le_bytes(*time_ms) {
        0 => Duration::from_millis(Limits::default().request_timeout_ms),
        time_ms => Duration::from_millis(time_ms.into()),
    })
}

/// What a call makes stand, or ends (`None`).
pub(super) fn standing(frame: &[u8]) -> Option<(Key, Option<Stands>)> {
    let rest = Bytes::copy_from_slice(frame.get(TICKET_END..)?);
    let stands = |kind, rest: &Bytes| Some(Stands::As(kind, rest.clone()));
    Some(if is(frame, CallType::Watch) {
        (Key::Watch, stands(CallType::Watch, &rest))
    } else if is(frame, CallType::Handle) {
        let stands = stands(CallType::Handle, &rest);
        (Key::Handle(rest), stands)
    } else if is(frame, CallType::Unhandle) {
        (Key::Handle(rest), None)
    } else if is(frame, CallType::Subscribe) {
        let stands = stands(CallType::Subscribe, &rest);
        (Key::Subscribe(rest), stands)
    } else if is(frame, CallType::Unsubscribe) {
        (Key::Subscribe(rest), None)
    } else if is(frame, CallType::Accept) {
        let size = usize::from(u16::from_le_bytes(*rest.first_chunk()?));
        let (token, id) = rest.get(2..)?.split_at_checked(size)?;
        let accepted = Stands::Accepted(rest.slice_ref(id));
        (Key::Token(rest.slice_ref(token)), Some(accepted))
    } else if is(frame, CallType::Reject) {
        (Key::Token(rest), Some(Stands::Rejected))
    } else {
        return None;
    })
}

/// The call that makes it stand.
pub(super) fn write_standing(key: &Key, stands: &Stands, ticket: u64, out: &mut Vec<u8>) {
    match (key, stands) {
        (_, Stands::As(kind, rest)) => {
            let size = (TICKET_END + rest.len()) as u32;
            out.extend_from_slice(&size.to_le_bytes());
            out.push(*kind as u8);
            out.extend_from_slice(&ticket.to_le_bytes());
            out.extend_from_slice(rest);
        }
        (Key::Token(token), Stands::Accepted(id)) => {
            write_call(&Call::Accept { ticket, token, id }, out);
        }
        (Key::Token(token), Stands::Rejected) => write_call(&Call::Reject { ticket, token }, out),
        (_, Stands::Accepted(_) | Stands::Rejected) => {
            unreachable!("only tokens are accepted and rejected")
        }
    }
}
