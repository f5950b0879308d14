//! The stage: what all clients act on, and what is known of all of them together.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use fastrand::Rng;

use crate::client::ClientIndex;
use crate::emissions::{Emissions, Room};
use crate::hosts::Hosts;
use crate::names::Filter;
use crate::network::{ConnectionId, Network};
use crate::oracle::{Moment, Oracle};

/// What all clients act on.
pub struct Stage {
    pub network: Rc<RefCell<Network>>,
    pub oracle: Oracle,
    pub requests: Vec<Request>,
    pub emits: Vec<Emitted>,
    pub emissions: Emissions,
    pub hosts: Hosts,
    /// Clients that an event for all must reach: they were let in, and are there.
    pub let_in: BTreeSet<ClientIndex>,
    /// Events that came back to a client; nothing once it has got it.
    pub backs: Vec<Option<ClientIndex>>,
    pub rng: Rng,
    pub moment: Moment,
    /// Since the world last looked: acks that invite somebody to publish at once.
    pub cues: Vec<Cue>,
    /// Client ids as `whoami` told them.
    pub sessions: BTreeMap<String, ClientIndex>,
    /// Services of which an ack of `handle` was read.
    pub served: Vec<&'static str>,
    /// Services that somebody handled and left again: requests for them may fail.
    pub left_services: Vec<&'static str>,
    /// Requests that nobody served although somebody did.
    pub unserved: Vec<(&'static str, String)>,
    /// Clients that can be told of events.
    pub hears_events: Vec<ClientIndex>,
    /// Clients that are over, and the connections that the broker has not closed yet.
    pub leaving: Vec<(ClientIndex, ConnectionId)>,
    pub trace: Option<VecDeque<String>>,
    /// Everything that was read, mixed: two runs of one seed agree in it.
    pub digest: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cue {
    Subscribed(Filter),
    Unsubscribed(Filter),
    /// Somebody is in a room.
    Joined(Room),
}

/// A request that somebody made.
#[derive(Debug)]
pub struct Request {
    pub client: ClientIndex,
    pub service: Option<&'static str>,
    pub to: Option<ClientIndex>,
    /// Somebody's ack to `handle` had been read before it was sent.
    pub was_served: bool,
    pub replies: u32,
    /// Who was asked.
    pub asked: Vec<ClientIndex>,
    /// Who answered with data.
    pub answered: Vec<ClientIndex>,
}

/// An event for a service.
#[derive(Debug)]
pub struct Emitted {
    pub by: ClientIndex,
    pub service: &'static str,
    pub was_served: bool,
    pub came: u32,
    /// A later answer on the same connection was read: it took effect.
    pub is_done: bool,
}

impl Stage {
    pub fn now(&mut self) -> Moment {
        self.moment += 1;
        self.moment
    }

    /// Remembers for good which clients the broker counts no more.
    pub fn notice_gone(&mut self) {
        let now = self.now();
        let network = self.network.borrow();
        self.leaving.retain(|&(client, connection)| {
            let is_gone = network.server_is_gone(connection);
            if is_gone {
                self.oracle.has_gone(client, now);
            }
            !is_gone
        });
    }

    /// How many bytes that say nothing a message has: mostly none.
    pub fn any_pad(&mut self) -> usize {
        match self.rng.u8(..20) {
            0 => self.rng.usize(..3_000),
            1..=4 => self.rng.usize(..200),
            _ => 0,
        }
    }

    pub fn note(&mut self, text: impl FnOnce() -> String) {
        let moment = self.moment;
        if let Some(trace) = &mut self.trace {
            if trace.len() == 400_000 {
                trace.pop_front();
            }
            trace.push_back(format!("{moment:>6} {}", text()));
        }
    }

    /// Mixes what was read into the digest.
    pub fn mix(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.digest = (self.digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
