//! A session: what a shard knows of one connection, from accept to its end.
//!
//! Its life goes one way: *handshake* (bytes are collected until a request head is complete) → *admission* (the
//! host is asked, where there is one that wants to be) → *open* (messages in, deliveries out) → *closing* (the
//! last words are on their way) → *discarding* (nothing more to say; input is thrown away so that closing does not
//! reset the connection and with it the last words). It leaves the table when the driver is told to close.
//!
//! While it is open it is either *flowing* or *stalled*: a command that can't take effect yet (an interest edge or
//! a ring without room) waits in `stall` with all bytes behind it, and reading pauses. So the order of a
//! connection's commands is never in doubt, and what a stalled connection holds is what one turn took from it.

use std::collections::{BTreeSet, VecDeque};

use crate::address::{LINK_SLOTS, RemoteAddress, SessionId};
use crate::error::CloseReason;
use crate::limits::{Limits, PEER_PROBE_MS, RESP_REPLY_BYTES_BEFORE_AUTH_MAX};
use crate::protocol::resp::OwnedArguments;
use crate::protocol::{Command, Encoding, Protocol, Refusal, Tag};
use crate::topic::Filter;
use crate::ws::fragment::Reader;
use bytes::Bytes;

use super::credentials::Identity;
use super::outbox::Outbox;
use super::peer::{Clog, Hosted, PeerSession};
use super::resp::RespSession;
use super::settings::Settings;
use super::subscriptions::Subscriptions;

/// Where a session is in its life.
#[derive(Debug)]
pub enum State {
    /// The request head is not complete; this is what there is of it. `dealt`: its shard has been chosen.
    Handshake {
        head: Option<Box<Collected>>,
        dealt: bool,
    },
    /// The host is asked; the 101 response waits here, and bytes behind the head in `stall`.
    Admission { response: Box<Collected> },
    /// Messages flow.
    Open,
    /// The last words are in the outbox; reset when they are not out in time.
    Closing { since_ms: u64 },
    /// Everything is out, writing is shut down.
    Discarding { since_ms: u64 },
}

/// Bytes of a handshake.
#[derive(Debug)]
pub struct Collected(pub Vec<u8>);

/// What waits in its place.
#[derive(Debug)]
pub enum Held {
    /// A command that can't take effect yet.
    Command(Box<Command>),
    /// A command of RESP that can't.
    Arguments(OwnedArguments),
    /// The answer to a command that was refused; it must not overtake the acks of those before it.
    Refusal(Box<Refusal>),
    /// The last words to a session of RESP, and why it ends; they must not overtake the answers before them.
    LastWords(CloseReason, Vec<u8>),
}

/// A command that waits, and what came behind it.
#[derive(Debug, Default)]
pub struct Stall {
    /// Subscribes whose interest is being announced, in order.
    pub subscribes: VecDeque<(Filter, Option<Tag>)>,
    /// The command that waits for room in a ring, or for these subscribes.
    pub held: Option<Held>,
    /// Taken from the connection, not yet decoded.
    pub bytes: Vec<u8>,
    /// Until when the command waits at most, if it waits for its rate or for a peer that is behind.
    pub until: Since,
    /// The peer, or those who handle its event, that the command waits for: they are behind.
    pub clog: Option<Clog>,
    /// Its place among those that wait for the same, which it keeps until it was carried out; 0 if it never waited.
    pub place: u64,
    /// When a request that has waited for them is over.
    pub busy: Since,
}

impl Stall {
    /// Does nothing wait?
    pub fn is_empty(&self) -> bool {
        self.subscribes.is_empty() && self.held.is_none() && self.bytes.is_empty()
    }
}

/// What only a session that asks or answers needs. In order, so that its end makes the same news in each run.
#[derive(Debug, Default)]
pub struct Serving {
    /// Its own requests that wait for an answer.
    pub own: BTreeSet<u64>,
    /// The bytes of those that are kept to be sent once more.
    pub copied_bytes: usize,
    /// The events that it handles.
    pub events: BTreeSet<Bytes>,
    /// The requests that it was asked and has not answered.
    pub asked: BTreeSet<u64>,
}

/// The moment since when something is so (ms), or never, in one word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Since(u64);

impl Default for Since {
    fn default() -> Since {
        Since::NEVER
    }
}

impl Since {
    /// It is not so.
    pub const NEVER: Since = Since(u64::MAX);

    /// Since this moment.
    pub fn at(ms: u64) -> Since {
        debug_assert_ne!(Since(ms), Since::NEVER);
        Since(ms)
    }

    /// The moment, if it is so.
    pub fn ms(self) -> Option<u64> {
        (self != Since::NEVER).then_some(self.0)
    }

    /// If it was not so before, it is since this moment.
    pub fn begin(&mut self, ms: u64) {
        if *self == Since::NEVER {
            *self = Since::at(ms);
        }
    }

    /// If it is so, let it count from this moment on.
    pub fn restart(&mut self, ms: u64) {
        if *self != Since::NEVER {
            *self = Since::at(ms);
        }
    }
}

/// One connection. There may be very many that do nothing, so what few of them need is kept in boxes.
#[derive(Debug)]
pub struct Session {
    /// Its number on this shard.
    pub id: SessionId,
    /// The index of its listener.
    pub listener: u16,
    /// Where it is in its life.
    pub state: State,
    /// What it speaks, from its request head on.
    pub protocol: Protocol,
    /// What changes the bytes of its deliveries.
    pub encoding: Encoding,
    /// Frames into messages.
    pub reader: Reader,
    /// What waits to be sent.
    pub outbox: Outbox,
    /// Is it in the shard's list of sessions that have something to send?
    pub is_dirty: bool,
    /// Is it in the shard's list of sessions that can't wait for the turn's end?
    pub is_urgent: bool,
    /// Has the driver been told to stop reading?
    pub is_paused: bool,
    /// The client will send no more; the session ends with the last command of its stall.
    pub is_input_ended: bool,
    /// Is it in the shard's list of sessions to resume?
    pub is_resuming: bool,
    /// When a ping went out, if nothing has come since. Of a ClusterWS client: when the last one did.
    pub pinged: Since,
    /// Since when the send in flight is.
    pub sending: Since,
    /// Bad texts so far.
    pub bad_texts: u32,
    /// Its filters, with its place among the members of each.
    pub subscriptions: Subscriptions,
    /// Where among the marks of the open run its own is, if it has one.
    pub mark: u32,
    /// Its requests and what it handles.
    pub serving: Option<Box<Serving>>,
    /// What waits.
    pub stall: Option<Box<Stall>>,
    /// What only a session of RESP has.
    pub resp: Option<Box<RespSession>>,
    /// What only a peer has.
    pub peer: Option<Box<PeerSession>>,
    /// What only a client has that a peer hosts, or has accepted.
    pub hosted: Option<Box<Hosted>>,
    /// Who it is, once it has said so and was believed.
    pub identity: Option<Box<Identity>>,
    /// The remote address, for operators.
    pub address: RemoteAddress,
    /// When it was accepted, and from the 101 on when bytes last came (ms).
    pub last_input_ms: u64,
    /// When the message that is being received began.
    pub message: Since,
    /// Since when the outbox is above its soft limit.
    pub soft: Since,
    /// When it is to leave (drain).
    pub leave: Since,
    /// The deadline that is set; others that fire are stale.
    pub timer_ms: u64,
}

impl Session {
    /// A connection that was just accepted.
    pub fn new(id: SessionId, listener: u16, address: RemoteAddress, now_ms: u64) -> Session {
        Session {
            id,
            listener,
            state: State::Handshake {
                head: None,
                dealt: false,
            },
            protocol: Protocol::Native,
            encoding: Encoding::NativeText,
            reader: Reader::default(),
            outbox: Outbox::default(),
            is_dirty: false,
            is_urgent: false,
            is_paused: false,
            is_resuming: false,
            is_input_ended: false,
            pinged: Since::default(),
            sending: Since::default(),
            bad_texts: 0,
            subscriptions: Subscriptions::default(),
            mark: 0,
            serving: None,
            stall: None,
            resp: None,
            peer: None,
            hosted: None,
            identity: None,
            address,
            last_input_ms: now_ms,
            message: Since::default(),
            soft: Since::default(),
            leave: Since::default(),
            timer_ms: u64::MAX,
        }
    }

    /// The limits of its class. Whoever asks for a limit of a session asks here.
    pub fn limits<'a>(&self, settings: &'a Settings) -> &'a Limits {
        match self.protocol {
            Protocol::Native | Protocol::Clusterws(_) => &settings.limits,
            Protocol::Resp | Protocol::Peer => &settings.server_limits,
            Protocol::Echo => &settings.echo_limits,
        }
    }

    /// Did it come to a listener of RESP?
    pub fn resp_listener(&self, settings: &Settings) -> bool {
        settings.listeners[usize::from(self.listener)].resp
    }

    /// From now on it speaks this.
    pub fn speak(&mut self, protocol: Protocol) {
        self.protocol = protocol;
        self.encoding = protocol.encoding();
    }

    /// Something came from it.
    pub fn heard(&mut self, now_ms: u64) {
        self.last_input_ms = now_ms;
        match self.protocol {
            Protocol::Native | Protocol::Peer | Protocol::Echo => self.pinged = Since::NEVER,
            // Its pings come at their times, whatever it says.
            Protocol::Clusterws(_) | Protocol::Resp => {}
        }
    }

    /// Unread answers at which it is not read any more.
    pub fn replies_bytes_max(&self, settings: &Settings) -> usize {
        match &self.resp {
            Some(resp) if !resp.is_authenticated => RESP_REPLY_BYTES_BEFORE_AUTH_MAX,
            _ => self.limits(settings).replies_bytes_max,
        }
    }

    /// How many subscribes of it wait for their interest to be known.
    pub fn waiting_subscribes(&self) -> usize {
        let stall = self.stall.as_ref();
        stall.map_or(0, |stall| stall.subscribes.len())
    }

    /// Is the handshake done and no end in sight?
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// Is it in its last phase, so that nothing more is taken from it or queued for it?
    pub fn is_ending(&self) -> bool {
        matches!(self.state, State::Closing { .. } | State::Discarding { .. })
    }

    /// The time between two pings of a ClusterWS client: a little less than it was told, by session.
    fn clusterws_ping_after_ms(&self, limits: &Limits) -> u64 {
        let spread = limits.clusterws_ping_interval_ms / 10;
        limits.clusterws_ping_interval_ms - self.scatter(spread)
    }

    /// A part of `spread` that is this session's own, 0 for small ones.
    fn scatter(&self, spread: u64) -> u64 {
        let scatter = u64::from(self.id.slot).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        (scatter * spread) >> 32
    }

    /// The silence after which it is pinged: by a tenth to three tenths shorter than configured, by session. So
    /// ten thousand sessions of one moment are not pinged in one moment, and a dead one is gone, last words
    /// included, within interval and timeout.
    fn ping_after_ms(&self, limits: &Limits) -> u64 {
        let spread = limits.ping_interval_ms / 5;
        limits.ping_interval_ms - limits.ping_interval_ms / 10 - self.scatter(spread)
    }

    /// When it is to be pinged next, or called dead.
    fn next_sign_of_life(&self, settings: &Settings) -> (u64, Due) {
        let limits = self.limits(settings);
        // Nobody is called dead for bytes that we do not read; but who reads none of ours that long is.
        let paused_dead_ms = || {
            let silence_ms = self.ping_after_ms(limits) + limits.ping_timeout_ms;
            let dead_ms = self.sending.ms().map(|since_ms| since_ms + silence_ms);
            dead_ms.unwrap_or(u64::MAX)
        };
        match self.protocol {
            // It is there for as long as its process has it; a host that is busy for long is not gone.
            Protocol::Peer if self.peer.as_ref().is_some_and(|peer| peer.is_in_process) => {
                (u64::MAX, Due::Dead)
            }
            Protocol::Native | Protocol::Echo | Protocol::Peer if self.is_paused => {
                (paused_dead_ms(), Due::Dead)
            }
            // From the ping itself, not from when it was due: a process that was stopped asks before it judges.
            Protocol::Native | Protocol::Echo | Protocol::Peer
                if let Some(pinged_ms) = self.pinged.ms() =>
            {
                (pinged_ms + limits.ping_timeout_ms, Due::Dead)
            }
            Protocol::Native | Protocol::Echo | Protocol::Peer => {
                (self.last_input_ms + self.ping_after_ms(limits), Due::Ping)
            }
            // It counts the pings, and leaves without them; so they come at their times whatever it says.
            Protocol::Clusterws(_) => {
                let last_ms = self.pinged.ms().unwrap_or(self.last_input_ms);
                let ping = (last_ms + self.clusterws_ping_after_ms(limits), Due::Ping);
                let interval_ms = limits
                    .ping_interval_ms
                    .max(limits.clusterws_ping_interval_ms);
                let dead_ms = if self.is_paused {
                    paused_dead_ms()
                } else {
                    self.last_input_ms + interval_ms + limits.ping_timeout_ms
                };
                std::cmp::min_by_key(ping, (dead_ms, Due::Dead), |(at_ms, _)| *at_ms)
            }
            // It has so much time and no more, whether it is read meanwhile or reads nothing itself.
            Protocol::Resp
                if let Some(resp) = &self.resp
                    && !resp.is_authenticated =>
            {
                (
                    resp.unknown_since_ms + limits.connect_timeout_ms,
                    Due::Handshake,
                )
            }
            // Its clients wait as long as they like; the kernel finds those that are gone (keep-alive).
            Protocol::Resp if self.is_paused => (paused_dead_ms(), Due::Dead),
            Protocol::Resp => (u64::MAX, Due::Dead),
        }
    }

    fn probed_ms(&self) -> Option<u64> {
        self.peer.as_ref()?.probed.ms()
    }

    fn throttled_ms(&self) -> Option<u64> {
        self.stall.as_ref()?.until.ms()
    }

    fn expires_ms(&self) -> Option<u64> {
        self.identity.as_ref()?.expires_ms
    }

    /// The next moment at which something must be looked at, and what.
    pub fn deadline(&self, settings: &Settings) -> (u64, Due) {
        let limits = self.limits(settings);
        let mut next = match &self.state {
            State::Handshake { .. } | State::Admission { .. } => (
                self.last_input_ms + limits.connect_timeout_ms,
                Due::Handshake,
            ),
            State::Closing { since_ms, .. } => (since_ms + limits.linger_ms, Due::Reset),
            State::Discarding { since_ms } => (since_ms + limits.discard_ms, Due::Gone),
            State::Open => self.next_sign_of_life(settings),
        };
        if self.is_open() {
            let others = [
                (
                    self.message.ms().filter(|_| !self.is_paused),
                    limits.message_ms_max,
                    Due::Message,
                ),
                (self.soft.ms(), limits.outbox_soft_ms, Due::Slow),
                (self.leave.ms(), 0, Due::Leave),
                (self.expires_ms(), 0, Due::Expired),
                (self.throttled_ms(), 0, Due::Rate),
                (self.probed_ms(), PEER_PROBE_MS, Due::Probe),
            ];
            for (since, after, due) in others {
                if let Some(since) = since
                    && since + after < next.0
                {
                    next = (since + after, due);
                }
            }
        }
        next
    }
}

/// What a deadline is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Due {
    /// The handshake took too long.
    Handshake,
    /// Silence: ask.
    Ping,
    /// No answer.
    Dead,
    /// A fragmented message took too long.
    Message,
    /// Above the soft limit for too long.
    Slow,
    /// Its turn to leave.
    Leave,
    /// Who it is, it is no longer.
    Expired,
    /// Its rate lets it go on.
    Rate,
    /// Somebody else wants its name, and it does not say that it is there.
    Probe,
    /// The last words did not go out.
    Reset,
    /// Discarded long enough.
    Gone,
}

/// The sessions of a shard, by the driver's slot, in pieces that are never moved: a vector that doubles would keep
/// twice the memory of very many sessions, and move them all while the others wait.
#[derive(Debug, Default)]
pub struct Sessions {
    pieces: Vec<Box<[Option<Session>]>>,
    /// Those of Links, whose slots begin at [`LINK_SLOTS`].
    links: Vec<Box<[Option<Session>]>>,
    count: usize,
}

/// The slots of a piece: as many as 16 KiB hold, since allocators have nothing between that and 20 KiB.
const PIECE: usize = 56;

impl Sessions {
    /// Puts a session at its slot.
    ///
    /// # Panics
    /// If the slot is taken: the driver frees a slot only after the shard said so.
    pub fn insert(&mut self, session: Session) {
        let (pieces, index) = match session.id.slot.checked_sub(LINK_SLOTS) {
            None => (&mut self.pieces, session.id.slot as usize),
            Some(index) => (&mut self.links, index as usize),
        };
        while pieces.len() <= index / PIECE {
            pieces.push((0..PIECE).map(|_| None).collect());
        }
        let place = &mut pieces[index / PIECE][index % PIECE];
        assert!(
            place.is_none(),
            "slot {} has a session already",
            session.id.slot
        );
        *place = Some(session);
        self.count += 1;
    }

    fn place(&mut self, slot: u32) -> Option<&mut Option<Session>> {
        // Which of the two is nearly always the same.
        let (pieces, index) = match slot.checked_sub(LINK_SLOTS) {
            None => (&mut self.pieces, slot as usize),
            Some(index) => (&mut self.links, index as usize),
        };
        let piece = pieces.get_mut(index / PIECE)?;
        Some(&mut piece[index % PIECE])
    }

    /// The session, if it is still this generation.
    pub fn find(&mut self, id: SessionId) -> Option<&mut Session> {
        self.at(id.slot).filter(|session| session.id == id)
    }

    /// The same, to look at.
    pub fn peek(&self, id: SessionId) -> Option<&Session> {
        let (pieces, index) = match id.slot.checked_sub(LINK_SLOTS) {
            None => (&self.pieces, id.slot as usize),
            Some(index) => (&self.links, index as usize),
        };
        let session = pieces.get(index / PIECE)?[index % PIECE].as_ref();
        session.filter(|session| session.id == id)
    }

    /// Who is in this slot now.
    pub fn at(&mut self, slot: u32) -> Option<&mut Session> {
        self.place(slot)?.as_mut()
    }

    /// Takes a session out.
    pub fn remove(&mut self, id: SessionId) -> Option<Session> {
        let place = self.place(id.slot)?;
        let session = place.take_if(|session| session.id == id)?;
        self.count -= 1;
        Some(session)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Session> {
        let pieces = self.pieces.iter().chain(&self.links);
        pieces.flat_map(|piece| piece.iter()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_small() {
        // Ten thousand that wait are to cost 512 bytes each, and this is the largest part of it.
        assert!(
            size_of::<Option<Session>>() <= 288,
            "{}",
            size_of::<Option<Session>>()
        );
        let piece = PIECE * size_of::<Option<Session>>();
        assert!(
            piece <= 16 * 1024,
            "{piece}: a piece takes what is allocated for it"
        );
        assert!(size_of::<Outbox>() <= 104, "{}", size_of::<Outbox>());
    }

    const SLOT: u32 = 3;

    fn session(generation: u32) -> Session {
        let id = SessionId {
            slot: SLOT,
            generation,
        };
        Session::new(id, 0, RemoteAddress::known("tests:1"), 1_000)
    }

    fn open(change: impl FnOnce(&mut Session)) -> Session {
        let mut session = session(0);
        session.state = State::Open;
        session.last_input_ms = 10_000;
        change(&mut session);
        session
    }

    #[test]
    fn each_state_has_its_deadline() {
        let settings = crate::shard::testing::settings(1);
        let limits = settings.limits.clone();
        let silence = open(|_| {}).ping_after_ms(&limits);
        let check = |session: &Session, expected: Option<(u64, Due)>| {
            let (at_ms, due) = session.deadline(&settings);
            let found = (at_ms != u64::MAX).then_some((at_ms, due));
            assert_eq!(found, expected, "{session:?}");
        };
        check(&session(0), Some((11_000, Due::Handshake)));
        let mut asked = session(0);
        asked.state = State::Admission {
            response: Box::new(Collected(Vec::new())),
        };
        check(&asked, Some((11_000, Due::Handshake)));
        let mut ending = session(0);
        ending.leave = Since::at(1);
        ending.state = State::Closing { since_ms: 7 };
        check(&ending, Some((5_007, Due::Reset)));
        ending.state = State::Discarding { since_ms: 7 };
        check(&ending, Some((2_007, Due::Gone)));

        check(&open(|_| {}), Some((10_000 + silence, Due::Ping)));
        // The answer's time runs from the question.
        check(
            &open(|session| session.pinged = Since::at(90_000)),
            Some((110_000, Due::Dead)),
        );
        let drip = |session: &mut Session| {
            session.message = Since::at(1);
            session.last_input_ms = 30_000;
        };
        check(&open(drip), Some((30_001, Due::Message)));
        check(
            &open(|session| session.soft = Since::at(11_000)),
            Some((21_000, Due::Slow)),
        );
        check(
            &open(|session| session.leave = Since::at(12_000)),
            Some((12_000, Due::Leave)),
        );
        let until = |expires_ms| Identity {
            expires_ms,
            ..Identity::named("me")
        };
        check(
            &open(|session| session.identity = Some(Box::new(until(Some(13_000))))),
            Some((13_000, Due::Expired)),
        );
        check(
            &open(|session| session.identity = Some(Box::new(until(None)))),
            Some((10_000 + silence, Due::Ping)),
        );
        // The earliest of them.
        let both = |session: &mut Session| {
            session.soft = Since::at(11_000);
            session.leave = Since::at(21_001);
        };
        check(&open(both), Some((21_000, Due::Slow)));

        // Not read, not called dead; other clocks go on.
        check(&open(|session| session.is_paused = true), None);
        let paused = |session: &mut Session| {
            session.is_paused = true;
            session.pinged = Since::at(10_000);
            session.message = Since::at(10_000);
        };
        check(&open(paused), None);
        let paused = |session: &mut Session| {
            session.is_paused = true;
            session.soft = Since::at(11_000);
        };
        check(&open(paused), Some((21_000, Due::Slow)));
        // But for a client that reads none of our bytes.
        let paused = |session: &mut Session| {
            session.is_paused = true;
            session.sending = Since::at(15_000);
        };
        let dead_ms = 15_000 + silence + limits.ping_timeout_ms;
        check(&open(paused), Some((dead_ms, Due::Dead)));
    }

    #[test]
    fn pings_are_spread_and_early_enough() {
        let limits = Limits::default();
        let mut times: Vec<_> = (0..1000)
            .map(|slot| {
                let mut session = session(0);
                session.id.slot = slot;
                session.ping_after_ms(&limits)
            })
            .collect();
        times.sort_unstable();
        assert!(*times.first().unwrap() >= 17_500 && *times.last().unwrap() <= 22_500);
        times.dedup();
        assert!(times.len() > 800, "{}", times.len());
        let none = Limits {
            ping_interval_ms: 1,
            ..limits
        };
        assert_eq!(session(0).ping_after_ms(&none), 1);
    }

    #[test]
    fn a_slot_forgets_its_former_sessions() {
        let mut sessions = Sessions::default();
        let (first, second) = (session(1).id, session(2).id);
        sessions.insert(session(1));
        assert!(sessions.find(second).is_none() && sessions.remove(second).is_none());
        assert_eq!((sessions.len(), sessions.iter().count()), (1, 1));
        assert!(sessions.remove(first).is_some() && sessions.remove(first).is_none());
        sessions.insert(session(2));
        assert!(sessions.find(first).is_none() && sessions.find(second).is_some());
        assert!(sessions.at(SLOT).is_some() && sessions.at(SLOT + 1).is_none());
        assert_eq!(sessions.len(), 1);
    }

    #[test]
    fn links_have_slots_of_their_own() {
        let mut sessions = Sessions::default();
        let mut link = session(1);
        link.id.slot = LINK_SLOTS + SLOT;
        let (link_id, id) = (link.id, session(1).id);
        sessions.insert(link);
        assert!(sessions.find(id).is_none() && sessions.at(LINK_SLOTS).is_none());
        sessions.insert(session(1));
        let found: Vec<_> = sessions.iter().map(|session| session.id).collect();
        assert_eq!(found, [id, link_id]);
        assert!(sessions.pieces.len() == 1 && sessions.links.len() == 1);
        assert_eq!(
            sessions.peek(link_id).map(|session| session.id),
            Some(link_id)
        );
        assert!(sessions.remove(link_id).is_some() && sessions.find(link_id).is_none());
        assert_eq!(sessions.find(id).map(|session| session.id), Some(id));
    }

    #[test]
    #[should_panic(expected = "slot 3 has a session already")]
    fn a_slot_has_one_session() {
        let mut sessions = Sessions::default();
        sessions.insert(session(1));
        sessions.insert(session(2));
    }
}
