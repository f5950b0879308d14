//! The calls of a remote Link between its host and its connections: which wait, which were sent and wait for an answer,
//! and which stand, to be said again over the next connection.
//!
//! Pure: bytes and time in, bytes out. Invariants: a call that was handed to a connection is never handed to another,
//! unless it *stands* (to subscribe, handle, watch, accept: saying it twice is saying it once). Every ticket is answered
//! once: by the broker, or here when its time is over or its connection gone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hashbrown::HashMap;

use super::super::frames::{SIZE_BYTES, whole};
use crate::error::Code;
use crate::limits::{Limits, SEND_BYTES_MAX};
use crate::message::Payload;
use crate::protocol::peer::call::{Call, write_call};
use crate::protocol::peer::event::{encode, encode_log};
use crate::protocol::peer::{CallType, PeerEvent, Watch, ticket_tag};
use crate::protocol::{Event, Outcome};

/// Tickets from here on are the carrier's own; the host never hears of them.
const OWN_TICKETS: u64 = 1 << 63;
/// What a call that waits for an answer is charged, beside its bytes until they are sent.
const WAITING_BYTES: usize = 64;
/// The broker's word on a request that it has is waited for so much longer than its time.
const GRACE: Duration = Duration::from_secs(1);
/// Calls whose time is over are taken out of the queue when they are so many bytes, and half of it.
const DEAD_BYTES_MIN: usize = 64 * 1024;

/// The calls of a Link.
#[derive(Debug, Default)]
pub struct Calls {
    /// Whole frames; those before `head` have been handed to a connection.
    queue: Vec<u8>,
    head: usize,
    /// Of these, requests whose time is over.
    dead_bytes: usize,
    waiting: HashMap<u64, Waiting>,
    deadlines: BTreeSet<(Instant, u64)>,
    standing: Standing,
    own_tickets: u64,
    is_ending: bool,
    is_over: bool,
}

/// A call that waits for its answer.
#[derive(Debug)]
struct Waiting {
    what: What,
    size: usize,
    is_sent: bool,
    deadline: Option<Instant>,
}

#[derive(Clone, Debug)]
enum What {
    Request,
    /// It is said again as long as it stands.
    Standing(Key),
    Once,
}

/// What can stand: the last word on it counts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Key {
    // In the order in which they are said again.
    Watch,
    /// The event, as it is written in the frame.
    Handle(Bytes),
    /// The filter, likewise.
    Subscribe(Bytes),
    Token(Bytes),
}

/// What stands, and the ticket of the call that made it so.
type Standing = BTreeMap<Key, (Stands, u64)>;

#[derive(Clone, Debug)]
enum Stands {
    /// A call of this type with these bytes behind its ticket.
    As(CallType, Bytes),
    /// A token with its id, empty if none is known yet.
    Accepted(Bytes),
    Rejected,
}

/// What is to be done with an answer of the broker's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heard {
    /// The host is to know.
    Pass,
    /// The host does not know the ticket, or has been answered.
    Swallow,
}

impl Calls {
    /// Where the host's calls are appended; [`Calls::taken`] is to be told.
    pub fn queue(&mut self) -> &mut Vec<u8> {
        if self.head == self.queue.len() {
            self.queue.clear();
            self.head = 0;
        } else if self.head > self.queue.len() / 2 {
            self.queue.drain(..self.head);
            self.head = 0;
        }
        &mut self.queue
    }

    /// The last `size` bytes of the queue are new.
    pub fn taken(&mut self, size: usize, now: Instant) {
        let mut at = self.queue.len() - size;
        while let Some(size) = frame_size(&self.queue[at..]) {
            let frame = &self.queue[at + SIZE_BYTES..at + size];
            self.is_ending |= is(frame, CallType::Bye);
            let ticket = ticket_of(frame);
            if ticket != 0 {
                let time = time_of(frame);
                let what = match (time, standing(frame)) {
                    (Some(_), _) => What::Request,
                    (None, Some((key, _))) => What::Standing(key),
                    (None, None) => What::Once,
                };
                let deadline = time.map(|time| now + time);
                if let Some(deadline) = deadline {
                    self.deadlines.insert((deadline, ticket));
                }
                let waiting = Waiting {
                    what,
                    size,
                    is_sent: false,
                    deadline,
                };
                self.waiting.insert(ticket, waiting);
            }
            at += size;
        }
    }

    /// What all of it is charged, in bytes.
    pub fn charged(&self) -> usize {
        self.queue.len() - self.head + self.waiting.len() * WAITING_BYTES
    }

    /// Has the host said that it leaves?
    pub fn is_ending(&self) -> bool {
        self.is_ending
    }

    /// Has the last call been handed out?
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Hands calls out, to be sent: some 64 KiB of them, or one.
    pub fn hand_out(&mut self, out: &mut Vec<u8>) {
        let before = out.len();
        while !self.is_over
            && out.len() - before < SEND_BYTES_MAX
            && let Some(size) = frame_size(&self.queue[self.head..])
        {
            let at = self.head;
            self.head += size;
            let frame = &self.queue[at + SIZE_BYTES..at + size];
            let ticket = ticket_of(frame);
            match self.waiting.get_mut(&ticket) {
                Some(waiting) => waiting.is_sent = true,
                // Its time is over.
                None if ticket != 0 => {
                    self.dead_bytes = self.dead_bytes.saturating_sub(size);
                    continue;
                }
                None => {}
            }
            self.is_over = is(frame, CallType::Bye);
            if let Some((key, stands)) = standing(frame) {
                match stands {
                    Some(stands) => drop(self.standing.insert(key, (stands, ticket))),
                    None => drop(self.standing.remove(&key)),
                }
            }
            out.extend_from_slice(&self.queue[at..at + size]);
        }
    }

    /// A connection is in: writes what stands to `out`, and answers to the host for what needs no saying any more.
    pub fn say_again(&mut self, out: &mut Vec<u8>, told: &mut Vec<u8>) {
        let mut said = Vec::new();
        for (key, (stands, ticket)) in &mut self.standing {
            if !self.waiting.contains_key(ticket) {
                self.own_tickets += 1;
                *ticket = OWN_TICKETS | self.own_tickets;
            }
            said.push(*ticket);
            write_standing(key, stands, *ticket, out);
        }
        said.sort_unstable();
        // What was sent over an earlier connection, and taken back or said again since.
        let superseded = |ticket: &u64, waiting: &mut Waiting| {
            waiting.is_sent
                && matches!(waiting.what, What::Standing(_))
                && said.binary_search(ticket).is_err()
        };
        let mut tickets: Vec<u64> = self
            .waiting
            .extract_if(superseded)
            .map(|(ticket, _)| ticket)
            .collect();
        tickets.sort_unstable();
        for ticket in tickets {
            tell(ticket, &Outcome::Data(Payload::binary(Bytes::new())), told);
        }
    }

    /// Writes a call that changes nothing and is answered: a question whether the broker is there.
    pub fn ask(&mut self, out: &mut Vec<u8>) {
        self.own_tickets += 1;
        let ticket = OWN_TICKETS | self.own_tickets;
        match self.standing.get(&Key::Watch) {
            Some((stands, _)) => write_standing(&Key::Watch, stands, ticket, out),
            None => {
                let mask = Watch::default();
                write_call(&Call::Watch { ticket, mask }, out);
            }
        }
    }

    /// The connection is gone. Writes answers for what was on its way and will not be said again.
    pub fn lost(&mut self, told: &mut Vec<u8>) {
        let is_lost = |_: &u64, waiting: &mut Waiting| {
            waiting.is_sent && !matches!(waiting.what, What::Standing(_))
        };
        let mut lost: Vec<_> = self.waiting.extract_if(is_lost).collect();
        lost.sort_unstable_by_key(|(ticket, _)| *ticket);
        for (ticket, waiting) in lost {
            if let Some(deadline) = waiting.deadline {
                self.deadlines.remove(&(deadline, ticket));
            }
            let reason = "the connection broke before the answer; it may have taken effect";
            tell(ticket, &Outcome::refused(Code::Timeout, reason), told);
        }
    }

    /// The broker has answered.
    pub fn heard(
        &mut self,
        ticket: u64,
        answer: Result<&[u8], &[u8]>,
        told: &mut Vec<u8>,
    ) -> Heard {
        if ticket >= OWN_TICKETS {
            if let Err(reason) = answer {
                let reason = String::from_utf8_lossy(reason);
                let text = format!("what held before the connection broke was refused: {reason}");
                encode_log(2, &text, told);
                self.standing.retain(|_, (_, of)| *of != ticket);
            }
            return Heard::Swallow;
        }
        let Some(waiting) = self.waiting.remove(&ticket) else {
            return Heard::Swallow;
        };
        if let Some(deadline) = waiting.deadline {
            self.deadlines.remove(&(deadline, ticket));
        }
        if let What::Standing(key) = waiting.what
            && let Some((stands, of)) = self.standing.get_mut(&key)
            && *of == ticket
        {
            match (stands, answer) {
                (Stands::Rejected, _) | (_, Err(_)) => drop(self.standing.remove(&key)),
                (Stands::Accepted(id), Ok(made)) => *id = Bytes::copy_from_slice(made),
                (Stands::As(..), Ok(_)) => {}
            }
        }
        Heard::Pass
    }

    /// When the time of a request is over next.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Writes answers for requests whose time is over.
    pub fn expire(&mut self, now: Instant, told: &mut Vec<u8>) {
        while let Some(&(deadline, ticket)) = self.deadlines.first()
            && deadline <= now
        {
            self.deadlines.pop_first();
            let Some(waiting) = self.waiting.get_mut(&ticket) else {
                continue;
            };
            if waiting.is_sent && matches!(waiting.what, What::Request) {
                // The broker has it, and the last word unless it takes too long.
                let late = deadline + GRACE;
                self.deadlines.insert((late, ticket));
                waiting.deadline = Some(late);
                waiting.what = What::Once;
                continue;
            }
            if !waiting.is_sent {
                self.dead_bytes += waiting.size;
            }
            self.waiting.remove(&ticket);
            let reason = "no answer in time";
            tell(ticket, &Outcome::refused(Code::Timeout, reason), told);
        }
        if self.dead_bytes >= DEAD_BYTES_MIN
            && self.dead_bytes >= (self.queue.len() - self.head) / 2
        {
            self.bury();
        }
    }

    /// Takes those out of the queue whose time is over.
    fn bury(&mut self) {
        let mut alive = Vec::with_capacity(self.queue.len() - self.head - self.dead_bytes);
        let mut at = self.head;
        while let Some(size) = frame_size(&self.queue[at..]) {
            let ticket = ticket_of(&self.queue[at + SIZE_BYTES..]);
            if ticket == 0 || self.waiting.contains_key(&ticket) {
                alive.extend_from_slice(&self.queue[at..at + size]);
            }
            at += size;
        }
        (self.queue, self.head, self.dead_bytes) = (alive, 0, 0);
    }
}

/// The size of the frame that `bytes` begin with. The host's end writes whole frames, one after the other.
fn frame_size(bytes: &[u8]) -> Option<usize> {
    let size = whole(bytes).expect("a call is a frame")?;
    debug_assert!(size <= bytes.len(), "a call is a whole frame");
    Some(size)
}

fn is(frame: &[u8], kind: CallType) -> bool {
    frame.first() == Some(&(kind as u8))
}

/// Where the fields behind a ticket begin: behind the type and the ticket.
const TICKET_END: usize = 1 + size_of::<u64>();

/// The ticket of a call, 0 for none.
fn ticket_of(frame: &[u8]) -> u64 {
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
fn time_of(frame: &[u8]) -> Option<Duration> {
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
fn standing(frame: &[u8]) -> Option<(Key, Option<Stands>)> {
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
fn write_standing(key: &Key, stands: &Stands, ticket: u64, out: &mut Vec<u8>) {
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

/// Writes the answer to a call, as the broker would.
fn tell(ticket: u64, outcome: &Outcome, told: &mut Vec<u8>) {
    let tag = ticket_tag(ticket).expect("a call that waits has a ticket");
    let done = PeerEvent::Done { tag: &tag, outcome };
    encode(&Event::Peer(&done), told);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{Address, ClientId, SessionId, ShardId};
    use crate::link::frames::Frames;
    use crate::protocol::peer::call::decode;
    use crate::protocol::peer::event::{Told, read_event};
    use crate::protocol::peer::{Admitted, Audience, PeerPattern};
    use crate::topic::{Filter, Topic};

    const CLIENT: ClientId = ClientId {
        broker: 1,
        shard: ShardId(0),
        session: SessionId {
            slot: 1,
            generation: 1,
        },
    };

    fn bodies(frames: &[u8]) -> Vec<Vec<u8>> {
        let mut reader = Frames::default();
        reader.push(Bytes::copy_from_slice(frames));
        std::iter::from_fn(|| reader.next(|_, frame| frame.to_vec()).expect("frames")).collect()
    }

    /// Type and ticket of each frame.
    fn said(frames: &[u8]) -> Vec<(CallType, u64)> {
        let call = |frame: Vec<u8>| {
            let kind = CallType::of(frame[0]).expect("a call");
            (kind, ticket_of(&frame))
        };
        bodies(frames).into_iter().map(call).collect()
    }

    /// The tickets that are answered, and whether they were done.
    fn told(frames: &[u8]) -> Vec<(u64, bool)> {
        let answer = |frame: Vec<u8>| match read_event(&frame).expect("an event") {
            Told::Done { ticket, .. } => (ticket, true),
            Told::Failed { ticket, code, .. } => {
                assert_eq!(code, b"timeout");
                (ticket, false)
            }
            other => panic!("an answer, not {other:?}"),
        };
        bodies(frames).into_iter().map(answer).collect()
    }

    fn make(calls: &mut Calls, made: &[Call<'_>], now: Instant) {
        let queue = calls.queue();
        let before = queue.len();
        for call in made {
            write_call(call, queue);
        }
        let size = queue.len() - before;
        calls.taken(size, now);
    }

    fn hand_out(calls: &mut Calls) -> Vec<(CallType, u64)> {
        let mut out = Vec::new();
        calls.hand_out(&mut out);
        said(&out)
    }

    fn lose(calls: &mut Calls) -> Vec<(u64, bool)> {
        let mut out = Vec::new();
        calls.lost(&mut out);
        told(&out)
    }

    /// What a new connection is told first, and the host.
    fn say_again(calls: &mut Calls) -> (Vec<(CallType, u64)>, Vec<(u64, bool)>) {
        let (mut out, mut answers) = (Vec::new(), Vec::new());
        calls.say_again(&mut out, &mut answers);
        (said(&out), told(&answers))
    }

    fn done(calls: &mut Calls, ticket: u64) -> Heard {
        calls.heard(ticket, Ok(b""), &mut Vec::new())
    }

    fn filter(name: &str) -> Filter {
        Filter::exact(Bytes::copy_from_slice(name.as_bytes())).expect("a filter")
    }

    fn request<'a>(ticket: u64, to: &'a Address, payload: &'a Payload, time: u32) -> Call<'a> {
        Call::Request {
            ticket,
            to,
            event: b"add",
            payload,
            timeout_ms: time,
        }
    }

    #[test]
    fn the_places_of_what_is_read_here_are_those_that_calls_are_written_to() {
        let ticket = 0x0102_0304_0506_0708;
        let payload = &Payload::json(Bytes::from_static(b"1"));
        let filter = &filter("a");
        let topic = &Topic::channel(Bytes::from_static(b"a")).expect("a topic");
        let to = &Address::Client(CLIENT);
        let many = &Audience::Peers(PeerPattern::All);
        let (event, token, name, volatile) = (&b"add"[..], &b"user-1"[..], &b"n"[..], false);
        let client = CLIENT;
        let data = &Outcome::Data(payload.clone());
        let failed = &Outcome::refused(Code::Busy, "x");
        let verdict = &Admitted::Yes { user: None };
        let with = [
            Call::Subscribe { ticket, filter },
            Call::Unsubscribe { ticket, filter },
            Call::Publish {
                ticket,
                topic,
                payload,
                echo: true,
            },
            Call::Emit {
                ticket,
                to,
                event,
                payload,
                volatile,
            },
            Call::EmitMany {
                ticket,
                to: many,
                event,
                payload,
                volatile,
            },
            request(ticket, to, payload, 1234),
            Call::Handle { ticket, event },
            Call::Unhandle { ticket, event },
            Call::Watch {
                ticket,
                mask: Watch::CONNECT,
            },
            Call::Join {
                ticket,
                client,
                room: b"r",
            },
            Call::Leave {
                ticket,
                client,
                room: b"r",
            },
            Call::Disconnect {
                ticket,
                client,
                code: 1000,
                reason: b"",
            },
            Call::Accept {
                ticket,
                token,
                id: b"id-1",
            },
            Call::Reject { ticket, token },
            Call::AdmitPeer {
                ticket,
                name,
                admitted: true,
            },
            Call::AdmitPeer {
                ticket,
                name,
                admitted: false,
            },
            Call::CutPeer { ticket, name },
        ];
        let without = [
            Call::Hello { name, key: b"k" },
            Call::Reply {
                number: 9,
                outcome: data,
            },
            Call::Reply {
                number: 9,
                outcome: failed,
            },
            Call::Admit { client, verdict },
            Call::Alive,
            Call::Bye,
        ];
        let mut standings = 0;
        for call in with.iter().chain(&without) {
            let mut written = Vec::new();
            write_call(call, &mut written);
            let frame = &written[SIZE_BYTES..];
            let has_ticket = with
                .iter()
                .any(|with| format!("{with:?}") == format!("{call:?}"));
            assert_eq!(
                ticket_of(frame),
                if has_ticket { ticket } else { 0 },
                "{call:?}"
            );
            let is_request = matches!(call, Call::Request { .. });
            let time = is_request.then_some(Duration::from_millis(1234));
            assert_eq!(time_of(frame), time, "{call:?}");
            if let Some((key, stands)) = standing(frame) {
                standings += 1;
                let Some(stands) = stands else { continue };
                let mut again = Vec::new();
                write_standing(&key, &stands, ticket, &mut again);
                assert_eq!(again, written, "{call:?}");
                assert!(decode(&again[SIZE_BYTES..], 0).is_ok(), "{call:?}");
            }
        }
        assert_eq!(
            standings, 7,
            "two of filters, events and tokens each, and one that watches"
        );
    }

    #[test]
    fn what_stands_is_said_again_and_nothing_else_is() {
        let now = Instant::now();
        let mut calls = Calls::default();
        let (a, b) = (&filter("a"), &filter("b"));
        let payload = &Payload::json(Bytes::from_static(b"1"));
        let topic = &Topic::channel(Bytes::from_static(b"a")).expect("a topic");
        let made = [
            Call::Subscribe {
                ticket: 1,
                filter: a,
            },
            Call::Subscribe {
                ticket: 2,
                filter: b,
            },
            Call::Unsubscribe {
                ticket: 3,
                filter: b,
            },
            Call::Watch {
                ticket: 4,
                mask: Watch::PEER,
            },
            Call::Handle {
                ticket: 0,
                event: b"add",
            },
            Call::Publish {
                ticket: 5,
                topic,
                payload,
                echo: true,
            },
            Call::Accept {
                ticket: 6,
                token: b"t",
                id: b"",
            },
        ];
        make(&mut calls, &made, now);
        assert_eq!(hand_out(&mut calls).len(), made.len());
        assert_eq!(done(&mut calls, 1), Heard::Pass);
        assert_eq!(calls.heard(6, Ok(b"made-up"), &mut Vec::new()), Heard::Pass);
        // It waits, and comes behind what stands.
        make(
            &mut calls,
            &[Call::Handle {
                ticket: 7,
                event: b"sub",
            }],
            now,
        );

        assert_eq!(lose(&mut calls), [(5, false)]);
        let mut out = Vec::new();
        let mut answers = Vec::new();
        calls.say_again(&mut out, &mut answers);
        let again = said(&out);
        let kinds: Vec<CallType> = again.iter().map(|(kind, _)| *kind).collect();
        use CallType::{Accept, Handle, Subscribe};
        assert_eq!(kinds, [CallType::Watch, Handle, Subscribe, Accept]);
        assert_eq!(again[0].1, 4, "it has not been answered");
        assert!(again[1..].iter().all(|(_, ticket)| *ticket >= OWN_TICKETS));
        let accept = bodies(&out).pop().expect("an accept");
        assert!(accept.ends_with(b"made-up"), "the id is known to clients");
        // There is nothing left of `b`, which is what its last call asked for.
        assert_eq!(told(&answers), [(2, true), (3, true)]);
        for (_, ticket) in &again[1..] {
            assert_eq!(done(&mut calls, *ticket), Heard::Swallow);
        }
        assert_eq!(done(&mut calls, 4), Heard::Pass);
        assert_eq!(hand_out(&mut calls), [(Handle, 7)]);
        assert_eq!(done(&mut calls, 7), Heard::Pass);
        assert_eq!(calls.charged(), 0);
    }

    #[test]
    fn a_ticket_is_answered_once_however_often_the_connection_breaks() {
        let now = Instant::now();
        let mut calls = Calls::default();
        make(
            &mut calls,
            &[Call::Subscribe {
                ticket: 1,
                filter: &filter("a"),
            }],
            now,
        );
        hand_out(&mut calls);
        for _ in 0..3 {
            assert_eq!(lose(&mut calls), []);
            assert_eq!(
                say_again(&mut calls),
                (vec![(CallType::Subscribe, 1)], vec![])
            );
        }
        assert_eq!(done(&mut calls, 1), Heard::Pass);
        assert_eq!(done(&mut calls, 1), Heard::Swallow);
        lose(&mut calls);
        let (again, answers) = say_again(&mut calls);
        assert!(again[0].1 >= OWN_TICKETS && again.len() == 1 && answers.is_empty());
        // The new broker does not let us: it is not said a third time, and the host reads of it.
        let mut told = Vec::new();
        assert_eq!(
            calls.heard(again[0].1, Err(b"no"), &mut told),
            Heard::Swallow
        );
        assert!(matches!(
            read_event(&told[SIZE_BYTES..]),
            Ok(Told::Log { .. })
        ));
        lose(&mut calls);
        assert_eq!(say_again(&mut calls), (vec![], vec![]));
    }

    #[test]
    fn what_was_refused_does_not_stand() {
        let now = Instant::now();
        let mut calls = Calls::default();
        let made = [
            Call::Subscribe {
                ticket: 1,
                filter: &filter("a"),
            },
            Call::Reject {
                ticket: 2,
                token: b"t",
            },
            Call::Reject {
                ticket: 3,
                token: b"u",
            },
        ];
        make(&mut calls, &made, now);
        hand_out(&mut calls);
        assert_eq!(calls.heard(1, Err(b"limit"), &mut Vec::new()), Heard::Pass);
        assert_eq!(done(&mut calls, 2), Heard::Pass);
        lose(&mut calls);
        // The broker remembers tokens; what it was not told yet is said again.
        assert_eq!(say_again(&mut calls).0, [(CallType::Reject, 3)]);
    }

    #[test]
    fn a_request_that_waits_for_a_connection_fails_in_time_and_is_never_sent() {
        let now = Instant::now();
        let ms = |ms| now + Duration::from_millis(ms);
        let mut calls = Calls::default();
        let to = &Address::Service(Bytes::from_static(b"add"));
        let payload = &Payload::json(Bytes::from_static(b"1"));
        make(
            &mut calls,
            &[request(1, to, payload, 50), request(2, to, payload, 70)],
            now,
        );
        assert_eq!(calls.next_deadline(), Some(ms(50)));
        let mut out = Vec::new();
        calls.expire(ms(49), &mut out);
        assert!(out.is_empty());
        calls.expire(ms(50), &mut out);
        assert_eq!(told(&out), [(1, false)]);
        assert_eq!(hand_out(&mut calls), [(CallType::Request, 2)]);
        // Of one that was sent the broker has the last word, for a second.
        let mut out = Vec::new();
        calls.expire(ms(70), &mut out);
        assert!(out.is_empty());
        assert_eq!(calls.next_deadline(), Some(ms(1070)));
        calls.expire(ms(1070), &mut out);
        assert_eq!(told(&out), [(2, false)]);
        assert_eq!(done(&mut calls, 2), Heard::Swallow);
        assert_eq!((calls.next_deadline(), calls.charged()), (None, 0));
    }

    #[test]
    fn requests_whose_time_is_over_give_their_room_back() {
        let now = Instant::now();
        let mut calls = Calls::default();
        let to = &Address::Service(Bytes::from_static(b"add"));
        let payload = &Payload::binary(vec![7; 1000].into());
        let topic = &Topic::channel(Bytes::from_static(b"a")).expect("a topic");
        for ticket in 1..=200 {
            let publish = Call::Publish {
                ticket: 0,
                topic,
                payload,
                echo: true,
            };
            make(&mut calls, &[request(ticket, to, payload, 10)], now);
            if ticket % 10 == 0 {
                make(&mut calls, &[publish], now);
            }
        }
        let before = calls.charged();
        let mut out = Vec::new();
        calls.expire(now + Duration::from_millis(10), &mut out);
        assert_eq!(told(&out).len(), 200);
        assert!(
            calls.charged() < before / 8,
            "{} of {before}",
            calls.charged()
        );
        assert_eq!(hand_out(&mut calls), [(CallType::Publish, 0); 20]);
    }

    #[test]
    fn nothing_is_handed_out_behind_the_last_call() {
        let now = Instant::now();
        let mut calls = Calls::default();
        make(
            &mut calls,
            &[
                Call::Handle {
                    ticket: 0,
                    event: b"a",
                },
                Call::Bye,
            ],
            now,
        );
        assert!(calls.is_ending() && !calls.is_over());
        make(
            &mut calls,
            &[Call::Handle {
                ticket: 0,
                event: b"b",
            }],
            now,
        );
        let handed_out = hand_out(&mut calls);
        assert_eq!(handed_out, [(CallType::Handle, 0), (CallType::Bye, 0)]);
        assert!(calls.is_over() && hand_out(&mut calls).is_empty());
    }

    #[test]
    fn calls_are_handed_out_in_order_in_portions() {
        let now = Instant::now();
        let mut calls = Calls::default();
        let payload = &Payload::binary(vec![7; 1000].into());
        let topic = &Topic::channel(Bytes::from_static(b"a")).expect("a topic");
        let mut heard = Vec::new();
        for round in 0..20 {
            for number in 1..=30 {
                let ticket = round * 30 + number;
                make(
                    &mut calls,
                    &[Call::Publish {
                        ticket,
                        topic,
                        payload,
                        echo: true,
                    }],
                    now,
                );
            }
            let portion = hand_out(&mut calls);
            assert!(portion.len() * 1000 <= SEND_BYTES_MAX + 1000 && !portion.is_empty());
            heard.extend(portion.into_iter().map(|(_, ticket)| ticket));
        }
        let mut portion = hand_out(&mut calls);
        while !portion.is_empty() {
            heard.extend(portion.into_iter().map(|(_, ticket)| ticket));
            portion = hand_out(&mut calls);
        }
        assert_eq!(heard, (1..=600).collect::<Vec<u64>>());
        assert_eq!(lose(&mut calls).len(), 600);
        assert_eq!(calls.charged(), 0);
    }
}
