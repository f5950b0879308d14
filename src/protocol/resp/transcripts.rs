//! What a real Redis answered, to the byte: a server of one connection stands around the codec here, and answers the
//! same. It is also the shortest account of what a session has to do between [`decode`] and the writers.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::inline::Words;
use super::reader::{Reader, ReaderLimits};
use super::reply::*;
use super::request::{
    ClientFilter, ClientRequest, CommandRequest, PubSubRequest, Refusal, ReplyMode, Request,
};
use super::*;
use crate::message::{Flags, Message, Payload, Targets};
use crate::topic::{Filter, Topic};

const FRAMING: &str = include_str!("framing.txt");
const COMMANDS: &str = include_str!("commands.txt");
const PASSWORD: &[u8] = b"sekret";
const ID: u64 = 1;

/// A server with one connection, which is all it tells of.
#[derive(Debug)]
struct Server {
    has_password: bool,
    authenticated: bool,
    version: Version,
    name: Vec<u8>,
    channels: BTreeSet<Vec<u8>>,
    patterns: BTreeSet<Vec<u8>>,
    shards: BTreeSet<Vec<u8>>,
    replies: ReplyMode,
    /// All that was sent, and whether the connection was closed after it.
    sent: Vec<u8>,
    closed: bool,
}

impl Server {
    fn new(has_password: bool) -> Server {
        Server {
            has_password,
            authenticated: !has_password,
            version: Version::Two,
            name: Vec::new(),
            channels: BTreeSet::new(),
            patterns: BTreeSet::new(),
            shards: BTreeSet::new(),
            replies: ReplyMode::On,
            sent: Vec::new(),
            closed: false,
        }
    }

    fn limits(&self) -> ReaderLimits {
        let (arguments_max, bulk_bytes_max) = if self.authenticated {
            (1 << 20, 512 << 20)
        } else {
            (10, 16 << 10)
        };
        ReaderLimits {
            bulk_bytes_max,
            arguments_max,
            command_bytes_max: 1 << 30,
            authenticated: self.authenticated,
        }
    }

    fn receive(&mut self, bytes: &[u8]) {
        let mut reader = Reader::default();
        let mut rest = bytes;
        while !self.closed {
            match reader.next(self.limits(), rest) {
                Ok((taken, Some(arguments))) => {
                    self.run(&arguments);
                    rest = &rest[taken..];
                }
                Ok((_, None)) => break,
                Err(violation) => {
                    violation.write_reply(&mut self.sent);
                    self.closed = true;
                }
            }
        }
    }

    /// Runs one command. Confirmations and deliveries are sent whatever the reply mode is.
    fn run(&mut self, arguments: &Arguments<'_>) {
        let replies = self.replies;
        let mut reply = Vec::new();
        match decode(arguments) {
            Err(Refusal::CrossProtocol) => self.closed = true,
            Err(Refusal::Error(error)) => write_error(&error, &mut reply),
            Ok(request) if !self.authenticated && !request.is_allowed_before_auth() => {
                write_error(NOAUTH, &mut reply);
            }
            Ok(request) => match request.check_subscribed() {
                Err(error) if self.is_subscribed() && self.version == Version::Two => {
                    write_error(&error, &mut reply);
                }
                _ => self.answer(request, &mut reply),
            },
        }
        let is_wanted = match replies {
            ReplyMode::On => self.replies == ReplyMode::On,
            ReplyMode::Off => self.replies == ReplyMode::On,
            ReplyMode::Skip => {
                let is_next = self.replies == ReplyMode::Skip;
                self.replies = ReplyMode::On;
                !is_next
            }
        };
        if is_wanted {
            self.sent.extend_from_slice(&reply);
        }
    }

    fn is_subscribed(&self) -> bool {
        !(self.channels.is_empty() && self.patterns.is_empty() && self.shards.is_empty())
    }

    fn check_password(&mut self, user: &[u8], password: &[u8]) -> bool {
        let is_right = user == b"default" && (!self.has_password || password == PASSWORD);
        self.authenticated |= is_right;
        is_right
    }

    fn answer(&mut self, request: Request<'_>, reply: &mut Vec<u8>) {
        let version = self.version;
        let ok = |reply| write_simple(b"OK", reply);
        match request {
            Request::Hello {
                version,
                auth,
                name,
            } => {
                if let Some((user, password)) = auth
                    && !self.check_password(user, password)
                {
                    return write_error(WRONGPASS, reply);
                }
                if !self.authenticated {
                    return write_error(NOAUTH_HELLO, reply);
                }
                self.version = version.unwrap_or(self.version);
                self.name = name.map_or(std::mem::take(&mut self.name), <[u8]>::to_vec);
                write_hello(self.version, ID, reply);
            }
            Request::Auth { user: None, .. } if !self.has_password => {
                write_error(NO_PASSWORD, reply);
            }
            Request::Auth { user, password } => {
                if self.check_password(user.unwrap_or(b"default"), password) {
                    ok(reply);
                } else {
                    write_error(WRONGPASS, reply);
                }
            }
            Request::Ping(message) => write_pong(version, self.is_subscribed(), message, reply),
            Request::Echo(message) => write_bulk(message, reply),
            Request::Time => write_time(1_000_000, reply),
            Request::Select => ok(reply),
            Request::Quit => {
                ok(reply);
                self.closed = true;
            }
            Request::Reset => {
                *self = Server {
                    sent: std::mem::take(&mut self.sent),
                    ..Server::new(self.has_password)
                };
                write_simple(b"RESET", reply);
            }
            Request::Info(sections) => {
                assert_eq!(sections, [b"foo"]);
                write_verbatim(version, b"", reply);
            }
            Request::Client(client) => match client {
                ClientRequest::Id => write_integer(1, reply),
                ClientRequest::GetName if self.name.is_empty() => write_null(version, reply),
                ClientRequest::GetName => write_bulk(&self.name, reply),
                ClientRequest::SetName(name) => {
                    self.name = name.to_vec();
                    ok(reply);
                }
                ClientRequest::List(ClientFilter::Ids(ids)) => {
                    assert!(!ids.contains(&ID));
                    write_verbatim(version, b"", reply);
                }
                ClientRequest::List(ClientFilter::PubSub | ClientFilter::None) => {
                    write_verbatim(version, b"", reply);
                }
                ClientRequest::Reply(ReplyMode::Skip) if self.replies == ReplyMode::Off => {}
                ClientRequest::Reply(mode) => {
                    self.replies = mode;
                    ok(reply);
                }
                ClientRequest::NoEvict | ClientRequest::NoTouch | ClientRequest::TrackingOff => {
                    ok(reply);
                }
                ClientRequest::SetLibraryName(_)
                | ClientRequest::SetLibraryVersion(_)
                | ClientRequest::Info
                | ClientRequest::List(_) => panic!("not in the transcripts: {client:?}"),
            },
            Request::Command(command) => match command {
                CommandRequest::All | CommandRequest::List => write_array(0, reply),
                CommandRequest::Count => write_integer(0, reply),
                CommandRequest::Docs => write_map(version, 0, reply),
                CommandRequest::Info(count) => {
                    write_array(count, reply);
                    (0..count).for_each(|_| write_null(version, reply));
                }
            },
            Request::ConfigGet => write_map(version, 0, reply),
            Request::Subscribe { kind, names } => {
                for name in names {
                    self.set(kind).insert(name.to_vec());
                    self.confirm(kind, true, Some(name));
                }
            }
            Request::Unsubscribe { kind, names } => {
                let mut names: Vec<Vec<u8>> = names.iter().map(|name| name.to_vec()).collect();
                if names.is_empty() {
                    names = self.set(kind).iter().cloned().collect();
                }
                if names.is_empty() {
                    self.confirm(kind, false, None);
                }
                for name in names {
                    self.set(kind).remove(&name);
                    self.confirm(kind, false, Some(&name));
                }
            }
            Request::Publish {
                space,
                channel,
                payload,
            } => {
                let count = self.publish(space, channel, payload);
                write_integer(count, reply);
            }
            Request::PubSub(pubsub) => match pubsub {
                PubSubRequest::Channels { space, pattern } => {
                    let names = self.set(space.kind()).iter();
                    let found: Vec<_> = names
                        .filter(|name| pattern.is_none_or(|pattern| pattern == &name[..]))
                        .collect();
                    write_array(found.len(), reply);
                    found.iter().for_each(|name| write_bulk(name, reply));
                }
                PubSubRequest::NumSub { space, names } => {
                    let counts = names.iter().map(|&name| {
                        let count = self.set(space.kind()).contains(name).into();
                        (name, count)
                    });
                    write_counts(counts, reply);
                }
                PubSubRequest::NumPat => write_integer(self.patterns.len() as i64, reply),
            },
            Request::Exists | Request::DbSize => write_integer(0, reply),
            Request::Get => write_null(version, reply),
            Request::Help { lines, .. } => write_lines(lines, reply),
            Request::Refused { error, .. } => write_error(&error, reply),
        }
    }

    fn set(&mut self, kind: Kind) -> &mut BTreeSet<Vec<u8>> {
        match kind {
            Kind::Channel => &mut self.channels,
            Kind::Pattern => &mut self.patterns,
            Kind::Shard => &mut self.shards,
        }
    }

    fn confirm(&mut self, kind: Kind, up: bool, name: Option<&[u8]>) {
        let count = match kind {
            Kind::Channel | Kind::Pattern => self.channels.len() + self.patterns.len(),
            Kind::Shard => self.shards.len(),
        };
        write_subscription(self.version, kind, up, name, count, &mut self.sent);
    }

    fn publish(&mut self, space: Space, channel: &[u8], payload: &[u8]) -> i64 {
        let filter = |name: &Vec<u8>, kind| {
            let name = Bytes::copy_from_slice(name);
            match kind {
                Kind::Channel => Filter::exact(name).unwrap(),
                Kind::Pattern => Filter::glob(name).unwrap(),
                Kind::Shard => panic!("nobody in the transcripts publishes to a shard channel"),
            }
        };
        let filters: Vec<Filter> = match space {
            Space::Channels => (self.channels.iter())
                .map(|name| filter(name, Kind::Channel))
                .chain(self.patterns.iter().map(|name| filter(name, Kind::Pattern)))
                .collect(),
            Space::Shards => (self.shards.iter())
                .filter(|name| name[..] == *channel)
                .map(|name| filter(name, Kind::Shard))
                .collect(),
        };
        let topic = Topic::channel(Bytes::copy_from_slice(channel)).unwrap();
        let message = message(&topic, payload);
        let mut count = 0;
        for filter in filters.iter().filter(|filter| filter.matches(&topic)) {
            let start = self.sent.len();
            encode_delivery(self.version, &message, &topic, filter, &mut self.sent);
            let size = delivery_size(self.version, &message, &topic, filter);
            assert_eq!(self.sent.len() - start, size);
            count += 1;
        }
        count
    }
}

impl Space {
    fn kind(self) -> Kind {
        match self {
            Space::Channels => Kind::Channel,
            Space::Shards => Kind::Shard,
        }
    }
}

fn message(topic: &Topic, payload: &[u8]) -> Arc<Message> {
    Arc::new(Message {
        targets: Targets {
            topics: [topic.clone()].into_iter().collect(),
            ..Targets::default()
        },
        event: None,
        payload: Payload::detect(Bytes::copy_from_slice(payload)),
        attachments: Vec::new(),
        origin: None,
        flags: Flags::default(),
        position: None,
        unix_ms: 0,
        envelope: None,
    })
}

/// Checks every line of a transcript, whose left side becomes the bytes of a client so.
fn check(transcript: &str, bytes_of: impl Fn(&str) -> Vec<u8>) {
    let mut hello = [Vec::new(), Vec::new()];
    write_hello(Version::Two, ID, &mut hello[0]);
    write_hello(Version::Three, ID, &mut hello[1]);
    let hello = hello.map(|reply| String::from_utf8(reply).unwrap());
    let mut count = 0;
    for line in transcript.lines().filter(|line| !line.starts_with('#')) {
        let (asked, expected, closed) = match line.split_once(" =>") {
            Some((asked, expected)) => (asked, expected, false),
            None => match line.split_once(" =!") {
                Some((asked, expected)) => (asked, expected, true),
                None => panic!("{line}"),
            },
        };
        let expected = expected
            .trim_start()
            .replace("(hello 2)", &hello[0])
            .replace("(hello 3)", &hello[1]);
        let (has_password, asked) = match asked.strip_prefix('!') {
            Some(asked) => (true, asked),
            None => (false, asked),
        };
        let mut server = Server::new(has_password);
        server.receive(&bytes_of(asked));
        assert_eq!(
            server.sent.escape_ascii().to_string(),
            unescaped(&expected).escape_ascii().to_string(),
            "{line}"
        );
        assert_eq!(server.closed, closed, "{line}");
        count += 1;
    }
    assert!(count > 90, "{count}");
}

/// Bytes from text in which some are written as `\r`, `\n`, `\t`, `\\` or `\xHH`.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        (rest, bytes) = match (byte, after) {
            (b'\\', [b'x', high, low, after @ ..]) => {
                let digits = [*high, *low];
                let digits = str::from_utf8(&digits).unwrap();
                (
                    after,
                    [&bytes[..], &[u8::from_str_radix(digits, 16).unwrap()]].concat(),
                )
            }
            (b'\\', [escape, after @ ..]) => {
                let byte = match escape {
                    b'r' => b'\r',
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'\\' => b'\\',
                    _ => panic!("{text}"),
                };
                (after, [&bytes[..], &[byte]].concat())
            }
            _ => (after, [&bytes[..], &[*byte]].concat()),
        };
    }
    bytes
}

#[test]
fn bytes_are_taken_as_redis_takes_them() {
    check(FRAMING, unescaped);
}

#[test]
fn commands_are_answered_as_redis_answers_them() {
    check(COMMANDS, |commands| {
        let mut bytes = Vec::new();
        for command in commands.split(" ; ") {
            let mut words = Words::of(command.as_bytes());
            let mut arguments = OwnedArguments::default();
            while words.next(&mut arguments.bytes).expect("balanced") {
                arguments.end();
            }
            let arguments = arguments.borrow();
            write_array(arguments.len(), &mut bytes);
            arguments
                .iter()
                .for_each(|word| write_bulk(word, &mut bytes));
        }
        bytes
    });
}
