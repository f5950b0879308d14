//! The load generator behind `pubsub bench`: it loads a broker, counts every delivery, and says what one cost.
//!
//! It is a client from the outside and knows nothing of the broker's code, so it can drive others as well: the same
//! scenarios run over native JSON, over any server that relays WebSocket frames, over Redis and over NATS, with
//! texts of the same length (`dialect`).
//!
//! The way of a run: `options` are read into a `plan`, whose `topology` says who publishes where and who
//! listens; `connect` opens the connections; `worker`s, each an epoll loop on a thread of its own, publish and
//! check; `run` tells them when, and measures; `report` says what came out.
//!
//! What holds in all of it: nothing is measured that was not checked. Each publication carries a `stamp` with its
//! number, and each subscriber's `ledger` knows what it should hear next.

mod connect;
mod cpus;
mod dialect;
mod frame;
mod ledger;
mod options;
mod plan;
mod report;
mod run;
mod schedule;
mod shared;
mod stamp;
mod target;
mod topology;
mod usage;
mod worker;

use std::process::ExitCode;

use clap::{ArgMatches, Args, Command, FromArgMatches};

use options::Options;
use plan::Plan;

/// Bad usage, as everywhere in `pubsub`.
const EXIT_USAGE: u8 = 2;
/// Deliveries were lost, doubled or out of order, or the run could not be done.
const EXIT_WRONG: u8 = 1;

/// The command line of `pubsub bench`.
pub fn command() -> Command {
    // Last: the derived arguments bring a description of their own.
    Options::augment_args(Command::new("bench"))
        .about("Load a broker, check every delivery, and say what one costs")
        .long_about(options::LONG_ABOUT)
        .after_help(options::EXAMPLES)
}

/// Does what the command line asks, and prints what came out. 0 if all was right, 1 if a delivery was wrong or the
/// run could not be done, 2 for bad usage.
pub fn run(matches: &ArgMatches) -> ExitCode {
    let options = match Options::from_arg_matches(matches) {
        Ok(options) => options,
        Err(error) => error.exit(),
    };
    let plan = match Plan::new(&options) {
        Ok(plan) => plan,
        Err(reason) => {
            eprintln!("pubsub bench: {reason}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let report = match run::run(&plan) {
        Ok(report) => report,
        Err(reason) => {
            eprintln!("pubsub bench: {reason}");
            return ExitCode::from(EXIT_WRONG);
        }
    };
    if let Err(error) = report.print(options.json.as_deref()) {
        eprintln!("pubsub bench: cannot write the report: {error}");
        return ExitCode::from(EXIT_WRONG);
    }
    if report.is_right() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_WRONG)
    }
}
