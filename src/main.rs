//! The `pubsub` binary: command line, log, signals, exit codes. Everything else is the library's.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Arg, ArgMatches, Command};
use crossbeam_channel::{Receiver, after, bounded, select};
use signal_hook::consts::{SIGINT, SIGTERM};

use pubsub::admin::{self, AdminState, BrokerInfo, Key, Phase, Readiness};
use pubsub::broker::{Broker, StartError};
use pubsub::client;
use pubsub::config::{self, Config, LogFormat};

/// A broker allocates many small things on each shard's thread and frees some on others: mimalloc keeps a heap per
/// thread and takes frees from elsewhere without a lock. Only the binary decides this; a library does not choose
/// the allocator of its host.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Bad usage or configuration.
const EXIT_USAGE: u8 = 2;
/// The broker failed.
const EXIT_INTERNAL: u8 = 70;

const URL: &str = "ws://127.0.0.1:8000/";

fn main() -> ExitCode {
    // clap prints help and version with 0, and bad usage with 2, as our contract has it.
    let matches = command().get_matches();
    match matches.subcommand() {
        None => serve(&matches),
        Some(("serve", matches)) => serve(matches),
        Some(("check-config", matches)) => check_config(matches),
        Some(("default-config", _)) => print(&config::default_config()),
        Some(("pub", matches)) => publish(matches),
        Some(("sub", matches)) => subscribe(matches),
        Some(("bench", matches)) => pubsub_load::run(matches),
        Some((other, _)) => unreachable!("clap knows no subcommand {other}"),
    }
}

fn command() -> Command {
    let url = || {
        Arg::new("url")
            .long("url")
            .value_name("URL")
            .default_value(URL)
            .help("The broker: ws://host:port/ or unix:/path")
    };
    config::command()
        .args_conflicts_with_subcommands(true)
        .subcommand(
            Command::new("serve")
                .about("Run the broker (what pubsub does without a command)")
                .args(config::arguments()),
        )
        .subcommand(
            Command::new("check-config")
                .about("Say what a broker would do with these options, and do nothing")
                .args(config::arguments()),
        )
        .subcommand(
            Command::new("default-config").about("Print a configuration file with every default"),
        )
        .subcommand(
            Command::new("pub")
                .about("Publish one message and wait for its ack")
                .arg(url())
                .arg(Arg::new("topic").value_name("TOPIC").required(true))
                .arg(
                    Arg::new("message")
                        .value_name("MESSAGE")
                        .required(true)
                        .allow_hyphen_values(true)
                        .help("JSON if it parses, else a string"),
                ),
        )
        .subcommand(
            Command::new("sub")
                .about("Print what is published: a line per message, topic, tab, JSON")
                .arg(url())
                .arg(
                    Arg::new("topic")
                        .value_name("TOPIC")
                        .required(true)
                        .num_args(1..),
                ),
        )
        .subcommand(pubsub_load::command())
}

/// Says why, on standard error, and which exit code that is.
fn fail(code: u8, reason: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("pubsub: {reason}");
    ExitCode::from(code)
}

fn print(text: &str) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read it has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => fail(EXIT_INTERNAL, &error),
    }
}

fn check_config(matches: &ArgMatches) -> ExitCode {
    match config::load(matches, config::environment()) {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                eprintln!("pubsub: warning: {warning}");
            }
            print(&config::describe(&loaded.config))
        }
        Err(error) => fail(EXIT_USAGE, &error),
    }
}

fn publish(matches: &ArgMatches) -> ExitCode {
    let text = |name: &str| matches.get_one::<String>(name).expect("clap requires it");
    match client::publish(text("url"), text("topic"), text("message")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, &error),
    }
}

fn subscribe(matches: &ArgMatches) -> ExitCode {
    let url = matches.get_one::<String>("url").expect("it has a default");
    let topics: Vec<String> = matches
        .get_many("topic")
        .expect("clap requires it")
        .cloned()
        .collect();
    match client::subscribe(url, &topics, &mut io::stdout().lock(), &mut io::stderr()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, &error),
    }
}

fn serve(matches: &ArgMatches) -> ExitCode {
    let loaded = match config::load(matches, config::environment()) {
        Ok(loaded) => loaded,
        Err(error) => return fail(EXIT_USAGE, &error),
    };
    start_log(&loaded.config);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    match run(&loaded.config) {
        Ok(code) => code,
        Err(StartError::Usage(reason)) => fail(EXIT_USAGE, &reason),
        Err(StartError::Internal(error)) => fail(EXIT_INTERNAL, &error),
    }
}

fn start_log(config: &Config) {
    let log = tracing_subscriber::fmt()
        .with_max_level(tracing::level_filters::LevelFilter::from(config.log))
        .with_writer(io::stderr)
        .with_ansi(false);
    match config.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

fn run(config: &Config) -> Result<ExitCode, StartError> {
    // Before anything is announced, so that a signal that follows the ready line is heard.
    let signals = signals()?;
    let mut broker = Broker::start(config)?;
    tracing::info!("{}", broker.pinning);
    tracing::info!("driver: {}", broker.driver);
    let ready = Arc::new(Readiness::default());
    let admin = match broker.admin.take() {
        None => None,
        Some(listener) => Some(admin::start(
            listener,
            AdminState {
                shards: broker.shards(),
                ready: ready.clone(),
                key: config.admin_key.as_ref().map(|key| Key::new(key.reveal())),
                loopback: config.admin.as_ref().is_some_and(|at| at.is_loopback()),
                message_bytes_max: config.limits.message_bytes_max,
                info: BrokerInfo {
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    driver: broker.driver.clone(),
                    pinning: broker.pinning.clone(),
                },
            },
        )?),
    };
    ready.set(Phase::Ready);
    let mut line = "pubsub ready".to_owned();
    for bound in &broker.listening {
        line += &format!(" listen={bound}");
    }
    if let Some(admin) = &admin {
        line += &format!(" admin={}", admin.address());
    }
    line.push('\n');
    // Nobody may be there to read it; that is no reason not to serve.
    let _ = io::stdout()
        .write_all(line.as_bytes())
        .and_then(|()| io::stdout().flush());
    let code = attend(config, &broker, &signals, &ready);
    if code == ExitCode::SUCCESS {
        broker.stop();
    }
    Ok(code)
}

/// Waits for a signal, or for a shard that fails; drains.
fn attend(
    config: &Config,
    broker: &Broker,
    signals: &Receiver<i32>,
    ready: &Readiness,
) -> ExitCode {
    let failed = |failure: &pubsub::broker::Failure| {
        fail(
            EXIT_INTERNAL,
            &format_args!("shard {} has ended: {}", failure.shard, failure.reason),
        )
    };
    select! {
        recv(broker.failures()) -> failure => return failure.map_or(ExitCode::from(EXIT_INTERNAL), |f| failed(&f)),
        recv(signals) -> _ => {}
    }
    ready.set(Phase::Draining);
    let drain = Duration::from_millis(config.drain_ms);
    let delay = Duration::from_millis(config.drain_delay_ms);
    tracing::info!(?delay, spread = ?drain, "draining; a second signal ends at once");
    select! {
        recv(broker.failures()) -> failure => return failure.map_or(ExitCode::from(EXIT_INTERNAL), |f| failed(&f)),
        recv(signals) -> _ => return ExitCode::SUCCESS,
        recv(after(delay)) -> _ => {}
    }
    let started = Instant::now();
    let is_second = std::cell::Cell::new(false);
    broker.drain(drain, &|_| {
        is_second.set(is_second.get() || signals.try_recv().is_ok());
        is_second.get()
    });
    tracing::info!(took = ?started.elapsed(), "drained");
    ExitCode::SUCCESS
}

/// SIGTERM and SIGINT as values.
fn signals() -> io::Result<Receiver<i32>> {
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT])?;
    let (sender, receiver) = bounded(8);
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for signal in signals.forever() {
                let _ = sender.try_send(signal);
            }
        })?;
    Ok(receiver)
}
