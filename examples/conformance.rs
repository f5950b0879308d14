//! The broker for conformance suites: the same program as `pubsub`, and on its client listeners what public suites
//! want to speak to, WebSocket echo on `/echo` (messages up to 64 MiB; the outbox holds two).
//!
//! `cargo run --release --example conformance -- --listen 127.0.0.1:0`, with the flags and the ready line of `pubsub`.

use std::process::ExitCode;

use pubsub::config;
use pubsub::limits::ECHO_OUTBOX_BYTES_MAX;
use pubsub::serve::serve;
use pubsub::shard::settings::Settings;

fn main() -> ExitCode {
    let matches = config::command().name("conformance").get_matches();
    serve(&matches, prepare)
}

fn prepare(settings: &mut Settings) {
    for listener in &mut settings.listeners {
        listener.echo_path = Some("/echo".to_owned());
    }
    // On a small machine the bound of all outboxes together would end a single echo.
    let outboxes = settings.shards * 2 * ECHO_OUTBOX_BYTES_MAX;
    let limits = &mut settings.limits;
    limits.outbox_total_bytes_max = limits.outbox_total_bytes_max.max(outboxes);
}
