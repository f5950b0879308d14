//! The configuration: what a person may decide about a broker, from the command line, the environment and a file.
//!
//! In reading order: [`Config`] is the result; [`options`] is the one table that says what can be set;
//! [`load()`] brings the sources together; `file` reads TOML, `pages` writes it, and the reference. The readers take
//! the environment and the file's text as arguments, so that nothing here depends on the process it runs in; only
//! [`load()`] opens files.
//!
//! Invariant: a `Config` that [`load()`] returned has passed [`Config::check`]; whoever builds one by hand calls it.

mod credentials;
mod file;
pub mod listen;
pub mod load;
pub mod options;
pub mod pages;
pub mod values;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

pub use crate::secret::Secret;
pub use credentials::TokenSources;
pub use listen::{HostPort, ListenAddr, Listener};
pub use load::{ConfigError, Loaded, environment, load};
pub use options::{KeySource, arguments, command};
pub use pages::{default_config, describe, reference_page};

use crate::address::SHARDS_MAX;
use crate::address::proxies::TrustedProxies;
use crate::limits::Limits;
use crate::shard::auth::AccessRule;
use crate::shard::fault::FaultPoint;
use crate::shard::slow::SlowRule;

/// What a broker is told before it starts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Where clients connect; at least one.
    pub listeners: Vec<Listener>,
    /// Where Redis clients connect; nowhere by default.
    pub resp: Vec<ListenAddr>,
    /// What they have to say first (`AUTH`).
    pub resp_password: Option<KeySource>,
    /// Where application servers connect; nowhere by default.
    pub peers: Vec<ListenAddr>,
    /// What they have to show.
    pub peer_key: Option<KeySource>,
    /// Who lets clients in.
    pub admission: Admission,
    /// Which of those that have it may come in.
    pub accept_peers: AcceptPeers,
    /// Where the tokens that they accept are kept; `None`: they end with the broker.
    pub accept_list: Option<PathBuf>,
    /// Where operators connect; `None` for nowhere.
    pub admin: Option<HostPort>,
    /// What `POST /publish` asks for when the admin listener is beyond loopback.
    pub admin_key: Option<Secret>,
    /// The number of shards; `None` for one per CPU ([`crate::net::affinity::plan`]).
    pub shards: Option<usize>,
    /// The broker is a part of another program: one shard, pinned to no CPU, unless told otherwise. No option says it.
    pub embedded: bool,
    /// The CPUs that the shards are pinned to.
    pub cores: Option<Vec<usize>>,
    /// The kernel interface of the shards.
    pub io: Io,
    /// How long a shard under load waits for more input, in microseconds; 0 for not at all.
    pub coalesce_us: u64,
    /// Slow-consumer policies, in the order written.
    pub slow: Vec<SlowRule>,
    /// Origins that pass beside those of the same host (promise 23).
    pub allow_origin: Vec<String>,
    /// Proxies whose word on who is behind them is believed.
    pub trust_proxy: TrustedProxies,
    /// Listening beyond loopback without authentication was asked for (promise 22).
    pub insecure_open: bool,
    /// Are ClusterWS clients told to speak binary, on listeners that do not say otherwise?
    pub clusterws_binary: bool,
    /// May clients handle events, on listeners that do not say otherwise?
    pub client_services: bool,
    /// Whose tokens are believed.
    pub tokens: TokenSources,
    /// Rights, the first that fits decides; none: everybody may do everything, or everybody who has a token.
    pub access: Vec<AccessRule>,
    /// Every bound and timing.
    pub limits: Limits,
    /// Those of the server class, as far as they are its own ([`Limits::for_servers`]).
    pub server_limits: Limits,
    /// The time that a drain spreads its closes over.
    pub drain_ms: u64,
    /// How long listeners still accept after `/readyz` began to fail.
    pub drain_delay_ms: u64,
    /// What is logged.
    pub log: LogLevel,
    /// How it is logged.
    pub log_format: LogFormat,
    /// The fault that a test plants. Only the environment can say it.
    pub fault: Option<FaultPoint>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listeners: Listener::defaults(),
            resp: Vec::new(),
            resp_password: None,
            peers: Vec::new(),
            peer_key: None,
            admission: Admission::Open,
            accept_peers: AcceptPeers::Any,
            accept_list: None,
            admin: Some(HostPort {
                host: "127.0.0.1".to_owned(),
                port: 8001,
            }),
            admin_key: None,
            shards: None,
            embedded: false,
            cores: None,
            io: Io::Auto,
            coalesce_us: 0,
            slow: Vec::new(),
            allow_origin: Vec::new(),
            trust_proxy: TrustedProxies::default(),
            insecure_open: false,
            clusterws_binary: false,
            client_services: false,
            tokens: TokenSources::default(),
            access: Vec::new(),
            limits: Limits::default(),
            server_limits: Limits::of_servers(),
            drain_ms: 0,
            drain_delay_ms: 0,
            log: LogLevel::Info,
            log_format: LogFormat::Text,
            fault: None,
        }
    }
}

impl Config {
    /// The configuration of a broker inside another program, from which to go on: clients on `127.0.0.1:8000` and
    /// `[::1]:8000`, one shard, not pinned, no admin listener.
    pub fn embedded() -> Config {
        Config {
            embedded: true,
            admin: None,
            ..Config::default()
        }
    }

    /// Do the parts fit together?
    ///
    /// # Errors
    /// A sentence for the operator that says what to do.
    pub fn check(&self) -> Result<(), String> {
        self.check_addresses()?;
        self.check_protected_mode()?;
        if let Some(shards) = self.shards
            && !(1..=SHARDS_MAX).contains(&shards)
        {
            return Err(format!("shards: wants 1 to {SHARDS_MAX}, not {shards}"));
        }
        for origin in &self.allow_origin {
            listen::check_origin(origin)
                .map_err(|reason| format!("allow-origin {origin}: {reason}"))?;
        }
        for (class, limits) in [("", &self.limits), ("server-", &self.server_limits)] {
            let (hard, soft) = (limits.outbox_bytes_max, limits.outbox_bytes_soft);
            if soft > hard {
                return Err(format!(
                    "{class}soft-outbox ({soft} bytes) is above {class}max-outbox ({hard} bytes); it must not be"
                ));
            }
        }
        Ok(())
    }

    /// Can only this machine reach the clients' listeners? (DESIGN 5.2: such a broker believes local origins.)
    pub fn is_loopback_only(&self) -> bool {
        self.listeners
            .iter()
            .all(|listener| listener.addr.is_loopback())
    }

    fn check_addresses(&self) -> Result<(), String> {
        if self.listeners.is_empty() {
            return Err("there is no listener; --listen 127.0.0.1:8000 would be one".to_owned());
        }
        let mut taken: Vec<ListenAddr> = Vec::new();
        if let Some(HostPort { host, port }) = self.admin.clone() {
            taken.push(ListenAddr::Tcp { host, port });
        }
        for listener in &self.listeners {
            let addr = &listener.addr;
            if !listener.native && !listener.clusterws && !listener.http {
                return Err(format!(
                    "the listener {addr} has no protocols and no http: nobody could use it"
                ));
            }
            // Any number of listeners may ask for a free port.
            let shared = !matches!(addr, ListenAddr::Tcp { port: 0, .. });
            if shared && taken.contains(addr) {
                return Err(format!("{addr} is given to two listeners"));
            }
            taken.push(addr.clone());
        }
        for addr in self.resp.iter().chain(&self.peers) {
            let shared = !matches!(addr, ListenAddr::Tcp { port: 0, .. });
            if shared && taken.contains(addr) {
                return Err(format!("{addr} is given to two listeners"));
            }
            taken.push(addr.clone());
        }
        Ok(())
    }

    /// Promise 22.
    fn check_protected_mode(&self) -> Result<(), String> {
        if self.insecure_open {
            return Ok(());
        }
        // Tokens say nothing of peers, who may do everything.
        let open = self.peers.iter().find(|addr| !addr.is_loopback());
        if let (Some(open), None) = (open, &self.peer_key) {
            return Err(format!(
                "protected mode: {open} can be reached from other machines, and peers are asked for no key. Set one \
                 with --peer-key-file, listen on 127.0.0.1, [::1] or a Unix socket, or allow it with --insecure-open"
            ));
        }
        if self.has_authentication() {
            return Ok(());
        }
        if let Some(open) = self
            .listeners
            .iter()
            .find(|listener| !listener.addr.is_loopback())
        {
            return Err(format!(
                "protected mode: {} can be reached from other machines, and no authentication is configured. \
                 Ask for tokens (--jwt-key-file, --jwt-secret-file), listen on 127.0.0.1, [::1] or a Unix socket, or \
                 allow it with --insecure-open",
                open.addr
            ));
        }
        let open = self.resp.iter().find(|addr| !addr.is_loopback());
        if let (Some(open), None) = (open, &self.resp_password) {
            return Err(format!(
                "protected mode: {open} can be reached from other machines, and no password is configured. Set one \
                 with --resp-password-file, listen on 127.0.0.1, [::1] or a Unix socket, or allow it with \
                 --insecure-open"
            ));
        }
        // The admin listener is its operator's choice: beyond loopback it takes publishes by key only.
        Ok(())
    }
}

/// Defines an enum of words, with the one spelling that every source knows.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum $name {
            $($(#[$doc])* $variant,)+
        }

        impl $name {
            /// Every word.
            pub const WORDS: &[&str] = &[$($word),+];

            /// The word.
            pub fn as_str(self) -> &'static str {
                match self {
                    $($name::$variant => $word,)+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<$name, String> {
                match text.to_ascii_lowercase().as_str() {
                    $($word => Ok($name::$variant),)+
                    _ => Err(format!("wants one of {}", $name::WORDS.join(", "))),
                }
            }
        }
    };
}

words! {
    /// The kernel interface of the shards (DESIGN decision 12).
    Io {
        /// io_uring, or epoll where it is refused.
        Auto = "auto",
        /// io_uring, or no start.
        Uring = "uring",
        /// epoll.
        Epoll = "epoll",
    }
}

words! {
    /// The least important event that is logged.
    LogLevel {
        /// Nothing.
        Off = "off",
        /// What needs a person.
        Error = "error",
        /// What may need one.
        Warn = "warn",
        /// Starts, ends, and what was decided.
        Info = "info",
        /// Each connection.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}

impl From<LogLevel> for tracing::level_filters::LevelFilter {
    fn from(level: LogLevel) -> tracing::level_filters::LevelFilter {
        match level {
            LogLevel::Off => Self::OFF,
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

words! {
    /// Who lets clients in.
    Admission {
        /// Nobody needs to.
        Open = "open",
        /// An application server, one by one.
        Host = "host",
    }
}

words! {
    /// Which peers may come in.
    AcceptPeers {
        /// All that have the key.
        Any = "any",
        /// Of these, those that the broker's own process has named.
        Listed = "listed",
    }
}

words! {
    /// How a log line is written.
    LogFormat {
        /// For a person.
        Text = "text",
        /// One JSON object per line.
        Json = "json",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(addresses: &[&str]) -> Config {
        Config {
            listeners: addresses
                .iter()
                .flat_map(|addr| Listener::new(addr.parse().unwrap()).expand())
                .collect(),
            ..Config::default()
        }
    }

    fn check(config: &Config, complaint: Option<&str>) {
        match (config.check(), complaint) {
            (Ok(()), None) => {}
            (Err(reason), Some(part)) if reason.contains(part) => {}
            (result, _) => panic!("{result:?}, expected {complaint:?}"),
        }
    }

    #[test]
    fn protected_mode() {
        check(&Config::default(), None);
        check(&on(&["unix:/run/x", "127.0.0.1:1", "[::1]:1"]), None);
        for open in [
            ":8000",
            "0.0.0.0:1",
            "[::]:1",
            "10.0.0.1:1",
            "example.com:1",
        ] {
            let mut config = on(&["127.0.0.1:9", open]);
            check(&config, Some("--insecure-open"));
            assert!(!config.is_loopback_only());
            config.insecure_open = true;
            check(&config, None);
            config.insecure_open = false;
            config.tokens.key_files = vec!["key.pem".into()];
            check(&config, None);
        }
        // RESP has a password of its own.
        let mut config = Config {
            resp: vec!["0.0.0.0:6379".parse().unwrap()],
            ..Config::default()
        };
        check(&config, Some("--resp-password-file"));
        config.resp_password = Some(KeySource::File("password".into()));
        check(&config, None);
        config.resp_password = None;
        config.insecure_open = true;
        check(&config, None);
        config.resp.push(config.resp[0].clone());
        check(&config, Some("two listeners"));
        // Peers have a key of their own, which no token stands for.
        let mut config = Config {
            peers: vec!["0.0.0.0:7000".parse().unwrap()],
            ..Config::default()
        };
        check(&config, Some("--peer-key-file"));
        config.tokens.key_files = vec!["key.pem".into()];
        check(&config, Some("--peer-key-file"));
        config.peer_key = Some(KeySource::File("key".into()));
        check(&config, None);
        config.peer_key = None;
        config.insecure_open = true;
        check(&config, None);
        config.insecure_open = false;
        config.peers = vec![
            "unix:/run/x".parse().unwrap(),
            "127.0.0.1:7000".parse().unwrap(),
        ];
        check(&config, None);
        config.resp = vec![config.peers[0].clone()];
        check(&config, Some("two listeners"));
        // There a key guards what changes anything.
        let config = Config {
            admin: "0.0.0.0:8001".parse().ok(),
            ..Config::default()
        };
        check(&config, None);
        assert!(config.is_loopback_only());
    }

    #[test]
    fn addresses_are_given_once() {
        check(&on(&[]), Some("no listener"));
        check(&on(&["127.0.0.1:1", "127.0.0.1:1"]), Some("two listeners"));
        check(&on(&["unix:/a", "unix:/a"]), Some("two listeners"));
        check(&on(&["127.0.0.1:8001"]), Some("two listeners"));
        check(&on(&["127.0.0.1:0", "127.0.0.1:0"]), None);
        let mut config = Config::default();
        config.listeners[0].native = false;
        check(&config, None);
        config.listeners[0].clusterws = false;
        check(&config, None);
        config.listeners[0].http = false;
        check(&config, Some("nobody could use it"));
    }

    #[test]
    fn values_fit_together() {
        for (shards, fits) in [(0, false), (1, true), (128, true), (129, false)] {
            let config = Config {
                shards: Some(shards),
                ..Config::default()
            };
            assert_eq!(config.check().is_ok(), fits, "{shards}");
        }
        let mut config = Config::default();
        config.limits.outbox_bytes_soft = config.limits.outbox_bytes_max;
        check(&config, None);
        config.limits.outbox_bytes_soft += 1;
        check(&config, Some("soft-outbox"));
        let config = Config {
            allow_origin: vec!["https://a.b/c".to_owned()],
            ..Config::default()
        };
        check(&config, Some("allow-origin"));
    }

    #[test]
    fn words_are_read_back() {
        for word in LogLevel::WORDS {
            assert_eq!(word.parse::<LogLevel>().unwrap().to_string(), *word);
        }
        for word in Io::WORDS {
            assert_eq!(word.parse::<Io>().unwrap().to_string(), *word);
        }
        assert_eq!("INFO".parse(), Ok(LogLevel::Info));
        assert!("information".parse::<LogLevel>().is_err() && "".parse::<LogFormat>().is_err());
    }
}
