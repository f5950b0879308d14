//! From arguments to a request. The rules, and the texts of what breaks them, are those of Redis 7.
//!
//! A name is known or not, then the number of arguments fits or not: that much Redis looks at before it asks who is
//! there, and what fails here is a [`Refusal`]. All that it looks at later is a [`Request`], if need be a
//! [`Request::Refused`].

use std::ops::RangeInclusive;

use super::arguments::Arguments;
use super::number::parse_number;
use super::request::{
    ClientFilter, ClientRequest, CommandRequest, ErrorText, PubSubRequest, Refusal, ReplyMode,
    Request,
};
use super::{Kind, Space, Version};
use crate::limits::NAME_BYTES_MAX;

/// The longest name of a command or subcommand here; what is longer is none.
const WORD_BYTES_MAX: usize = 16;

/// The databases that may be selected.
const DATABASES: i64 = 16;

/// What of a client's words is repeated in an error at most.
const REPEATED_BYTES_MAX: usize = 128;

/// The request that the arguments of a command make.
///
/// # Errors
///
/// The reply, if there is no such command, or it has another number of arguments; see [`Refusal`].
pub fn decode<'a>(arguments: &'a Arguments<'_>) -> Result<Request<'a>, Refusal> {
    let words: &'a [&'a [u8]] = arguments.as_slice();
    let name = words.first().copied().unwrap_or_default();
    Ok(match upper(name, &mut [0; WORD_BYTES_MAX]) {
        b"PUBLISH" => {
            expect(words, 3..=3, "publish")?;
            publish(Space::Channels, words)
        }
        b"SPUBLISH" => {
            expect(words, 3..=3, "spublish")?;
            publish(Space::Shards, words)
        }
        b"SUBSCRIBE" => subscribe(Kind::Channel, words)?,
        b"PSUBSCRIBE" => subscribe(Kind::Pattern, words)?,
        b"SSUBSCRIBE" => subscribe(Kind::Shard, words)?,
        b"UNSUBSCRIBE" => unsubscribe(Kind::Channel, words),
        b"PUNSUBSCRIBE" => unsubscribe(Kind::Pattern, words),
        b"SUNSUBSCRIBE" => unsubscribe(Kind::Shard, words),
        b"PING" => match words {
            [_] => Request::Ping(None),
            [_, message] => Request::Ping(Some(message)),
            _ => refused("ping", wrong_number("ping")),
        },
        b"PUBSUB" => pubsub(words)?,
        b"HELLO" => hello(words),
        b"AUTH" => {
            expect(words, 2..=usize::MAX, "auth")?;
            auth(words)
        }
        b"CLIENT" => client(words)?,
        b"INFO" => Request::Info(&words[1..]),
        b"COMMAND" => command(words)?,
        b"CONFIG" => config(words)?,
        b"CLUSTER" => {
            expect(words, 2..=usize::MAX, "cluster")?;
            refused(
                "cluster",
                text("ERR This instance has cluster support disabled"),
            )
        }
        b"ECHO" => {
            expect(words, 2..=2, "echo")?;
            Request::Echo(words[1])
        }
        b"TIME" => {
            expect(words, 1..=1, "time")?;
            Request::Time
        }
        b"SELECT" => {
            expect(words, 2..=2, "select")?;
            select(words[1])
        }
        b"QUIT" => Request::Quit,
        b"RESET" => {
            expect(words, 1..=1, "reset")?;
            Request::Reset
        }
        b"EXISTS" => {
            expect(words, 2..=usize::MAX, "exists")?;
            Request::Exists
        }
        b"GET" => {
            expect(words, 2..=2, "get")?;
            Request::Get
        }
        b"DBSIZE" => {
            expect(words, 1..=1, "dbsize")?;
            Request::DbSize
        }
        b"MULTI" => {
            expect(words, 1..=1, "multi")?;
            refused("multi", text(NO_TRANSACTIONS))
        }
        b"EXEC" => {
            expect(words, 1..=1, "exec")?;
            refused("exec", text("ERR EXEC without MULTI"))
        }
        b"DISCARD" => {
            expect(words, 1..=1, "discard")?;
            refused("discard", text("ERR DISCARD without MULTI"))
        }
        b"WATCH" => {
            expect(words, 2..=usize::MAX, "watch")?;
            refused("watch", text(NO_TRANSACTIONS))
        }
        b"UNWATCH" => {
            expect(words, 1..=1, "unwatch")?;
            refused("unwatch", text(NO_TRANSACTIONS))
        }
        b"POST" | b"HOST:" => return Err(Refusal::CrossProtocol),
        _ => return Err(unknown_command(words)),
    })
}

const NO_TRANSACTIONS: &str = "ERR transactions are not supported, there are no keys here";
const SYNTAX_ERROR: &str = "ERR syntax error";
const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";
const BAD_NAME: &str = "ERR Client names cannot contain spaces, newlines or special characters.";
const LONG_NAME: &str = "ERR Client names cannot be longer than 255 bytes.";

fn publish<'a>(space: Space, words: &[&'a [u8]]) -> Request<'a> {
    Request::Publish {
        space,
        channel: words[1],
        payload: words[2],
    }
}

fn subscribe<'a>(kind: Kind, words: &'a [&'a [u8]]) -> Result<Request<'a>, Refusal> {
    expect(words, 2..=usize::MAX, kind.subscribe_word())?;
    let names = &words[1..];
    Ok(Request::Subscribe { kind, names })
}

fn unsubscribe<'a>(kind: Kind, words: &'a [&'a [u8]]) -> Request<'a> {
    let names = &words[1..];
    Request::Unsubscribe { kind, names }
}

fn hello<'a>(words: &[&'a [u8]]) -> Request<'a> {
    let refused = |error| refused("hello", error);
    let version = match words.get(1).map(|version| parse_number(version)) {
        None => None,
        Some(Some(2)) => Some(Version::Two),
        Some(Some(3)) => Some(Version::Three),
        Some(Some(_)) => return refused(text("NOPROTO unsupported protocol version")),
        Some(None) => {
            return refused(text(
                "ERR Protocol version is not an integer or out of range",
            ));
        }
    };
    let (mut auth, mut name) = (None, None);
    let mut options = words.get(2..).unwrap_or_default();
    while let [option, rest @ ..] = options {
        match (upper(option, &mut [0; WORD_BYTES_MAX]), rest) {
            (b"AUTH", [user, password, rest @ ..]) => {
                auth = Some((*user, *password));
                options = rest;
            }
            (b"SETNAME", [wanted, rest @ ..]) => {
                if let Err(error) = check_name(wanted) {
                    return refused(error);
                }
                name = Some(*wanted);
                options = rest;
            }
            _ => return refused(repeating("ERR Syntax error in HELLO option '", option, "'")),
        }
    }
    Request::Hello {
        version,
        auth,
        name,
    }
}

fn auth<'a>(words: &[&'a [u8]]) -> Request<'a> {
    match words {
        [_, password] => Request::Auth {
            user: None,
            password,
        },
        [_, user, password] => Request::Auth {
            user: Some(user),
            password,
        },
        _ => refused("auth", text(SYNTAX_ERROR)),
    }
}

fn select<'a>(index: &[u8]) -> Request<'a> {
    let error = match parse_number(index) {
        Some(0..DATABASES) => return Request::Select,
        Some(index) if i32::try_from(index).is_ok() => "ERR DB index is out of range",
        Some(_) => "ERR value is out of range, value must between -2147483648 and 2147483647",
        None => NOT_AN_INTEGER,
    };
    refused("select", text(error))
}

fn client<'a>(words: &'a [&'a [u8]]) -> Result<Request<'a>, Refusal> {
    expect(words, 2..=usize::MAX, "client")?;
    Ok(Request::Client(
        match upper(words[1], &mut [0; WORD_BYTES_MAX]) {
            b"ID" => {
                expect(words, 2..=2, "client|id")?;
                ClientRequest::Id
            }
            b"GETNAME" => {
                expect(words, 2..=2, "client|getname")?;
                ClientRequest::GetName
            }
            b"SETNAME" => {
                expect(words, 3..=3, "client|setname")?;
                if let Err(error) = check_name(words[2]) {
                    return Ok(refused("client|setname", error));
                }
                ClientRequest::SetName(words[2])
            }
            b"SETINFO" => {
                expect(words, 4..=4, "client|setinfo")?;
                return Ok(set_info(words[2], words[3]));
            }
            b"INFO" => {
                expect(words, 2..=2, "client|info")?;
                ClientRequest::Info
            }
            b"LIST" => match client_filter(&words[2..]) {
                Ok(filter) => ClientRequest::List(filter),
                Err(error) => return Ok(refused("client|list", error)),
            },
            b"NO-EVICT" => {
                expect(words, 3..=3, "client|no-evict")?;
                return Ok(on_or_off(
                    "client|no-evict",
                    words[2],
                    ClientRequest::NoEvict,
                ));
            }
            b"NO-TOUCH" => {
                expect(words, 3..=3, "client|no-touch")?;
                return Ok(on_or_off(
                    "client|no-touch",
                    words[2],
                    ClientRequest::NoTouch,
                ));
            }
            b"TRACKING" => {
                expect(words, 3..=usize::MAX, "client|tracking")?;
                return Ok(tracking(&words[2..]));
            }
            b"REPLY" => {
                expect(words, 3..=3, "client|reply")?;
                ClientRequest::Reply(match upper(words[2], &mut [0; WORD_BYTES_MAX]) {
                    b"ON" => ReplyMode::On,
                    b"OFF" => ReplyMode::Off,
                    b"SKIP" => ReplyMode::Skip,
                    _ => return Ok(refused("client|reply", text(SYNTAX_ERROR))),
                })
            }
            b"HELP" => return help(words, "client|help", CLIENT_HELP),
            _ => return Err(unknown_subcommand(words[1], "CLIENT")),
        },
    ))
}

fn set_info<'a>(attribute: &[u8], value: &'a [u8]) -> Request<'a> {
    let refused = |error| refused("client|setinfo", error);
    let request = match upper(attribute, &mut [0; WORD_BYTES_MAX]) {
        b"LIB-NAME" => ClientRequest::SetLibraryName(value),
        b"LIB-VER" => ClientRequest::SetLibraryVersion(value),
        _ => return refused(repeating("ERR Unrecognized option '", attribute, "'")),
    };
    if !is_visible(value) {
        return refused(repeating(
            "ERR ",
            attribute,
            " cannot contain spaces, newlines or special characters.",
        ));
    }
    if value.len() > NAME_BYTES_MAX {
        return refused(repeating(
            "ERR ",
            attribute,
            " cannot be longer than 255 bytes.",
        ));
    }
    Request::Client(request)
}

fn client_filter(options: &[&[u8]]) -> Result<ClientFilter, ErrorText> {
    let [option, values @ ..] = options else {
        return Ok(ClientFilter::All);
    };
    match (upper(option, &mut [0; WORD_BYTES_MAX]), values) {
        (b"TYPE", [kind]) => match upper(kind, &mut [0; WORD_BYTES_MAX]) {
            b"NORMAL" => Ok(ClientFilter::Normal),
            b"PUBSUB" => Ok(ClientFilter::PubSub),
            b"MASTER" | b"REPLICA" | b"SLAVE" => Ok(ClientFilter::None),
            _ => Err(repeating("ERR Unknown client type '", kind, "'")),
        },
        (b"ID", [_, ..]) => values
            .iter()
            .map(|id| parse_number(id).ok_or(text("ERR Invalid client ID")))
            // A number below zero is nobody's.
            .filter_map(|id| id.map(|id| u64::try_from(id).ok()).transpose())
            .collect::<Result<_, _>>()
            .map(ClientFilter::Ids),
        _ => Err(text(SYNTAX_ERROR)),
    }
}

fn on_or_off<'a>(name: &'static str, word: &[u8], request: ClientRequest<'a>) -> Request<'a> {
    match upper(word, &mut [0; WORD_BYTES_MAX]) {
        b"ON" | b"OFF" => Request::Client(request),
        _ => refused(name, text(SYNTAX_ERROR)),
    }
}

fn tracking<'a>(options: &[&[u8]]) -> Request<'a> {
    let error = match (upper(options[0], &mut [0; WORD_BYTES_MAX]), &options[1..]) {
        (b"OFF", []) => return Request::Client(ClientRequest::TrackingOff),
        (b"ON", _) => "ERR client side caching is not supported, there are no keys here",
        _ => SYNTAX_ERROR,
    };
    refused("client|tracking", text(error))
}

fn command<'a>(words: &'a [&'a [u8]]) -> Result<Request<'a>, Refusal> {
    let [_, subcommand, rest @ ..] = words else {
        return Ok(Request::Command(CommandRequest::All));
    };
    Ok(Request::Command(
        match upper(subcommand, &mut [0; WORD_BYTES_MAX]) {
            b"COUNT" => {
                expect(words, 2..=2, "command|count")?;
                CommandRequest::Count
            }
            b"DOCS" => CommandRequest::Docs,
            b"INFO" => CommandRequest::Info(rest.len()),
            b"LIST" => {
                let is_filtered = |option: &[u8], kind: &[u8]| {
                    option.eq_ignore_ascii_case(b"FILTERBY")
                        && [&b"MODULE"[..], b"ACLCAT", b"PATTERN"]
                            .iter()
                            .any(|known| kind.eq_ignore_ascii_case(known))
                };
                match rest {
                    [] => CommandRequest::List,
                    [option, kind, _] if is_filtered(option, kind) => CommandRequest::List,
                    _ => return Ok(refused("command|list", text(SYNTAX_ERROR))),
                }
            }
            b"HELP" => return help(words, "command|help", COMMAND_HELP),
            _ => return Err(unknown_subcommand(subcommand, "COMMAND")),
        },
    ))
}

fn config<'a>(words: &'a [&'a [u8]]) -> Result<Request<'a>, Refusal> {
    expect(words, 2..=usize::MAX, "config")?;
    Ok(match upper(words[1], &mut [0; WORD_BYTES_MAX]) {
        b"GET" => {
            expect(words, 3..=usize::MAX, "config|get")?;
            Request::ConfigGet
        }
        b"SET" => {
            expect(words, 4..=usize::MAX, "config|set")?;
            let error = match words.len() % 2 {
                0 => repeating(
                    "ERR Unknown option or number of arguments for CONFIG SET - '",
                    words[2],
                    "'",
                ),
                _ => text(SYNTAX_ERROR),
            };
            refused("config|set", error)
        }
        b"RESETSTAT" => {
            expect(words, 2..=2, "config|resetstat")?;
            let error = text("ERR CONFIG RESETSTAT is not supported, counters only grow");
            refused("config|resetstat", error)
        }
        b"REWRITE" => {
            expect(words, 2..=2, "config|rewrite")?;
            let error = text("ERR The server is running without a config file");
            refused("config|rewrite", error)
        }
        b"HELP" => return help(words, "config|help", CONFIG_HELP),
        _ => return Err(unknown_subcommand(words[1], "CONFIG")),
    })
}

fn pubsub<'a>(words: &'a [&'a [u8]]) -> Result<Request<'a>, Refusal> {
    expect(words, 2..=usize::MAX, "pubsub")?;
    let channels = |space, name| match words {
        [_, _] => channels(space, None),
        [_, _, pattern] => channels(space, Some(pattern)),
        _ => refused(
            name,
            repeating(
                "ERR unknown subcommand or wrong number of arguments for '",
                words[1],
                "'. Try PUBSUB HELP.",
            ),
        ),
    };
    let counts = |space| {
        let names = &words[2..];
        Request::PubSub(PubSubRequest::NumSub { space, names })
    };
    Ok(match upper(words[1], &mut [0; WORD_BYTES_MAX]) {
        b"CHANNELS" => channels(Space::Channels, "pubsub|channels"),
        b"SHARDCHANNELS" => channels(Space::Shards, "pubsub|shardchannels"),
        b"NUMSUB" => counts(Space::Channels),
        b"SHARDNUMSUB" => counts(Space::Shards),
        b"NUMPAT" => {
            expect(words, 2..=2, "pubsub|numpat")?;
            Request::PubSub(PubSubRequest::NumPat)
        }
        b"HELP" => return help(words, "pubsub|help", PUBSUB_HELP),
        _ => return Err(unknown_subcommand(words[1], "PUBSUB")),
    })
}

fn channels(space: Space, pattern: Option<&[u8]>) -> Request<'_> {
    Request::PubSub(PubSubRequest::Channels { space, pattern })
}

const CLIENT_HELP: &[&str] = &[
    "CLIENT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "GETNAME",
    "    Return the name of the current connection.",
    "ID",
    "    Return the ID of the current connection.",
    "INFO",
    "    Return information about the current client connection.",
    "LIST [TYPE (NORMAL|PUBSUB)] [ID <client-id> ...]",
    "    Return information about client connections.",
    "REPLY (ON|OFF|SKIP)",
    "    Control the replies sent to the current connection.",
    "SETINFO (LIB-NAME|LIB-VER) <value>",
    "    Set the name or the version of the client's library.",
    "SETNAME <name>",
    "    Assign the name <name> to the current connection.",
    "HELP",
    "    Print this help.",
];

const COMMAND_HELP: &[&str] = &[
    "COMMAND <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "COUNT, DOCS, INFO, LIST",
    "    Return nothing: what there is, is told by its documentation.",
    "HELP",
    "    Print this help.",
];

const CONFIG_HELP: &[&str] = &[
    "CONFIG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "GET <pattern>",
    "    Return nothing: there are no settings of Redis.",
    "HELP",
    "    Print this help.",
];

const PUBSUB_HELP: &[&str] = &[
    "PUBSUB <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "CHANNELS [<pattern>]",
    "    Return the currently active channels matching a <pattern> (default: '*').",
    "NUMPAT",
    "    Return number of subscriptions to patterns.",
    "NUMSUB [<channel> ...]",
    "    Return the number of subscribers for the specified channels, excluding",
    "    pattern subscriptions(default: no channels).",
    "SHARDCHANNELS [<pattern>]",
    "    Return the currently active shard level channels matching a <pattern> (default: '*').",
    "SHARDNUMSUB [<shardchannel> ...]",
    "    Return the number of subscribers for the specified shard level channel(s)",
    "HELP",
    "    Print this help.",
];

fn help<'a>(
    words: &[&[u8]],
    name: &'static str,
    lines: &'static [&'static str],
) -> Result<Request<'a>, Refusal> {
    expect(words, 2..=2, name)?;
    Ok(Request::Help { name, lines })
}

/// The word in capitals, in this buffer; empty if it is longer than any that is known.
fn upper<'b>(word: &[u8], buffer: &'b mut [u8; WORD_BYTES_MAX]) -> &'b [u8] {
    let Some(upper) = buffer.get_mut(..word.len()) else {
        return &[];
    };
    upper.copy_from_slice(word);
    upper.make_ascii_uppercase();
    upper
}

/// Is the number of words, the name included, among these?
fn expect(words: &[&[u8]], count: RangeInclusive<usize>, name: &str) -> Result<(), Refusal> {
    if count.contains(&words.len()) {
        Ok(())
    } else {
        Err(Refusal::Error(wrong_number(name)))
    }
}

/// May this be the name of a connection? It is kept, so that it has to be short.
fn check_name(name: &[u8]) -> Result<(), ErrorText> {
    if !is_visible(name) {
        return Err(text(BAD_NAME));
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(text(LONG_NAME));
    }
    Ok(())
}

/// Would it stay one word in a CLIENT LIST?
fn is_visible(word: &[u8]) -> bool {
    word.iter().all(u8::is_ascii_graphic)
}

fn refused<'a>(name: &'static str, error: ErrorText) -> Request<'a> {
    Request::Refused { name, error }
}

fn text(error: &'static str) -> ErrorText {
    error.as_bytes().into()
}

#[cold]
fn wrong_number(name: &str) -> ErrorText {
    repeating(
        "ERR wrong number of arguments for '",
        name.as_bytes(),
        "' command",
    )
}

/// An error that repeats a word of the client.
#[cold]
fn repeating(before: &str, word: &[u8], after: &str) -> ErrorText {
    let word = repeatable(word, REPEATED_BYTES_MAX);
    [before.as_bytes(), word, after.as_bytes()].concat().into()
}

#[cold]
fn unknown_subcommand(subcommand: &[u8], command: &str) -> Refusal {
    Refusal::Error(repeating(
        "ERR unknown subcommand '",
        subcommand,
        &format!("'. Try {command} HELP."),
    ))
}

#[cold]
fn unknown_command(words: &[&[u8]]) -> Refusal {
    let [name, arguments @ ..] = words else {
        return Refusal::Error(text("ERR unknown command"));
    };
    let mut repeated = Vec::new();
    for argument in arguments {
        // The quotes around the last one may lie behind the bound, as in Redis.
        let Some(room) = REPEATED_BYTES_MAX
            .checked_sub(repeated.len())
            .filter(|&room| room > 0)
        else {
            break;
        };
        repeated.push(b'\'');
        repeated.extend_from_slice(repeatable(argument, room));
        repeated.extend_from_slice(b"' ");
    }
    let mut error = b"ERR unknown command '".to_vec();
    error.extend_from_slice(repeatable(name, REPEATED_BYTES_MAX));
    error.extend_from_slice(b"', with args beginning with: ");
    error.extend_from_slice(&repeated);
    Refusal::Error(error.into())
}

/// What Redis would print of it: so many bytes, and none from a zero byte on.
fn repeatable(word: &[u8], size_max: usize) -> &[u8] {
    let word = &word[..word.len().min(size_max)];
    &word[..memchr::memchr(0, word).unwrap_or(word.len())]
}

#[cfg(test)]
mod tests {
    use super::super::inline::Words;
    use super::super::{OwnedArguments, reply};
    use super::*;

    /// Words as a person would type them.
    fn arguments(words: &str) -> OwnedArguments {
        let mut arguments = OwnedArguments::default();
        let mut words = Words::of(words.as_bytes());
        while words.next(&mut arguments.bytes).expect("balanced") {
            arguments.end();
        }
        arguments
    }

    #[track_caller]
    fn check(words: &str, expected: Request<'_>) {
        let owned = arguments(words);
        assert_eq!(decode(&owned.borrow()), Ok(expected), "{words}");
    }

    #[test]
    fn names_are_known_in_any_case() {
        for words in ["subscribe a b", "SUBSCRIBE a b", "sUbScRiBe a b"] {
            let (kind, names) = (Kind::Channel, &[&b"a"[..], b"b"][..]);
            check(words, Request::Subscribe { kind, names });
        }
        let (kind, names) = (Kind::Pattern, &[&b"A*"[..]][..]);
        check("Psubscribe A*", Request::Subscribe { kind, names });
        check("punsubscribe A*", Request::Unsubscribe { kind, names });
        let (kind, names) = (Kind::Shard, &[][..]);
        check("sunsubscribe", Request::Unsubscribe { kind, names });
        let publish = |space| Request::Publish {
            space,
            channel: b"a\0",
            payload: b"\r\n",
        };
        check(r#"publish "a\x00" "\r\n""#, publish(Space::Channels));
        check(r#"Spublish "a\x00" "\r\n""#, publish(Space::Shards));
        check("info REPLICATION x", Request::Info(&[b"REPLICATION", b"x"]));
        check("Quit now", Request::Quit);
        check("time", Request::Time);
    }

    #[test]
    fn hello_and_auth_give_what_they_carry() {
        let hello = |version, auth, name| Request::Hello {
            version,
            auth,
            name,
        };
        check("HELLO", hello(None, None, None));
        check("hello 2", hello(Some(Version::Two), None, None));
        check(
            "HELLO 3 setname n auth u p",
            hello(Some(Version::Three), Some((b"u", b"p")), Some(b"n")),
        );
        // A user of that name is no option.
        check(
            r#"HELLO 3 AUTH SETNAME "" SETNAME """#,
            hello(Some(Version::Three), Some((b"SETNAME", b"")), Some(b"")),
        );
        let auth = |user| Request::Auth {
            user,
            password: b"p w",
        };
        check("AUTH 'p w'", auth(None));
        check("auth u 'p w'", auth(Some(b"u")));
    }

    #[test]
    fn clients_say_and_ask_about_themselves() {
        let check = |words: &str, expected| check(words, Request::Client(expected));
        use ClientRequest::*;
        check("client id", Id);
        check("CLIENT INFO", Info);
        check(
            "client SETINFO LIB-NAME ioredis",
            SetLibraryName(b"ioredis"),
        );
        check("client setinfo lib-ver ''", SetLibraryVersion(b""));
        check("client no-touch ON", NoTouch);
        check("client reply skip", Reply(ReplyMode::Skip));
        check("client list", List(ClientFilter::All));
        check("client list type NORMAL", List(ClientFilter::Normal));
        check("client list type pubsub", List(ClientFilter::PubSub));
        check("client list type slave", List(ClientFilter::None));
        let ids = [3, 0, u64::MAX >> 1].into_iter().collect();
        check(
            "client list id 3 -1 0 9223372036854775807",
            List(ClientFilter::Ids(ids)),
        );
    }

    /// What is not in the transcripts, since Redis 7.0 has or does what we have or do not, or the other way round.
    #[test]
    fn what_is_refused_otherwise_than_by_redis() {
        let long = "x".repeat(256);
        let check = |words: &str, expected: &str| {
            let owned = arguments(words);
            let arguments = owned.borrow();
            let error = match decode(&arguments) {
                Err(Refusal::Error(error)) | Ok(Request::Refused { error, .. }) => error,
                other => panic!("{words}: {other:?}"),
            };
            let mut reply = Vec::new();
            reply::write_error(&error, &mut reply);
            assert_eq!(
                reply.escape_ascii().to_string().replace("\\'", "'"),
                format!("-{expected}\\r\\n")
            );
        };
        check("MULTI", NO_TRANSACTIONS);
        check("WATCH a", NO_TRANSACTIONS);
        check("UNWATCH", NO_TRANSACTIONS);
        check(
            "XADD a * b c",
            "ERR unknown command 'XADD', with args beginning with: 'a' '*' 'b' 'c' ",
        );
        check(
            "SET a b",
            "ERR unknown command 'SET', with args beginning with: 'a' 'b' ",
        );
        check(
            "client setinfo lib-foo x",
            "ERR Unrecognized option 'lib-foo'",
        );
        check(
            "client setinfo lib-name 'a b'",
            "ERR lib-name cannot contain spaces, newlines or special characters.",
        );
        check(
            &format!("client setinfo LIB-VER {long}"),
            "ERR LIB-VER cannot be longer than 255 bytes.",
        );
        check(
            "client setinfo lib-name",
            "ERR wrong number of arguments for 'client|setinfo' command",
        );
        check("client no-touch maybe", SYNTAX_ERROR);
        check(&format!("client setname {long}"), LONG_NAME);
        check(&format!("hello 3 setname {long}"), LONG_NAME);
        check(
            "client tracking on bcast",
            "ERR client side caching is not supported, there are no keys here",
        );
        check(
            "client kill x",
            "ERR unknown subcommand 'kill'. Try CLIENT HELP.",
        );
        check(
            "command getkeys get a",
            "ERR unknown subcommand 'getkeys'. Try COMMAND HELP.",
        );
        check(
            "cluster foo",
            "ERR This instance has cluster support disabled",
        );
        check(
            "config resetstat",
            "ERR CONFIG RESETSTAT is not supported, counters only grow",
        );
        let repeated = "y".repeat(128);
        check(
            &format!("hello 3 {}", "y".repeat(200)),
            &format!("ERR Syntax error in HELLO option '{repeated}'"),
        );
    }

    #[test]
    fn help_is_there_where_an_error_says_so() {
        for command in ["CLIENT", "COMMAND", "CONFIG", "PUBSUB"] {
            let owned = arguments(&format!("{command} help"));
            let name = format!("{}|help", command.to_lowercase());
            let arguments = owned.borrow();
            let Ok(request @ Request::Help { lines, .. }) = decode(&arguments) else {
                panic!("{command}")
            };
            assert_eq!(request.name(), name);
            assert!(lines[0].starts_with(command) && lines.len() > 3);
        }
    }

    #[test]
    fn http_is_no_request() {
        for words in ["POST / HTTP/1.1", "post", "Host: example.com", "hOST:"] {
            assert_eq!(
                decode(&arguments(words).borrow()),
                Err(Refusal::CrossProtocol)
            );
        }
        assert!(decode(&arguments("Host").borrow()) != Err(Refusal::CrossProtocol));
        assert!(decode(&Arguments::default()).is_err());
    }
}
