//! What is written from the table of options: the commented file of `default-config`, the reference page, and what
//! `check-config` says. Pure.
//!
//! Invariant: the file that [`default_config`] writes reads back to exactly the defaults, and what [`describe`]
//! writes reads back to the configuration it describes, but for secrets, which it hides.

use std::fmt::Write as _;

use super::Config;
use super::file::{GENERATIONS, WHO};
use super::listen::Listener;
use super::options::{Kind, OPTIONS, Opt, Section};
use super::values::{Value, quoted};
use crate::shard::auth::AccessRule;
use crate::topic::Filter;

/// The width that comments of the file are wrapped to.
const COLUMNS: usize = 110;

/// A file with every key, what it means, and its default.
pub fn default_config() -> String {
    let defaults = Config::default();
    let mut page = String::from(FILE_HEAD);
    for section in Section::ALL {
        let rule = "-".repeat(COLUMNS - 6 - section.title().len());
        let _ = write!(page, "\n# --- {} {rule}\n", section.title());
        comment(&mut page, section.about());
        for option in options_of(section) {
            let Some(key) = option.key() else { continue };
            page.push('\n');
            comment(&mut page, &sentences(option));
            let default = option.show(&defaults);
            let _ = match default.toml() {
                Some(value) => {
                    let in_words = default.to_string();
                    let note = match default {
                        Value::Bytes(_) if in_words != value => format!(" # {in_words}"),
                        _ => String::new(),
                    };
                    writeln!(page, "{key} = {value}{note}")
                }
                None => writeln!(page, "# {key} = {}", option.example),
            };
            if matches!(&default, Value::List(list) if list.is_empty()) {
                let _ = writeln!(page, "# {key} = {}", option.example);
            }
        }
    }
    page.push_str(FILE_TABLES);
    page
}

/// The effective configuration as a file that amounts to it. Secrets are hidden.
pub fn describe(config: &Config) -> String {
    let mut page = String::new();
    for option in OPTIONS {
        let Some(key) = option.key() else { continue };
        // The tables below say more than the addresses alone.
        if option.name == "listen" {
            continue;
        }
        let value = option.show(config);
        let _ = match value.toml() {
            Some(text) => writeln!(page, "{key} = {text}"),
            None if value == Value::Hidden => writeln!(page, "# {key} is set {value}"),
            None => Ok(()),
        };
    }
    for listener in &config.listeners {
        describe_listener(&mut page, listener);
    }
    for rule in &config.access {
        describe_rule(&mut page, rule);
    }
    page
}

fn describe_listener(page: &mut String, listener: &Listener) {
    let Listener {
        addr,
        native,
        native_path,
        clusterws,
        clusterws_path,
        clusterws_generation,
        clusterws_binary,
        http,
        trust_peer_flag,
        client_services,
        optional,
    } = listener;
    let note = if *optional {
        " # skipped where there is no IPv6"
    } else {
        ""
    };
    let protocols: Vec<&str> = [(*native, r#""native""#), (*clusterws, r#""clusterws""#)]
        .into_iter()
        .filter_map(|(is_spoken, word)| is_spoken.then_some(word))
        .collect();
    let generation = GENERATIONS
        .into_iter()
        .find(|(known, _)| known == clusterws_generation)
        .map_or("3", |(_, number)| number);
    let _ = writeln!(page, "\n[[listener]]");
    let _ = writeln!(page, "addr = {}{note}", quoted(&addr.to_string()));
    let _ = writeln!(page, "protocols = [{}]", protocols.join(", "));
    let native_path = native_path.as_ref().map(|path| ("native", path));
    let paths: Vec<String> = native_path
        .into_iter()
        .chain([("clusterws", clusterws_path)])
        .map(|(protocol, path)| format!("{protocol} = {}", quoted(path)))
        .collect();
    let _ = writeln!(page, "paths = {{ {} }}", paths.join(", "));
    let _ = writeln!(page, "clusterws_generation = {generation}");
    let _ = writeln!(page, "clusterws_binary = {clusterws_binary}");
    let _ = writeln!(page, "http = {http}");
    let _ = writeln!(page, "trust_peer_flag = {trust_peer_flag}");
    let _ = writeln!(page, "client_services = {client_services}");
}

fn describe_rule(page: &mut String, rule: &AccessRule) {
    let AccessRule {
        filter,
        who,
        subscribe,
        publish,
    } = rule;
    let word = WHO
        .into_iter()
        .find(|(known, _)| known == who)
        .map_or("nobody", |(_, word)| word);
    let key = match filter {
        Filter::Dotted(_) => "filter",
        // No rule is about rooms: they are not a client's to name.
        Filter::Exact(_) | Filter::Shard(_) | Filter::Room(_) => "channel",
        Filter::Glob(_) => "pattern",
    };
    let filter = String::from_utf8_lossy(filter.written());
    let _ = writeln!(page, "\n[[access]]");
    let _ = writeln!(page, "{key} = {}", quoted(&filter));
    let _ = writeln!(page, "who = {}", quoted(word));
    let _ = writeln!(page, "subscribe = {subscribe}");
    let _ = writeln!(page, "publish = {publish}");
}

/// `docs/configuration.md`.
pub fn reference_page() -> String {
    let defaults = Config::default();
    let mut page = String::from(REFERENCE_HEAD);
    for section in Section::ALL {
        let _ = write!(page, "\n### {}\n\n{}\n\n", section.title(), section.about());
        page.push_str("| option | default | meaning |\n| --- | --- | --- |\n");
        for option in options_of(section) {
            let default = match option.show(&defaults) {
                Value::List(list) => list
                    .iter()
                    .map(|item| format!("`{item}`"))
                    .collect::<Vec<_>>()
                    .join(", "),
                value => match value.to_string() {
                    text if text.is_empty() => text,
                    text => format!("`{text}`"),
                },
            };
            let usage = match option.kind {
                Kind::Switch { .. } => format!("--{}", option.name),
                _ => format!("--{} {}", option.name, option.placeholder),
            };
            let meaning = sentences(option).replace('|', "\\|");
            let _ = writeln!(page, "| `{usage}` | {default} | {meaning} |");
        }
    }
    page.push_str(REFERENCE_TABLES);
    page
}

fn options_of(section: Section) -> impl Iterator<Item = &'static Opt> {
    OPTIONS
        .iter()
        .filter(move |option| option.section == section)
}

fn sentences(option: &Opt) -> String {
    match option.more {
        "" => format!("{}.", option.help),
        more => format!("{}. {more}", option.help),
    }
}

fn comment(page: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > COLUMNS {
            page.push_str(&line);
            page.push('\n');
            line.truncate(1);
        }
        line.push(' ');
        line.push_str(word);
    }
    page.push_str(&line);
    page.push('\n');
}

const FILE_HEAD: &str = "\
# Configuration of pubsub: every key with its default, as `pubsub default-config` writes it.
#
# Use it with `pubsub --config pubsub.toml`; leave out what you do not change. Each key is also an environment
# name and a flag: drain_delay is PUBSUB_DRAIN_DELAY and --drain-delay. Flags win over the environment, the
# environment over this file. An unknown key is an error. `pubsub check-config --config pubsub.toml` reads the file
# as the broker would, and says what it amounts to.
";

const FILE_TABLES: &str = r#"
# --- Tables -------------------------------------------------------------------------------------------------
# They come after all keys, because in TOML a key belongs to the table above it.

# What is spoken at an address. With [[listener]] tables there must be no `listen` above. What follows the
# address is optional; shown are the defaults, but for the native path: without one, native JSON has `/` and every
# other path.
#
# [[listener]]
# addr = "unix:/run/pubsub/clients.sock"
# protocols = ["native", "clusterws"]
# paths = { native = "/live", clusterws = "/clusterws" }
# clusterws_generation = 3   # clients of 3.x; 1: 1.0 to 2.2; 0: the oldest. A client's `?v=` wins
# clusterws_binary = false   # without it: the key above
# http = true                # the console at GET /
# trust_peer_flag = false    # believe "fromPeerServer" in publications: only where all clients are your servers
# client_services = false    # without it: the key client_services above

# Who may subscribe and publish. The first rule that speaks of an action and fits the topic decides; with rules,
# what none of them allows is refused. `who` is anyone, authenticated (by a token, or the password of Redis
# clients) or nobody. A rule speaks of the actions that are true; where only one of `subscribe` and `publish` is
# given the other is its opposite, without both it speaks of both.
#
# [[access]]
# filter = "news"            # and everything below it; or channel = "one name", or pattern = "names:*"
# who = "anyone"
# publish = false
"#;

const REFERENCE_HEAD: &str = r#"# Configuration

`pubsub` starts without any configuration: clients connect to `127.0.0.1:8000` and `[::1]:8000`, operators to
`127.0.0.1:8001`. Everything below changes that.

Three commands help:

- `pubsub default-config > pubsub.toml` writes a file with every key, its meaning and its default.
- `pubsub check-config --config pubsub.toml` reads a configuration as the broker would, and prints what it amounts
  to, secrets hidden. Exit code 0, or 2 and the reason.
- `pubsub --help` lists the options.

## Three ways to say it

Each option is a flag, an environment name and a key of the file. Only the spelling differs:

| flag | environment | file |
| --- | --- | --- |
| `--drain-delay 500` | `PUBSUB_DRAIN_DELAY=500` | `drain_delay = 500` |
| `--insecure-open` | `PUBSUB_INSECURE_OPEN=true` | `insecure_open = true` |
| `--max-message 128KiB` | `PUBSUB_MAX_MESSAGE=128KiB` | `max_message = "128KiB"` or `131072` |
| `--listen A --listen B` | `PUBSUB_LISTEN=A,B` | `listen = ["A", "B"]` |

**Precedence**: flags win over the environment, the environment over the file, the file over the defaults. A list that
is given in a stronger place replaces the weaker one; lists are never joined. Of a flag that is given twice and is no
list, the last one counts.

**Values**: sizes are bytes, or have a suffix `KiB`, `MiB` or `GiB`. Names that end in `-ms` are milliseconds. Switches
are `true` or `false`; on the command line the name alone turns one on.

**Mistakes**: an unknown key of the file, or a value that does not fit, stops the broker with exit code 2 and a line
that names the place, what was wanted, and for a key the nearest one that exists. An unknown `PUBSUB_` name in the
environment is only a warning, because orchestrators put names of their own there. An empty variable counts as not set.

## Examples

**Behind a reverse proxy on the same machine.** The broker stays on loopback, the proxy speaks to the world. The page
has another host than the broker, so its origin is allowed. On loopback the broker also wants a `Host` that is loopback
or allowed: if the proxy passes the public one on, name that too, as an origin.

```toml
listen = ["127.0.0.1:8000"]
allow_origin = ["https://www.example.com"]
log_format = "json"
```

**In a container**, by the environment alone. Only the load balancer reaches the pod network; it needs five seconds to
notice that a broker is leaving, and clients come back over twenty:

```sh
PUBSUB_LISTEN=:8000
PUBSUB_ADMIN=0.0.0.0:8001
PUBSUB_ADMIN_KEY_FILE=/run/secrets/pubsub_admin_key
PUBSUB_INSECURE_OPEN=true
PUBSUB_ALLOW_ORIGIN=https://www.example.com,https://m.example.com
PUBSUB_DRAIN_DELAY=5000
PUBSUB_DRAIN=20
```

**A public feed.** Everybody may read prices, nobody may publish them but the operator's `POST /publish`; a reader that
falls behind sees the newest price of each topic instead of being closed:

```toml
insecure_open = true
slow = ["prices=conflate"]
max_connections = 50_000
max_message = "4KiB"
max_subscriptions = 100

[[listener]]
addr = ":8000"
paths = { native = "/live" }

[[access]]
filter = "prices"
who = "anyone"
publish = false
```

## Options
"#;

const REFERENCE_TABLES: &str = r#"
## Tables of the file

Some things have more than one value, and can be said in the file only.

### `[[listener]]`

One table for each address. Beside such tables there must be no `listen` key. If the environment or the command line
names addresses, these replace the tables; an address that one of the tables names keeps that table's settings.

| key | default | meaning |
| --- | --- | --- |
| `addr` | required | as `--listen` takes it: `host:port`, `:port`, or `unix:/path` |
| `protocols` | `["native", "clusterws"]` | what is spoken there; an empty list leaves plain HTTP alone |
| `paths` | `{}` | the path of a protocol, as `{ native = "/live", clusterws = "/" }`. Without one, native JSON has `/` and every path that nothing else has, and ClusterWS `/clusterws` |
| `clusterws_generation` | `3` | what ClusterWS clients are spoken to as if they do not say `?v=`: 3 for clients of 3.x, 1 for 1.0 to 2.2, 0 for the oldest |
| `clusterws_binary` | the option's | tell ClusterWS clients to speak binary, if they do not say `?binary=` |
| `http` | `true` | answer plain HTTP: the console at `GET /` |
| `trust_peer_flag` | `false` | believe `fromPeerServer` in a publication. Only where every client is a server of your own |
| `client_services` | the option's | let the clients of this listener handle events |

### `[[access]]`

Rights, in order. For an action the first rule that speaks of it and fits decides. Without any rule everybody may do
everything, or, where there are keys for tokens, everybody who has shown one; with rules, what none of them allows is
refused with `not_allowed`. The operators' `POST /publish` is not bound by them. [More about rights](access.md).

| key | default | meaning |
| --- | --- | --- |
| `filter` | one of these three | the topics: `a.b` is `a.b` and everything below it, `*` stands for one level, a leading `=` means exactly this depth |
| `channel` | | the one name that is exactly this, dotted topic or not |
| `pattern` | | the names of this shape: `*` any bytes, `?` one, `[a-z]` one of these, `\` before a byte means the byte itself |
| `who` | required | `anyone`, `authenticated` (by a token, or the password of Redis clients), or `nobody` |
| `subscribe` | the opposite of `publish`; without both `true` | does the rule speak of subscribing? |
| `publish` | the opposite of `subscribe`; without both `true` | does it speak of publishing? A rule that speaks of neither is an error |

A rule that allows a subscription must cover its whole filter, and one that refuses takes effect as soon as it overlaps:
a wide subscription never sees what a narrow rule withholds. So put the narrow refusals first.

## Protected mode

A broker without authentication that other machines can reach serves everybody who finds it. Therefore a listener beyond
loopback, clients' or operators', is refused at start unless `--insecure-open` says that this is meant. Loopback is
`127.0.0.0/8`, `[::1]` and `localhost`; Unix sockets count as local, and their file permissions decide who connects.

## Other environment names

Neither has a flag or a key.

- `PUBSUB_FAULT=panic:PLACE:N` plants a fault for tests: the Nth passage of the place panics. `handshake`, `frame`,
  `decode` and `encode` end one connection (1011, or 500 before the upgrade); `shard` ends the process with exit code 70.
- `PUBSUB_URING_WITHOUT` is a list of kernel features to do without, as `deferred,messages`: it shows what an older
  kernel would do. Names and versions are in [io_uring](io_uring.md).
"#;

#[cfg(test)]
mod tests {
    use std::io;

    use super::super::load::{Sources, resolve};
    use super::*;

    fn load(text: &str) -> Config {
        let sources = Sources {
            file: Some(("page.toml".to_owned(), text.to_owned())),
            ..Sources::default()
        };
        let no_file = |_: &std::path::Path| Err(io::Error::from(io::ErrorKind::NotFound));
        match resolve(&sources, &no_file) {
            Ok(loaded) => {
                assert_eq!(loaded.warnings, Vec::<String>::new());
                loaded.config
            }
            Err(error) => panic!("{error}\n{text}"),
        }
    }

    #[test]
    fn the_default_file_is_the_defaults() {
        assert_eq!(load(&default_config()), Config::default());
    }

    /// What is commented out is meant to be tried: each example is taken when its `# ` goes.
    #[test]
    fn the_examples_in_the_default_file_are_valid() {
        let page = default_config();
        for option in OPTIONS.iter().filter(|option| !option.example.is_empty()) {
            let key = option.key().unwrap();
            let example = format!("# {key} = {}", option.example);
            assert!(page.contains(&example), "{example}");
            // Files that are not here, and keys that nobody is to take.
            let is_secret = matches!(option.kind, Kind::Secret { .. });
            if !is_secret && !option.name.ends_with("-file") {
                let key = match option.section {
                    // Without one it is warned that nobody asks for tokens.
                    Section::Tokens => "jwt_secret = \"a secret of at least thirty-two bytes\"",
                    _ => "",
                };
                load(&format!("{key}\n{}", &example[2..]));
            }
        }
        let (_, tables) = page.split_once("# [[listener]]").unwrap();
        let tables: String = tables
            .lines()
            .filter_map(|line| line.strip_prefix("# "))
            .filter(|line| {
                line.starts_with('[')
                    || line
                        .split_once(" = ")
                        .is_some_and(|(key, _)| !key.contains(' '))
            })
            .map(|line| format!("{line}\n"))
            .collect();
        let config = load(&format!("[[listener]]\n{tables}"));
        assert_eq!(config.listeners.len(), 1);
        assert_eq!(config.access.len(), 1);
    }

    #[test]
    fn the_examples_in_the_reference_are_valid() {
        let page = reference_page();
        let mut examples = page.split("```toml\n").skip(1);
        let mut next = || load(examples.next().unwrap().split("```").next().unwrap());
        assert_eq!(next().allow_origin, ["https://www.example.com"]);
        let feed = next();
        assert_eq!(feed.listeners.len(), 2);
        assert_eq!(feed.listeners[1].native_path.as_deref(), Some("/live"));
        assert_eq!(feed.access.len(), 1);
    }

    #[test]
    fn every_option_is_on_every_page() {
        let (file, reference) = (default_config(), reference_page());
        for option in OPTIONS {
            assert!(reference.contains(&format!("`--{}", option.name)));
            if let Some(key) = option.key() {
                assert!(
                    file.contains(&format!("\n{key} = "))
                        || file.contains(&format!("\n# {key} = "))
                );
            }
        }
    }

    #[test]
    fn a_description_amounts_to_what_it_describes() {
        assert_eq!(load(&describe(&Config::default())), Config::default());
        let config = load(
            r#"
            log = "warn"
            cores = "0,2-3"
            shards = 5
            drain = 1.5
            slow = ["a=conflate", "*=drop-oldest"]
            allow_origin = ["*"]
            admin = "off"
            client_services = true
            resp = ["127.0.0.1:0", "unix:/tmp/r"]
            clusterws_binary = true
            server_max_outbox = "64MiB"
            soft_outbox = 1000
            max_outbox = 2000
            [[listener]]
            addr = "unix:/tmp/a b"
            protocols = ["clusterws"]
            paths = { native = "/x", clusterws = "/" }
            clusterws_generation = 0
            clusterws_binary = true
            http = false
            [[listener]]
            addr = "localhost:0"
            client_services = false
            trust_peer_flag = true
            [[access]]
            filter = "=a.*"
            who = "nobody"
            publish = false
            "#,
        );
        assert_eq!(load(&describe(&config)), config);
    }

    #[test]
    fn secrets_are_hidden() {
        let config = load("admin_key = \"s3cret\"");
        assert!(config.admin_key.is_some());
        let page = describe(&config);
        assert!(!page.contains("s3cret") && page.contains("# admin_key is set (hidden)"));
        assert!(!format!("{config:?}").contains("s3cret"));
    }
}
