//! Calls: how a peer writes them, and how the broker reads them.

use super::super::{Command, Outcome, Refusal};
use super::{Admitted, Audience, Watch};
use crate::address::{Address, ClientId};
use crate::message::Payload;
use crate::topic::{Filter, Topic};

/// A call, for who makes it. See [`PeerCommand`](super::PeerCommand) and [`Command`] for what they mean.
#[derive(Clone, Copy, Debug)]
pub enum Call<'a> {
    Hello {
        name: &'a [u8],
        key: &'a [u8],
    },
    Subscribe {
        ticket: u64,
        filter: &'a Filter,
    },
    Unsubscribe {
        ticket: u64,
        filter: &'a Filter,
    },
    /// `echo`: to me too, if I subscribe.
    Publish {
        ticket: u64,
        topic: &'a Topic,
        payload: &'a Payload,
        echo: bool,
    },
    Emit {
        ticket: u64,
        to: &'a Address,
        event: &'a [u8],
        payload: &'a Payload,
        volatile: bool,
    },
    EmitMany {
        ticket: u64,
        to: &'a Audience,
        event: &'a [u8],
        payload: &'a Payload,
        volatile: bool,
    },
    /// `timeout_ms` 0: the broker's default.
    Request {
        ticket: u64,
        to: &'a Address,
        event: &'a [u8],
        payload: &'a Payload,
        timeout_ms: u32,
    },
    Reply {
        number: u64,
        outcome: &'a Outcome,
    },
    Handle {
        ticket: u64,
        event: &'a [u8],
    },
    Unhandle {
        ticket: u64,
        event: &'a [u8],
    },
    Watch {
        ticket: u64,
        mask: Watch,
    },
    Admit {
        client: ClientId,
        verdict: &'a Admitted,
    },
    Join {
        ticket: u64,
        client: ClientId,
        room: &'a [u8],
    },
    Leave {
        ticket: u64,
        client: ClientId,
        room: &'a [u8],
    },
    Disconnect {
        ticket: u64,
        client: ClientId,
        code: u16,
        reason: &'a [u8],
    },
    /// `id` empty: have one made.
    Accept {
        ticket: u64,
        token: &'a [u8],
        id: &'a [u8],
    },
    Reject {
        ticket: u64,
        token: &'a [u8],
    },
    AdmitPeer {
        ticket: u64,
        name: &'a [u8],
        admitted: bool,
    },
    CutPeer {
        ticket: u64,
        name: &'a [u8],
    },
    Alive,
    Bye,
}

/// A call that is none.
#[derive(Clone, PartialEq, Debug)]
pub enum Bad {
    /// It breaks a rule of its kind: a DONE says so.
    Refused(Box<Refusal>),
    /// It is no frame of this protocol: the connection ends, with this sentence.
    Malformed(&'static str),
}

/// Appends a call as one frame, size included.
pub fn write_call(_call: &Call<'_>, _out: &mut Vec<u8>) {}

/// What a frame (without its size) asks for. `unix_ms`: the time of its turn, for messages.
///
/// # Errors
/// [`Bad`].
pub fn decode(_frame: &[u8], _unix_ms: u64) -> Result<Command, Bad> {
    Err(Bad::Malformed("no call is known"))
}
