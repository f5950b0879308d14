//! The floor: the least that a relay has to pay for a delivery, as a program to be measured beside the broker.
//!
//! It speaks `plain` (docs/benchmarking.md) and can do nothing else: exact topics, no acks, no limits worth the name,
//! no protection against a slow subscriber but a bound on what is kept for it. One thread, one epoll, one receive
//! buffer; frames are unmasked where they arrived, and get their new header in the place of the masking key.
//!
//! `joined` reads all that is readable, then sends each subscriber what the round brought in one `send(2)`. `plain`
//! sends each delivery at once, by itself. A broker that is cheaper than `plain` joins; one that is as cheap as
//! `joined` has nothing left to pay for but the kernel.

mod frame;
mod line;
mod relay;
mod topic;
mod upgrade;

use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use relay::Relay;

/// Relays WebSocket text frames to the subscribers of their topic, as cheaply as it can be done by hand.
#[derive(Parser)]
struct Options {
    /// When deliveries are sent
    #[arg(long, value_enum)]
    mode: Mode,
    /// Where clients connect; port 0 takes any free one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

/// When deliveries are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Mode {
    /// All of a round in one send for each subscriber
    Joined,
    /// One send for each delivery, at once
    Plain,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match serve(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("floor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(options: &Options) -> std::io::Result<()> {
    let listener = TcpListener::bind(options.listen)?;
    println!("listening on {}", listener.local_addr()?);
    Relay::new(listener, options.mode)?.run()
}
