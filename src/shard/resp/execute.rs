//! What the commands of RESP do.

use std::sync::Arc;

use bytes::Bytes;

use crate::address::SessionId;
use crate::error::CloseReason;
use crate::limits::{
    RESP_ARGUMENTS_BEFORE_AUTH_MAX, RESP_ARGUMENTS_MAX, RESP_BULK_BYTES_BEFORE_AUTH_MAX,
    RESP_COMMAND_BYTES_SPARE, RESP_COMMAND_BYTES_SPARE_BEFORE_AUTH,
};
use crate::message::{Flags, Message, Origin, Payload, Targets};
use crate::protocol::resp::reader::{Reader, ReaderLimits};
use crate::protocol::resp::request::{CommandRequest, PubSubRequest, Refusal, ReplyMode};
use crate::protocol::resp::{Arguments, Kind, Request, Space, Version, decode, reply};
use crate::protocol::{Action, Encoding};
use crate::topic::{Filter, Topic, TopicError};

use super::super::Shard;
use super::super::credentials::{Identity, Unauthenticated};
use super::super::fault::Place;
use super::super::input::Read;
use super::super::rate::Rated;
use super::super::session::Held;
use super::super::tally::Gathered;
use super::{RespSession, Waiting, version_of};

/// The command can't take effect yet: it is to be tried again.
#[derive(Debug)]
pub(in super::super) struct Wait;

/// Redis' refusal where an access rule does not allow a channel.
const NOPERM: &[u8] =
    b"NOPERM this user has no permissions to access one of the channels used as arguments";

impl Shard {
    /// Reads one command and carries it out if it is complete; the bytes that it took.
    pub(in super::super) fn read_command(
        &mut self,
        id: SessionId,
        reader: &mut Reader,
        input: &[u8],
    ) -> (usize, Read) {
        let Some(limits) = self.reader_limits(id) else {
            return (0, Read::Part);
        };
        let read = self
            .settings
            .fault
            .contain(Place::Frame, move || reader.next(limits, input));
        match read {
            None => self.close(id, CloseReason::Internal),
            Some(Ok((taken, None))) => return (taken, Read::Part),
            Some(Ok((taken, Some(arguments)))) => {
                self.stats.commands += 1;
                if let Err(Wait) = self.execute_arguments(id, &arguments) {
                    self.hold(id, Held::Arguments(arguments.to_owned()));
                }
                return (taken, Read::Message);
            }
            Some(Err(violation)) => {
                let mut words = Vec::new();
                violation.write_reply(&mut words);
                if let Some(held) = self.end_resp(id, violation.reason, words) {
                    self.hold(id, held);
                    // Nothing behind it is a command.
                    return (input.len(), Read::Part);
                }
            }
        }
        (0, Read::Part)
    }

    /// Ends a session behind these last words. While what it asked before is not answered they are given back, to be
    /// held.
    pub(in super::super) fn end_resp(
        &mut self,
        id: SessionId,
        reason: CloseReason,
        words: Vec<u8>,
    ) -> Option<Held> {
        if self.has_waiting_subscribes(id) || self.has_waiting_answers(id) {
            return Some(Held::LastWords(reason, words));
        }
        self.close_after(id, reason, &words);
        None
    }

    /// What this session may send. Before it has said who it is, that is little.
    fn reader_limits(&mut self, id: SessionId) -> Option<ReaderLimits> {
        let session = self.sessions.find(id)?;
        let message_bytes_max = session.limits(&self.settings).message_bytes_max;
        let authenticated = session.resp.as_ref()?.is_authenticated;
        let (bulk_bytes_max, arguments_max) = if authenticated {
            (message_bytes_max, RESP_ARGUMENTS_MAX)
        } else {
            let bulk_bytes_max = message_bytes_max.min(RESP_BULK_BYTES_BEFORE_AUTH_MAX);
            (bulk_bytes_max, RESP_ARGUMENTS_BEFORE_AUTH_MAX)
        };
        // Beside one large argument, many small ones.
        let command_bytes_max = bulk_bytes_max
            + if authenticated {
                RESP_COMMAND_BYTES_SPARE
            } else {
                RESP_COMMAND_BYTES_SPARE_BEFORE_AUTH
            };
        Some(ReaderLimits {
            bulk_bytes_max,
            arguments_max,
            command_bytes_max,
            authenticated,
        })
    }

    /// Carries a command out, or says that it must wait.
    pub(in super::super) fn execute_arguments(
        &mut self,
        id: SessionId,
        arguments: &Arguments<'_>,
    ) -> Result<(), Wait> {
        self.settings.fault.pass(Place::Shard);
        let decoded = self
            .settings
            .fault
            .contain(Place::Decode, || decode(arguments));
        let request = match decoded {
            None => {
                self.close(id, CloseReason::Internal);
                return Ok(());
            }
            Some(Ok(request)) => request,
            Some(Err(Refusal::CrossProtocol)) => {
                if let Some(session) = self.sessions.find(id) {
                    tracing::warn!(address = %session.address, "HTTP at a RESP listener: closed");
                }
                self.close_after(id, CloseReason::ProtocolError, b"");
                return Ok(());
            }
            Some(Err(Refusal::Error(text))) => {
                if self.has_waiting_subscribes(id) || self.has_many_waiting_answers(id) {
                    return Err(Wait);
                }
                self.refuse_resp(id, &text);
                return Ok(());
            }
        };
        self.execute_request(id, &request)
    }

    fn execute_request(&mut self, id: SessionId, request: &Request<'_>) -> Result<(), Wait> {
        let Some(session) = self.sessions.find(id) else {
            return Ok(());
        };
        let is_subscribe = matches!(request, Request::Subscribe { .. });
        let has_waiting_subscribes = session.waiting_subscribes() > 0;
        let bytes_max = session.replies_bytes_max(&self.settings);
        let version = version_of(session);
        let Some(resp) = &mut session.resp else {
            return Ok(());
        };
        let must_wait = has_waiting_subscribes && !is_subscribe
            || resp.has_many_waiting(bytes_max)
            || changes_connection(request) && !resp.waiting.is_empty();
        if must_wait {
            return Err(Wait);
        }
        resp.command = request.name();
        if !resp.is_authenticated && !request.is_allowed_before_auth() {
            self.refuse_resp(id, reply::NOAUTH);
            return Ok(());
        }
        let is_subscribed = resp.counts.is_any();
        if version == Version::Two
            && is_subscribed
            && let Err(text) = request.check_subscribed()
        {
            self.refuse_resp(id, &text);
            return Ok(());
        }
        match *request {
            Request::Publish {
                space,
                channel,
                payload,
            } => return self.publish_resp(id, space, channel, payload),
            Request::Subscribe { kind, names } => return self.subscribe_resp(id, kind, names),
            Request::Unsubscribe { kind, names } => self.unsubscribe_resp(id, kind, names),
            Request::Hello {
                version,
                auth,
                name,
            } => self.hello(id, version, auth, name),
            Request::Auth { user, password } => self.auth(id, user, password),
            Request::Ping(message) => self.answer_resp(id, |version, out| {
                reply::write_pong(version, is_subscribed, message, out);
            }),
            Request::Echo(message) => {
                self.answer_resp(id, |_, out| reply::write_bulk(message, out));
            }
            Request::Time => {
                let unix_us = self.now.unix_ms * 1000;
                self.answer_resp(id, |_, out| reply::write_time(unix_us, out));
            }
            Request::Select => self.answer_resp(id, |_, out| reply::write_simple(b"OK", out)),
            Request::Quit => {
                let mut words = Vec::new();
                reply::write_simple(b"OK", &mut words);
                self.close_after(id, CloseReason::ClientClosed, &words);
            }
            Request::Reset => self.reset(id),
            Request::Info(sections) => return self.ask_facts(id, sections),
            Request::Client(ref client) => return self.client(id, client),
            Request::Command(command) => self.answer_resp(id, |version, out| match command {
                CommandRequest::All | CommandRequest::List => reply::write_array(0, out),
                CommandRequest::Count => reply::write_integer(0, out),
                CommandRequest::Docs => reply::write_map(version, 0, out),
                CommandRequest::Info(count) => {
                    reply::write_array(count, out);
                    (0..count).for_each(|_| reply::write_null(version, out));
                }
            }),
            Request::ConfigGet => {
                self.answer_resp(id, |version, out| reply::write_map(version, 0, out));
            }
            Request::PubSub(PubSubRequest::Channels { space, pattern }) => {
                return self.ask_names(id, space, pattern);
            }
            Request::PubSub(PubSubRequest::NumSub { space, names }) => {
                return self.ask_counts(id, space, names);
            }
            Request::PubSub(PubSubRequest::NumPat) => {
                let count = self.patterns() as i64;
                self.answer_resp(id, |_, out| reply::write_integer(count, out));
            }
            Request::Exists | Request::DbSize => {
                self.answer_resp(id, |_, out| reply::write_integer(0, out));
            }
            Request::Get => self.answer_resp(id, reply::write_null),
            Request::Help { lines, .. } => {
                self.answer_resp(id, |_, out| reply::write_lines(lines, out));
            }
            Request::Refused { ref error, .. } => self.refuse_resp(id, error),
        }
        Ok(())
    }

    /// Publishes, and answers with the number of receivers, when every shard has said how many it has.
    fn publish_resp(
        &mut self,
        id: SessionId,
        space: Space,
        channel: &[u8],
        payload: &[u8],
    ) -> Result<(), Wait> {
        if !self.rate_allows(id, Rated::Publish) {
            return Err(Wait);
        }
        let topic = match self.take_channel(space, channel) {
            Ok(topic) => topic,
            Err(error) => {
                self.refuse_topic(id, error);
                return Ok(());
            }
        };
        let Some(session) = self.sessions.find(id) else {
            return Ok(());
        };
        let resp = session.resp.as_ref();
        let wants_answer = resp.is_some_and(|resp| resp.replies == ReplyMode::On);
        let identity = session.identity.as_deref();
        if !self.settings.access.may_publish(&topic, identity) {
            self.refuse_resp(id, NOPERM);
            return Ok(());
        }
        if !self.has_interest(&topic) {
            // Before anything is copied for nobody.
            self.channel = Some(topic);
            self.stats.publishes += 1;
            self.spend_rate(id, Rated::Publish);
            self.answer_resp(id, |_, out| reply::write_integer(0, out));
            return Ok(());
        }
        self.channel = Some(topic.clone());
        let message = Arc::new(Message {
            targets: Targets {
                topics: smallvec::smallvec![topic],
                ..Targets::default()
            },
            event: None,
            payload: Payload::untyped(Bytes::copy_from_slice(payload)),
            attachments: Vec::new(),
            origin: Some(Origin {
                shard: self.id,
                session: id,
            }),
            flags: Flags::default(),
            position: None,
            unix_ms: self.now.unix_ms,
            envelope: None,
        });
        let number = wants_answer.then(|| self.tallies.reserve());
        let Some((receivers, asked)) = self.route_asking(&message, number) else {
            return Err(Wait);
        };
        self.stats.publishes += 1;
        self.spend_rate(id, Rated::Publish);
        match number {
            Some(number) if asked > 0 => {
                self.wait_for(id, number, asked, Gathered::Receivers(receivers));
            }
            _ => self.answer_resp(id, |_, out| reply::write_integer(receivers as i64, out)),
        }
        Ok(())
    }

    /// The topic of a channel. Publications mostly go to the channel of the one before, whose topic is kept.
    fn take_channel(&mut self, space: Space, channel: &[u8]) -> Result<Topic, TopicError> {
        let is_shard = matches!(space, Space::Shards);
        let is_it = |topic: &Topic| topic.as_bytes() == channel && topic.is_shard() == is_shard;
        if let Some(topic) = self.channel.take_if(|topic| is_it(topic)) {
            return Ok(topic);
        }
        let name = Bytes::copy_from_slice(channel);
        match space {
            Space::Channels => Topic::channel(name),
            Space::Shards => Topic::shard(name),
        }
    }

    /// The place of an answer that other shards have to say their part of.
    pub(super) fn wait_for(
        &mut self,
        id: SessionId,
        number: u64,
        asked: usize,
        gathered: Gathered,
    ) {
        // A session that was closed by what it published itself waits for nothing.
        let Some(session) = self.sessions.find(id).filter(|session| session.is_open()) else {
            return;
        };
        if let Some(resp) = &mut session.resp {
            self.tallies.begin(number, id, asked, gathered);
            resp.waiting.push_back(Waiting::Tally(number));
        }
    }

    pub(super) fn refuse_topic(&mut self, id: SessionId, error: TopicError) {
        let text = format!("ERR {error}");
        self.refuse_resp(id, text.as_bytes());
    }

    /// All of these subscriptions, or none with an error.
    fn subscribe_resp(&mut self, id: SessionId, kind: Kind, names: &[&[u8]]) -> Result<(), Wait> {
        if !self.rate_allows(id, Rated::Subscribe) {
            return Err(Wait);
        }
        let mut filters = Vec::with_capacity(names.len());
        for name in names {
            match filter(kind, name) {
                Ok(filter) => filters.push(filter),
                Err(error) => {
                    return self.refuse_subscribe(id, format!("ERR {error}").as_bytes());
                }
            }
        }
        let Some(session) = self.sessions.find(id) else {
            return Ok(());
        };
        let Some(resp) = &session.resp else {
            return Ok(());
        };
        let (access, identity) = (&self.settings.access, session.identity.as_deref());
        if !filters
            .iter()
            .all(|filter| access.may_subscribe(filter, identity))
        {
            return self.refuse_subscribe(id, NOPERM);
        }
        let limits = session.limits(&self.settings);
        let waiting = session.waiting_subscribes();
        let new = filters.iter().filter(|filter| {
            let known = self.subscriptions.find(filter);
            !known.is_some_and(|known| session.subscriptions.contains(known))
        });
        let new = new.count();
        let is_pattern = kind == Kind::Pattern;
        if session.subscriptions.len() + waiting + new > limits.subscriptions_max {
            return self.refuse_subscribe(id, b"ERR too many subscriptions of one connection");
        }
        if is_pattern && resp.counts.patterns + waiting + new > limits.patterns_max {
            return self.refuse_subscribe(id, b"ERR too many patterns of one connection");
        }
        // One command, and as many subscriptions as it names: the next waits the longer.
        self.spend_rate_of(id, Rated::Subscribe, names.len());
        for filter in filters {
            self.enlist(id, filter, None);
        }
        Ok(())
    }

    /// Refuses a subscribe behind those that wait: their confirmations come first, and until then they count for more
    /// than they may be.
    fn refuse_subscribe(&mut self, id: SessionId, text: &[u8]) -> Result<(), Wait> {
        if self.has_waiting_subscribes(id) {
            return Err(Wait);
        }
        self.refuse_resp(id, text);
        Ok(())
    }

    fn unsubscribe_resp(&mut self, id: SessionId, kind: Kind, names: &[&[u8]]) {
        if !names.is_empty() {
            for name in names {
                match filter(kind, name) {
                    Ok(filter) => {
                        self.unsubscribe(id, &filter);
                        self.confirm(id, Action::Unsubscribe, &filter, None);
                    }
                    // Nobody can have subscribed to it.
                    Err(_) => self.confirm_name(id, false, kind, Some(name)),
                }
            }
            return;
        }
        let filters = self.filters_of(id, kind);
        if filters.is_empty() {
            return self.confirm_name(id, false, kind, None);
        }
        for filter in filters {
            self.unsubscribe(id, &filter);
            self.confirm(id, Action::Unsubscribe, &filter, None);
        }
    }

    /// A session's filters of a kind.
    fn filters_of(&mut self, id: SessionId, kind: Kind) -> Vec<Filter> {
        let Some(session) = self.sessions.find(id) else {
            return Vec::new();
        };
        let filters = session.subscriptions.iter();
        let filters = filters.map(|(filter, _)| self.subscriptions.filter(filter));
        filters
            .filter(|filter| super::kind_of(filter) == kind)
            .cloned()
            .collect()
    }

    fn hello(
        &mut self,
        id: SessionId,
        version: Option<Version>,
        auth: Option<(&[u8], &[u8])>,
        name: Option<&[u8]>,
    ) {
        if let Some((user, password)) = auth
            && !self.believe(id, Some(user), password)
        {
            return;
        }
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        let Some(resp) = &mut session.resp else {
            return;
        };
        if !resp.is_authenticated {
            return self.refuse_resp(id, reply::NOAUTH_HELLO);
        }
        if let Some(name) = name {
            resp.name = name.into();
        }
        let client = resp.client;
        if let Some(version) = version {
            self.speak_version(id, version);
        }
        self.answer_resp(id, |version, out| reply::write_hello(version, client, out));
    }

    fn auth(&mut self, id: SessionId, user: Option<&[u8]>, password: &[u8]) {
        if user.is_none() && !self.has_credentials() {
            return self.refuse_resp(id, reply::NO_PASSWORD);
        }
        if self.believe(id, user, password) {
            self.answer_resp(id, |_, out| reply::write_simple(b"OK", out));
        }
    }

    /// Is this who the session says it is? If not, that was the answer.
    fn believe(&mut self, id: SessionId, user: Option<&[u8]>, password: &[u8]) -> bool {
        match self.authenticate_resp(id, user, password) {
            Ok(()) => return true,
            Err(why @ Unauthenticated::Blocked { .. }) => {
                let mut words = Vec::new();
                reply::write_error(format!("ERR {why}").as_bytes(), &mut words);
                self.close_after(id, CloseReason::HandshakeRefused, &words);
            }
            Err(Unauthenticated::Internal) => self.close(id, CloseReason::Internal),
            Err(Unauthenticated::Silent | Unauthenticated::Refused(_)) => {
                self.refuse_resp(id, reply::WRONGPASS);
            }
        }
        false
    }

    /// Could anybody say who it is?
    fn has_credentials(&self) -> bool {
        self.credentials.resp_password.is_some() || !self.credentials.keys.is_empty()
    }

    /// Must everybody say who it is?
    pub(super) fn asks_for_password(&self) -> bool {
        let is_by_token =
            !self.credentials.keys.is_empty() && !self.settings.access.admits_anyone();
        self.credentials.resp_password.is_some() || is_by_token
    }

    /// Is this who the session says it is? Then it is from now on: the default user by the password, anybody by a token
    /// in its place.
    fn authenticate_resp(
        &mut self,
        id: SessionId,
        user: Option<&[u8]>,
        password: &[u8],
    ) -> Result<(), Unauthenticated> {
        let is_default = user.is_none_or(|user| user == b"default");
        let credentials = self.credentials.clone();
        let secret = credentials.resp_password.as_ref();
        if secret.is_some() {
            // Also before the right one is said: whoever guesses must not learn that it was.
            self.check_address(id)?;
        }
        let identity = if secret.is_some_and(|secret| is_default && secret.matches(password)) {
            Some(Box::new(Identity::named("default")))
        } else if !credentials.keys.is_empty() {
            Some(self.authenticate(id, password)?)
        } else if secret.is_some() || !is_default {
            self.stats.unauthenticated += 1;
            self.count_failure(id);
            return Err(Unauthenticated::Silent);
        } else {
            // As Redis' default user without a password: any will do.
            None
        };
        if let Some(resp) = self
            .sessions
            .find(id)
            .and_then(|session| session.resp.as_mut())
        {
            resp.is_authenticated = true;
        }
        if let Some(identity) = identity {
            self.identify(id, identity);
        }
        Ok(())
    }

    /// From now on this session speaks this version, its subscriptions with it.
    fn speak_version(&mut self, id: SessionId, version: Version) {
        // What was encoded before is in the version of before.
        self.seal_run();
        let encoding = Encoding::Resp(version);
        let Some(session) = self.sessions.find(id).filter(|session| session.is_open()) else {
            return;
        };
        let before = std::mem::replace(&mut session.encoding, encoding);
        if before == encoding {
            return;
        }
        let subscriptions: Vec<_> = session.subscriptions.iter().collect();
        for (filter, place) in subscriptions {
            let subscribers = self.subscriptions.value_mut(filter);
            let new_place = subscribers.add(encoding, id.slot);
            self.leave_group(filter, before, place);
            if let Some(session) = self.sessions.find(id) {
                session.subscriptions.insert(filter, new_place);
            }
        }
    }

    /// As a connection that has just come.
    fn reset(&mut self, id: SessionId) {
        for kind in [Kind::Channel, Kind::Pattern, Kind::Shard] {
            for filter in self.filters_of(id, kind) {
                self.unsubscribe(id, &filter);
            }
        }
        self.speak_version(id, Version::Two);
        let is_authenticated = !self.asks_for_password();
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        session.identity = None;
        if let Some(resp) = &mut session.resp {
            let (client, since_ms) = (resp.client, resp.since_ms);
            // Whoever had said it gets the time to say it anew, and nobody else more of it.
            let unknown_since_ms = if resp.is_authenticated {
                self.now.ms
            } else {
                resp.unknown_since_ms
            };
            **resp = RespSession {
                unknown_since_ms,
                ..RespSession::new(client, since_ms, is_authenticated)
            };
        }
        self.answer_resp(id, |_, out| reply::write_simple(b"RESET", out));
    }
}

/// Must the answers before this one be out before it changes what the connection is?
fn changes_connection(request: &Request<'_>) -> bool {
    matches!(
        request,
        Request::Subscribe { .. }
            | Request::Unsubscribe { .. }
            | Request::Hello { .. }
            | Request::Auth { .. }
            | Request::Reset
            | Request::Quit
    )
}

/// What a subscription of this kind to this name asks for.
fn filter(kind: Kind, name: &[u8]) -> Result<Filter, TopicError> {
    let name = Bytes::copy_from_slice(name);
    match kind {
        Kind::Channel => Filter::exact(name),
        Kind::Pattern => Filter::glob(name),
        Kind::Shard => Filter::shard(name),
    }
}
