//! The broker as a program: configuration, log, ready line, signals, exit codes (DESIGN 5.1).
//!
//! The `pubsub` binary is this and a command line; so is `examples/conformance`, so that what a conformance suite
//! tests is what runs. A host that embeds the broker has a log and signals of its own: it uses
//! [`broker`](crate::broker).

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fs;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::ArgMatches;
use crossbeam_channel::{Receiver, after, bounded, select};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::admin::{Phase, Readiness};
use crate::broker::{Broker, Failure, StartError};
use crate::config::{self, Config, LogFormat};
use crate::shard::settings::Settings;

/// Bad usage or configuration.
pub const EXIT_USAGE: u8 = 2;
/// The broker failed.
pub const EXIT_INTERNAL: u8 = 70;

/// Runs a broker with these options (those of [`config::arguments`]) until a signal or a failure ends it.
/// `prepare` may change the settings of the shards before they start: it is the way to what no option reaches.
pub fn serve(matches: &ArgMatches, prepare: impl FnOnce(&mut Settings)) -> ExitCode {
    let loaded = match config::load(matches, config::environment()) {
        Ok(loaded) => loaded,
        Err(error) => return fail(EXIT_USAGE, &error),
    };
    start_log(&loaded.config);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    log_panics();
    match run(&loaded.config, prepare) {
        Ok(code) => code,
        Err(StartError::Usage(reason)) => fail(EXIT_USAGE, &reason),
        Err(StartError::Internal(error)) => fail(EXIT_INTERNAL, &error),
    }
}

/// Says why, on standard error, and which exit code that is.
pub fn fail(code: u8, reason: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("pubsub: {reason}");
    ExitCode::from(code)
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

/// Panics go to the log, one event each: a contained one is an incident of one connection, and its trace on
/// standard error would tear the log's lines. With `RUST_BACKTRACE` set the trace is part of the event.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let text = panic.payload_as_str().unwrap_or("without words");
        let at = panic.location().map(ToString::to_string);
        let trace = Backtrace::capture();
        let trace = (trace.status() == BacktraceStatus::Captured).then(|| trace.to_string());
        tracing::error!(thread = thread.name(), at, trace, "panic: {text}");
    }));
}

fn run(config: &Config, prepare: impl FnOnce(&mut Settings)) -> Result<ExitCode, StartError> {
    // Before anything is announced, so that a signal that follows the ready line is heard.
    let signals = signals()?;
    let mut broker = Broker::start_prepared(config, prepare)?;
    tracing::info!("{}", broker.pinning);
    tracing::info!("driver: {}", broker.driver);
    let ready = Arc::new(Readiness::default());
    let admin = broker.serve_admin(config, &ready)?;
    ready.set(Phase::Ready);
    let mut line = "pubsub ready".to_owned();
    for bound in &broker.listening {
        line += &format!(" listen={bound}");
    }
    if let Some(admin) = &admin {
        line += &format!(" admin={}", admin.address());
    }
    for bound in &broker.resp {
        line += &format!(" resp={bound}");
    }
    for bound in &broker.peers {
        line += &format!(" peers={bound}");
    }
    line.push('\n');
    // Nobody may be there to read it; that is no reason not to serve.
    let _ = io::stdout()
        .write_all(line.as_bytes())
        .and_then(|()| io::stdout().flush());
    let code = attend(config, &broker, &signals, &ready);
    if code == ExitCode::SUCCESS {
        broker.stop();
    } else {
        // Nothing of a broker that lost a shard is worth waiting for.
        std::mem::forget(admin);
    }
    Ok(code)
}

/// Waits for a signal, or for a shard that fails; drains. SIGHUP is no reason to end: what is in files is read again.
fn attend(
    config: &Config,
    broker: &Broker,
    signals: &Receiver<i32>,
    ready: &Readiness,
) -> ExitCode {
    let failed = |failure: &Failure| {
        fail(
            EXIT_INTERNAL,
            &format_args!("shard {} has ended: {}", failure.shard, failure.reason),
        )
    };
    loop {
        select! {
            recv(broker.failures()) -> failure => return failure.map_or(ExitCode::from(EXIT_INTERNAL), |f| failed(&f)),
            recv(signals) -> signal => match signal {
                Ok(SIGHUP) => reload(config, broker),
                _ => break,
            }
        }
    }
    ready.set(Phase::Draining);
    let drain = Duration::from_millis(config.drain_ms);
    let delay = Duration::from_millis(config.drain_delay_ms);
    tracing::info!(?delay, spread = ?drain, "draining; a second signal ends at once");
    let delayed = after(delay);
    loop {
        select! {
            recv(broker.failures()) -> failure => return failure.map_or(ExitCode::from(EXIT_INTERNAL), |f| failed(&f)),
            recv(signals) -> signal => match signal {
                Ok(SIGHUP) => reload(config, broker),
                _ => return ExitCode::SUCCESS,
            },
            recv(delayed) -> _ => break,
        }
    }
    let started = Instant::now();
    let is_second = std::cell::Cell::new(false);
    broker.drain(drain, &|_| {
        let is_end = signals.try_iter().any(|signal| signal != SIGHUP);
        is_second.set(is_second.get() || is_end);
        is_second.get() || !broker.failures().is_empty()
    });
    if let Ok(failure) = broker.failures().try_recv() {
        return failed(&failure);
    }
    tracing::info!(took = ?started.elapsed(), "drained");
    ExitCode::SUCCESS
}

/// Reads the files of keys again, and tells the shards. What can't be read changes nothing.
fn reload(config: &Config, broker: &Broker) {
    if !config.has_authentication() && config.resp_password.is_none() && config.peer_key.is_none() {
        tracing::info!("SIGHUP: no keys are configured, so there is nothing to read again");
        return;
    }
    match config.credentials(&|path| fs::read_to_string(path)) {
        Ok(credentials) => {
            let keys = credentials.keys.len();
            if broker.reload(&Arc::new(credentials)) {
                tracing::info!(keys, "SIGHUP: the keys were read again");
            } else {
                tracing::error!(keys, "SIGHUP: a shard did not take the new keys");
            }
        }
        Err(error) => tracing::error!(%error, "SIGHUP: the keys stay as they were"),
    }
}

/// SIGTERM, SIGINT and SIGHUP as values.
fn signals() -> io::Result<Receiver<i32>> {
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP])?;
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
