//! Drivers: the same echo and the same fan-out by a raw ring, by tokio-uring, by epoll, and by our own two drivers.
//!
//! The unit is CPU time of the server's thread per delivery, not time that passes: on one machine, the rate depends on
//! what the clients leave over, the price does not. Server and clients are pinned to one CPU each.
//! `docs/internals/drivers.md` has the method, and figures.

use std::cell::RefCell;
use std::env;
use std::time::Duration;

use core_affinity::CoreId;
use criterion::{Criterion, SamplingMode};
use rustix::process::{Resource, getrlimit, setrlimit};

use comparison::Comparison;
use measurement::CpuTime;
use scenario::Scenario;
use server::Engine;

mod client;
mod comparison;
mod epoll;
mod gate;
mod measurement;
mod raw;
mod scenario;
mod seam;
mod server;
mod tokio_ring;
mod turn;

/// Sends that make a sample: some 40 ms. Of each engine, in a run that only tests: enough to see that it works.
const SENDS: usize = 8000;
const SENDS_OF_TEST: usize = 400;
/// Descriptors of a connection: both ends are in this process.
const DESCRIPTORS_PER_CONNECTION: usize = 2;
const DESCRIPTORS_BESIDES: usize = 100;

const SCENARIOS: [Scenario; 8] = [
    echo(1),
    echo(16),
    fan_out(100, 1),
    fan_out(100, 16),
    fan_out(100, 64),
    fan_out(1000, 1),
    fan_out(1000, 16),
    fan_out(1000, 64),
];

const fn echo(burst: usize) -> Scenario {
    Scenario::Echo {
        connections: 100,
        burst,
    }
}

const fn fan_out(subscribers: usize, window: usize) -> Scenario {
    Scenario::FanOut {
        subscribers,
        window,
    }
}

fn main() {
    let (server_cpu, client_cpu) = cpus();
    let cpu_time = CpuTime::of_servers_on(server_cpu.map_or(0, |cpu| cpu.id));
    let mut criterion = Criterion::default()
        .with_measurement(cpu_time.clone())
        .sample_size(20)
        .configure_from_args();
    let engines = Engine::available();
    if let Some(cpu) = client_cpu {
        core_affinity::set_for_current(cpu);
    }
    let descriptors = descriptors();
    for scenario in SCENARIOS {
        let connections = scenario.connections() * engines.len();
        if connections * DESCRIPTORS_PER_CONNECTION + DESCRIPTORS_BESIDES > descriptors {
            eprintln!("skipped: {scenario}: {descriptors} descriptors are too few");
            continue;
        }
        compare(&mut criterion, &engines, scenario, server_cpu, &cpu_time);
    }
    criterion.final_summary();
}

fn compare(
    criterion: &mut Criterion<CpuTime>,
    engines: &[Engine],
    scenario: Scenario,
    cpu: Option<CoreId>,
    cpu_time: &CpuTime,
) {
    let sends = if is_measuring() { SENDS } else { SENDS_OF_TEST };
    // Started for the first sample that is asked for: a filter may leave the scenario out.
    let comparison = RefCell::new(None);
    let sample = |engine| {
        let start = || Comparison::start(engines, scenario, sends, cpu, cpu_time.clone());
        let mut comparison = comparison.borrow_mut();
        comparison.get_or_insert_with(start).sample(engine)
    };
    let mut group = criterion.benchmark_group(format!("drivers/{scenario}"));
    // How long a sample takes is settled above; criterion only asks how many there are to be. It takes the first one
    // for warming up.
    group
        .sampling_mode(SamplingMode::Flat)
        .warm_up_time(Duration::from_nanos(1))
        .measurement_time(Duration::from_secs(60));
    for &engine in engines {
        group.bench_function(engine.name(), |bencher| {
            bencher.iter_custom(|count| sample(engine) * count as f64);
        });
    }
    group.finish();
    if let Some(comparison) = comparison.take() {
        comparison.end();
    }
}

/// `cargo bench` says so; `cargo test --benches` does not, and criterion then asks for one sample each.
fn is_measuring() -> bool {
    let has = |flag: &str| env::args().any(|argument| argument == flag);
    has("--bench") && !has("--test")
}

/// One for the server, one for the clients.
fn cpus() -> (Option<CoreId>, Option<CoreId>) {
    let cpus = core_affinity::get_core_ids().unwrap_or_default();
    match cpus.as_slice() {
        [server, clients, ..] => (Some(*server), Some(*clients)),
        _ => {
            eprintln!("beware: one CPU for server and clients; nothing is pinned");
            (None, None)
        }
    }
}

/// How many descriptors this process may have, after asking for as many as it may ask for.
fn descriptors() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
    let current = getrlimit(Resource::Nofile).current;
    current.map_or(usize::MAX, |current| current as usize)
}
