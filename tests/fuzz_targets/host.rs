//! A host: the one Link of a world where nobody comes in unasked. It reads at once, and answers when it is told to.

use std::collections::VecDeque;
use std::mem;

use bytes::Bytes;
use pubsub::address::{ClientId, SessionId};
use pubsub::protocol::peer::call::Call;
use pubsub::protocol::peer::event::Told;
use pubsub::protocol::peer::reader::Reader;
use pubsub::protocol::peer::{self, Admitted, Watch};

/// No event of such a world is longer.
const FRAME_BYTES_MAX: usize = 1024 * 1024;

pub struct Host {
    pub shard: usize,
    pub session: SessionId,
    /// Has the shard let the driver read?
    pub is_reading: bool,
    /// Does the broker know what it watches?
    pub is_in: bool,
    reader: Reader,
    unread: Vec<u8>,
    asked: VecDeque<ClientId>,
}

impl Host {
    pub fn new(shard: usize, session: SessionId) -> Host {
        let mut unread = Vec::new();
        let (name, key): (&[u8], &[u8]) = (b"host", b"");
        peer::write_call(&Call::Hello { name, key }, &mut unread);
        let (ticket, mask) = (1, Watch::ADMIT);
        peer::write_call(&Call::Watch { ticket, mask }, &mut unread);
        Host {
            shard,
            session,
            is_reading: true,
            is_in: false,
            reader: Reader::default(),
            unread,
            asked: VecDeque::new(),
        }
    }

    pub fn is_at(&self, shard: usize, session: SessionId) -> bool {
        (self.shard, self.session) == (shard, session)
    }

    /// What its shard takes from it now.
    pub fn say(&mut self) -> Option<Vec<u8>> {
        let has_said = self.is_reading && !self.unread.is_empty();
        has_said.then(|| mem::take(&mut self.unread))
    }

    /// What it is told.
    pub fn hear(&mut self, chunks: &[Bytes]) {
        let all = chunks.concat();
        let mut rest = &all[..];
        while !rest.is_empty() {
            let (taken, frame) = self.reader.next(FRAME_BYTES_MAX, rest).expect("a frame");
            match frame.map(|frame| peer::read_event(frame).expect("an event")) {
                Some(Told::Admit(arrived)) => self.asked.push_back(arrived.client),
                Some(Told::Done { ticket: 1, .. }) => self.is_in = true,
                Some(Told::Welcome { .. } | Told::Probe | Told::Goodbye { .. }) | None => {}
                Some(other) => panic!("a host is not told {other:?}"),
            }
            rest = &rest[taken..];
        }
    }

    /// Its word on the client that it was asked about first.
    pub fn admit(&mut self, is_admitted: bool) {
        let Some(client) = self.asked.pop_front() else {
            return;
        };
        let verdict = &if is_admitted {
            let user = Some(Bytes::from_static(b"somebody"));
            Admitted::Yes { user }
        } else {
            let reason = Bytes::from_static(b"no");
            Admitted::No { reason }
        };
        peer::write_call(&Call::Admit { client, verdict }, &mut self.unread);
    }

    /// All come in.
    pub fn admit_all(&mut self) {
        while !self.asked.is_empty() {
            self.admit(true);
        }
    }

    /// It says nothing more about anybody.
    pub fn forget(&mut self) {
        self.asked.clear();
    }

    /// Has it answered everything, and been heard?
    pub fn is_settled(&self) -> bool {
        self.asked.is_empty() && (self.unread.is_empty() || !self.is_reading)
    }
}
