//! From the sources to a [`Config`]: flags win over the environment, the environment over the file, the file over
//! the defaults.
//!
//! The sources are applied to one draft from the weakest to the strongest, each option in place of what was there,
//! lists included. So a mistake is told wherever it is, even where a stronger source would have hidden it.
//! [`resolve`] is pure but for the reader of key files that it is given; [`load`] opens the configuration file.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use clap::parser::ValueSource;

use super::Config;
use super::file::{self, Contents, ListenerTable};
use super::listen::{ListenAddr, Listener};
use super::options::{Draft, ENVIRONMENT_PREFIX, Kind, OPTIONS, Opt};
use crate::shard::Credentials;
use crate::shard::auth::{AccessRule, Who};
use crate::shard::fault::FaultPoint;

/// Names of the environment that begin like an option and are none.
const ENVIRONMENT_OTHERS: [&str; 3] = [FAULT, "PUBSUB_REGENERATE", "PUBSUB_URING_WITHOUT"];

/// Plants a fault (DESIGN 5.1). No option: nobody sets it by accident, and no file keeps it.
const FAULT: &str = "PUBSUB_FAULT";

/// A configuration, and what its author may want to hear.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Sentences for the log: nothing that keeps a broker from starting.
    pub warnings: Vec<String>,
    /// The file that was read.
    pub file: Option<PathBuf>,
}

/// Why there is no configuration: one sentence that names the place and what is wanted there. The binary prints it
/// and exits with 2.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError(String);

impl ConfigError {
    pub(super) fn new(reason: String) -> ConfigError {
        ConfigError(reason)
    }

    pub(super) fn at(place: &Place, reason: &str) -> ConfigError {
        match place {
            Place::Flag | Place::Environment => ConfigError(reason.to_owned()),
            Place::File { name, line } => ConfigError(format!("{name}:{line}: {reason}")),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// The configuration of this command line and environment.
///
/// # Errors
/// The configuration file cannot be read, or [`resolve`] fails.
pub fn load(
    matches: &ArgMatches,
    env: impl Iterator<Item = (String, String)>,
) -> Result<Loaded, ConfigError> {
    let environment: Vec<(String, String)> = env.collect();
    let flags = flags(matches);
    let path = flags
        .iter()
        .find(|(name, _)| *name == "config")
        .and_then(|(_, texts)| texts.last().cloned())
        .or_else(|| {
            let mut names = environment.iter();
            let (_, path) = names.find(|(name, _)| name == "PUBSUB_CONFIG")?;
            (!path.is_empty()).then(|| path.clone())
        });
    let file = match path {
        Some(name) => {
            let text = fs::read_to_string(&name)
                .map_err(|error| ConfigError::new(format!("{name}: {error}")))?;
            Some((name, text))
        }
        None => None,
    };
    let sources = Sources {
        defaults: Config::default(),
        flags,
        environment,
        file,
    };
    resolve(&sources, &|path| fs::read_to_string(path))
}

/// The process's environment as far as it concerns the broker, for [`load`].
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| {
        let name = name.to_str()?.to_owned();
        name.starts_with(ENVIRONMENT_PREFIX)
            .then(|| (name, value.to_string_lossy().into_owned()))
    })
}

/// All that a configuration is made of.
#[derive(Clone, Default, Debug)]
pub struct Sources {
    /// What holds where no source says anything.
    pub defaults: Config,
    /// Names of options and the values that the command line gave them.
    pub flags: Vec<(&'static str, Vec<String>)>,
    /// Environment names and values.
    pub environment: Vec<(String, String)>,
    /// The file's name, for messages, and its text.
    pub file: Option<(String, String)>,
}

/// The configuration of these sources. `read_file` opens a file that an option names.
///
/// # Errors
/// An option that does not exist, a value that does not fit it, or a whole that [`Config::check`] refuses.
pub fn resolve(
    sources: &Sources,
    read_file: &dyn Fn(&Path) -> io::Result<String>,
) -> Result<Loaded, ConfigError> {
    let contents = match &sources.file {
        Some((name, text)) => file::read(name, text)?,
        None => Contents::default(),
    };
    let (from_environment, mut warnings) = environment_options(&sources.environment);

    let mut draft = Draft {
        config: sources.defaults.clone(),
        ..Draft::default()
    };
    apply(&mut draft, &contents.given)?;
    let listen_in_file = draft.listen.take();
    apply(&mut draft, &from_environment)?;
    apply(&mut draft, &flag_options(&sources.flags))?;

    let listeners = listeners(&draft, listen_in_file, &contents.listeners);
    let Draft {
        mut config,
        admin_key,
        given,
        ..
    } = draft;
    config.listeners = listeners;
    config.access = contents.access;
    config.fault = fault(&sources.environment)?;
    if let Some(fault) = config.fault {
        warnings.push(format!("{FAULT}={fault}: this broker will fail on purpose"));
    }
    config.admin_key = admin_key
        .map(|source| source.secret("admin-key-file", read_file))
        .transpose()?;
    // A lower hard limit alone is not a contradiction to defaults that nobody chose.
    for (option, limits) in [
        ("soft-outbox", &mut config.limits),
        ("server-soft-outbox", &mut config.server_limits),
    ] {
        if !given.contains(&option) {
            limits.outbox_bytes_soft = limits.outbox_bytes_soft.min(limits.outbox_bytes_max);
        }
    }
    let limits = &mut config.limits;
    if !given.contains(&"max-replies") {
        limits.replies_bytes_max = limits.replies_bytes_max.min(limits.outbox_bytes_max);
    }
    config.check().map_err(ConfigError::new)?;
    // They are read again by whoever starts a broker; a mistake in them is told here, with all others.
    let credentials = config.credentials(read_file)?;
    warn_of_access(&config, &credentials, &mut warnings);
    Ok(Loaded {
        config,
        warnings,
        file: sources.file.as_ref().map(|(name, _)| PathBuf::from(name)),
    })
}

/// What is allowed, and will disappoint.
fn warn_of_access(config: &Config, credentials: &Credentials, warnings: &mut Vec<String>) {
    let authenticated = |rule: &&AccessRule| rule.who == Who::Authenticated;
    if let Some(rule) = config.access.iter().find(authenticated)
        && !config.has_authentication()
    {
        warnings.push(format!(
            "the [[access]] rule for {} asks for authenticated clients; no authentication is configured, so it \
             allows nobody",
            String::from_utf8_lossy(rule.filter.written())
        ));
    }
    let tokens = &config.tokens;
    let is_strict = tokens.issuer.is_some() || tokens.audience.is_some() || tokens.expiry_required;
    if is_strict && tokens.is_empty() {
        warnings.push(
            "it is said what tokens must be like, and there is no key to check them with: none is looked at"
                .to_owned(),
        );
    }
    if credentials.keys.has_short_secret() {
        warnings.push(
            "a secret of tokens has fewer than 32 bytes: whoever has one token can find it by trying; take 32 \
             random ones"
                .to_owned(),
        );
    }
}

fn fault(environment: &[(String, String)]) -> Result<Option<FaultPoint>, ConfigError> {
    let said = environment
        .iter()
        .find(|(name, value)| name == FAULT && !value.is_empty());
    said.map(|(_, value)| {
        value
            .parse()
            .map_err(|wanted| ConfigError::new(format!("{FAULT}={value}: {wanted}")))
    })
    .transpose()
}

/// Where something was said.
pub(super) enum Place {
    /// On the command line.
    Flag,
    /// In the environment.
    Environment,
    /// In this line of the file.
    File {
        /// The file's name as it was given.
        name: String,
        /// Counted from 1.
        line: usize,
    },
}

/// What one source says about one option.
pub(super) struct Given {
    /// The option.
    pub option: &'static Opt,
    /// Its values as text; one, unless it is a list.
    pub texts: Vec<String>,
    /// Where.
    pub place: Place,
}

impl Given {
    /// The option and its value, spelled as at its place. Secrets are left out.
    fn spelled(&self) -> String {
        let name = self.option.name;
        let value = match self.option.kind {
            Kind::Secret { .. } => "(hidden)".to_owned(),
            _ => self.texts.join(", "),
        };
        match self.place {
            Place::Flag => format!("--{name} {value}"),
            Place::Environment => format!("{}={value}", self.option.environment_name()),
            Place::File { .. } => format!("{} = {value}", name.replace('-', "_")),
        }
    }
}

/// Applies one source.
fn apply(draft: &mut Draft, source: &[Given]) -> Result<(), ConfigError> {
    for given in source {
        let outright = given.option.name.strip_suffix("-file");
        if let Some(outright) = outright
            && source.iter().any(|other| other.option.name == outright)
        {
            let what = outright.replace('-', " ");
            let reason = format!(
                "{}: the {what} is given as well; one is enough",
                given.spelled()
            );
            return Err(ConfigError::at(&given.place, &reason));
        }
        given.option.apply(draft, &given.texts).map_err(|reason| {
            ConfigError::at(&given.place, &format!("{}: {reason}", given.spelled()))
        })?;
    }
    Ok(())
}

fn flags(matches: &ArgMatches) -> Vec<(&'static str, Vec<String>)> {
    OPTIONS
        .iter()
        .filter_map(|option| {
            // A subcommand need not have all options.
            let texts = matches.try_get_many::<String>(option.name).ok()??;
            let said = matches.value_source(option.name) == Some(ValueSource::CommandLine);
            said.then(|| (option.name, texts.cloned().collect()))
        })
        .collect()
}

fn flag_options(flags: &[(&'static str, Vec<String>)]) -> Vec<Given> {
    flags
        .iter()
        .filter_map(|(name, texts)| {
            Some(Given {
                option: Opt::named(name)?,
                texts: texts.clone(),
                place: Place::Flag,
            })
        })
        .collect()
}

/// The options in an environment, and a warning for each name that looks like one. A variable that is empty was not
/// set: that is how container tools unset one.
fn environment_options(environment: &[(String, String)]) -> (Vec<Given>, Vec<String>) {
    let names: Vec<String> = OPTIONS.iter().map(Opt::environment_name).collect();
    let (mut given, mut warnings) = (Vec::new(), Vec::new());
    for (name, value) in environment {
        if !name.starts_with(ENVIRONMENT_PREFIX) || value.is_empty() {
            continue;
        }
        let Some(index) = names.iter().position(|known| known == name) else {
            if !is_of_others(name, value) {
                let hint = nearest(name, names.iter().map(String::as_str));
                warnings.push(format!(
                    "the environment variable {name} is no option; {hint}"
                ));
            }
            continue;
        };
        let option = &OPTIONS[index];
        let texts = if option.is_list() {
            let items = value.split(',').map(str::trim);
            items
                .filter(|item| !item.is_empty())
                .map(str::to_owned)
                .collect()
        } else {
            vec![value.clone()]
        };
        given.push(Given {
            option,
            texts,
            place: Place::Environment,
        });
    }
    (given, warnings)
}

/// Kubernetes tells every pod about a service called `pubsub` by PUBSUB_SERVICE_HOST, PUBSUB_PORT=tcp://..., and more.
fn is_of_others(name: &str, value: &str) -> bool {
    ENVIRONMENT_OTHERS.contains(&name)
        || name.starts_with("PUBSUB_SERVICE_")
        || name.starts_with("PUBSUB_PORT_")
        || (name == "PUBSUB_PORT" && value.contains("://"))
}

/// The addresses of a stronger source replace the tables of the file; one that a table names keeps its settings.
fn listeners(
    draft: &Draft,
    listen_in_file: Option<Vec<ListenAddr>>,
    tables: &[ListenerTable],
) -> Vec<Listener> {
    let from_table = |table: &ListenerTable| Listener {
        client_services: table
            .client_services
            .unwrap_or(draft.config.client_services),
        clusterws_binary: table
            .clusterws_binary
            .unwrap_or(draft.config.clusterws_binary),
        ..table.listener.clone()
    };
    let plain = |listener: Listener| from_table(&ListenerTable::new(listener));
    let from_addr = |addr: &ListenAddr| {
        let table = tables.iter().find(|table| table.listener.addr == *addr);
        table.map_or_else(|| plain(Listener::new(addr.clone())), from_table)
    };
    let written: Vec<Listener> = match (&draft.listen, &listen_in_file) {
        (Some(addresses), _) => addresses.iter().map(from_addr).collect(),
        (None, Some(addresses)) => addresses.iter().map(from_addr).collect(),
        (None, None) if tables.is_empty() => Listener::defaults().into_iter().map(plain).collect(),
        (None, None) => tables.iter().map(from_table).collect(),
    };
    let mut listeners: Vec<Listener> = written.into_iter().flat_map(Listener::expand).collect();

    // The default pair means the same whether it is written out or not: the file that `default-config` writes must
    // start on a machine without IPv6.
    let defaults = Listener::defaults();
    let same_address = |(one, other): (&Listener, &Listener)| one.addr == other.addr;
    if listeners.len() == defaults.len() && listeners.iter().zip(&defaults).all(same_address) {
        for (listener, default) in listeners.iter_mut().zip(&defaults) {
            listener.optional = default.optional;
        }
    }
    listeners
}

/// The rest of a complaint about an unknown name: which one a slip of the finger would most likely have meant.
pub fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .filter(|(likeness, _)| *likeness > 0.5)
        .map_or_else(
            || "`pubsub default-config` lists them all".to_owned(),
            |(_, candidate)| format!("the nearest one is `{candidate}`"),
        )
}
