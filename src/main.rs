//! The `pubsub` binary: its command line and its allocator. Everything else is the library's.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};

use pubsub::serve::{EXIT_INTERNAL, EXIT_USAGE, fail, serve};
use pubsub::{client, config};

/// A broker allocates many small things on each shard's thread and frees some on others: mimalloc keeps a heap per
/// thread and takes frees from elsewhere without a lock. Only the binary decides this; a library does not choose
/// the allocator of its host.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const URL: &str = "ws://127.0.0.1:8000/";

fn main() -> ExitCode {
    use_small_pages();
    // clap prints help and version with 0, and bad usage with 2, as our contract has it.
    let matches = command().get_matches();
    match matches.subcommand() {
        None => serve(&matches, |_| {}),
        Some(("serve", matches)) => serve(matches, |_| {}),
        Some(("check-config", matches)) => check_config(matches),
        Some(("default-config", _)) => print(&config::default_config()),
        Some(("pub", matches)) => publish(matches),
        Some(("sub", matches)) => subscribe(matches),
        Some(("bench", matches)) => pubsub_load::run(matches),
        Some((other, _)) => unreachable!("clap knows no subcommand {other}"),
    }
}

/// Huge pages off, for this process. The allocator asks for them, and then a broker that uses 3 MiB has 16 resident,
/// and each burst rounds up to 2 MiB wherever it touches memory. Ten thousand idle connections are what memory is
/// promised for (10 000 in 40 MiB), and 1.28 million deliveries to 200 subscribers took the same CPU time with and
/// without (390 and 400 ms). A library leaves this to its host.
fn use_small_pages() {
    // A kernel without them has nothing to turn off.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
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
