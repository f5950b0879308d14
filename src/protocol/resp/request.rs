//! What a client asks for: the closed set of commands that a server without keys answers, and what may not be asked
//! for now.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::{Kind, Space, Version};

/// The text of an error without its `-`: the code, a blank, a sentence. Any bytes; a writer makes one line of it.
pub type ErrorText = Cow<'static, [u8]>;

/// The arguments that are names: channels, patterns, sections. Perhaps none.
pub type Names<'a> = &'a [&'a [u8]];

/// A command that follows the rules of its kind, or one that is known and refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request<'a> {
    /// Speak this version (`None`: as now), authenticate before, set the name after.
    Hello {
        /// `None`: as now
        version: Option<Version>,
        /// user and password
        auth: Option<(&'a [u8], &'a [u8])>,
        /// The connection's name, checked; empty for none.
        name: Option<&'a [u8]>,
    },
    /// Authenticate.
    Auth {
        /// `None`: the default user
        user: Option<&'a [u8]>,
        /// as written
        password: &'a [u8],
    },
    /// Are you there? With what is to come back.
    Ping(Option<&'a [u8]>),
    /// Give that back.
    Echo(&'a [u8]),
    /// Seconds and microseconds since 1970, two bulk strings in an array.
    Time,
    /// Another of the 16 databases, which are all empty.
    Select,
    /// Close after the reply.
    Quit,
    /// Be as a connection that has just come: no subscriptions, no authentication, RESP2, replies on, no name.
    Reset,
    /// Facts about the server, all or of some sections; see [`super::info`].
    Info(Names<'a>),
    /// About this connection, or all.
    Client(ClientRequest<'a>),
    /// About commands, of which nothing is told.
    Command(CommandRequest),
    /// Settings: an empty map.
    ConfigGet,
    /// Deliver from now on. One confirmation for each name.
    Subscribe {
        /// channels, patterns or shard channels
        kind: Kind,
        /// at least one
        names: Names<'a>,
    },
    /// Deliver no more. One confirmation for each name; without names for each subscription of the kind; if there is
    /// none either, one without a name.
    Unsubscribe {
        /// channels, patterns or shard channels
        kind: Kind,
        /// perhaps none
        names: Names<'a>,
    },
    /// Deliver this to everybody who wants it, and reply how many these were.
    Publish {
        /// Whose channel it is.
        space: Space,
        /// any bytes
        channel: &'a [u8],
        /// any bytes
        payload: &'a [u8],
    },
    /// Who is subscribed to what.
    PubSub(PubSubRequest<'a>),
    /// None of these keys exists: 0.
    Exists,
    /// Nothing is there: null.
    Get,
    /// There are no keys: 0.
    DbSize,
    /// Lines for a person, an array of simple strings.
    Help {
        /// as [`Request::name`]
        name: &'static str,
        /// one line each
        lines: &'static [&'static str],
    },
    /// A command that is known, and wrong in its arguments or not to be had here. Redis looks at authentication and
    /// subscribed state first.
    Refused {
        /// as [`Request::name`]
        name: &'static str,
        /// the reply
        error: ErrorText,
    },
}

/// CLIENT and its subcommand.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientRequest<'a> {
    /// The connection's number.
    Id,
    /// Its name, or null.
    GetName,
    /// Its name from now on, checked; empty for none.
    SetName(&'a [u8]),
    /// The name of the client's library, checked; may be empty.
    SetLibraryName(&'a [u8]),
    /// The version of it, checked; may be empty.
    SetLibraryVersion(&'a [u8]),
    /// A line about this connection; see [`super::info`].
    Info,
    /// A line for each of these connections.
    List(ClientFilter),
    /// OK, and nothing: there are no keys to evict, and who is slow is closed.
    NoEvict,
    /// OK, and nothing.
    NoTouch,
    /// OK, and nothing: nothing was tracked.
    TrackingOff,
    /// Which replies are wanted. Deliveries and confirmations of subscriptions are sent all the same.
    Reply(ReplyMode),
}

/// Which connections.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientFilter {
    /// Every one.
    All,
    /// Those without a subscription.
    Normal,
    /// Those with one.
    PubSub,
    /// Replicas or masters: there are none.
    None,
    /// Those with these numbers.
    Ids(SmallVec<[u64; 1]>),
}

/// Which replies a connection wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplyMode {
    /// All from now on; this command is answered.
    On,
    /// None; this command isn't answered either.
    Off,
    /// All but that of the next command. Means nothing while they are off.
    Skip,
}

/// COMMAND and its subcommand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommandRequest {
    /// Everything about all: an empty array.
    All,
    /// A number: 0.
    Count,
    /// Words about some: an empty map.
    Docs,
    /// Facts about so many: as many nulls.
    Info(usize),
    /// Their names: an empty array.
    List,
}

/// PUBSUB and its subcommand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PubSubRequest<'a> {
    /// The channels with a subscriber (patterns apart), all or those that a glob matches.
    Channels {
        /// which channels
        space: Space,
        /// `None`: all
        pattern: Option<&'a [u8]>,
    },
    /// The number of subscribers of each channel; see [`super::reply::write_counts`].
    NumSub {
        /// which channels
        space: Space,
        /// perhaps none
        names: Names<'a>,
    },
    /// The number of different patterns.
    NumPat,
}

/// No request at all, and no name of one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// This is the reply; Redis looks at neither authentication nor subscribed state before.
    Error(ErrorText),
    /// A browser was made to send HTTP here (promise 22): close at once, without a reply.
    CrossProtocol,
}

impl Request<'_> {
    /// Its name as Redis writes it, such as `client|setname`.
    pub fn name(&self) -> &'static str {
        match self {
            Request::Hello { .. } => "hello",
            Request::Auth { .. } => "auth",
            Request::Ping(_) => "ping",
            Request::Echo(_) => "echo",
            Request::Time => "time",
            Request::Select => "select",
            Request::Quit => "quit",
            Request::Reset => "reset",
            Request::Info(_) => "info",
            Request::Client(client) => match client {
                ClientRequest::Id => "client|id",
                ClientRequest::GetName => "client|getname",
                ClientRequest::SetName(_) => "client|setname",
                ClientRequest::SetLibraryName(_) | ClientRequest::SetLibraryVersion(_) => {
                    "client|setinfo"
                }
                ClientRequest::Info => "client|info",
                ClientRequest::List(_) => "client|list",
                ClientRequest::NoEvict => "client|no-evict",
                ClientRequest::NoTouch => "client|no-touch",
                ClientRequest::TrackingOff => "client|tracking",
                ClientRequest::Reply(_) => "client|reply",
            },
            Request::Command(command) => match command {
                CommandRequest::All => "command",
                CommandRequest::Count => "command|count",
                CommandRequest::Docs => "command|docs",
                CommandRequest::Info(_) => "command|info",
                CommandRequest::List => "command|list",
            },
            Request::ConfigGet => "config|get",
            Request::Subscribe { kind, .. } => kind.subscribe_word(),
            Request::Unsubscribe { kind, .. } => kind.unsubscribe_word(),
            Request::Publish { space, .. } => match space {
                Space::Channels => "publish",
                Space::Shards => "spublish",
            },
            Request::PubSub(pubsub) => match pubsub {
                PubSubRequest::Channels { space, .. } => match space {
                    Space::Channels => "pubsub|channels",
                    Space::Shards => "pubsub|shardchannels",
                },
                PubSubRequest::NumSub { space, .. } => match space {
                    Space::Channels => "pubsub|numsub",
                    Space::Shards => "pubsub|shardnumsub",
                },
                PubSubRequest::NumPat => "pubsub|numpat",
            },
            Request::Exists => "exists",
            Request::Get => "get",
            Request::DbSize => "dbsize",
            Request::Help { name, .. } | Request::Refused { name, .. } => name,
        }
    }

    /// May it be asked for before a password was given?
    pub fn is_allowed_before_auth(&self) -> bool {
        matches!(self.name(), "auth" | "hello" | "quit" | "reset")
    }

    /// May it be asked for in RESP2 while there is a subscription? In RESP3 everything may.
    ///
    /// # Errors
    ///
    /// The error that is the reply.
    pub fn check_subscribed(&self) -> Result<(), ErrorText> {
        let name = self.name();
        match name {
            "subscribe" | "psubscribe" | "ssubscribe" | "unsubscribe" | "punsubscribe"
            | "sunsubscribe" | "ping" | "quit" | "reset" => Ok(()),
            _ => Err(format!(
                "ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed \
                 in this context"
            )
            .into_bytes()
            .into()),
        }
    }
}

impl Kind {
    /// The command that subscribes, and the first word of its confirmation.
    pub fn subscribe_word(self) -> &'static str {
        match self {
            Kind::Channel => "subscribe",
            Kind::Pattern => "psubscribe",
            Kind::Shard => "ssubscribe",
        }
    }

    /// The command that ends it, and the first word of its confirmation.
    pub fn unsubscribe_word(self) -> &'static str {
        match self {
            Kind::Channel => "unsubscribe",
            Kind::Pattern => "punsubscribe",
            Kind::Shard => "sunsubscribe",
        }
    }

    /// The first word of a delivery.
    pub fn message_word(self) -> &'static str {
        match self {
            Kind::Channel => "message",
            Kind::Pattern => "pmessage",
            Kind::Shard => "smessage",
        }
    }
}
