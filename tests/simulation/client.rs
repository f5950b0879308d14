//! A simulated client: what is the same whatever it speaks.
//!
//! A client knows what it sent and in which order; so each answer is compared with the one command that it must belong
//! to, and each delivery with the stays that this client knows of.

use std::collections::{BTreeMap, VecDeque};

use pubsub::protocol::peer::call::{Call, write_call};

use crate::clusterws::{Clusterws, DIALECTS, Dialect};
use crate::frames;
use crate::names::{Filter, Topic};
use crate::native::Native;
use crate::network::{ConnectionId, Read};
use crate::oracle::{Kind, Moment};
use crate::peer::Peer;
use crate::profile::Profile;
use crate::resp::{self, Resp};
use crate::stage::Stage;

pub type ClientIndex = usize;

/// What a client speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    Native,
    Clusterws(Dialect),
    Resp,
    Peer,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// The 101 has not come.
    Connecting,
    Open,
    /// The connection is over.
    Ended,
}

/// How it ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// With a close frame of this code from the broker (0: without one).
    Closed(u16),
    /// The handshake was refused.
    Refused(u16),
    /// By the broker, orderly, where there are no close frames.
    Finished,
    /// Without a close frame.
    Cut,
    /// By this client.
    Own,
}

pub struct Client {
    pub index: ClientIndex,
    pub connection: ConnectionId,
    pub protocol: Protocol,
    /// Where it connected, unless it was dealt from there.
    pub shard: Option<usize>,
    /// When it connected.
    pub since: Moment,
    pub phase: Phase,
    /// The 101 has come, once.
    pub was_let_in: bool,
    pub end: Option<End>,
    /// Bytes read and not understood yet.
    pub inbox: Vec<u8>,
    /// The stays that this client has asked for and not left, in the order of its commands.
    pub wanted: BTreeMap<Filter, usize>,
    /// Those of which something may come, by the answers that it has read.
    pub stays: BTreeMap<Filter, usize>,
    /// Does not read before this moment.
    pub frozen_until: Moment,
    /// The code of the close frame that it sent.
    pub closed: Option<u16>,
    /// When that was, and when the connection was over.
    pub closed_at_ms: u64,
    pub ended_at_ms: u64,
    pub got_close: Option<u16>,
    /// It stopped to read for long, or wrote half a frame and nothing more: it may be closed for it.
    pub is_faulty: bool,
    /// It is in the middle of a frame and will stay there.
    pub is_mute: bool,
    /// It has hung up in the middle of everything, but still reads.
    pub has_hung_up: bool,
    pub bad_texts: u32,
    pub refuses_pings: bool,
    /// The payloads of its pings (WebSocket) that wait for a pong.
    pub pings: VecDeque<Vec<u8>>,
    /// What only one that serves has: a native one, or a peer.
    pub native: Native,
    /// What only one of ClusterWS has.
    pub clusterws: Clusterws,
    /// What only one of RESP has.
    pub resp: Resp,
    /// What only a peer has.
    pub peer: Peer,
}

impl Protocol {
    /// The listener that it is spoken at; the next one deals its connections.
    fn listener(self) -> u16 {
        match self {
            Protocol::Native | Protocol::Clusterws(_) => 0,
            Protocol::Resp => 2,
            Protocol::Peer => 4,
        }
    }
}

impl Client {
    /// Connects to a listener of a shard, and says what it has to say first.
    pub fn connect(
        index: ClientIndex,
        protocol: Protocol,
        shard: usize,
        is_dealt: bool,
        profile: &Profile,
        stage: &mut Stage,
    ) -> Client {
        let listener = protocol.listener() + u16::from(is_dealt);
        let connection =
            (stage.network.borrow_mut()).connect(shard, listener, profile.buffer_bytes);
        stage.note(|| {
            format!("client {index}, {protocol:?}, connects to shard {shard}, dealt: {is_dealt}")
        });
        let now_ms = stage.network.borrow().now_ms;
        let dialect = match protocol {
            Protocol::Clusterws(dialect) => dialect,
            Protocol::Native | Protocol::Resp | Protocol::Peer => DIALECTS[0],
        };
        let mut client = Client {
            index,
            connection,
            protocol,
            shard: (!is_dealt).then_some(shard),
            since: stage.now(),
            phase: Phase::Connecting,
            was_let_in: false,
            end: None,
            inbox: Vec::new(),
            wanted: BTreeMap::new(),
            stays: BTreeMap::new(),
            frozen_until: 0,
            closed: None,
            closed_at_ms: 0,
            ended_at_ms: 0,
            got_close: None,
            is_faulty: false,
            is_mute: false,
            has_hung_up: false,
            bad_texts: 0,
            refuses_pings: false,
            pings: VecDeque::new(),
            native: Native::default(),
            clusterws: Clusterws::new(dialect, profile, now_ms),
            resp: Resp::new(profile),
            peer: Peer::new(profile),
        };
        let mut first = Vec::new();
        match protocol {
            Protocol::Native => {
                first = frames::head("/", index);
                if profile.peers > 0 {
                    // Peers want to know.
                    client.ask_who_it_is(stage, &mut first);
                }
            }
            Protocol::Clusterws(dialect) => {
                first = frames::head(dialect.path, index);
                stage.hears_events.push(index);
            }
            Protocol::Resp => client.greet(stage, &mut first),
            Protocol::Peer => {
                client.say_hello(&mut first);
                if stage.rng.u8(..3) == 0 {
                    client.watch(stage, &mut first);
                }
                stage.hears_events.push(index);
                stage.oracle.lossy.insert(index);
            }
        }
        client.write(&first, stage);
        client
    }

    /// One command or another.
    pub fn act(&mut self, profile: &Profile, stage: &mut Stage, out: &mut Vec<u8>) {
        match self.protocol {
            Protocol::Native => self.act_natively(&profile.filters, stage, out),
            Protocol::Clusterws(_) => self.act_by_clusterws(profile, stage, out),
            Protocol::Resp => self.act_by_resp(profile, stage, out),
            Protocol::Peer => self.act_as_peer(profile, stage, out),
        }
    }

    /// Subscribes to something, if it can be proved that it has.
    pub fn subscribe_to_any(
        &mut self,
        profile: &Profile,
        stage: &mut Stage,
        out: &mut Vec<u8>,
    ) -> Filter {
        match self.protocol {
            Protocol::Native => {
                let filter = profile.filters[stage.rng.usize(..profile.filters.len())];
                self.subscribe(filter, stage, out);
                Filter::Dotted(filter)
            }
            Protocol::Clusterws(_) => {
                let room = profile.channels[stage.rng.usize(..profile.channels.len())];
                self.subscribe_to_room(room, true, stage, out);
                Filter::Room(room)
            }
            Protocol::Resp => {
                let kind = resp::any_kind(stage);
                self.subscribe_to_some(kind, 1, profile, stage, out)
            }
            Protocol::Peer => self.subscribe_as_peer(profile, stage, out),
        }
    }

    /// Would a publication to this topic be taken from it, after what it has said so far?
    pub fn can_publish(&self, topic: Topic) -> bool {
        match (self.protocol, topic) {
            (Protocol::Native, topic) => topic.is_dotted(),
            (Protocol::Clusterws(_), Topic::Name(name)) => {
                self.wanted.contains_key(&Filter::Room(name))
            }
            (Protocol::Clusterws(_), Topic::Shard(_)) => false,
            (Protocol::Resp, _) => self.may_say_anything(),
            (Protocol::Peer, _) => true,
        }
    }

    /// Publishes a message of any size.
    pub fn publish_any(&mut self, topic: Topic, stage: &mut Stage, out: &mut Vec<u8>) {
        match self.protocol {
            Protocol::Native => self.publish(topic.name(), stage, out),
            Protocol::Clusterws(_) => self.publish_to_room(topic.name(), stage, out),
            Protocol::Resp => self.publish_by_resp(topic, stage, out),
            Protocol::Peer => self.publish_as_peer(topic, stage, out),
        }
    }

    /// The stay that a subscribe sent now is about.
    pub fn begin_stay(&mut self, filter: Filter, sent: Moment, stage: &mut Stage) -> usize {
        let stay = (self.wanted.get(&filter).copied())
            .unwrap_or_else(|| stage.oracle.stay(self.index, filter, sent));
        self.wanted.insert(filter, stay);
        stay
    }

    /// The stay that an unsubscribe sent now ends, if there is one.
    pub fn end_stay(&mut self, filter: Filter, sent: Moment, stage: &mut Stage) -> Option<usize> {
        let stay = self.wanted.remove(&filter);
        if let Some(stay) = stay {
            stage.oracle.stays[stay].left = Some(sent);
        }
        stay
    }

    /// Ends the connection orderly and says nothing more.
    pub fn close(&mut self, stage: &mut Stage, out: &mut Vec<u8>) {
        let sent = stage.now();
        for stay in self.wanted.values() {
            stage.oracle.stays[*stay].left = Some(sent);
        }
        self.leave_services(stage);
        let code: u16 = if stage.rng.bool() { 1000 } else { 3001 };
        match self.protocol {
            Protocol::Native | Protocol::Clusterws(_) => self.say_goodbye(code, stage, out),
            Protocol::Resp => self.quit(stage, out),
            Protocol::Peer => {
                write_call(&Call::Bye, out);
                // It is not answered.
                self.got_close = Some(code);
            }
        }
        self.closed = Some(code);
        self.closed_at_ms = stage.network.borrow().now_ms;
        let index = self.index;
        stage.note(|| format!("client {index} closes with {code}"));
    }

    /// Is gone without a word.
    pub fn vanish(&mut self, stage: &mut Stage) {
        self.leave_services(stage);
        stage.network.borrow_mut().client_resets(self.connection);
        self.over(End::Own, stage);
    }

    /// Half of a message, and then nothing ever.
    pub fn fall_mute(&mut self, stage: &mut Stage, out: &mut Vec<u8>) {
        self.leave_services(stage);
        out.extend_from_slice(match self.protocol {
            Protocol::Native | Protocol::Clusterws(_) => &[0x81, 0x85, 1, 2, 3, 4, 5][..],
            Protocol::Resp => b"*2\r\n$4\r\nECHO\r\n$9\r\nhal",
            Protocol::Peer => b"\x20\0\0\0\x04hal",
        });
        self.is_mute = true;
        self.is_faulty = true;
    }

    /// Reads nothing more.
    pub fn stops_reading(&mut self, stage: &mut Stage) {
        self.frozen_until = Moment::MAX;
        self.is_faulty = true;
        self.leave_services(stage);
    }

    /// Closes its half of the connection without a close frame, and reads on.
    pub fn hang_up(&mut self, stage: &mut Stage) {
        self.leave_services(stage);
        self.is_faulty = true;
        self.is_mute = true;
        self.has_hung_up = true;
        stage.network.borrow_mut().client_finishes(self.connection);
    }

    /// Hands commands to the network. From here on they may take effect at any moment.
    pub fn write(&self, bytes: &[u8], stage: &mut Stage) {
        let mut network = stage.network.borrow_mut();
        network.client_writes(self.connection, bytes);
    }

    /// Reads, and thinks about what came. True if there was anything.
    pub fn read(&mut self, stage: &mut Stage, bytes_max: usize) -> bool {
        if self.phase == Phase::Ended || self.frozen_until > stage.moment {
            return false;
        }
        let before = self.inbox.len();
        let read =
            stage
                .network
                .borrow_mut()
                .client_reads(self.connection, bytes_max, &mut self.inbox);
        match read {
            Read::Nothing => false,
            Read::Bytes => {
                let new = self.inbox[before..].to_vec();
                stage.mix(&new);
                match self.protocol {
                    Protocol::Native | Protocol::Clusterws(_) => self.digest_frames(stage),
                    Protocol::Resp => self.digest_values(stage),
                    Protocol::Peer => self.digest_events(stage),
                }
                true
            }
            Read::End | Read::Reset => {
                let end = match (self.got_close, self.protocol, read) {
                    // It has not ended it: it was told so before its BYE was read.
                    (_, Protocol::Peer, Read::End) if self.peer.goodbye.is_some() => End::Finished,
                    // Nothing has answered its BYE.
                    (_, Protocol::Peer, Read::Reset) => End::Cut,
                    (Some(code), _, _) => End::Closed(code),
                    (None, Protocol::Resp | Protocol::Peer, Read::End) => End::Finished,
                    (None, _, _) => End::Cut,
                };
                stage.network.borrow_mut().client_closes(self.connection);
                if read == Read::End && !self.inbox.is_empty() && !self.has_hung_up {
                    let text = format!(
                        "client {}: the end cuts {:?}",
                        self.index,
                        String::from_utf8_lossy(&self.inbox)
                    );
                    stage.oracle.violate(Kind::Ending, text);
                }
                self.over(end, stage);
                true
            }
        }
    }

    /// The connection is over for this client.
    pub fn over(&mut self, end: End, stage: &mut Stage) {
        let index = self.index;
        stage.now();
        stage.note(|| format!("client {index} ends: {end:?}"));
        self.leave_services(stage);
        self.phase = Phase::Ended;
        stage.let_in.remove(&index);
        self.end.get_or_insert(end);
        self.ended_at_ms = stage.network.borrow().now_ms;
        stage.leaving.push((index, self.connection));
    }

    /// Can it send commands that it expects to be carried out?
    pub fn is_talking(&self) -> bool {
        self.phase != Phase::Ended && self.closed.is_none() && !self.is_mute
    }

    /// Has it been answered all that it asked?
    pub fn is_answered(&self) -> bool {
        let has_answers = match self.protocol {
            Protocol::Native => self.native.expected.is_empty(),
            Protocol::Clusterws(_) => self.clusterws.is_answered(),
            Protocol::Resp => self.has_answers_of_resp(),
            Protocol::Peer => self.peer.is_answered(),
        };
        self.phase == Phase::Ended
            || self.is_mute
            || has_answers
                && self.pings.is_empty()
                && self.phase == Phase::Open
                && self.closed.is_none()
    }

    pub fn missing_answers(&self) -> String {
        let answer = match self.protocol {
            Protocol::Native => format!("{:?}", self.native.expected.front()),
            Protocol::Clusterws(_) => format!("{:?}", self.clusterws),
            Protocol::Resp => format!("{:?}", self.resp.expected.front()),
            Protocol::Peer => format!("{:?}", self.peer),
        };
        format!(
            "client {} ({:?}, {:?}) waits for {answer} and {} pongs",
            self.index,
            self.protocol,
            self.phase,
            self.pings.len()
        )
    }
}
