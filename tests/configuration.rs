//! The configuration as a user meets it: each option in each of its three spellings, precedence, refusals, and the
//! generated pages, which must be fresh. `PUBSUB_REGENERATE=1 cargo test --test configuration` writes them anew.

use std::fs;
use std::path::Path;

use pubsub::config::options::{Kind, OPTIONS, Opt};
use pubsub::config::values::{Value, quoted};
use pubsub::config::{
    Config, ConfigError, Io, Listener, Loaded, LogLevel, command, default_config, describe, load,
    reference_page,
};

/// Two values for each option that are valid and not the default.
fn samples(name: &str) -> [&'static str; 2] {
    match name {
        "log" => ["debug", "error"],
        "log-format" => ["json", "JSON"],
        "listen" => ["127.0.0.1:9000", "unix:/tmp/a.sock"],
        "insecure-open" | "client-services" | "clusterws-binary" => ["true", "on"],
        "resp" => ["127.0.0.1:6379", "unix:/a"],
        "resp-password" => ["first-key", "second-key"],
        "resp-password-file" => [".gitignore", "Cargo.toml"],
        "peers" => ["127.0.0.1:7000", "unix:/a"],
        "peer-key" => ["first-key", "second-key"],
        "peer-key-file" => [".gitignore", "Cargo.toml"],
        "accept-peers" => ["listed", "Listed"],
        "admission" => ["host", "Host"],
        "accept-list" => ["/tmp/accepted.json", "accepted"],
        "allow-origin" => ["https://example.com", "*"],
        "trust-proxy" => ["10.0.0.0/8", "unix"],
        "admin" => ["127.0.0.1:9001", "off"],
        "admin-key" => ["first-key", "second-key"],
        "admin-key-file" => [".gitignore", "Cargo.toml"],
        "jwt-secret" => ["a first secret", "a second secret"],
        "jwt-secret-file" => ["tests/keys/secret", "tests/keys/secrets"],
        "jwt-key-file" => ["tests/keys/rsa.pub.pem", "tests/keys/ed25519.pub.pem"],
        "jwt-issuer" | "jwt-audience" => ["https://login.example.com", "us"],
        "jwt-require-exp" => ["true", "on"],
        "cores" => ["0,2-5", "7"],
        "io" => ["epoll", "uring"],
        "slow" => ["prices=conflate", "*=drop-oldest"],
        "shards" => ["3", "128"],
        "drain" => ["0.5", "20"],
        "max-headers" => ["65", "100"],
        "coalesce-us" => ["20", "50"],
        _ => ["3000", "5000"],
    }
}

/// A sample in the file's spelling.
fn toml(option: &Opt, text: &str) -> String {
    match option.kind {
        Kind::Switch { .. } => "true".to_owned(),
        Kind::Number(_) | Kind::Bytes(_) | Kind::Seconds(_) => text.to_owned(),
        Kind::List { .. } => format!("[{}]", quoted(text)),
        _ => quoted(text),
    }
}

fn run(flags: &[&str], env: &[(&str, &str)], file: &str) -> Result<Loaded, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pubsub.toml");
    fs::write(&path, file).unwrap();
    let path = path.to_str().unwrap();
    let start = ["pubsub", "--config", path];
    let arguments = start.iter().chain(flags);
    let matches = command().try_get_matches_from(arguments).unwrap();
    let env = env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    load(&matches, env)
}

fn config(flags: &[&str], env: &[(&str, &str)], file: &str) -> Config {
    match run(flags, env, file) {
        Ok(loaded) => loaded.config,
        Err(error) => panic!("{error} ({flags:?} {env:?} {file})"),
    }
}

#[track_caller]
fn refused(flags: &[&str], env: &[(&str, &str)], file: &str, complaint: &str) {
    let error = run(flags, env, file).expect_err(complaint).to_string();
    assert!(error.ends_with(complaint), "{error}\nnot: {complaint}");
}

#[test]
fn the_pages_are_fresh() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (path, page) in [
        ("pubsub.toml", default_config()),
        ("docs/configuration.md", reference_page()),
    ] {
        let path = root.join(path);
        if std::env::var_os("PUBSUB_REGENERATE").is_some() {
            fs::write(&path, &page).unwrap();
        }
        let written = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            written == page,
            "{} is stale: PUBSUB_REGENERATE=1 cargo test --test configuration",
            path.display()
        );
    }
}

#[test]
fn without_sources_there_are_the_defaults() {
    let matches = command().try_get_matches_from(["pubsub"]).unwrap();
    let loaded = load(&matches, std::iter::empty()).unwrap();
    assert_eq!(loaded.config, Config::default());
    assert_eq!((loaded.warnings.len(), loaded.file), (0, None));
    assert_eq!(config(&[], &[], ""), Config::default());
    assert_eq!(config(&[], &[], &default_config()), Config::default());
}

#[test]
fn each_option_is_flag_environment_name_and_key() {
    for option in OPTIONS.iter().filter(|option| option.name != "config") {
        let [first, second] = samples(option.name);
        let (key, env) = (option.key().unwrap(), option.environment_name());
        let flag = |text: &str| format!("--{}={text}", option.name);
        let line = |text: &str| format!("{key} = {}", toml(option, text));

        let from_flag = config(&[&flag(first)], &[], "");
        assert_ne!(from_flag, Config::default(), "{}", option.name);
        assert_eq!(config(&[], &[(&env, first)], ""), from_flag, "{env}");
        assert_eq!(config(&[], &[], &line(first)), from_flag, "{key}");

        let stronger = config(&[&flag(second)], &[], "");
        let both = config(&[&flag(second)], &[(&env, first)], &line(first));
        assert_eq!(both, stronger, "--{} over the rest", option.name);
        let both = config(&[], &[(&env, second)], &line(first));
        assert_eq!(both, stronger, "{env} over the file");

        if !matches!(option.kind, Kind::Secret { .. }) && !option.name.ends_with("-file") {
            assert_ne!(option.show(&from_flag), Value::Unset, "{}", option.name);
        }
    }
}

#[test]
fn lists_replace_and_scalars_are_overridden() {
    let many = config(
        &[],
        &[("PUBSUB_ALLOW_ORIGIN", "https://a, https://b,")],
        "allow_origin = [\"https://c\"]",
    );
    assert_eq!(many.allow_origin, ["https://a", "https://b"]);
    let many = config(
        &["--allow-origin", "https://x", "--allow-origin", "https://y"],
        &[("PUBSUB_ALLOW_ORIGIN", "https://a")],
        "",
    );
    assert_eq!(many.allow_origin, ["https://x", "https://y"]);
    let last = config(&["--shards", "3", "--shards", "5"], &[], "");
    assert_eq!(last.shards, Some(5));
    let empty = config(
        &[],
        &[("PUBSUB_LOG", ""), ("PUBSUB_LISTEN", "")],
        "log = \"warn\"",
    );
    assert_eq!(empty.log, LogLevel::Warn);
    let off = config(
        &["--insecure-open=false"],
        &[("PUBSUB_INSECURE_OPEN", "1")],
        "",
    );
    assert!(!off.insecure_open);
    assert!(config(&["--insecure-open"], &[], "").insecure_open);
    assert_eq!(config(&[], &[], "io = \"Epoll\"").io, Io::Epoll);
}

#[test]
fn the_environment_may_name_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.toml");
    fs::write(&path, "shards = 7").unwrap();
    let path = path.to_str().unwrap().to_owned();
    let matches = command().try_get_matches_from(["pubsub"]).unwrap();
    let env = [("PUBSUB_CONFIG".to_owned(), path.clone())];
    let loaded = load(&matches, env.clone().into_iter()).unwrap();
    assert_eq!(loaded.config.shards, Some(7));
    assert_eq!(loaded.file.as_deref(), Some(Path::new(&path)));

    fs::remove_file(&path).unwrap();
    let error = load(&matches, env.into_iter()).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("{path}: No such file")),
        "{error}"
    );
}

#[test]
fn refusals_name_the_place_and_what_is_wanted() {
    refused(
        &[],
        &[],
        "# a comment\n\nmax_mesage = 5",
        "pubsub.toml:3: unknown key `max_mesage`; the nearest one is `max_message`",
    );
    refused(
        &[],
        &[],
        "max_message = \"12x\"",
        "pubsub.toml:1: max_message = 12x: wants a size in bytes, such as 65536, 64KiB or 1MiB",
    );
    refused(
        &["--max-message", "12x"],
        &[],
        "",
        "--max-message 12x: wants a size in bytes, such as 65536, 64KiB or 1MiB",
    );
    refused(
        &[],
        &[("PUBSUB_SHARDS", "200")],
        "",
        "PUBSUB_SHARDS=200: wants 1 to 128",
    );
    refused(
        &["--listen", "8000"],
        &[],
        "",
        "--listen 8000: wants host:port, :port for all addresses, or unix:/path; such as 127.0.0.1:8000",
    );
    refused(
        &["--slow", "prices=never"],
        &[],
        "",
        "--slow prices=never: wants PREFIX=POLICY with a policy of close, drop-oldest, conflate; such as prices=conflate",
    );
    refused(
        &["--log", "loud"],
        &[],
        "",
        "--log loud: wants one of off, error, warn, info, debug, trace",
    );
    refused(
        &[],
        &[],
        "listen = []",
        "--listen 127.0.0.1:8000 would be one",
    );
    refused(
        &["--soft-outbox", "2MiB"],
        &[],
        "",
        "soft-outbox (2097152 bytes) is above max-outbox (1048576 bytes); it must not be",
    );
    // Also where a stronger source would hide it.
    refused(
        &["--shards", "1"],
        &[],
        "shards = 0",
        "pubsub.toml:1: shards = 0: wants 1 to 128",
    );
}

#[test]
fn a_lower_hard_limit_lowers_the_defaults_below_it() {
    let limits = config(&["--max-outbox", "32KiB"], &[], "").limits;
    assert_eq!(
        (limits.outbox_bytes_soft, limits.replies_bytes_max),
        (32 * 1024, 32 * 1024)
    );
    let limits = config(&["--max-outbox", "2MiB"], &[], "").limits;
    assert_eq!(limits.outbox_bytes_soft, 256 * 1024);
}

#[test]
fn protected_mode() {
    for address in [":0", "0.0.0.0:0", "[::]:0", "192.0.2.1:0", "example.com:0"] {
        refused(
            &["--listen", address],
            &[],
            "",
            "or a Unix socket, or allow it with --insecure-open",
        );
        config(&["--listen", address, "--insecure-open"], &[], "");
    }
    for address in ["127.0.0.1:0", "[::1]:0", "localhost:0", "unix:/tmp/x"] {
        config(&["--listen", address], &[], "");
    }
    // Whoever has to show a token need not be kept away.
    let keys = ["--jwt-key-file", "tests/keys/rsa.pub.pem"];
    config(&[&["--listen", ":0"][..], &keys].concat(), &[], "");
    config(&["--listen", ":0", "--jwt-secret", "s"], &[], "");
    refused(
        &["--listen", ":0", "--jwt-issuer", "s"],
        &[],
        "",
        "or a Unix socket, or allow it with --insecure-open",
    );
    // There a key guards what changes anything.
    config(&["--admin", "0.0.0.0:8001"], &[], "");
    assert_eq!(config(&["--admin", "off"], &[], "").admin, None);
}

#[test]
fn listen_replaces_the_tables() {
    let file = r#"
        client_services = true
        [[listener]]
        addr = "127.0.0.1:9000"
        paths = { native = "/live" }
        client_services = false
        [[listener]]
        addr = "unix:/run/servers.sock"
        trust_peer_flag = true
    "#;
    let tables = config(&[], &[], file).listeners;
    assert_eq!(tables.len(), 2);
    assert_eq!(tables[0].native_path.as_deref(), Some("/live"));
    assert!(!tables[0].client_services && tables[1].client_services);

    let env = [("PUBSUB_LISTEN", "127.0.0.1:9000,127.0.0.1:9001")];
    let replaced = config(&[], &env, file).listeners;
    assert_eq!(
        replaced[0], tables[0],
        "an address of a table keeps its settings"
    );
    let fresh = Listener {
        client_services: true,
        ..Listener::new("127.0.0.1:9001".parse().unwrap())
    };
    assert_eq!(replaced[1..], [fresh], "no other address inherits them");
}

#[test]
fn the_default_pair_is_the_same_when_written_out() {
    let pair = ["--listen", "127.0.0.1:8000", "--listen", "[::1]:8000"];
    assert_eq!(config(&pair, &[], ""), Config::default());
    let other = config(&["--listen", "127.0.0.1:0", "--listen", "[::1]:0"], &[], "");
    assert!(other.listeners.iter().all(|listener| !listener.optional));
}

#[test]
fn keys_come_from_files_and_stay_hidden() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    fs::write(&path, "s3cret\nsecond line\n").unwrap();
    let path = path.to_str().unwrap();
    let loaded = config(&["--admin-key-file", path], &[], "admin_key = \"weaker\"");
    assert!(loaded.admin_key.as_ref().unwrap().matches(b"s3cret"));
    assert!(!describe(&loaded).contains("s3cret") && !format!("{loaded:?}").contains("s3cret"));
    // The weaker file is not even opened.
    config(&["--admin-key", "k"], &[], "admin_key_file = \"/nowhere\"");

    refused(
        &["--admin-key", "k", "--admin-key-file", path],
        &[],
        "",
        "the admin key is given as well; one is enough",
    );
    let error = run(&["--admin-key", "not a key"], &[], "").unwrap_err();
    assert!(!error.to_string().contains("not a key"), "{error}");
    fs::write(path, "").unwrap();
    refused(
        &["--admin-key-file", path],
        &[],
        "",
        "its first line is empty",
    );
    fs::remove_file(path).unwrap();
    refused(
        &["--admin-key-file", path],
        &[],
        "",
        "No such file or directory (os error 2)",
    );
}

#[test]
fn keys_of_tokens_are_read_at_the_start_and_stay_hidden() {
    let config = config(
        &["--jwt-secret", "a first secret"],
        &[],
        "jwt_secret_file = \"/nowhere\"",
    );
    let said = describe(&config);
    assert!(said.contains("# jwt_secret is set (hidden)"), "{said}");
    assert!(!said.contains("a first secret") && !format!("{config:?}").contains("a first secret"));
    for (flags, complaint) in [
        (
            &["--jwt-key-file", "/nowhere"][..],
            "jwt-key-file /nowhere: No such file or directory (os error 2)",
        ),
        (
            &["--jwt-key-file", "tests/keys/rsa.key.pem"],
            "to check tokens the public one is enough, and nobody else should have that",
        ),
        (
            &["--jwt-key-file", ".gitignore"],
            "jwt-key-file .gitignore: is neither PEM nor a JWK set",
        ),
        (
            &["--jwt-secret-file", "/nowhere"],
            "jwt-secret-file /nowhere: No such file or directory (os error 2)",
        ),
        (
            &[
                "--jwt-secret",
                "a",
                "--jwt-secret-file",
                "tests/keys/secret",
            ],
            "the jwt secret is given as well; one is enough",
        ),
        (&["--jwt-issuer", ""], "--jwt-issuer : wants a text"),
        (&["--jwt-secret", " "], "--jwt-secret (hidden): is empty"),
    ] {
        refused(flags, &[], "", complaint);
    }
}

#[test]
fn what_will_disappoint_about_tokens_is_a_warning() {
    let warnings = |flags: &[&str], file: &str| run(flags, &[], file).unwrap().warnings;
    let rule = "[[access]]\nfilter = \"a\"\nwho = \"authenticated\"";
    for (flags, file, expected) in [
        (
            &["--jwt-secret", "short"][..],
            "",
            &["fewer than 32 bytes"][..],
        ),
        (&["--jwt-secret-file", "tests/keys/secret"], rule, &[]),
        (&["--jwt-require-exp"], "", &["there is no key"]),
        (
            &["--jwt-audience", "us"],
            rule,
            &["allows nobody", "there is no key"],
        ),
    ] {
        let found = warnings(flags, file);
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{found}");
        }
    }
}

#[test]
fn strange_environment_names_are_warnings() {
    let env = [
        ("PUBSUB_MAX_MESAGE", "1"),
        ("PUBSUB_FAULT", ""),
        ("PUBSUB_URING_WITHOUT", "deferred"),
        ("PUBSUB_SERVICE_HOST", "10.0.0.1"),
        ("PUBSUB_PORT", "tcp://10.0.0.1:8000"),
        ("PUBSUB_PORT_8000_TCP_ADDR", "10.0.0.1"),
        ("PATH", "/bin"),
    ];
    let loaded = run(&[], &env, "").unwrap();
    assert_eq!(loaded.config, Config::default());
    assert_eq!(
        loaded.warnings,
        [
            "the environment variable PUBSUB_MAX_MESAGE is no option; the nearest one is `PUBSUB_MAX_MESSAGE`"
        ]
    );
    let loaded = run(&[], &[("PUBSUB_PORT", "8000")], "").unwrap();
    assert_eq!(loaded.warnings.len(), 1);
}

#[test]
fn a_planted_fault_is_told_and_a_wrong_one_refused() {
    let loaded = run(&[], &[("PUBSUB_FAULT", "panic:frame:1")], "").unwrap();
    assert_eq!(loaded.config.fault.unwrap().to_string(), "panic:frame:1");
    assert!(loaded.warnings[0].contains("PUBSUB_FAULT=panic:frame:1"));
    refused(
        &[],
        &[("PUBSUB_FAULT", "panic:outbox:1")],
        "",
        "wants panic:PLACE:N, PLACE one of handshake, frame, decode, encode, shard and N from 1",
    );
}

#[test]
fn rules_that_nobody_can_satisfy_are_warnings() {
    let file = "[[access]]\nfilter = \"a\"\nwho = \"authenticated\"";
    let loaded = run(&[], &[], file).unwrap();
    assert_eq!(loaded.config.access.len(), 1);
    assert!(loaded.warnings[0].contains("the [[access]] rule for a"));
}

#[test]
fn help_names_every_option_and_default() {
    let help = command().render_long_help().to_string();
    for option in OPTIONS {
        assert!(help.contains(&format!("--{}", option.name)));
    }
    assert!(help.contains("[default: 64KiB]") && help.contains("PUBSUB_DRAIN_DELAY"));
}
