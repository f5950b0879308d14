//! The calls of a [`Link`]. Each is checked, written as one frame, and queued; none waits.
//!
//! Errors that every call may give: [`LinkError::Full`], [`LinkError::Stopped`], [`LinkError::Forked`], and
//! [`LinkError::Invalid`] for a name that is too long. Nothing is done then.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use super::channels::Down;
use super::{Answer, Event, Link, LinkError, RequestId, Ticket, lock};
use crate::address::{Address, ClientId};
use crate::limits::{CHANNEL_BYTES_MAX, KIB, NAME_BYTES_MAX, PEER_FRAME_BYTES_SPARE};
use crate::message::Payload;
use crate::net::links::CallError;
use crate::protocol::Outcome;
use crate::protocol::peer::call::{Call, write_call};
use crate::protocol::peer::{Admitted, Audience, PeerPattern, Watch};
use crate::topic::{Filter, Topic};

/// Topics.
impl Link {
    /// From the answer on, messages that match come as [`Event::Message`].
    ///
    /// # Errors
    /// As for every call.
    pub fn subscribe(&self, filter: &Filter, answer: Answer) -> Result<Ticket, LinkError> {
        self.check_process()?;
        let Some(hearing) = &self.inner.hearing else {
            return self.call(answer, |ticket| Call::Subscribe { ticket, filter });
        };
        let ticket = self.ticket(Answer::Wanted);
        // An answer is needed all the same.
        let asked = match answer {
            Answer::Wanted => ticket,
            Answer::Unwanted => Ticket(OWN_TICKETS | ticket.0),
        };
        hearing.hold(asked, filter);
        let ticket = asked.0;
        if let Err(error) = self.tell(&Call::Subscribe { ticket, filter }) {
            hearing.release(asked);
            return Err(error);
        }
        Ok(match answer {
            Answer::Wanted => asked,
            Answer::Unwanted => Ticket::NONE,
        })
    }

    /// After the answer, no more. Answered also if there was nothing to remove.
    ///
    /// # Errors
    /// As for every call.
    pub fn unsubscribe(&self, filter: &Filter, answer: Answer) -> Result<Ticket, LinkError> {
        self.call(answer, |ticket| Call::Unsubscribe { ticket, filter })
    }

    /// Counted: the first of this channel subscribes to the name, as [`Filter::exact`]; later ones count up. Each has a
    /// ticket, whose `Done` comes when the subscription holds.
    ///
    /// # Errors
    /// As for every call; nothing is counted then.
    pub fn maybe_subscribe(&self, channel: impl AsRef<[u8]>) -> Result<Ticket, LinkError> {
        let channel = channel.as_ref();
        let filter = Filter::exact(Bytes::copy_from_slice(channel))?;
        self.check_process()?;
        let mut channels = lock(&self.inner.channels);
        // Also if somebody wants it already: the broker answers when it holds, and the first may still wait for that.
        let ticket = self.subscribe(&filter, Answer::Wanted)?;
        channels.up(channel, ticket);
        Ok(ticket)
    }

    /// Counts down; the last unsubscribes. A channel that was not counted up is left alone. Each has a ticket.
    ///
    /// # Errors
    /// As for every call; nothing is counted then.
    pub fn maybe_unsubscribe(&self, channel: impl AsRef<[u8]>) -> Result<Ticket, LinkError> {
        let channel = channel.as_ref();
        let filter = Filter::exact(Bytes::copy_from_slice(channel))?;
        self.check_process()?;
        let mut channels = lock(&self.inner.channels);
        let ticket = match channels.would_down(channel) {
            Down::Last => self.unsubscribe(&filter, Answer::Wanted)?,
            Down::Nothing => self.done()?,
        };
        channels.down(channel);
        Ok(ticket)
    }

    /// A message to everybody whose filter matches, of whatever protocol; with `echo` to this Link too, if it
    /// subscribes. Answered when every shard that has subscribers has it.
    ///
    /// # Errors
    /// As for every call.
    pub fn publish(
        &self,
        topic: &Topic,
        payload: &Payload,
        echo: bool,
        answer: Answer,
    ) -> Result<Ticket, LinkError> {
        self.check_payload(payload)?;
        self.check_process()?;
        if let Some(hearing) = &self.inner.hearing
            && !hearing.may_match(topic)
        {
            return match answer {
                Answer::Wanted => self.done(),
                Answer::Unwanted => self.check_open().map(|()| Ticket::NONE),
            };
        }
        self.call(answer, |ticket| Call::Publish {
            ticket,
            topic,
            payload,
            echo,
        })
    }
}

/// Events and requests.
impl Link {
    /// An event for one: a service, a peer, a client. `volatile`: it may be dropped for who is not ready.
    ///
    /// # Errors
    /// As for every call. [`LinkError::Invalid`] also for a topic, which is published to.
    pub fn emit(
        &self,
        to: &Address,
        event: impl AsRef<[u8]>,
        payload: &Payload,
        volatile: bool,
        answer: Answer,
    ) -> Result<Ticket, LinkError> {
        let event = event.as_ref();
        check_address(to)?;
        check_event(event)?;
        self.check_payload(payload)?;
        self.call(answer, |ticket| Call::Emit {
            ticket,
            to,
            event,
            payload,
            volatile,
        })
    }

    /// An event for many: the clients in rooms, all clients, or peers by name or pattern; each gets it once.
    ///
    /// # Errors
    /// As for every call.
    pub fn emit_many(
        &self,
        to: &Audience,
        event: impl AsRef<[u8]>,
        payload: &Payload,
        volatile: bool,
        answer: Answer,
    ) -> Result<Ticket, LinkError> {
        let event = event.as_ref();
        check_audience(to)?;
        check_event(event)?;
        self.check_payload(payload)?;
        self.call(answer, |ticket| Call::EmitMany {
            ticket,
            to,
            event,
            payload,
            volatile,
        })
    }

    /// Asks one; the answer is the `Done` of the ticket, or `Failed` with the handler's code, `no_handler` or `timeout`.
    /// `timeout` in ms is rounded up; zero is the broker's default (60 s), which is also the most.
    ///
    /// # Errors
    /// As for [`Link::emit`].
    pub fn request(
        &self,
        to: &Address,
        event: impl AsRef<[u8]>,
        payload: &Payload,
        timeout: Duration,
    ) -> Result<Ticket, LinkError> {
        let event = event.as_ref();
        check_address(to)?;
        check_event(event)?;
        self.check_payload(payload)?;
        let timeout_ms = timeout.as_nanos().div_ceil(1_000_000);
        let timeout_ms = u32::try_from(timeout_ms).unwrap_or(u32::MAX);
        self.call(Answer::Wanted, |ticket| Call::Request {
            ticket,
            to,
            event,
            payload,
            timeout_ms,
        })
    }

    /// Answers a request. Once: a second answer is [`LinkError::NoRequest`].
    ///
    /// # Errors
    /// As for every call; [`LinkError::NoRequest`].
    pub fn reply(&self, request: RequestId, payload: Payload) -> Result<(), LinkError> {
        self.check_payload(&payload)?;
        self.answer(request, &Outcome::Data(payload))
    }

    /// Answers a request by a failure: a code for programs, a reason for persons.
    ///
    /// # Errors
    /// As for [`Link::reply`].
    pub fn reply_error(
        &self,
        request: RequestId,
        code: &str,
        reason: &str,
    ) -> Result<(), LinkError> {
        check_event(code.as_bytes())?;
        check_text(reason.as_bytes())?;
        let outcome = Outcome::Failed {
            code: code.to_owned().into(),
            reason: reason.to_owned().into(),
        };
        self.answer(request, &outcome)
    }

    /// From the answer on, requests and events of this name may come here.
    ///
    /// # Errors
    /// As for every call.
    pub fn handle(&self, event: impl AsRef<[u8]>, answer: Answer) -> Result<Ticket, LinkError> {
        let event = event.as_ref();
        check_event(event)?;
        self.call(answer, |ticket| Call::Handle { ticket, event })
    }

    /// After the answer, none will.
    ///
    /// # Errors
    /// As for every call.
    pub fn unhandle(&self, event: impl AsRef<[u8]>, answer: Answer) -> Result<Ticket, LinkError> {
        let event = event.as_ref();
        check_event(event)?;
        self.call(answer, |ticket| Call::Unhandle { ticket, event })
    }
}

/// Clients.
impl Link {
    /// From the answer on, this Link is told of this, and of nothing else. Whoever watches clients hosts its part of
    /// those that come in from then on; whoever watches [`Watch::ADMIT`] is asked first.
    ///
    /// # Errors
    /// As for every call.
    pub fn watch(&self, mask: Watch, answer: Answer) -> Result<Ticket, LinkError> {
        if !Watch::ALL.has(mask) {
            return Err(LinkError::Invalid("the mask has a bit that means nothing"));
        }
        let ticket = self.call(answer, |ticket| Call::Watch { ticket, mask })?;
        self.watch_log(mask.has(Watch::LOG));
        Ok(ticket)
    }

    /// Lets a client in that [`Event::Admit`] asked about; as this user, or as whom its token says.
    ///
    /// # Errors
    /// As for every call.
    pub fn admit(&self, client: ClientId, user: Option<&str>) -> Result<(), LinkError> {
        check_text(user.unwrap_or_default().as_bytes())?;
        let user = user.map(|user| user.as_bytes().to_vec().into());
        let verdict = Admitted::Yes { user };
        let verdict = &verdict;
        self.tell(&Call::Admit { client, verdict })
    }

    /// Refuses it, with this reason.
    ///
    /// # Errors
    /// As for every call.
    pub fn refuse(&self, client: ClientId, reason: &str) -> Result<(), LinkError> {
        check_text(reason.as_bytes())?;
        let reason = reason.as_bytes().to_vec().into();
        let verdict = &Admitted::No { reason };
        self.tell(&Call::Admit { client, verdict })
    }

    /// This client is in this room from now on: up to 1024 bytes, any.
    ///
    /// # Errors
    /// As for every call.
    pub fn join(
        &self,
        client: ClientId,
        room: impl AsRef<[u8]>,
        answer: Answer,
    ) -> Result<Ticket, LinkError> {
        let room = room.as_ref();
        check_room(room)?;
        self.call(answer, |ticket| Call::Join {
            ticket,
            client,
            room,
        })
    }

    /// It is not any more.
    ///
    /// # Errors
    /// As for every call.
    pub fn leave(
        &self,
        client: ClientId,
        room: impl AsRef<[u8]>,
        answer: Answer,
    ) -> Result<Ticket, LinkError> {
        let room = room.as_ref();
        check_room(room)?;
        self.call(answer, |ticket| Call::Leave {
            ticket,
            client,
            room,
        })
    }

    /// Closes a client's connection, after what was said to it so far. The code is of a close frame: 1000 or 3000 to
    /// 4999; the reason up to 123 bytes.
    ///
    /// # Errors
    /// As for every call.
    pub fn disconnect(
        &self,
        client: ClientId,
        code: u16,
        reason: &str,
        answer: Answer,
    ) -> Result<Ticket, LinkError> {
        if !(code == 1000 || (3000..5000).contains(&code)) {
            return Err(LinkError::Invalid("the code is not 1000 or 3000 to 4999"));
        }
        if reason.len() > 123 {
            return Err(LinkError::Invalid("the reason is longer than 123 bytes"));
        }
        let reason = reason.as_bytes();
        self.call(answer, |ticket| Call::Disconnect {
            ticket,
            client,
            code,
            reason,
        })
    }

    /// Lets a client in that shows an id (`?id=`): this one or, if none is given, a random one, which the `Done` has.
    /// From then on it may be spoken to by the token. Said again, it answers with the same id.
    ///
    /// # Errors
    /// As for every call.
    pub fn accept(&self, token: impl AsRef<[u8]>, id: Option<&str>) -> Result<Ticket, LinkError> {
        let token = token.as_ref();
        check_event(token)?;
        let id = id.unwrap_or_default().as_bytes();
        check_text(id)?;
        self.call(Answer::Wanted, |ticket| Call::Accept { ticket, token, id })
    }

    /// Lets it in no more, and cuts it if it is in.
    ///
    /// # Errors
    /// As for every call.
    pub fn reject(&self, token: impl AsRef<[u8]>, answer: Answer) -> Result<Ticket, LinkError> {
        let token = token.as_ref();
        check_event(token)?;
        self.call(answer, |ticket| Call::Reject { ticket, token })
    }
}

/// Other peers. Only a Link of the broker's own process may say this.
impl Link {
    /// From the first call on only peers of admitted names come in.
    ///
    /// # Errors
    /// As for every call.
    pub fn admit_peer(&self, name: &str, answer: Answer) -> Result<Ticket, LinkError> {
        self.say_on_peer(name, true, answer)
    }

    /// A peer of this name comes in no more; if it is in, it stays until [`Link::cut_peer`].
    ///
    /// # Errors
    /// As for every call.
    pub fn reject_peer(&self, name: &str, answer: Answer) -> Result<Ticket, LinkError> {
        self.say_on_peer(name, false, answer)
    }

    /// Cuts a peer's connection.
    ///
    /// # Errors
    /// As for every call.
    pub fn cut_peer(&self, name: &str, answer: Answer) -> Result<Ticket, LinkError> {
        check_name(name)?;
        let name = name.as_bytes();
        self.call(answer, |ticket| Call::CutPeer { ticket, name })
    }

    fn say_on_peer(&self, name: &str, admitted: bool, answer: Answer) -> Result<Ticket, LinkError> {
        check_name(name)?;
        let name = name.as_bytes();
        self.call(answer, |ticket| Call::AdmitPeer {
            ticket,
            name,
            admitted,
        })
    }
}

/// The end.
impl Link {
    /// Ends the Link after all calls made so far, as the drop does. What events are left can still be drained; the last
    /// is [`Event::Closed`].
    ///
    /// # Errors
    /// As for every call.
    pub fn close(&self) -> Result<(), LinkError> {
        self.tell(&Call::Bye)?;
        self.inner.is_leaving.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl Link {
    fn answer(&self, request: RequestId, outcome: &Outcome) -> Result<(), LinkError> {
        self.check_process()?;
        self.check_open()?;
        let mut requests = lock(&self.inner.requests);
        let number = requests.number(request).ok_or(LinkError::NoRequest)?;
        self.tell(&Call::Reply { number, outcome })?;
        requests.remove(request);
        Ok(())
    }

    /// The ticket of a call that took effect at once.
    fn done(&self) -> Result<Ticket, LinkError> {
        self.check_open()?;
        let ticket = self.ticket(Answer::Wanted);
        let payload = Payload::binary(Bytes::new());
        self.inner.say(Event::Done { ticket, payload })?;
        Ok(ticket)
    }

    /// The ticket of the next call.
    fn ticket(&self, answer: Answer) -> Ticket {
        match answer {
            Answer::Wanted => Ticket(1 + self.inner.tickets.fetch_add(1, Ordering::Relaxed)),
            Answer::Unwanted => Ticket::NONE,
        }
    }

    fn call<'a>(
        &self,
        answer: Answer,
        call: impl FnOnce(u64) -> Call<'a>,
    ) -> Result<Ticket, LinkError> {
        let ticket = self.ticket(answer);
        self.tell(&call(ticket.0))?;
        Ok(ticket)
    }

    /// A longer one would be no frame to the broker, which would end the Link.
    fn check_payload(&self, payload: &Payload) -> Result<(), LinkError> {
        if payload.bytes().len() > self.payload_bytes_max {
            return Err(LinkError::Invalid("the payload is longer than may be"));
        }
        Ok(())
    }

    pub(super) fn check_open(&self) -> Result<(), LinkError> {
        let inner = &self.inner;
        let is_over =
            inner.is_leaving.load(Ordering::Relaxed) || inner.is_over.load(Ordering::Relaxed);
        if is_over || inner.carrier.is_cut() {
            return Err(LinkError::Stopped);
        }
        Ok(())
    }

    pub(super) fn tell(&self, call: &Call<'_>) -> Result<(), LinkError> {
        self.check_process()?;
        self.check_open()?;
        let inner = &self.inner;
        if inner
            .backlog
            .as_ref()
            .is_some_and(|backlog| backlog.is_full())
        {
            return Err(LinkError::Full);
        }
        let called = inner.carrier.call(|out| write_call(call, out));
        called.map_err(|error| match error {
            CallError::Full => LinkError::Full,
            CallError::Closed => LinkError::Stopped,
        })
    }
}

/// Tickets from here on are a Link's own; its host does not hear of them.
pub(super) const OWN_TICKETS: u64 = 1 << 62;

/// The rooms of one audience, in bytes with their lengths: what a frame may have beside its payload, less its other
/// fields.
const ROOMS_BYTES_MAX: usize = PEER_FRAME_BYTES_SPARE - 4 * KIB;
const _: () = assert!(ROOMS_BYTES_MAX == 60 * KIB, "a sentence below names it");

/// The longest user, reason or id, in bytes.
const TEXT_BYTES_MAX: usize = 1024;

pub(super) fn check_name(name: &str) -> Result<(), LinkError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(LinkError::Invalid(
            "a name has 1 to 255 bytes, none of them a control character",
        ));
    }
    Ok(())
}

fn check_event(event: &[u8]) -> Result<(), LinkError> {
    if event.is_empty() || event.len() > NAME_BYTES_MAX {
        return Err(LinkError::Invalid(
            "an event, code or token has 1 to 255 bytes",
        ));
    }
    Ok(())
}

fn check_room(room: &[u8]) -> Result<(), LinkError> {
    if room.len() > CHANNEL_BYTES_MAX {
        return Err(LinkError::Invalid("a room has at most 1024 bytes"));
    }
    Ok(())
}

fn check_text(text: &[u8]) -> Result<(), LinkError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(LinkError::Invalid(
            "a user, reason or id has at most 1024 bytes",
        ));
    }
    Ok(())
}

fn check_address(to: &Address) -> Result<(), LinkError> {
    match to {
        Address::Topic(_) => Err(LinkError::Invalid("a topic is published to")),
        Address::Service(name)
        | Address::Master(name)
        | Address::AnyPeer(name)
        | Address::Peer(name)
        | Address::Token(name) => check_event(name),
        Address::Client(_) => Ok(()),
    }
}

fn check_audience(to: &Audience) -> Result<(), LinkError> {
    match to {
        Audience::Clients {
            rooms,
            except_rooms,
            except: _,
        } => {
            let rooms = || rooms.iter().chain(except_rooms);
            if rooms().map(|room| room.len() + 2).sum::<usize>() > ROOMS_BYTES_MAX {
                return Err(LinkError::Invalid(
                    "the rooms have more than 60 KiB together",
                ));
            }
            rooms().try_for_each(|room| check_room(room))
        }
        Audience::Peers(PeerPattern::All) => Ok(()),
        Audience::Peers(PeerPattern::Name(name)) => check_event(name),
        Audience::Peers(PeerPattern::Regex(pattern)) => check_text(pattern),
    }
}
