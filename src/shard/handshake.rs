//! From the first byte to the 101: request heads, plain HTTP, placement, admission. (What proxies add: `proxied`.)

use bytes::Bytes;

use crate::address::{RemoteAddress, SessionId, ShardId};
use crate::console;
use crate::error::CloseReason;
use crate::protocol::{Protocol, clusterws};
use crate::ws::forwarded::Forwarded;
use crate::ws::frame::encode_header;
use crate::ws::handshake;
use crate::ws::http::{self, Reject, Request};
use crate::ws::origin;

use super::credentials::{self, Identity};
use super::fault::{self, Place};
use super::proxied::{Head, counted};
use super::session::{Collected, Since, Stall, State};
use super::settings::ListenerSettings;
use super::{Effect, Shard};

/// The host's word.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// Come in, as this identity or as nobody in particular.
    Admitted { identity: Option<Box<Identity>> },
    /// Refused: 401, this reason, and the end of the connection.
    Refused { reason: Bytes },
}

/// What a complete request head asks for.
enum Asked {
    /// Answer with these bytes, then close.
    Answer(Vec<u8>),
    /// Something that a host answers.
    Host,
    /// WebSocket: what is spoken over it, and the 101 response.
    Upgrade(Protocol, Vec<u8>),
}

impl Shard {
    /// Collects the request head and acts on it when it is complete.
    pub(super) fn receive_head(&mut self, id: SessionId, bytes: &mut [u8]) {
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        let State::Handshake { head, dealt } = &mut session.state else {
            return;
        };
        let dealt = *dealt;
        // Most heads come in one piece: then nothing is copied.
        let mut collected = head.take().map_or_else(Vec::new, |head| head.0);
        let (limits, listener) = (&self.settings.limits, usize::from(session.listener));
        let input: &mut [u8] = if collected.is_empty() {
            bytes
        } else {
            collected.extend_from_slice(bytes);
            &mut collected
        };
        let settings = &self.settings.listeners[listener];
        let trusted = &self.settings.trusted;
        let takes_http = self.hosts.take_http();
        let parsed = self.settings.fault.contain(Place::Handshake, || {
            Head::parse(trusted, &session.address, limits, input)
        });
        let head = match parsed {
            None => return self.handshake_failed(id),
            Some(Ok(Some(head))) => head,
            Some(Ok(None)) => {
                let collected = if collected.is_empty() {
                    bytes.to_vec()
                } else {
                    collected
                };
                session.state = State::Handshake {
                    head: Some(Box::new(Collected(collected))),
                    dealt,
                };
                return;
            }
            Some(Err((reject, log))) => {
                if let Some(log) = log {
                    tracing::warn!(address = %session.address, status = reject.status, "{log}");
                }
                let mut answer = Vec::new();
                http::reject_response(reject, &mut answer);
                return self.refuse(id, &answer);
            }
        };
        if settings.dealt && !dealt && self.settings.shards > 1 {
            let to = deal(&mut self.next_deal, self.settings.shards);
            if to != self.id {
                let bytes = input.to_vec();
                return self.hand_over(id, to, bytes);
            }
        }
        let (head_size, request) = (head.size(), &head.request);
        let token = credentials::token_in(request);
        let Some((client, asked)) = fault::contain(|| {
            let (client, forwarded) = head.client(trusted, &session.address);
            (client, asked(settings, request, &forwarded, takes_http))
        }) else {
            return self.handshake_failed(id);
        };
        // From here on it stays: one that is handed over goes as its peer's, with all its bytes, and is read anew.
        let seat = client.and_then(|client| {
            session.address = client;
            counted(&self.settings, &session.address)
        });
        let address = session.address.clone();
        let asked = match asked {
            Ok(asked) => asked,
            Err((reject, log)) => {
                if let Some(log) = log {
                    tracing::warn!(address = %session.address, status = reject.status, "{log}");
                }
                let mut answer = Vec::new();
                http::reject_response(reject, &mut answer);
                return self.refuse(id, &answer);
            }
        };
        match asked {
            Asked::Answer(answer) => self.refuse(id, &answer),
            Asked::Host => {
                // Without what a proxy said in front of it: the host is told whom it speaks of.
                let bytes = input[head.preface_size()..].to_vec();
                self.give_http(id, bytes);
            }
            Asked::Upgrade(protocol, response) => {
                if let Err(why) = self.let_in(id, token.as_deref()) {
                    return self.refuse(id, &why.response());
                }
                self.note_id(id, request);
                let shows_id = self.has_id_to_show(id);
                let user = self
                    .sessions
                    .peek(id)
                    .and_then(|one| one.identity.as_deref());
                let arriving = self.arriving(protocol, request, &address, user);
                let must_ask = self.must_ask() && arriving.is_some();
                let Some(session) = self.sessions.find(id) else {
                    return;
                };
                session.speak(protocol);
                if seat.is_some() || must_ask || shows_id {
                    let response = Box::new(Collected(response));
                    session.state = State::Admission { response };
                    let rest = input[head_size..].to_vec();
                    if !rest.is_empty() {
                        session.stall.get_or_insert_default().bytes = rest;
                    }
                    match (seat, arriving) {
                        (Some(ip), host) => self.effects.push(Effect::AskSeat {
                            session: id,
                            ip,
                            host,
                        }),
                        (None, arriving) => self.go_on(id, arriving),
                    }
                    self.update_reading(id);
                } else {
                    if let Some(arriving) = arriving {
                        session.hosted.get_or_insert_default().arriving = Some(arriving);
                    }
                    self.open(id, &response);
                    self.come_in(id);
                    let rest = &mut input[head_size..];
                    if !rest.is_empty() {
                        self.read_messages(id, rest);
                    }
                }
            }
        }
    }

    /// The word on a session in admission; without one, the handshake's deadline refuses.
    pub(super) fn admit(&mut self, id: SessionId, verdict: Verdict) {
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        let State::Admission { response } = &mut session.state else {
            return;
        };
        let response = std::mem::take(&mut response.0);
        match verdict {
            // A drain lets nobody in any more.
            Verdict::Admitted { .. } if self.is_quiet => {
                self.stats.handshakes_refused += 1;
                self.refuse_connection(id);
            }
            Verdict::Admitted { identity } => {
                let stall = session.stall.take();
                if let Some(identity) = identity {
                    self.identify(id, identity);
                }
                if self.has_id_to_show(id) {
                    return self.wait_for_id(id, response, stall);
                }
                if self.is_of_resp(id) {
                    self.open_resp(id);
                } else {
                    self.open(id, &response);
                    self.come_in(id);
                }
                // The word may have come from another shard, and nothing is routed before all that these say is heard.
                if let Some(session) = self.sessions.find(id) {
                    session.stall = stall;
                }
                self.resume_later(id);
                self.update_reading(id);
            }
            Verdict::Refused { reason } => {
                let mut answer = Vec::new();
                let text = [&reason[..], b"\n"].concat();
                http::response(401, "text/plain; charset=utf-8", &[], &text, &mut answer);
                self.refuse(id, &answer);
            }
        }
        self.set_timer(id);
    }

    /// A session that may come in if the id that it shows is an accepted one stays where it is.
    fn wait_for_id(&mut self, id: SessionId, response: Vec<u8>, stall: Option<Box<Stall>>) {
        if let Some(session) = self.sessions.find(id) {
            let response = Box::new(Collected(response));
            session.state = State::Admission { response };
            session.stall = stall;
        }
        self.show_id(id);
        self.set_timer(id);
    }

    fn open(&mut self, id: SessionId, response: &[u8]) {
        let now_ms = self.now.ms;
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        session.state = State::Open;
        session.last_input_ms = now_ms;
        session.timer_ms = u64::MAX;
        let mut head = response.to_vec();
        if let Protocol::Clusterws(dialect) = session.protocol {
            // Its client is connected when it has read this, and counts its pings from then on. Nothing comes before
            // it, neither what is said to it nor of what it misses.
            session.pinged = Since::at(now_ms);
            let ping_ms = session.limits(&self.settings).clusterws_ping_interval_ms;
            let mut words = Vec::new();
            clusterws::encode_config(dialect, ping_ms, &mut words);
            encode_header(dialect.opcode(), words.len(), &mut head);
            head.extend_from_slice(&words);
        }
        let before = session.outbox.charged();
        session.outbox.put_head(&head);
        self.outbox_bytes = self.outbox_bytes + session.outbox.charged() - before;
        super::fanout::mark_dirty(session, &mut self.dirty);
    }

    /// Answers with these bytes and closes.
    pub(super) fn refuse(&mut self, id: SessionId, answer: &[u8]) {
        self.stats.handshakes_refused += 1;
        self.close_after(id, CloseReason::HandshakeRefused, answer);
    }

    /// One connection too many, or one too late.
    pub(super) fn refuse_connection(&mut self, id: SessionId) {
        let text: &[u8] = if self.is_quiet || self.is_leaving {
            b"going away\n"
        } else {
            b"too many connections\n"
        };
        if self.is_of_resp(id) {
            let error = b"-ERR max number of clients reached\r\n";
            return self.close_after(id, CloseReason::HandshakeRefused, error);
        }
        if self.is_of_peers(id) {
            let is_going = self.is_quiet || self.is_leaving;
            return self.refuse_peer(id, if is_going { "going_away" } else { "busy" }, text);
        }
        let mut answer = Vec::new();
        http::response(
            503,
            "text/plain",
            &[("Retry-After", "5")],
            text,
            &mut answer,
        );
        self.close_after(id, CloseReason::HandshakeRefused, &answer);
    }

    /// The handshake's time is up.
    pub(super) fn handshake_late(&mut self, id: SessionId) {
        if self.is_of_resp(id) {
            self.stats.handshakes_refused += 1;
            let error = b"-NOAUTH Authentication required.\r\n";
            return self.close_after(id, CloseReason::TooLate, error);
        }
        if self.is_of_peers(id) {
            self.stats.handshakes_refused += 1;
            return self.refuse_peer(id, "timeout", b"HELLO took too long");
        }
        let mut answer = Vec::new();
        http::reject_response(reject(408, "the handshake took too long"), &mut answer);
        self.refuse(id, &answer);
    }

    /// Did it come to a RESP listener?
    pub(super) fn is_of_resp(&mut self, id: SessionId) -> bool {
        self.sessions
            .find(id)
            .is_some_and(|session| session.resp_listener(&self.settings))
    }

    /// A bug of ours met its request head. There is no WebSocket yet that a close code could end.
    fn handshake_failed(&mut self, id: SessionId) {
        let mut answer = Vec::new();
        http::reject_response(reject(500, "internal error"), &mut answer);
        self.close_after(id, CloseReason::Internal, &answer);
    }

    /// The session is another shard's: it leaves this table, with all its bytes.
    pub(super) fn hand_over(&mut self, id: SessionId, to: ShardId, bytes: Vec<u8>) {
        let Some(session) = self.sessions.remove(id) else {
            return;
        };
        self.stats.handed_over += 1;
        self.effects.push(Effect::HandOver {
            session: id,
            to,
            listener: session.listener,
            address: session.address,
            bytes,
        });
    }

    /// What the driver had of a connection when it was handed over in this turn follows it.
    pub(super) fn send_after(&mut self, id: SessionId, late: &[u8]) {
        let handed = self
            .effects
            .iter_mut()
            .rev()
            .find_map(|effect| match effect {
                Effect::HandOver { session, bytes, .. }
                | Effect::Release { session, bytes, .. }
                    if *session == id =>
                {
                    Some(bytes)
                }
                _ => None,
            });
        if let Some(bytes) = handed {
            bytes.extend_from_slice(late);
        }
    }

    /// A connection that another shard handed over; its bytes follow by [`Shard::receive`] in a later turn.
    pub fn adopt(&mut self, id: SessionId, listener: u16, address: RemoteAddress) {
        self.enter(id, listener, address);
        if let Some(session) = self.sessions.find(id)
            && let State::Handshake { dealt, .. } = &mut session.state
        {
            *dealt = true;
        }
        if self.is_leaving {
            // It was on its way here when everybody else was told to leave.
            self.stats.refused += 1;
            self.refuse_connection(id);
        } else if self.is_of_resp(id) {
            self.enter_resp(id, true);
        } else if self.is_of_peers(id) {
            self.enter_peer(id, true);
        }
        self.set_timer(id);
    }
}

/// The shard that a connection is dealt to.
pub(super) fn deal(next: &mut usize, shards: usize) -> ShardId {
    let to = ShardId((*next % shards) as u8);
    *next += 1;
    to
}

/// Decides on a request head. An error may carry a line for the log.
fn asked(
    settings: &ListenerSettings,
    request: &Request<'_>,
    forwarded: &Forwarded,
    takes_http: bool,
) -> Result<Asked, (Reject, Option<String>)> {
    let upgrade = handshake::upgrade(request).map_err(|reject| (reject, None))?;
    if upgrade.is_none() && takes_http && !is_upgrade_path(settings, request.path) {
        // Its own server decides whom it answers.
        return Ok(Asked::Host);
    }
    if let Err(log) = origin::check(&settings.origins, request, forwarded) {
        return Err((reject(403, "origin or host not allowed"), Some(log)));
    }
    match upgrade {
        Some(upgrade) => {
            let Some(protocol) = protocol_at(settings, request) else {
                return Err((reject(404, "no such path"), None));
            };
            let mut response = Vec::new();
            handshake::switching(&upgrade, None, &mut response);
            Ok(Asked::Upgrade(protocol, response))
        }
        None => {
            let mut answer = Vec::new();
            if request.method != "GET" && request.method != "HEAD" {
                return Err((reject(405, "only GET is answered here"), None));
            } else if request.path == "/" && settings.http {
                let body = console::CONSOLE.as_bytes();
                http::response(
                    200,
                    "text/html; charset=utf-8",
                    console::CONSOLE_HEADERS,
                    body,
                    &mut answer,
                );
                if request.method == "HEAD" {
                    answer.truncate(answer.len() - body.len());
                }
            } else if is_upgrade_path(settings, request.path) {
                return Err((reject(426, "this path speaks WebSocket"), None));
            } else {
                return Err((reject(404, "no such path"), None));
            }
            Ok(Asked::Answer(answer))
        }
    }
}

/// Is this a path of WebSocket and nothing else?
fn is_upgrade_path(settings: &ListenerSettings, path: &str) -> bool {
    let clusterws_path = settings
        .clusterws
        .is_some()
        .then_some(&settings.clusterws_path[..]);
    [
        settings.echo_path.as_deref(),
        settings.native_path.as_deref(),
        clusterws_path,
    ]
    .contains(&Some(path))
}

/// What is spoken over WebSocket at a path.
fn protocol_at(settings: &ListenerSettings, request: &Request<'_>) -> Option<Protocol> {
    let path = request.path;
    if settings.echo_path.as_deref() == Some(path) {
        return Some(Protocol::Echo);
    }
    if let Some(dialect) = settings.clusterws
        && settings.clusterws_path == path
    {
        let query = request.query.unwrap_or_default();
        return Some(Protocol::Clusterws(dialect.asked_by(query)));
    }
    let is_native = settings.native
        && settings
            .native_path
            .as_deref()
            .is_none_or(|native| native == path);
    is_native.then_some(Protocol::Native)
}

fn reject(status: u16, reason: &'static str) -> Reject {
    Reject { status, reason }
}

#[cfg(test)]
mod tests {
    use super::super::settings::Admission;
    use super::super::testing::{HEAD, House, Who, brief, frame};
    use super::*;
    use crate::protocol::peer::{Admitted, Watch};
    use crate::ws::frame::Opcode;

    const WHOAMI: &str = r#"{"type":"whoami"}"#;

    /// A connection that says this and no more; the status line.
    fn status(house: &mut House, listener: u16, head: &str) -> String {
        let client = house.accept(0, listener, false);
        house.bytes(client, head.as_bytes());
        house.settle();
        let answer = house.head(client);
        answer.lines().next().unwrap_or_default().to_owned()
    }

    fn asking() -> (House, Who) {
        let mut house = House::with(1, |settings| settings.admission = Admission::Host);
        let host = house.host(0, "h", Watch::ADMIT);
        (house, host)
    }

    fn asked(house: &mut House, host: Who) -> Who {
        let client = house.accept(0, 0, false);
        let head = HEAD.replace("GET / ", "GET /in?key=1 ");
        let text = frame(Opcode::Text, WHOAMI.as_bytes());
        house.bytes(client, &[head.as_bytes(), &text].concat());
        house.turn(0);
        let slot = client.id.slot;
        assert_eq!(
            house.told(host),
            [format!("admit 0:{slot} native /in?key=1")]
        );
        assert!(
            house.is_paused(client),
            "what it says waits with the host's word"
        );
        client
    }

    #[test]
    fn a_head_may_come_in_any_pieces_with_messages_behind_it() {
        let text = frame(Opcode::Text, WHOAMI.as_bytes());
        let all = [HEAD.as_bytes(), &text].concat();
        for cut in 0..=all.len() {
            let mut house = House::new(1);
            let client = house.accept(0, 0, false);
            for piece in [&all[..cut], &all[cut..]] {
                house.bytes(client, piece);
                house.turn(0);
            }
            assert!(house.head(client).starts_with("HTTP/1.1 101 "), "{cut}");
            assert_eq!(brief(&house.read(client)), ["session"], "{cut}");
        }
    }

    #[test]
    fn a_drip_of_single_bytes_gets_in_and_buys_no_time() {
        let mut house = House::new(1);
        let (drip, late) = (house.accept(0, 0, false), house.accept(0, 0, false));
        for (index, byte) in HEAD.bytes().enumerate() {
            house.bytes(drip, &[byte]);
            house.bytes(late, &HEAD.as_bytes()[..(index == 0).into()]);
            house.pass(9_000 / HEAD.len() as u64);
            house.turn(0);
        }
        assert!(house.head(drip).starts_with("HTTP/1.1 101 "));
        house.pass(999);
        house.bytes(late, b"E");
        house.turn(0);
        assert_eq!(house.head(late), "");
        house.pass(1_000);
        house.bytes(late, b"T");
        house.turn(0);
        assert!(house.head(late).starts_with("HTTP/1.1 408 "));
        assert_eq!(house.shards[0].stats().handshakes_refused, 1);
    }

    #[test]
    fn requests_and_their_answers() {
        let mut house = House::new(1);
        let long = format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}", "x".repeat(9_000));
        for (listener, head, expected) in [
            (0, "GET / HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 200 OK"),
            (0, "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 200 OK"),
            (0, "GET /x HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 404 "),
            (0, "POST / HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 405 "),
            (1, "GET /ws HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 426 "),
            (1, HEAD, "HTTP/1.1 404 "),
            (0, "nonsense\r\n\r\n", "HTTP/1.1 400 "),
            (0, &long, "HTTP/1.1 431 "),
            (0, &HEAD.replace("13", "12"), "HTTP/1.1 426 "),
            (0, HEAD, "HTTP/1.1 101 "),
            (1, &HEAD.replace("/ ", "/ws "), "HTTP/1.1 101 "),
        ] {
            let line = status(&mut house, listener, head);
            assert!(line.starts_with(expected), "{head}: {line}");
        }
    }

    #[test]
    fn a_refused_connection_is_closed_behind_its_answer() {
        let mut house = House::new(1);
        let client = house.accept(0, 0, false);
        house.bytes(client, b"nonsense\r\n\r\n");
        house.turn(0);
        assert!(house.is_shut(client) && house.closed(client).is_none());
        house.bytes(client, HEAD.as_bytes());
        house.turn(0);
        house.end(client, super::super::Ending::EndOfInput);
        house.turn(0);
        assert_eq!(house.closed(client), Some(false));
        house.check_empty(0);

        let one_too_many = house.accept(0, 0, true);
        let answer = house.head(one_too_many);
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("Retry-After: 5\r\n"));
        house.pass_to_deadline(0);
        assert_eq!(house.closed(one_too_many), Some(false));
        assert_eq!(house.shards[0].stats().refused, 1);
        house.check_empty(0);
    }

    #[test]
    fn connections_are_dealt_in_turn_with_all_their_bytes() {
        let mut house = House::new(3);
        let head = HEAD.replace("/ ", "/ws ");
        let text = frame(Opcode::Text, WHOAMI.as_bytes());
        let all = [head.as_bytes(), &text].concat();
        for number in 0..6 {
            let client = house.accept(0, 1, false);
            house.bytes(client, &all[..50]);
            house.turn(0);
            house.bytes(client, &all[50..]);
            house.turn(0);
            let handed = std::mem::take(&mut house.handed_over);
            if number % 3 == 0 {
                assert!(handed.is_empty() && house.head(client).contains(" 101 "));
                assert_eq!(brief(&house.read(client)), ["session"]);
                continue;
            }
            let [(who, to, bytes)] = &handed[..] else {
                panic!("{handed:?}");
            };
            assert_eq!((*who, to.index(), bytes), (client, number % 3, &all));
            // There it is not dealt again.
            let client = house.adopt(to.index(), 1);
            house.bytes(client, bytes);
            house.turn(to.index());
            assert!(house.handed_over.is_empty() && house.head(client).contains(" 101 "));
            assert_eq!(brief(&house.read(client)), ["session"]);
        }
        assert_eq!(house.shards[0].stats().handed_over, 4);
        assert_eq!(house.shards[0].connections(), 2);
        // A driver may take them in pieces, all in the turn in which it is dealt.
        let other = house.connect(0);
        for number in 0..3 {
            let client = house.accept(0, 1, false);
            house.bytes(client, head.as_bytes());
            house.bytes(other, &text);
            house.bytes(client, &text);
            house.turn(0);
            let handed = house.handed_over.pop();
            assert_eq!(handed.is_some(), number > 0);
            assert!(handed.is_none_or(|(_, _, bytes)| bytes == all));
        }
    }

    #[test]
    fn who_is_admitted_goes_on_with_what_it_had_said() {
        let (mut house, host) = asking();
        let client = asked(&mut house, host);
        // Taken before the pause took effect.
        house.bytes(client, &frame(Opcode::Ping, b"x"));
        house.turn(0);
        assert_eq!(house.head(client), "");
        let user = Some(Bytes::from_static(b"me"));
        house.verdict(host, client, Admitted::Yes { user });
        assert!(house.head(client).starts_with("HTTP/1.1 101 "));
        assert_eq!(brief(&house.read(client)), ["session", "pong x"]);
        assert_eq!(
            house.session(client).identity.as_ref().map(|of| &*of.name),
            Some("me")
        );
        assert!(!house.is_paused(client));
        // A second word changes nothing.
        let reason = Bytes::from_static(b"not you");
        house.verdict(host, client, Admitted::No { reason });
        assert!(house.session(client).is_open());
    }

    #[test]
    fn who_is_refused_or_forgotten_stays_out() {
        let (mut house, host) = asking();
        let client = asked(&mut house, host);
        let reason = Bytes::from_static(b"not you");
        house.verdict(host, client, Admitted::No { reason });
        let answer = house.head(client);
        assert!(answer.starts_with("HTTP/1.1 401 ") && answer.ends_with("\r\n\r\nnot you\n"));
        assert_eq!(house.told(host), [""; 0]);

        let (mut house, host) = asking();
        let client = asked(&mut house, host);
        house.pass(10_000);
        house.turn(0);
        assert!(house.head(client).starts_with("HTTP/1.1 408 "));
        house.verdict(host, client, Admitted::Yes { user: None });
        assert_eq!(house.read(client), [""; 0]);

        // Gone before the word came.
        let (mut house, host) = asking();
        let client = asked(&mut house, host);
        house.end(client, super::super::Ending::Failed);
        house.turn(0);
        house.verdict(host, client, Admitted::Yes { user: None });
        house.end(host, super::super::Ending::Failed);
        house.turn(0);
        house.check_empty(0);
    }
}
