//! The configuration file: TOML text into options and tables. Pure; the defaults and the order of the sources are
//! none of its business.
//!
//! Invariant: nothing in the file is passed over. A key is an option, one of the tables below, or an error that
//! names its line and the nearest key.

use std::ops::Range;

use bytes::Bytes;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::listen::Listener;
use super::load::{ConfigError, Given, Place, nearest};
use super::options::{Kind, OPTIONS, Opt};
use crate::protocol::clusterws::Generation;
use crate::shard::auth::{AccessRule, Who};
use crate::topic::Filter;

/// What a file says.
#[derive(Default)]
pub(super) struct Contents {
    /// Its options, in the order of the lines.
    pub given: Vec<Given>,
    /// Its `[[listener]]` tables.
    pub listeners: Vec<ListenerTable>,
    /// Its `[[access]]` tables.
    pub access: Vec<AccessRule>,
}

/// One `[[listener]]`.
pub(super) struct ListenerTable {
    /// Its settings, but for those below.
    pub listener: Listener,
    /// What it says about `client_services`, if anything.
    pub client_services: Option<bool>,
    /// What it says about `clusterws_binary`, if anything.
    pub clusterws_binary: Option<bool>,
}

impl ListenerTable {
    /// One that leaves to the options what they can say.
    pub fn new(listener: Listener) -> ListenerTable {
        ListenerTable {
            listener,
            client_services: None,
            clusterws_binary: None,
        }
    }
}

/// Reads a file's text; `name` is for messages.
pub(super) fn read(name: &str, text: &str) -> Result<Contents, ConfigError> {
    let source = Source { name, text };
    let document = DeTable::parse(text).map_err(|error| {
        let line = error.span().map_or(1, |span| source.line(&span));
        ConfigError::new(format!("{name}:{line}: {}", error.message()))
    })?;
    let mut contents = Contents::default();
    for (key, value) in source.entries(document.get_ref()) {
        match key.get_ref().as_ref() {
            "listener" => {
                for table in source.tables(key, value)? {
                    contents.listeners.push(source.listener(table)?);
                }
            }
            "access" => {
                for table in source.tables(key, value)? {
                    contents.access.push(source.access(table)?);
                }
            }
            name => contents.given.push(source.option(name, key, value)?),
        }
    }
    let listen = contents
        .given
        .iter()
        .find(|given| given.option.name == "listen");
    if let (Some(listen), false) = (listen, contents.listeners.is_empty()) {
        return Err(ConfigError::at(
            &listen.place,
            "listen and [[listener]] tables exclude each other: move its addresses into tables",
        ));
    }
    Ok(contents)
}

type Key<'a> = Spanned<std::borrow::Cow<'a, str>>;
type Entry<'t, 'a> = (&'t Key<'a>, &'t Spanned<DeValue<'a>>);

const LISTENER_KEYS: [&str; 8] = [
    "addr",
    "protocols",
    "paths",
    "clusterws_generation",
    "clusterws_binary",
    "http",
    "trust_peer_flag",
    "client_services",
];
const ACCESS_KEYS: [&str; 6] = [
    "filter",
    "channel",
    "pattern",
    "who",
    "subscribe",
    "publish",
];
const PROTOCOLS: [&str; 2] = ["native", "clusterws"];

struct Source<'s> {
    name: &'s str,
    text: &'s str,
}

impl Source<'_> {
    fn option(
        &self,
        name: &str,
        key: &Key<'_>,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<Given, ConfigError> {
        let place = self.place(&key.span());
        let option = OPTIONS
            .iter()
            .find(|option| option.key().as_deref() == Some(name));
        let Some(option) = option else {
            if name == "config" {
                return Err(ConfigError::at(
                    &place,
                    "config names this file; it is no key of it",
                ));
            }
            let keys: Vec<String> = OPTIONS.iter().filter_map(Opt::key).collect();
            let tables = ["listener", "access"];
            let known = keys.iter().map(String::as_str).chain(tables);
            return Err(self.unknown(key, known));
        };
        let texts = texts(option, value.get_ref())
            .map_err(|reason| ConfigError::at(&place, &format!("{name}: {reason}")))?;
        Ok(Given {
            option,
            texts,
            place,
        })
    }

    fn listener(&self, table: &Spanned<DeValue<'_>>) -> Result<ListenerTable, ConfigError> {
        // The address is not known yet; a table without one does not get out of here.
        let mut addr = None;
        let mut read = ListenerTable::new(Listener::new(super::ListenAddr::Unix("/".into())));
        let listener = &mut read.listener;
        for (key, value) in self.table_entries(table)? {
            let wrong = |reason: &str| self.wrong(key, reason);
            match key.get_ref().as_ref() {
                "addr" => {
                    let text = self.string(key, value)?;
                    addr = Some(text.parse().map_err(|reason: String| wrong(&reason))?);
                }
                "protocols" => {
                    let words = list(value.get_ref())
                        .ok_or_else(|| wrong("wants a list of protocols, such as [\"native\"]"))?;
                    if let Some(word) = words
                        .iter()
                        .find(|word| !PROTOCOLS.contains(&word.as_str()))
                    {
                        let known = PROTOCOLS.join(", ");
                        return Err(wrong(&format!(
                            "{word:?} is no protocol; there is: {known}"
                        )));
                    }
                    listener.native = words.iter().any(|word| word == "native");
                    listener.clusterws = words.iter().any(|word| word == "clusterws");
                }
                "paths" => {
                    for (protocol, path) in self.table_entries(value)? {
                        let path = self.string(protocol, path)?;
                        if !is_path(path) {
                            return Err(self.wrong(
                                protocol,
                                "wants a path that begins with a slash, such as \"/live\"",
                            ));
                        }
                        match protocol.get_ref().as_ref() {
                            "native" => listener.native_path = Some(path.to_owned()),
                            "clusterws" => listener.clusterws_path = path.to_owned(),
                            _ => return Err(self.unknown(protocol, PROTOCOLS)),
                        }
                    }
                }
                "http" => listener.http = self.boolean(key, value)?,
                "trust_peer_flag" => listener.trust_peer_flag = self.boolean(key, value)?,
                "client_services" => read.client_services = Some(self.boolean(key, value)?),
                "clusterws_binary" => read.clusterws_binary = Some(self.boolean(key, value)?),
                "clusterws_generation" => {
                    let number = integer(value.get_ref());
                    let known = GENERATIONS
                        .into_iter()
                        .find(|(_, word)| Some(*word) == number.as_deref());
                    let (generation, _) = known.ok_or_else(|| {
                        wrong("wants 3 for clients of 3.x, 1 for 1.0 to 2.2, or 0 for the oldest")
                    })?;
                    listener.clusterws_generation = generation;
                }
                _ => return Err(self.unknown(key, LISTENER_KEYS)),
            }
        }
        listener.addr = addr.ok_or_else(|| {
            ConfigError::at(&self.place(&table.span()), "this [[listener]] has no addr")
        })?;
        Ok(read)
    }

    fn access(&self, table: &Spanned<DeValue<'_>>) -> Result<AccessRule, ConfigError> {
        let (mut filter, mut who) = (None, None);
        let (mut subscribe, mut publish) = (None, None);
        for (key, value) in self.table_entries(table)? {
            match key.get_ref().as_ref() {
                name @ ("filter" | "channel" | "pattern") => {
                    if filter.is_some() {
                        let reason =
                            "a rule is about a filter, a channel or a pattern, not two of them";
                        return Err(self.wrong(key, reason));
                    }
                    let text = self.string(key, value)?;
                    let bytes = Bytes::copy_from_slice(text.as_bytes());
                    let read = match name {
                        "filter" => Filter::dotted(bytes),
                        "channel" => Filter::exact(bytes),
                        _ => Filter::glob(bytes),
                    };
                    filter =
                        Some(read.map_err(|error| self.wrong(key, &format!("{text:?}: {error}")))?);
                }
                "who" => {
                    let word = self.string(key, value)?;
                    let read = WHO.into_iter().find(|(_, known)| *known == word);
                    let words = || WHO.map(|(_, word)| word).join(", ");
                    let (read, _) = read.ok_or_else(|| {
                        self.wrong(key, &format!("wants one of {}, not {word:?}", words()))
                    })?;
                    who = Some(read);
                }
                "subscribe" => subscribe = Some(self.boolean(key, value)?),
                "publish" => publish = Some(self.boolean(key, value)?),
                _ => return Err(self.unknown(key, ACCESS_KEYS)),
            }
        }
        let missing = |what: &str| {
            let reason = format!("this [[access]] has no {what}");
            ConfigError::at(&self.place(&table.span()), &reason)
        };
        // Who says one thing means the other by it; who says nothing means both.
        let (subscribe, publish) = match (subscribe, publish) {
            (None, None) => (true, true),
            (Some(subscribe), None) => (subscribe, !subscribe),
            (None, Some(publish)) => (!publish, publish),
            (Some(false), Some(false)) => return Err(missing("action: it speaks of neither")),
            (Some(subscribe), Some(publish)) => (subscribe, publish),
        };
        Ok(AccessRule {
            filter: filter.ok_or_else(|| missing("filter, channel or pattern"))?,
            who: who.ok_or_else(|| missing("who"))?,
            subscribe,
            publish,
        })
    }

    /// In the order of the lines: of several mistakes the first is told.
    fn entries<'t, 'a>(&self, table: &'t DeTable<'a>) -> Vec<Entry<'t, 'a>> {
        let mut entries: Vec<Entry<'t, 'a>> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        entries
    }

    fn table_entries<'t, 'a>(
        &self,
        value: &'t Spanned<DeValue<'a>>,
    ) -> Result<Vec<Entry<'t, 'a>>, ConfigError> {
        match value.get_ref() {
            DeValue::Table(table) => Ok(self.entries(table)),
            other => Err(ConfigError::at(
                &self.place(&value.span()),
                &format!("wants a table, not {}", described(other)),
            )),
        }
    }

    fn tables<'t, 'a>(
        &self,
        key: &Key<'_>,
        value: &'t Spanned<DeValue<'a>>,
    ) -> Result<Vec<&'t Spanned<DeValue<'a>>>, ConfigError> {
        match value.get_ref() {
            DeValue::Array(tables) => Ok(tables.iter().collect()),
            _ => Err(self.wrong(
                key,
                &format!("is a list of tables: write [[{}]]", key.get_ref()),
            )),
        }
    }

    fn string<'t>(
        &self,
        key: &Key<'_>,
        value: &'t Spanned<DeValue<'_>>,
    ) -> Result<&'t str, ConfigError> {
        value.get_ref().as_str().ok_or_else(|| {
            let found = described(value.get_ref());
            self.wrong(key, &format!("wants a string, not {found}"))
        })
    }

    fn boolean(&self, key: &Key<'_>, value: &Spanned<DeValue<'_>>) -> Result<bool, ConfigError> {
        value.get_ref().as_bool().ok_or_else(|| {
            let found = described(value.get_ref());
            self.wrong(key, &format!("wants true or false, not {found}"))
        })
    }

    fn wrong(&self, key: &Key<'_>, reason: &str) -> ConfigError {
        ConfigError::at(
            &self.place(&key.span()),
            &format!("{}: {reason}", key.get_ref()),
        )
    }

    fn unknown<'k>(&self, key: &Key<'_>, known: impl IntoIterator<Item = &'k str>) -> ConfigError {
        let name = key.get_ref();
        let hint = nearest(name, known);
        ConfigError::at(
            &self.place(&key.span()),
            &format!("unknown key `{name}`; {hint}"),
        )
    }

    fn place(&self, span: &Range<usize>) -> Place {
        Place::File {
            name: self.name.to_owned(),
            line: self.line(span),
        }
    }

    fn line(&self, span: &Range<usize>) -> usize {
        let before = &self.text.as_bytes()[..span.start.min(self.text.len())];
        before.iter().filter(|&&byte| byte == b'\n').count() + 1
    }
}

/// The value of an option as the text that its reader takes, if it has a type that suits the option.
fn texts(option: &Opt, value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let one = |text: Option<String>| text.map(|text| vec![text]);
    let (texts, wanted) = match &option.kind {
        Kind::ConfigFile => (None, "nothing"),
        Kind::Switch { .. } => (
            one(value.as_bool().map(|on| on.to_string())),
            "true or false",
        ),
        Kind::Number(_) => (one(integer(value)), "a whole number"),
        Kind::Bytes(_) => (
            one(integer(value).or_else(|| string(value))),
            "a size in bytes, such as 65536 or \"64KiB\"",
        ),
        Kind::Seconds(_) => {
            let float = value.as_float().map(|float| float.as_str().to_owned());
            (one(integer(value).or(float)), "seconds, such as 10 or 0.5")
        }
        Kind::Text { .. } | Kind::Secret { .. } => (one(string(value)), "a string"),
        Kind::List { .. } => (
            list(value).or_else(|| one(string(value))),
            "a list of strings",
        ),
        Kind::Cpus { .. } => {
            let several = value.as_array().and_then(|array| {
                let cpu = |item: &Spanned<DeValue<'_>>| {
                    integer(item.get_ref()).or_else(|| string(item.get_ref()))
                };
                let cpus: Option<Vec<String>> = array.iter().map(cpu).collect();
                cpus.map(|cpus| cpus.join(","))
            });
            (
                one(string(value).or_else(|| integer(value)).or(several)),
                "a list of CPUs, such as \"0,2-5\"",
            )
        }
    };
    texts.ok_or_else(|| format!("wants {wanted}, not {}", described(value)))
}

fn string(value: &DeValue<'_>) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn integer(value: &DeValue<'_>) -> Option<String> {
    let integer = value.as_integer()?;
    // Out of range for every option, and its reader says so.
    let number = i128::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(i128::MAX);
    Some(number.to_string())
}

fn list(value: &DeValue<'_>) -> Option<Vec<String>> {
    let items = value.as_array()?.iter();
    items.map(|item| string(item.get_ref())).collect()
}

fn is_path(path: &str) -> bool {
    path.starts_with('/')
        && path
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&byte))
}

fn described(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "such a list",
        DeValue::Table(_) => "a table",
    }
}

/// A generation of ClusterWS clients, and its number in the file and in `?v=`.
pub(super) const GENERATIONS: [(Generation, &str); 3] = [
    (Generation::Three, "3"),
    (Generation::One, "1"),
    (Generation::Zero, "0"),
];

/// Whom a rule allows, and its word in the file.
pub(super) const WHO: [(Who, &str); 3] = [
    (Who::Anyone, "anyone"),
    (Who::Authenticated, "authenticated"),
    (Who::Nobody, "nobody"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str, complaint: &str) {
        let reason = match read("f.toml", text) {
            Ok(_) => panic!("taken: {text}"),
            Err(error) => error.to_string(),
        };
        assert_eq!(reason, complaint, "{text}");
    }

    #[test]
    fn options_become_texts() {
        let check = |text: &str, texts: &[&str]| {
            let contents = read("f.toml", text).unwrap_or_else(|why| panic!("{text}: {why}"));
            assert_eq!(contents.given.len(), 1);
            assert_eq!(contents.given[0].texts, texts, "{text}");
        };
        check("shards = 4", &["4"]);
        check("shards = 0x10", &["16"]);
        check("shards = -1", &["-1"]);
        check("max_message = 65_536", &["65536"]);
        check("max_message = \"64KiB\"", &["64KiB"]);
        check("insecure_open = true", &["true"]);
        check("drain = 0.5", &["0.5"]);
        check("drain = 3", &["3"]);
        check("listen = [\":1\", \"unix:/x\"]", &[":1", "unix:/x"]);
        check("listen = \":1\"", &[":1"]);
        check("listen = []", &[]);
        check("cores = \"0,2-5\"", &["0,2-5"]);
        check("cores = [0, 2, 3]", &["0,2,3"]);
        check("cores = 1", &["1"]);
    }

    #[test]
    fn unknown_keys_name_line_and_nearest() {
        refused(
            "log = \"info\"\n\nmax_mesage = 1",
            "f.toml:3: unknown key `max_mesage`; the nearest one is `max_message`",
        );
        refused(
            "max-message = 1",
            "f.toml:1: unknown key `max-message`; the nearest one is `max_message`",
        );
        refused(
            "[[listner]]\naddr = \":1\"",
            "f.toml:1: unknown key `listner`; the nearest one is `listener`",
        );
        refused(
            "# one\n[[listener]]\naddr = \":1\"\nprotocol = []",
            "f.toml:4: unknown key `protocol`; the nearest one is `protocols`",
        );
        refused(
            "[[access]]\nfilter = \"a\"\nwho = \"anyone\"\npublsh = true",
            "f.toml:4: unknown key `publsh`; the nearest one is `publish`",
        );
        refused(
            "[[listener]]\naddr = \":1\"\npaths = { nativ = \"/\" }",
            "f.toml:3: unknown key `nativ`; the nearest one is `native`",
        );
        refused(
            "config = \"x\"",
            "f.toml:1: config names this file; it is no key of it",
        );
        // Of several mistakes the first.
        refused(
            "zzz = 1\naaa = 1",
            "f.toml:1: unknown key `zzz`; `pubsub default-config` lists them all",
        );
    }

    #[test]
    fn wrong_types_say_what_is_wanted() {
        refused(
            "\nshards = \"4\"",
            "f.toml:2: shards: wants a whole number, not a string",
        );
        refused(
            "shards = 1.5",
            "f.toml:1: shards: wants a whole number, not a float",
        );
        refused(
            "max_message = true",
            "f.toml:1: max_message: wants a size in bytes, such as 65536 or \"64KiB\", not a boolean",
        );
        refused(
            "insecure_open = 1",
            "f.toml:1: insecure_open: wants true or false, not an integer",
        );
        refused(
            "listen = [1]",
            "f.toml:1: listen: wants a list of strings, not such a list",
        );
        refused(
            "admin_key = 7",
            "f.toml:1: admin_key: wants a string, not an integer",
        );
        refused(
            "[listener]\naddr = \":1\"",
            "f.toml:1: listener: is a list of tables: write [[listener]]",
        );
        refused("access = [1]", "f.toml:1: wants a table, not an integer");
        refused(
            "[[listener]]\naddr = 1",
            "f.toml:2: addr: wants a string, not an integer",
        );
        refused(
            "[[access]]\nfilter = \"a\"\nwho = \"me\"",
            "f.toml:3: who: wants one of anyone, authenticated, nobody, not \"me\"",
        );
    }

    #[test]
    fn listeners() {
        let text = r#"
            [[listener]]
            addr = "127.0.0.1:9000"

            [[listener]]
            addr = "unix:/run/pubsub.sock"
            protocols = ["clusterws"]
            paths = { native = "/live", clusterws = "/cws" }
            clusterws_generation = 1
            clusterws_binary = true
            trust_peer_flag = true
            client_services = false
        "#;
        let contents = read("f.toml", text).unwrap();
        let [first, second] = &contents.listeners[..] else {
            panic!("two listeners");
        };
        assert_eq!(
            first.listener,
            Listener::new("127.0.0.1:9000".parse().unwrap())
        );
        assert_eq!(first.client_services, None);
        assert!(!second.listener.native && second.listener.trust_peer_flag);
        assert_eq!(second.listener.native_path.as_deref(), Some("/live"));
        assert_eq!(second.client_services, Some(false));
        assert!(second.listener.clusterws);
        assert_eq!(second.listener.clusterws_path, "/cws");
        assert_eq!(second.listener.clusterws_generation, Generation::One);
        assert_eq!(second.clusterws_binary, Some(true));

        refused(
            "[[listener]]\naddr = \":1\"\nclusterws_generation = 4",
            "f.toml:3: clusterws_generation: wants 3 for clients of 3.x, 1 for 1.0 to 2.2, or 0 for the oldest",
        );

        refused(
            "[[listener]]\nhttp = true",
            "f.toml:1: this [[listener]] has no addr",
        );
        refused(
            "[[listener]]\naddr = \":1\"\nprotocols = [\"resp\"]",
            "f.toml:3: protocols: \"resp\" is no protocol; there is: native, clusterws",
        );
        refused(
            "[[listener]]\naddr = \":1\"\npaths.native = \"live\"",
            "f.toml:3: native: wants a path that begins with a slash, such as \"/live\"",
        );
        refused(
            "listen = [\":1\"]\n[[listener]]\naddr = \":2\"",
            "f.toml:1: listen and [[listener]] tables exclude each other: move its addresses into tables",
        );
    }

    #[test]
    fn access_rules() {
        let text = r#"
            [[access]]
            filter = "news"
            who = "anyone"
            publish = false

            [[access]]
            filter = "*"
            who = "nobody"
        "#;
        let rule = |filter: &'static str, who, publish| AccessRule {
            filter: Filter::dotted(Bytes::from_static(filter.as_bytes())).unwrap(),
            who,
            subscribe: true,
            publish,
        };
        assert_eq!(
            read("f.toml", text).unwrap().access,
            [
                rule("news", Who::Anyone, false),
                rule("*", Who::Nobody, true)
            ]
        );
        let text = r#"
            [[access]]
            channel = "a..b"
            who = "anyone"

            [[access]]
            pattern = "user:*"
            who = "authenticated"
        "#;
        let filters = read("f.toml", text).unwrap().access;
        let filters: Vec<Filter> = filters.into_iter().map(|rule| rule.filter).collect();
        assert_eq!(
            filters,
            [
                Filter::exact("a..b".into()).unwrap(),
                Filter::glob("user:*".into()).unwrap(),
            ]
        );
        refused(
            "[[access]]\nfilter = \"a\"\npattern = \"a*\"\nwho = \"anyone\"",
            "f.toml:3: pattern: a rule is about a filter, a channel or a pattern, not two of them",
        );
        refused(
            "[[access]]\nfilter = \"a..b\"",
            "f.toml:2: filter: \"a..b\": the topic has an empty level",
        );
        refused(
            "[[access]]\nwho = \"anyone\"",
            "f.toml:1: this [[access]] has no filter, channel or pattern",
        );
        refused(
            "[[access]]\nfilter = \"a\"",
            "f.toml:1: this [[access]] has no who",
        );
    }

    #[test]
    fn broken_toml_names_its_line() {
        for (text, line) in [
            ("a", 1),
            ("shards = 1\nshards = 2", 2),
            ("\n\nlog = \"info", 3),
            ("shards = 1\n[", 2),
        ] {
            let reason = read("f.toml", text).err().map(|error| error.to_string());
            let reason = reason.unwrap_or_else(|| panic!("taken: {text}"));
            assert!(reason.starts_with(&format!("f.toml:{line}: ")), "{reason}");
        }
    }
}
