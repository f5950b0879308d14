//! What is measured: CPU time of the server's thread and of the `ksoftirqd` of its core.
//!
//! On loopback a send also runs the receiver's half of TCP, mostly at the sender's expense; but of large batches some
//! is left to `ksoftirqd`. Without that, an engine that sends in large batches would look cheaper than it is.

use std::cell::Cell;
use std::fs;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use criterion::Throughput;
use criterion::measurement::{Measurement, ValueFormatter};

/// How long a server may go on working when all its messages have arrived.
const PATIENCE: Duration = Duration::from_secs(10);

/// CPU time of the server that is watched, in nanoseconds.
#[derive(Clone)]
pub struct CpuTime {
    /// The thread's number, 0 for nobody.
    server: Rc<Cell<u32>>,
    /// The process number of `ksoftirqd`.
    softirqs: Option<u32>,
}

impl CpuTime {
    /// For servers on this CPU.
    pub fn of_servers_on(cpu: usize) -> CpuTime {
        let softirqs = find_process(&format!("ksoftirqd/{cpu}"));
        if softirqs.is_none() {
            eprintln!(
                "beware: no ksoftirqd/{cpu} in sight; what it does for the server is not counted"
            );
        }
        CpuTime {
            server: Rc::new(Cell::new(0)),
            softirqs,
        }
    }

    /// From now on it is about this thread.
    pub fn watch(&self, server: u32) {
        self.server.set(server);
    }

    fn read(&self) -> f64 {
        let server = self.server.get();
        if server == 0 {
            return 0.0;
        }
        await_rest(server);
        let softirqs = self
            .softirqs
            .map_or(0, |pid| on_cpu_ns(&format!("/proc/{pid}/schedstat")));
        (on_cpu_ns(&format!("/proc/self/task/{server}/schedstat")) + softirqs) as f64
    }
}

impl Measurement for CpuTime {
    type Intermediate = f64;
    type Value = f64;

    fn start(&self) -> f64 {
        self.read()
    }

    fn end(&self, start: f64) -> f64 {
        self.read() - start
    }

    fn add(&self, one: &f64, other: &f64) -> f64 {
        one + other
    }

    fn zero(&self) -> f64 {
        0.0
    }

    fn to_f64(&self, value: &f64) -> f64 {
        *value
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        &Nanoseconds
    }
}

/// Always nanoseconds, so that columns can be compared at a glance.
struct Nanoseconds;

impl ValueFormatter for Nanoseconds {
    fn format_value(&self, value: f64) -> String {
        format!("{value:.0} ns CPU")
    }

    fn scale_values(&self, _: f64, _: &mut [f64]) -> &'static str {
        "ns CPU"
    }

    fn scale_throughputs(
        &self,
        _: f64,
        throughput: &Throughput,
        values: &mut [f64],
    ) -> &'static str {
        let (Throughput::Elements(count) | Throughput::Bytes(count)) = throughput else {
            return "ns CPU";
        };
        for value in values {
            *value = *count as f64 * 1e9 / *value;
        }
        "per CPU second"
    }

    fn scale_for_machines(&self, _: &mut [f64]) -> &'static str {
        "ns"
    }
}

/// Waits until a thread sleeps: the kernel brings the time of one that runs up to date by ticks only, and the end of
/// the last round belongs to it as well.
fn await_rest(thread: u32) {
    let begun = Instant::now();
    let is_resting = || {
        let stat = fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap_or_default();
        // The name before it may contain anything.
        stat.rsplit(") ")
            .next()
            .is_some_and(|rest| rest.starts_with(['S', 'D']))
    };
    while !is_resting() {
        assert!(
            begun.elapsed() < PATIENCE,
            "the server comes to no rest, or is gone"
        );
        thread::yield_now();
    }
}

/// The first number of a `schedstat`: nanoseconds on a CPU (Documentation/scheduler/sched-stats.rst).
fn on_cpu_ns(path: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let first = text.split_whitespace().next();
    first
        .and_then(|ns| ns.parse().ok())
        .unwrap_or_else(|| panic!("{path} has no times"))
}

fn find_process(name: &str) -> Option<u32> {
    fs::read_dir("/proc").ok()?.find_map(|entry| {
        let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        (comm.trim_end() == name).then_some(pid)
    })
}
