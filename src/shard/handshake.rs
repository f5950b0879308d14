//! From the first byte to the 101: request heads, plain HTTP, placement, admission.

use std::sync::Arc;

use crate::address::{SessionId, ShardId};
use crate::console;
use crate::error::CloseReason;
use crate::ws::handshake;
use crate::ws::http::{self, Reject, Request};
use crate::ws::origin;

use super::fault::{self, Place};
use super::session::State;
use super::settings::Admission;
use super::{Effect, Shard};

/// What the host is told of a session that wants to come in.
#[derive(Debug)]
pub struct AdmissionAsked {
    /// Who asks.
    pub session: SessionId,
    /// The path of the request.
    pub path: String,
    /// Its query, undecoded.
    pub query: String,
    /// Its header fields, in order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The remote address.
    pub address: Arc<str>,
}

/// The host's word.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Come in, as this identity or as nobody in particular.
    Admitted { identity: Option<Box<str>> },
    /// Refused: 401 and the end of the connection.
    Refused,
}

/// What a complete request head asks for.
enum Asked {
    /// Answer with these bytes, then close.
    Answer(Vec<u8>),
    /// WebSocket; the 101 response.
    Upgrade(Vec<u8>),
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
        let mut collected = std::mem::take(head);
        let (limits, listener) = (&self.settings.limits, usize::from(session.listener));
        let input: &mut [u8] = if collected.is_empty() {
            bytes
        } else {
            collected.extend_from_slice(bytes);
            &mut collected
        };
        let settings = &self.settings.listeners[listener];
        let parsed = self.settings.fault.contain(Place::Handshake, || {
            http::parse_head(
                input,
                limits.handshake_bytes_max,
                limits.handshake_headers_max,
            )
        });
        let request = match parsed {
            None => return self.handshake_failed(id),
            Some(Ok(Some(request))) => request,
            Some(Ok(None)) => {
                let collected = if collected.is_empty() {
                    bytes.to_vec()
                } else {
                    collected
                };
                session.state = State::Handshake {
                    head: collected,
                    dealt,
                };
                return;
            }
            Some(Err(reject)) => {
                let mut answer = Vec::new();
                http::reject_response(reject, &mut answer);
                return self.refuse(id, &answer);
            }
        };
        if settings.dealt && !dealt && self.settings.shards > 1 {
            let to = ShardId((self.next_deal % self.settings.shards) as u8);
            self.next_deal += 1;
            if to != self.id {
                let bytes = input.to_vec();
                return self.hand_over(id, to, bytes);
            }
        }
        let head_size = request.head_size;
        let Some(asked) = fault::contain(|| asked(settings, &request)) else {
            return self.handshake_failed(id);
        };
        let (asked, host) = match asked {
            Ok(asked) => {
                let host = self.settings.admission == Admission::Host;
                let host = (host && matches!(asked, Asked::Upgrade(_))).then(|| AdmissionAsked {
                    session: id,
                    path: request.path.to_owned(),
                    query: request.query.unwrap_or_default().to_owned(),
                    headers: request
                        .headers
                        .iter()
                        .map(|(name, value)| ((*name).to_owned(), value.to_vec()))
                        .collect(),
                    address: session.address.clone(),
                });
                (asked, host)
            }
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
            Asked::Upgrade(response) => {
                if let Some(host) = host {
                    session.state = State::Admission { response };
                    let rest = input[head_size..].to_vec();
                    if !rest.is_empty() {
                        session.stall.get_or_insert_default().bytes = rest;
                    }
                    self.effects.push(Effect::AskHost(host));
                    self.update_reading(id);
                } else {
                    self.open(id, &response);
                    let rest = &mut input[head_size..];
                    if !rest.is_empty() {
                        self.read_messages(id, rest);
                    }
                }
            }
        }
    }

    /// The host's word on a session that it was asked about; without one, the handshake's deadline refuses.
    pub fn admit(&mut self, id: SessionId, verdict: Verdict) {
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        let State::Admission { response } = &mut session.state else {
            return;
        };
        let response = std::mem::take(response);
        match verdict {
            Verdict::Admitted { identity } => {
                session.identity = identity;
                let stall = session.stall.take();
                self.open(id, &response);
                if let Some(mut stall) = stall {
                    self.read_messages(id, &mut stall.bytes);
                }
                self.update_reading(id);
            }
            Verdict::Refused => {
                let mut answer = Vec::new();
                http::reject_response(reject(401, "refused"), &mut answer);
                self.refuse(id, &answer);
            }
        }
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
        let before = session.outbox.charged();
        session.outbox.push_last(response);
        self.outbox_bytes = self.outbox_bytes + session.outbox.charged() - before;
        super::fanout::mark_dirty(session, &mut self.dirty);
    }

    /// Answers with these bytes and closes.
    fn refuse(&mut self, id: SessionId, answer: &[u8]) {
        self.stats.handshakes_refused += 1;
        self.close_after(id, CloseReason::HandshakeRefused, answer);
    }

    /// One connection too many.
    pub(super) fn refuse_connection(&mut self, id: SessionId) {
        let mut answer = Vec::new();
        http::response(
            503,
            "text/plain",
            &[("Retry-After", "5")],
            b"too many connections\n",
            &mut answer,
        );
        self.close_after(id, CloseReason::HandshakeRefused, &answer);
    }

    /// The handshake's time is up.
    pub(super) fn handshake_late(&mut self, id: SessionId) {
        let mut answer = Vec::new();
        http::reject_response(reject(408, "the handshake took too long"), &mut answer);
        self.refuse(id, &answer);
    }

    /// A bug of ours met its request head. There is no WebSocket yet that a close code could end.
    fn handshake_failed(&mut self, id: SessionId) {
        let mut answer = Vec::new();
        http::reject_response(reject(500, "internal error"), &mut answer);
        self.close_after(id, CloseReason::Internal, &answer);
    }

    /// The session is another shard's: it leaves this table, with all its bytes.
    fn hand_over(&mut self, id: SessionId, to: ShardId, bytes: Vec<u8>) {
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

    /// A connection that another shard handed over; its bytes follow by [`Shard::receive`] in a later turn.
    pub fn adopt(&mut self, id: SessionId, listener: u16, address: Arc<str>) {
        self.enter(id, listener, address);
        if let Some(session) = self.sessions.find(id) {
            session.state = State::Handshake {
                head: Vec::new(),
                dealt: true,
            };
        }
        self.set_timer(id);
    }
}

/// Decides on a request head. An error may carry a line for the log.
fn asked(
    settings: &super::settings::ListenerSettings,
    request: &Request<'_>,
) -> Result<Asked, (Reject, Option<String>)> {
    let upgrade = handshake::upgrade(request).map_err(|reject| (reject, None))?;
    if let Err(log) = origin::check(&settings.origins, request) {
        return Err((reject(403, "origin or host not allowed"), Some(log)));
    }
    let is_native = settings.native
        && settings
            .native_path
            .as_deref()
            .is_none_or(|path| path == request.path);
    match upgrade {
        Some(upgrade) if is_native => {
            let mut response = Vec::new();
            handshake::switching(&upgrade, None, &mut response);
            Ok(Asked::Upgrade(response))
        }
        Some(_) => Err((reject(404, "no such path"), None)),
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
            } else if settings.native_path.as_deref() == Some(request.path) {
                return Err((reject(426, "this path speaks WebSocket"), None));
            } else {
                return Err((reject(404, "no such path"), None));
            }
            Ok(Asked::Answer(answer))
        }
    }
}

fn reject(status: u16, reason: &'static str) -> Reject {
    Reject { status, reason }
}
