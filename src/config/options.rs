//! The options, each defined once. This file is a single table and the types of its rows; the command line, the
//! environment names, the keys of the file, `--help`, `default-config` and the reference page all read it.
//!
//! Invariant: the names of one option differ only in spelling: `--drain-delay`, `drain_delay`, `PUBSUB_DRAIN_DELAY`.
//! A default is never written here: it is what the row shows of [`Config::default`].

use std::path::PathBuf;

use bytes::Bytes;
use clap::{Arg, ArgAction, Command};

use super::Secret;
use super::listen::{HostPort, ListenAddr, check_origin};
use super::values::{Value, read_bytes, read_number, read_seconds, read_switch};
use super::{AcceptPeers, Admission, Config, Io, LogFormat, LogLevel};
use crate::address::SHARDS_MAX;
use crate::address::proxies::TrustedProxies;
use crate::limits::TURN_BYTES_MAX;
use crate::limits::{KIB, MIB};
use crate::net::affinity::{read_cpus, write_cpus};
use crate::shard::slow::{SlowPolicy, SlowRule};
use crate::topic::Topic;

/// The prefix of environment names.
pub const ENVIRONMENT_PREFIX: &str = "PUBSUB_";

const GIB: u64 = 1024 * MIB as u64;
const TIB: u64 = 1024 * GIB;
/// The longest time that an option takes: a day. Longer ones are slips of the unit.
const TIME_MS_MAX: u64 = 86_400_000;

/// The chapters of help and reference.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Section {
    /// `--config`, logs.
    General,
    /// Listeners and who may use them.
    Listeners,
    /// Who clients are.
    Tokens,
    /// Shards, cores, the kernel interface.
    Threads,
    /// What one connection may do.
    Limits,
    /// Outboxes.
    SlowConsumers,
    /// Timeouts and pings.
    Timings,
    /// Drain.
    Drain,
}

impl Section {
    /// Every section, in the order of the pages.
    pub const ALL: [Section; 8] = [
        Section::General,
        Section::Listeners,
        Section::Tokens,
        Section::Threads,
        Section::Limits,
        Section::SlowConsumers,
        Section::Timings,
        Section::Drain,
    ];

    /// The heading.
    pub fn title(self) -> &'static str {
        match self {
            Section::General => "General",
            Section::Listeners => "Listeners and access",
            Section::Tokens => "Tokens",
            Section::Threads => "Threads",
            Section::Limits => "Limits",
            Section::SlowConsumers => "Slow consumers",
            Section::Timings => "Timeouts",
            Section::Drain => "Drain",
        }
    }

    /// What all its options have in common.
    pub fn about(self) -> &'static str {
        match self {
            Section::General => "Where the configuration is, and what the log says.",
            Section::Listeners => {
                "Without any of these a broker serves clients and operators of its own machine. Where nobody has to \
                 show a token, listening beyond loopback must be allowed in so many words."
            }
            Section::Tokens => {
                "With a key, clients say who they are by a JWT: in the query of their URL as `?token=`, or as \
                 `Authorization: Bearer`. Who shows none is let in only if some `[[access]]` rule is for anyone, and \
                 one that is not believed gets 401. Several keys are good side by side; SIGHUP has the files read again, \
                 and who is in stays in."
            }
            Section::Threads => {
                "A shard is one thread that owns its connections. By default there is one per CPU that the process \
                 may use."
            }
            Section::Limits => {
                "Nothing is without a bound. Past one of these a client gets an error or a close code, never an \
                 acknowledgement."
            }
            Section::SlowConsumers => {
                "What waits for a reader waits in its outbox. The policy of the topic decides what becomes of a reader \
                 that is behind; it is always told that it missed something, by a gap or by the close code 4008."
            }
            Section::Timings => "All in milliseconds, and at most a day.",
            Section::Drain => {
                "What SIGTERM starts: `/readyz` fails, the listeners close, what is queued is sent, every client is \
                 told to go elsewhere (1001), and the process exits with 0. A second SIGTERM ends it at once."
            }
        }
    }
}

/// One option.
pub struct Opt {
    /// The name on the command line, without the dashes.
    pub name: &'static str,
    /// What the value is called in help.
    pub placeholder: &'static str,
    /// Its chapter.
    pub section: Section,
    /// One line.
    pub help: &'static str,
    /// What else there is to know; may be empty.
    pub more: &'static str,
    /// A value for the file where the default has none to show; may be empty.
    pub example: &'static str,
    /// How it is read and shown.
    pub kind: Kind,
}

/// How an option is read and shown.
pub enum Kind {
    /// `--config`: no key of the file that it names.
    ConfigFile,
    /// On or off; `--name` alone is on.
    Switch {
        /// Reads it.
        get: fn(&Config) -> bool,
        /// Sets it.
        set: fn(&mut Config, bool),
    },
    /// A whole number.
    Number(Number),
    /// A size in bytes.
    Bytes(Number),
    /// A time in seconds, kept in milliseconds.
    Seconds(Number),
    /// One text.
    Text {
        /// Reads it.
        read: fn(&mut Draft, &str) -> Result<(), String>,
        /// Shows it.
        show: fn(&Config) -> Value,
    },
    /// One text that nothing quotes.
    Secret {
        /// Reads it.
        read: fn(&mut Draft, &str) -> Result<(), String>,
        /// Shows that it is there.
        show: fn(&Config) -> Value,
    },
    /// Several texts.
    List {
        /// Reads them; what was there is gone.
        read: fn(&mut Draft, &[String]) -> Result<(), String>,
        /// Shows them.
        show: fn(&Config) -> Value,
    },
    /// A list of CPUs.
    Cpus {
        /// Reads them.
        get: fn(&Config) -> Option<&[usize]>,
        /// Sets them.
        set: fn(&mut Config, Vec<usize>),
    },
}

/// A number in the configuration and its range.
pub struct Number {
    get: fn(&Config) -> Option<u64>,
    set: fn(&mut Config, u64),
    min: u64,
    max: u64,
}

/// A configuration that is being read: sources are applied to it one after the other, the weakest first.
#[derive(Default)]
pub struct Draft {
    /// The result so far.
    pub config: Config,
    /// The addresses of `--listen`, if any source had them.
    pub listen: Option<Vec<ListenAddr>>,
    /// Where the admin key comes from, if any source said so.
    pub admin_key: Option<KeySource>,
    /// The options that any source had.
    pub given: Vec<&'static str>,
}

/// Where a secret comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeySource {
    /// Said outright.
    Given(Secret),
    /// The first line of this file.
    File(PathBuf),
}

impl Opt {
    /// The option of this name.
    pub fn named(name: &str) -> Option<&'static Opt> {
        OPTIONS.iter().find(|option| option.name == name)
    }

    /// The key in the file; `--config` has none.
    pub fn key(&self) -> Option<String> {
        match self.kind {
            Kind::ConfigFile => None,
            _ => Some(self.name.replace('-', "_")),
        }
    }

    /// The name in the environment.
    pub fn environment_name(&self) -> String {
        format!(
            "{ENVIRONMENT_PREFIX}{}",
            self.name.replace('-', "_").to_ascii_uppercase()
        )
    }

    /// May it be given more than once?
    pub fn is_list(&self) -> bool {
        matches!(self.kind, Kind::List { .. })
    }

    /// Reads one source's texts for this option into the draft, in place of what was there.
    ///
    /// # Errors
    /// What was wanted instead, to follow the option's name.
    pub fn apply(&'static self, draft: &mut Draft, texts: &[String]) -> Result<(), String> {
        // Only lists have none or several: the sources see to that.
        let text = texts.last().map_or("", |text| text.trim());
        match &self.kind {
            Kind::ConfigFile => {}
            Kind::Switch { set, .. } => set(&mut draft.config, read_switch(text)?),
            Kind::Number(number) => number.read(draft, read_number(text)?, |value| {
                Value::Number(value).to_string()
            })?,
            Kind::Bytes(number) => number.read(draft, read_bytes(text)?, |value| {
                Value::Bytes(value).to_string()
            })?,
            Kind::Seconds(number) => number.read(draft, read_seconds(text)?, |value| {
                format!("{} seconds", Value::Seconds(value))
            })?,
            Kind::Text { read, .. } | Kind::Secret { read, .. } => read(draft, text)?,
            Kind::List { read, .. } => read(draft, texts)?,
            Kind::Cpus { set, .. } => set(&mut draft.config, read_cpus(text)?),
        }
        draft.given.push(self.name);
        Ok(())
    }

    /// Its value in a configuration.
    pub fn show(&self, config: &Config) -> Value {
        match &self.kind {
            Kind::ConfigFile => Value::Unset,
            Kind::Switch { get, .. } => Value::Switch(get(config)),
            Kind::Number(number) => (number.get)(config).map_or(Value::Unset, Value::Number),
            Kind::Bytes(number) => (number.get)(config).map_or(Value::Unset, Value::Bytes),
            Kind::Seconds(number) => (number.get)(config).map_or(Value::Unset, Value::Seconds),
            Kind::Text { show, .. } | Kind::Secret { show, .. } | Kind::List { show, .. } => {
                show(config)
            }
            Kind::Cpus { get, .. } => {
                get(config).map_or(Value::Unset, |cpus| Value::Text(write_cpus(cpus)))
            }
        }
    }
}

impl Number {
    fn read(&self, draft: &mut Draft, value: u64, write: fn(u64) -> String) -> Result<(), String> {
        if !(self.min..=self.max).contains(&value) {
            let (min, max) = (write(self.min), write(self.max));
            return Err(format!("wants {min} to {max}"));
        }
        (self.set)(&mut draft.config, value);
        Ok(())
    }
}

/// The options of `serve` as clap sees them.
pub fn arguments() -> Vec<Arg> {
    let defaults = Config::default();
    OPTIONS
        .iter()
        .map(|option| {
            let default = match option.show(&defaults).to_string() {
                text if text.is_empty() => text,
                text => format!(" [default: {text}]"),
            };
            let more = match option.more {
                "" => String::new(),
                more => format!("\n\n{more}"),
            };
            // A terminal shows no backticks.
            let (help, more) = (option.help.replace('`', ""), more.replace('`', ""));
            let argument = Arg::new(option.name)
                .long(option.name)
                .value_name(option.placeholder)
                .help(format!("{help}{default}"))
                .long_help(format!("{help}{default}{more}"))
                .help_heading(option.section.title());
            match option.kind {
                Kind::List { .. } => argument.action(ArgAction::Append),
                Kind::Switch { .. } => argument
                    .action(ArgAction::Set)
                    .overrides_with(option.name)
                    .num_args(0..=1)
                    .require_equals(true)
                    .default_missing_value("true"),
                _ => argument.action(ArgAction::Set).overrides_with(option.name),
            }
        })
        .collect()
}

/// `serve` with all its options; the binary adds its subcommands.
pub fn command() -> Command {
    Command::new("pubsub")
        .about("A realtime publish/subscribe broker")
        .version(env!("CARGO_PKG_VERSION"))
        .args(arguments())
        .after_help(
            "Each option is also a key of the configuration file and an environment name: --drain-delay is\n\
             drain_delay and PUBSUB_DRAIN_DELAY. Flags win over the environment, the environment over the file.",
        )
}

/// A field of the configuration that is a plain number.
macro_rules! number {
    ($($field:ident).+, $min:expr, $max:expr) => {
        Number {
            get: |config| Some(config.$($field).+ as u64),
            // The range fits the field's type.
            set: |config, value| config.$($field).+ = value as _,
            min: $min,
            max: $max,
        }
    };
}

/// A field of the configuration that is one word of an enum.
macro_rules! word {
    ($field:ident: $type:ty) => {
        Kind::Text {
            read: |draft, text| {
                draft.config.$field = text.parse::<$type>()?;
                Ok(())
            },
            show: |config| Value::Text(config.$field.to_string()),
        }
    };
}

/// What a claim of every token must be.
macro_rules! claim {
    ($field:ident) => {
        Kind::Text {
            read: |draft, text| {
                if text.is_empty() {
                    return Err("wants a text".to_owned());
                }
                draft.config.tokens.$field = Some(text.to_owned());
                Ok(())
            },
            show: |config| {
                let claim = config.tokens.$field.clone();
                claim.map_or(Value::Unset, Value::Text)
            },
        }
    };
}

/// Every option, by section.
pub static OPTIONS: &[Opt] = &[
    Opt {
        name: "config",
        placeholder: "FILE",
        section: Section::General,
        help: "The configuration file (TOML)",
        more: "Unknown keys are errors. `pubsub default-config` writes a file with every key and its default; \
               `pubsub check-config --config FILE` says what a file amounts to.",
        example: "",
        kind: Kind::ConfigFile,
    },
    Opt {
        name: "log",
        placeholder: "LEVEL",
        section: Section::General,
        help: "The least important event that is logged: `off`, `error`, `warn`, `info`, `debug` or `trace`",
        more: "Logs go to standard error. Standard output has one line, once the broker accepts.",
        example: "",
        kind: word!(log: LogLevel),
    },
    Opt {
        name: "log-format",
        placeholder: "FORMAT",
        section: Section::General,
        help: "`text` for people, `json` for one object per line",
        more: "",
        example: "",
        kind: word!(log_format: LogFormat),
    },
    Opt {
        name: "listen",
        placeholder: "ADDR",
        section: Section::Listeners,
        help: "Where clients connect: `host:port`, `:port` (all addresses) or `unix:/path`; repeatable",
        more: "Port 0 takes any free port; the ready line says which. On a machine without IPv6 the default \
               `[::1]:8000` and the IPv6 half of `:port` are skipped. `[[listener]]` tables of the file say more \
               about each address; where the environment or the command line names addresses, these replace the \
               tables, and an address that a table names keeps its settings.",
        example: "",
        kind: Kind::List {
            read: |draft, texts| {
                let addresses: Result<Vec<ListenAddr>, String> =
                    texts.iter().map(|text| text.trim().parse()).collect();
                draft.listen = Some(addresses?);
                Ok(())
            },
            show: |config| {
                let written = |listener: &super::Listener| listener.addr.to_string();
                Value::List(config.listeners.iter().map(written).collect())
            },
        },
    },
    Opt {
        name: "resp",
        placeholder: "ADDR",
        section: Section::Listeners,
        help: "Where Redis clients connect: `host:port`, `:port` or `unix:/path`; nowhere unless given; repeatable",
        more: "Nothing but RESP is spoken there. What such clients publish and subscribe to are the same topics; see \
               docs/protocols/resp.md.",
        example: r#"["127.0.0.1:6379"]"#,
        kind: Kind::List {
            read: |draft, texts| {
                let addresses: Result<Vec<ListenAddr>, String> =
                    texts.iter().map(|text| text.trim().parse()).collect();
                draft.config.resp = addresses?;
                Ok(())
            },
            show: |config| Value::List(config.resp.iter().map(ListenAddr::to_string).collect()),
        },
    },
    Opt {
        name: "resp-password",
        placeholder: "PASSWORD",
        section: Section::Listeners,
        help: "What Redis clients have to say first, by `AUTH` or `HELLO`",
        more: "The user is `default`. Everybody on this machine can read a command line: prefer the file or the \
               environment.",
        example: r#""a long random text""#,
        kind: Kind::Secret {
            read: |draft, text| {
                draft.config.resp_password = Some(KeySource::Given(Secret::new(text)?));
                Ok(())
            },
            show: |config| match config.resp_password {
                Some(KeySource::Given(_)) => Value::Hidden,
                Some(KeySource::File(_)) | None => Value::Unset,
            },
        },
    },
    Opt {
        name: "resp-password-file",
        placeholder: "FILE",
        section: Section::Listeners,
        help: "A file whose first line is that password",
        more: "",
        example: r#""/run/secrets/pubsub_resp_password""#,
        kind: Kind::Text {
            read: |draft, text| {
                draft.config.resp_password = Some(KeySource::File(read_path(text)?));
                Ok(())
            },
            show: |config| match &config.resp_password {
                Some(KeySource::File(path)) => Value::Text(path.display().to_string()),
                Some(KeySource::Given(_)) | None => Value::Unset,
            },
        },
    },
    Opt {
        name: "peers",
        placeholder: "ADDR",
        section: Section::Listeners,
        help: "Where application servers connect: `host:port`, `:port` or `unix:/path`; nowhere unless given; repeatable",
        more: "They speak the protocol of docs/protocols/peer.md, as `pubsub_connect` does. Whoever is let in there may \
               publish and subscribe to everything, and decide on clients.",
        example: r#"["unix:/run/pubsub.sock"]"#,
        kind: Kind::List {
            read: |draft, texts| {
                let addresses: Result<Vec<ListenAddr>, String> =
                    texts.iter().map(|text| text.trim().parse()).collect();
                draft.config.peers = addresses?;
                Ok(())
            },
            show: |config| Value::List(config.peers.iter().map(ListenAddr::to_string).collect()),
        },
    },
    Opt {
        name: "peer-key",
        placeholder: "KEY",
        section: Section::Listeners,
        help: "What application servers have to show; without it anybody who reaches the listener may come in",
        more: "Everybody on this machine can read a command line: prefer the file or the environment.",
        example: r#""a long random text""#,
        kind: Kind::Secret {
            read: |draft, text| {
                draft.config.peer_key = Some(KeySource::Given(Secret::new(text)?));
                Ok(())
            },
            show: |config| match config.peer_key {
                Some(KeySource::Given(_)) => Value::Hidden,
                Some(KeySource::File(_)) | None => Value::Unset,
            },
        },
    },
    Opt {
        name: "peer-key-file",
        placeholder: "FILE",
        section: Section::Listeners,
        help: "A file whose first line is that key",
        more: "It is read again at SIGHUP; who is in stays in.",
        example: r#""/run/secrets/pubsub_peer_key""#,
        kind: Kind::Text {
            read: |draft, text| {
                draft.config.peer_key = Some(KeySource::File(read_path(text)?));
                Ok(())
            },
            show: |config| match &config.peer_key {
                Some(KeySource::File(path)) => Value::Text(path.display().to_string()),
                Some(KeySource::Given(_)) | None => Value::Unset,
            },
        },
    },
    Opt {
        name: "admission",
        placeholder: "WHO",
        section: Section::Listeners,
        help: "`open`: clients come in unless an application server wants to be asked; `host`: only if one lets them in",
        more: "Once one has wanted to be asked it stays so until the broker ends, also when that one has gone: whoever can \
               ask nobody is refused with 503. With `host` it is so from the start. Redis clients are not asked about.",
        example: "",
        kind: word!(admission: Admission),
    },
    Opt {
        name: "accept-peers",
        placeholder: "WHO",
        section: Section::Listeners,
        help: "`any` that has the key, or `listed`: only those that the process the broker runs in has named",
        more: "Of use where the broker is embedded: its host names them by a Link.",
        example: "",
        kind: word!(accept_peers: AcceptPeers),
    },
    Opt {
        name: "accept-list",
        placeholder: "FILE",
        section: Section::Listeners,
        help: "A file that keeps the clients' tokens that application servers have accepted",
        more: "It is read at the start and written, soon after a change, as JSON; it is the broker's own. Without it the \
               tokens end with the broker.",
        example: r#""/var/lib/pubsub/accepted.json""#,
        kind: Kind::Text {
            read: |draft, text| {
                draft.config.accept_list = Some(read_path(text)?);
                Ok(())
            },
            show: |config| match &config.accept_list {
                Some(path) => Value::Text(path.display().to_string()),
                None => Value::Unset,
            },
        },
    },
    Opt {
        name: "insecure-open",
        placeholder: "BOOL",
        section: Section::Listeners,
        help: "Allow listening beyond loopback although nobody has to authenticate",
        more: "Everybody who reaches such a listener may connect; the `[[access]]` rules still apply. A browser's \
               Origin is checked either way.",
        example: "",
        kind: Kind::Switch {
            get: |config| config.insecure_open,
            set: |config, on| config.insecure_open = on,
        },
    },
    Opt {
        name: "allow-origin",
        placeholder: "ORIGIN",
        section: Section::Listeners,
        help: "A web origin that may connect, as `https://example.com`; `*` for all; repeatable",
        more: "Pages of the same host and port always may, and while every listener is on loopback so may pages \
               of `localhost`, `127.0.0.1` and `[::1]` on any port. Programs that send no Origin are not browsers, and \
               pass.",
        example: r#"["https://example.com"]"#,
        kind: Kind::List {
            read: |draft, texts| {
                let origins: Vec<String> =
                    texts.iter().map(|text| text.trim().to_owned()).collect();
                for origin in &origins {
                    check_origin(origin)?;
                }
                draft.config.allow_origin = origins;
                Ok(())
            },
            show: |config| Value::List(config.allow_origin.clone()),
        },
    },
    Opt {
        name: "clusterws-binary",
        placeholder: "BOOL",
        section: Section::Listeners,
        help: "Tell ClusterWS clients to speak binary (their server's `useBinary`)",
        more: "A `[[listener]]` may decide for itself, and so may a client, by `?binary=1` or `?binary=0`. What comes is \
               taken in either form.",
        example: "",
        kind: Kind::Switch {
            get: |config| config.clusterws_binary,
            set: |config, on| config.clusterws_binary = on,
        },
    },
    Opt {
        name: "trust-proxy",
        placeholder: "CIDR",
        section: Section::Listeners,
        help: "A proxy that is believed: an address, a network as `10.0.0.0/8`, or `unix`; repeatable",
        more: "From such a peer a PROXY header (version 2) and X-Forwarded-For, -Host and -Proto are taken; what they say \
               of the client is what limits per address, Origin checks, logs and `/stats` go by. `unix` stands for all \
               Unix sockets. Name only proxies that write these themselves: who passes on what its clients wrote lets \
               them choose their address. Where io_uring can't tell addresses (before Linux 6.8), a network here makes \
               `--io auto` take epoll.",
        example: r#"["127.0.0.1", "10.0.0.0/8", "unix"]"#,
        kind: Kind::List {
            read: |draft, texts| {
                let words = texts.iter().map(|text| text.trim());
                draft.config.trust_proxy = TrustedProxies::read(words)?;
                Ok(())
            },
            show: |config| Value::List(config.trust_proxy.words()),
        },
    },
    Opt {
        name: "client-services",
        placeholder: "BOOL",
        section: Section::Listeners,
        help: "Let clients handle events, so that other clients' requests reach them",
        more: "Off, a client's `handle` is refused with `not_allowed`. A `[[listener]]` may decide for itself.",
        example: "",
        kind: Kind::Switch {
            get: |config| config.client_services,
            set: |config, on| config.client_services = on,
        },
    },
    Opt {
        name: "admin",
        placeholder: "ADDR",
        section: Section::Listeners,
        help: "Where operators connect (health, metrics, stats, `POST /publish`): `host:port` or `off`",
        more: "",
        example: "",
        kind: Kind::Text {
            read: |draft, text| {
                draft.config.admin = read_admin(text)?;
                Ok(())
            },
            show: |config| {
                let off = || "off".to_owned();
                Value::Text(config.admin.as_ref().map_or_else(off, HostPort::to_string))
            },
        },
    },
    Opt {
        name: "admin-key",
        placeholder: "KEY",
        section: Section::Listeners,
        help: "What `POST /publish` asks for, as `Authorization: Bearer KEY`",
        more: "Without a key everybody on loopback may publish there, and nobody beyond it. Everybody on this machine \
               can read a command line: prefer the file or the environment.",
        example: r#""a long random text""#,
        kind: Kind::Secret {
            read: |draft, text| {
                draft.admin_key = Some(KeySource::Given(Secret::new(text)?));
                Ok(())
            },
            show: |config| match config.admin_key {
                Some(_) => Value::Hidden,
                None => Value::Unset,
            },
        },
    },
    Opt {
        name: "admin-key-file",
        placeholder: "FILE",
        section: Section::Listeners,
        help: "A file whose first line is the admin key",
        more: "",
        example: r#""/run/secrets/pubsub_admin_key""#,
        kind: Kind::Text {
            read: |draft, text| {
                draft.admin_key = Some(KeySource::File(read_path(text)?));
                Ok(())
            },
            show: |_| Value::Unset,
        },
    },
    Opt {
        name: "jwt-secret",
        placeholder: "SECRET",
        section: Section::Tokens,
        help: "The secret of tokens signed with HS256",
        more: "32 random bytes at least, in any writing. Everybody on this machine can read a command line: prefer the \
               file or the environment.",
        example: r#""a long random text""#,
        kind: Kind::Secret {
            read: |draft, text| {
                let secret = Secret::text(text)?;
                draft.config.tokens.secret = Some(KeySource::Given(secret));
                Ok(())
            },
            show: |config| match config.tokens.secret {
                Some(KeySource::Given(_)) => Value::Hidden,
                Some(KeySource::File(_)) | None => Value::Unset,
            },
        },
    },
    Opt {
        name: "jwt-secret-file",
        placeholder: "FILE",
        section: Section::Tokens,
        help: "A file of such secrets, one a line",
        more: "So an old and a new one are good side by side while they are changed.",
        example: r#""/run/secrets/pubsub_jwt""#,
        kind: Kind::Text {
            read: |draft, text| {
                draft.config.tokens.secret = Some(KeySource::File(read_path(text)?));
                Ok(())
            },
            show: |config| match &config.tokens.secret {
                Some(KeySource::File(path)) => Value::Text(path.display().to_string()),
                Some(KeySource::Given(_)) | None => Value::Unset,
            },
        },
    },
    Opt {
        name: "jwt-key-file",
        placeholder: "FILE",
        section: Section::Tokens,
        help: "A file of public keys: PEM for RS256 (2048 to 4096 bits) and EdDSA (Ed25519), or a JWK set; repeatable",
        more: "A key is good for its own algorithm only, whatever a token says. A `kid` picks among the keys that have \
               one. At most 16 keys in all.",
        example: r#"["/etc/pubsub/issuer.pem"]"#,
        kind: Kind::List {
            read: |draft, texts| {
                let paths: Result<Vec<PathBuf>, String> =
                    texts.iter().map(|text| read_path(text.trim())).collect();
                draft.config.tokens.key_files = paths?;
                Ok(())
            },
            show: |config| {
                let paths = config.tokens.key_files.iter();
                Value::List(paths.map(|path| path.display().to_string()).collect())
            },
        },
    },
    Opt {
        name: "jwt-issuer",
        placeholder: "TEXT",
        section: Section::Tokens,
        help: "What a token's `iss` must be",
        more: "",
        example: r#""https://login.example.com""#,
        kind: claim!(issuer),
    },
    Opt {
        name: "jwt-audience",
        placeholder: "TEXT",
        section: Section::Tokens,
        help: "What a token's `aud` must name",
        more: "Without it a token that names any is refused: it is meant for somebody else.",
        example: r#""pubsub""#,
        kind: claim!(audience),
    },
    Opt {
        name: "jwt-require-exp",
        placeholder: "BOOL",
        section: Section::Tokens,
        help: "Refuse tokens that never expire",
        more: "One that has an `exp` ends its session then, with the close code 4010.",
        example: "",
        kind: Kind::Switch {
            get: |config| config.tokens.expiry_required,
            set: |config, on| config.tokens.expiry_required = on,
        },
    },
    Opt {
        name: "shards",
        placeholder: "N",
        section: Section::Threads,
        help: "How many shards; by default one per CPU of `--cores`, else per CPU that the process may use",
        more: "A container's CPU quota counts as so many CPUs, rounded up. There may be more shards than CPUs.",
        example: "4",
        kind: Kind::Number(Number {
            get: |config| config.shards.map(|shards| shards as u64),
            set: |config, shards| config.shards = Some(shards as usize),
            min: 1,
            max: SHARDS_MAX as u64,
        }),
    },
    Opt {
        name: "cores",
        placeholder: "LIST",
        section: Section::Threads,
        help: "The CPUs that shards are pinned to, in turn, as `0,2-5`",
        more: "Without it the shards are pinned one to each CPU, if there is one for each and no CPU quota is \
               smaller; one line of the log says what was done.",
        example: r#""0,2-5""#,
        kind: Kind::Cpus {
            get: |config| config.cores.as_deref(),
            set: |config, cpus| config.cores = Some(cpus),
        },
    },
    Opt {
        name: "io",
        placeholder: "DRIVER",
        section: Section::Threads,
        help: "The kernel interface: `auto`, `uring` or `epoll`",
        more: "`auto` takes io_uring, and epoll where io_uring is refused, as under Docker's default seccomp profile. \
               The promises are the same on both.",
        example: "",
        kind: word!(io: Io),
    },
    Opt {
        name: "coalesce-us",
        placeholder: "US",
        section: Section::Threads,
        help: "How long a shard waits for more input after a turn that was full; 0 is off, 20 to 50 is a good start",
        more: "More messages then share a turn and a send: less CPU for a little delay, under sustained load only. It \
               needs io_uring of Linux 6.12 and has no effect on epoll or an older kernel.",
        example: "",
        kind: Kind::Number(number!(coalesce_us, 0, 1000)),
    },
    Opt {
        name: "max-connections",
        placeholder: "N",
        section: Section::Limits,
        help: "Connections of the whole process; one more gets 503",
        more: "The limit on open files may be lower, and counts then.",
        example: "",
        kind: Kind::Number(number!(limits.connections_max, 1, u32::MAX as u64)),
    },
    Opt {
        name: "max-per-ip",
        placeholder: "N",
        section: Section::Limits,
        help: "Connections of one address; one more gets 429; 0 for any number",
        more: "Of an IPv6 address the first 64 bits count. Behind a proxy that `--trust-proxy` does not name, all clients \
               have its address; one that it names is not limited itself, its clients are. Where io_uring can't tell \
               addresses (before Linux 6.8), this makes `--io auto` take epoll.",
        example: "",
        kind: Kind::Number(number!(limits.per_address_max, 0, u32::MAX as u64)),
    },
    Opt {
        name: "max-message",
        placeholder: "BYTES",
        section: Section::Limits,
        help: "A message; a larger one closes its connection with 1009 before it is buffered",
        more: "",
        example: "",
        kind: Kind::Bytes(number!(limits.message_bytes_max, 1, GIB)),
    },
    Opt {
        name: "max-subscriptions",
        placeholder: "N",
        section: Section::Limits,
        help: "Subscriptions of a connection; one more is refused with `limit`",
        more: "",
        example: "",
        kind: Kind::Number(number!(limits.subscriptions_max, 0, u32::MAX as u64)),
    },
    Opt {
        name: "max-patterns",
        placeholder: "N",
        section: Section::Limits,
        help: "Of these, patterns (`PSUBSCRIBE`), each of which costs every publication; one more is refused",
        more: "",
        example: "",
        kind: Kind::Number(number!(limits.patterns_max, 0, u32::MAX as u64)),
    },
    Opt {
        name: "server-max-message",
        placeholder: "BYTES",
        section: Section::Limits,
        help: "A message of a Redis client; a larger one closes its connection before it is buffered",
        more: "",
        example: "",
        kind: Kind::Bytes(number!(server_limits.message_bytes_max, 1, GIB)),
    },
    Opt {
        name: "server-max-subscriptions",
        placeholder: "N",
        section: Section::Limits,
        help: "Subscriptions of a Redis client or an application server; one more is refused",
        more: "",
        example: "",
        kind: Kind::Number(number!(server_limits.subscriptions_max, 0, u32::MAX as u64)),
    },
    Opt {
        name: "max-handlers",
        placeholder: "N",
        section: Section::Limits,
        help: "Events that a connection may handle; one more is refused with `limit`",
        more: "",
        example: "",
        kind: Kind::Number(number!(limits.handlers_max, 0, u32::MAX as u64)),
    },
    Opt {
        name: "server-max-handlers",
        placeholder: "N",
        section: Section::Limits,
        help: "Events that an application server may handle; one more is refused with `limit`",
        more: "",
        example: "",
        kind: Kind::Number(number!(server_limits.handlers_max, 0, u32::MAX as u64)),
    },
    Opt {
        name: "max-requests",
        placeholder: "N",
        section: Section::Limits,
        help: "Requests of a connection that wait for an answer; one more is refused with `busy`",
        more: "",
        example: "",
        kind: Kind::Number(number!(limits.requests_max, 0, u32::MAX as u64)),
    },
    Opt {
        name: "max-publish-rate",
        placeholder: "N",
        section: Section::Limits,
        help: "Publishes of a connection in a second, 0 for any number; past it the broker stops to read until it may go on",
        more: "Nothing is dropped: the connection's own sends wait. It then never looks slow to anybody else.",
        example: "",
        kind: Kind::Number(number!(limits.publish_rate_max, 0, u32::MAX as u64)),
    },
    Opt {
        name: "max-publish-burst",
        placeholder: "N",
        section: Section::Limits,
        help: "Publishes of a connection at once, after a rest; 0 for those of a second",
        more: "",
        example: "",
        kind: Kind::Number(number!(limits.publish_burst_max, 0, u32::MAX as u64)),
    },
    Opt {
        name: "max-subscribe-rate",
        placeholder: "N",
        section: Section::Limits,
        help: "The same for subscribes in a second",
        more: "",
        example: "",
        kind: Kind::Number(number!(limits.subscribe_rate_max, 0, u32::MAX as u64)),
    },
    Opt {
        name: "max-subscribe-burst",
        placeholder: "N",
        section: Section::Limits,
        help: "The same for subscribes at once",
        more: "",
        example: "",
        kind: Kind::Number(number!(limits.subscribe_burst_max, 0, u32::MAX as u64)),
    },
    Opt {
        name: "max-bad-texts",
        placeholder: "N",
        section: Section::Limits,
        help: "Bad texts of a connection that get an error; the next closes it with 1007",
        more: "",
        example: "",
        kind: Kind::Number(number!(limits.bad_texts_max, 0, u32::MAX as u64)),
    },
    Opt {
        name: "max-handshake",
        placeholder: "BYTES",
        section: Section::Limits,
        help: "The head of a request; a larger one gets 431",
        more: "",
        example: "",
        kind: Kind::Bytes(number!(limits.handshake_bytes_max, 256, MIB as u64)),
    },
    Opt {
        name: "max-headers",
        placeholder: "N",
        section: Section::Limits,
        help: "The header fields of a request; more get 431",
        more: "",
        example: "",
        kind: Kind::Number(number!(limits.handshake_headers_max, 8, 1024)),
    },
    Opt {
        name: "max-turn-bytes",
        placeholder: "BYTES",
        section: Section::Limits,
        help: "What a turn of the event loop takes from one connection, so that a flood delays nobody",
        more: "",
        example: "",
        kind: Kind::Bytes(number!(
            limits.turn_bytes_max,
            KIB as u64,
            TURN_BYTES_MAX as u64
        )),
    },
    Opt {
        name: "max-turn-messages",
        placeholder: "N",
        section: Section::Limits,
        help: "The same, in messages",
        more: "",
        example: "",
        kind: Kind::Number(number!(limits.turn_messages_max, 1, u32::MAX as u64)),
    },
    Opt {
        name: "slow",
        placeholder: "PREFIX=POLICY",
        section: Section::SlowConsumers,
        help: "For a topic and those below it: `close` (the default), `drop-oldest` or `conflate`; repeatable",
        more: "`close` ends the connection with 4008 at the bounds below. `drop-oldest` skips the oldest waiting messages \
               of such topics as soon as `--soft-outbox` would be passed. `conflate` keeps, for a reader that is \
               behind, only the newest message of each topic. Both tell the reader with a gap, and where skipping does \
               not help they close as well. The longest prefix that fits decides; `*` stands for all topics.",
        example: r#"["prices=conflate", "log.debug=drop-oldest"]"#,
        kind: Kind::List {
            read: |draft, texts| {
                let rules: Result<Vec<SlowRule>, String> =
                    texts.iter().map(|text| read_slow(text.trim())).collect();
                draft.config.slow = rules?;
                Ok(())
            },
            show: |config| Value::List(config.slow.iter().map(write_slow).collect()),
        },
    },
    Opt {
        name: "max-outbox",
        placeholder: "BYTES",
        section: Section::SlowConsumers,
        help: "What may wait for one connection; past it the connection is closed with 4008",
        more: "An empty outbox always takes one whole message.",
        example: "",
        kind: Kind::Bytes(number!(limits.outbox_bytes_max, 1, TIB)),
    },
    Opt {
        name: "soft-outbox",
        placeholder: "BYTES",
        section: Section::SlowConsumers,
        help: "What may wait for one connection longer than `--soft-outbox-ms`; past it the close code is 4008 as well",
        more: "`drop-oldest` makes room at once. Must not be above `--max-outbox`; a default that would be is lowered to it.",
        example: "",
        kind: Kind::Bytes(number!(limits.outbox_bytes_soft, 1, TIB)),
    },
    Opt {
        name: "soft-outbox-ms",
        placeholder: "MS",
        section: Section::SlowConsumers,
        help: "How long an outbox may stay above `--soft-outbox`",
        more: "",
        example: "",
        kind: Kind::Number(number!(limits.outbox_soft_ms, 0, TIME_MS_MAX)),
    },
    Opt {
        name: "server-max-outbox",
        placeholder: "BYTES",
        section: Section::SlowConsumers,
        help: "What may wait for one Redis client; past it the connection is closed",
        more: "Application servers hear much: Redis has the same bounds for its subscribers.",
        example: "",
        kind: Kind::Bytes(number!(server_limits.outbox_bytes_max, 1, TIB)),
    },
    Opt {
        name: "server-soft-outbox",
        placeholder: "BYTES",
        section: Section::SlowConsumers,
        help: "What may wait for one Redis client longer than `--server-soft-outbox-ms`",
        more: "Must not be above `--server-max-outbox`; a default that would be is lowered to it.",
        example: "",
        kind: Kind::Bytes(number!(server_limits.outbox_bytes_soft, 1, TIB)),
    },
    Opt {
        name: "server-soft-outbox-ms",
        placeholder: "MS",
        section: Section::SlowConsumers,
        help: "How long more than that may wait",
        more: "",
        example: "",
        kind: Kind::Number(number!(server_limits.outbox_soft_ms, 0, TIME_MS_MAX)),
    },
    Opt {
        name: "max-outbox-total",
        placeholder: "BYTES",
        section: Section::SlowConsumers,
        help: "What may wait for all connections together; past it those with the most are closed first",
        more: "Each shard has an equal part of it. The close code is 4008, whatever the policy. 0 stands for \
               a quarter of the memory of the container or machine, and 128MiB at least.",
        example: "",
        kind: Kind::Bytes(number!(limits.outbox_total_bytes_max, 0, 1024 * TIB)),
    },
    Opt {
        name: "max-replies",
        placeholder: "BYTES",
        section: Section::SlowConsumers,
        help: "Unread answers at which the broker stops to read a connection, until it reads",
        more: "",
        example: "",
        kind: Kind::Bytes(number!(limits.replies_bytes_max, 1, TIB)),
    },
    Opt {
        name: "connect-timeout-ms",
        placeholder: "MS",
        section: Section::Timings,
        help: "From accept to the end of the handshake; a later client gets 408",
        more: "",
        example: "",
        kind: Kind::Number(number!(limits.connect_timeout_ms, 1, TIME_MS_MAX)),
    },
    Opt {
        name: "ping-interval-ms",
        placeholder: "MS",
        section: Section::Timings,
        help: "Silence after which a client is pinged",
        more: "Each connection is pinged a tenth to three tenths earlier, so that those of one moment are not all pinged \
               at once.",
        example: "",
        kind: Kind::Number(number!(limits.ping_interval_ms, 1, TIME_MS_MAX)),
    },
    Opt {
        name: "ping-timeout-ms",
        placeholder: "MS",
        section: Section::Timings,
        help: "Silence after that ping at which the connection is given up",
        more: "",
        example: "",
        kind: Kind::Number(number!(limits.ping_timeout_ms, 1, TIME_MS_MAX)),
    },
    Opt {
        name: "clusterws-ping-interval-ms",
        placeholder: "MS",
        section: Section::Timings,
        help: "How often ClusterWS clients are pinged; they are told, and leave after twice that time without a ping",
        more: "One that has said nothing for `--ping-interval-ms` and `--ping-timeout-ms` together is given up.",
        example: "",
        kind: Kind::Number(number!(limits.clusterws_ping_interval_ms, 1, TIME_MS_MAX)),
    },
    Opt {
        name: "message-timeout-ms",
        placeholder: "MS",
        section: Section::Timings,
        help: "From the first fragment of a message to its last; past it the close code is 1008",
        more: "",
        example: "",
        kind: Kind::Number(number!(limits.message_ms_max, 1, TIME_MS_MAX)),
    },
    Opt {
        name: "request-timeout-ms",
        placeholder: "MS",
        section: Section::Timings,
        help: "The deadline of a request that names none, and the longest that one may name",
        more: "",
        example: "",
        kind: Kind::Number(number!(limits.request_timeout_ms, 1, TIME_MS_MAX)),
    },
    Opt {
        name: "linger-ms",
        placeholder: "MS",
        section: Section::Timings,
        help: "How long a closing connection may take to read what was sent; then it is reset",
        more: "",
        example: "",
        kind: Kind::Number(number!(limits.linger_ms, 0, TIME_MS_MAX)),
    },
    Opt {
        name: "discard-ms",
        placeholder: "MS",
        section: Section::Timings,
        help: "How long input is discarded after the last byte went out, so that closing does not reset",
        more: "",
        example: "",
        kind: Kind::Number(number!(limits.discard_ms, 0, TIME_MS_MAX)),
    },
    Opt {
        name: "drain",
        placeholder: "SECONDS",
        section: Section::Drain,
        help: "Spread the closes over this time, so that clients do not come back all at once",
        more: "",
        example: "",
        kind: Kind::Seconds(number!(drain_ms, 0, TIME_MS_MAX)),
    },
    Opt {
        name: "drain-delay",
        placeholder: "MS",
        section: Section::Drain,
        help: "How long listeners still accept after `/readyz` began to fail",
        more: "Long enough for a load balancer to notice.",
        example: "",
        kind: Kind::Number(number!(drain_delay_ms, 0, TIME_MS_MAX)),
    },
];

fn read_path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("wants the path of a file".to_owned());
    }
    Ok(PathBuf::from(text))
}

fn read_admin(text: &str) -> Result<Option<HostPort>, String> {
    if text.eq_ignore_ascii_case("off") {
        return Ok(None);
    }
    let admin: HostPort = text
        .parse()
        .map_err(|_| "wants host:port, such as 127.0.0.1:8001 or [::1]:8001, or off".to_owned())?;
    if admin.host.is_empty() {
        let port = admin.port;
        return Err(format!(
            "wants a host; 0.0.0.0:{port} or [::]:{port} is all addresses"
        ));
    }
    Ok(Some(admin))
}

fn read_slow(text: &str) -> Result<SlowRule, String> {
    let wanted = || {
        let policies = SLOW_POLICIES.map(|(_, word)| word).join(", ");
        format!("wants PREFIX=POLICY with a policy of {policies}; such as prices=conflate")
    };
    // A topic may contain `=`, a policy does not.
    let (prefix, word) = text.rsplit_once('=').ok_or_else(wanted)?;
    let (policy, _) = SLOW_POLICIES
        .into_iter()
        .find(|(_, known)| *known == word)
        .ok_or_else(wanted)?;
    let prefix = Bytes::copy_from_slice(prefix.as_bytes());
    if !prefix.is_empty() && prefix != "*" {
        Topic::dotted(prefix.clone())
            .map_err(|error| format!("wants a topic before the =: {}", error.as_str()))?;
    }
    Ok(SlowRule { prefix, policy })
}

fn write_slow(rule: &SlowRule) -> String {
    let word = SLOW_POLICIES
        .into_iter()
        .find(|(policy, _)| *policy == rule.policy)
        .map_or("close", |(_, word)| word);
    format!("{}={word}", String::from_utf8_lossy(&rule.prefix))
}

const SLOW_POLICIES: [(SlowPolicy, &str); 3] = [
    (SlowPolicy::Close, "close"),
    (SlowPolicy::DropOldest, "drop-oldest"),
    (SlowPolicy::Conflate, "conflate"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(name: &str, texts: &[&str]) -> Result<Draft, String> {
        let texts: Vec<String> = texts.iter().map(|&text| text.to_owned()).collect();
        let mut draft = Draft::default();
        Opt::named(name).unwrap().apply(&mut draft, &texts)?;
        Ok(draft)
    }

    #[test]
    fn names_are_regular_and_unique() {
        let mut names: Vec<&str> = OPTIONS.iter().map(|option| option.name).collect();
        for name in &names {
            assert!(
                name.bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte == b'-'),
                "{name}"
            );
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), OPTIONS.len());
        let option = Opt::named("drain-delay").unwrap();
        assert_eq!(option.key().as_deref(), Some("drain_delay"));
        assert_eq!(option.environment_name(), "PUBSUB_DRAIN_DELAY");
    }

    #[test]
    fn sections_are_together() {
        let mut sections: Vec<Section> = OPTIONS.iter().map(|option| option.section).collect();
        sections.dedup();
        assert_eq!(sections, Section::ALL);
    }

    #[test]
    fn clap_accepts_the_table() {
        command().debug_assert();
    }

    #[test]
    fn ranges_are_kept() {
        let check = |name, text, fits: bool| {
            assert_eq!(apply(name, &[text]).is_ok(), fits, "{name}={text}");
        };
        check("shards", "0", false);
        check("shards", "1", true);
        check("shards", "128", true);
        check("shards", "129", false);
        check("max-message", "0", false);
        check("max-message", "64MiB", true);
        check("ping-interval-ms", "0", false);
        check("ping-interval-ms", "86400001", false);
        check("drain", "0.5", true);
        check("drain", "-1", false);
        check("max-bad-texts", "4294967295", true);
        check("max-bad-texts", "4294967296", false);
        let complaint = apply("max-handshake", &["1"]).err();
        assert_eq!(complaint.as_deref(), Some("wants 256 to 1MiB"));
        let complaint = apply("drain", &["90000"]).err();
        assert_eq!(
            complaint.as_deref(),
            Some("wants 0 seconds to 86400 seconds")
        );
    }

    #[test]
    fn slow_rules() {
        let check = |text, policy: Option<(&'static str, SlowPolicy)>| {
            let rule = policy.map(|(prefix, policy)| SlowRule {
                prefix: Bytes::from_static(prefix.as_bytes()),
                policy,
            });
            assert_eq!(read_slow(text).ok(), rule, "{text}");
            if let Some(rule) = rule {
                assert_eq!(write_slow(&rule), text);
            }
        };
        check("prices=conflate", Some(("prices", SlowPolicy::Conflate)));
        check("a.b=drop-oldest", Some(("a.b", SlowPolicy::DropOldest)));
        check("*=close", Some(("*", SlowPolicy::Close)));
        check("=conflate", Some(("", SlowPolicy::Conflate)));
        check("a=b=conflate", Some(("a=b", SlowPolicy::Conflate)));
        for refused in ["", "prices", "prices=", "prices=drop", "close"] {
            check(refused, None);
        }
    }

    #[test]
    fn admin_addresses() {
        let check = |text, admin: Option<Option<&str>>| {
            let read = read_admin(text).ok();
            let read = read.map(|admin| admin.map(|admin| admin.to_string()));
            assert_eq!(read, admin.map(|admin| admin.map(str::to_owned)), "{text}");
        };
        check("off", Some(None));
        check("[::1]:9", Some(Some("[::1]:9")));
        check("localhost:9", Some(Some("localhost:9")));
        for refused in ["", "9", ":9", "unix:/x", "on"] {
            check(refused, None);
        }
    }
}
