//! What a process costs: its CPU time and its memory, as `/proc` tells them.
//!
//! A broker's `send` on loopback runs the receiving side as well, in a softirq. Most of that is charged to the broker,
//! but under load the kernel hands some of it to `ksoftirqd`, which would be missing from the broker's bill; so the
//! time of the `ksoftirqd` of the broker's CPU can be counted with it.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

/// Whose time is counted.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    pids: Vec<u32>,
    /// Of the CPUs that the broker runs on.
    softirqs: Vec<(usize, u32)>,
}

/// CPU times since each thread began.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    /// By thread, of the processes.
    threads: HashMap<u32, Duration>,
    /// By CPU.
    softirqs: HashMap<usize, Duration>,
}

/// CPU time between two moments.
#[derive(Clone, Debug, Default)]
pub struct Spent {
    /// Of all threads of the processes.
    pub processes: Duration,
    /// Of their busiest thread.
    pub busiest: Duration,
    /// Of `ksoftirqd` on the broker's CPUs.
    pub softirqs: Duration,
}

impl Meter {
    /// For these processes, and the `ksoftirqd` of these CPUs.
    ///
    /// # Errors
    /// There is no such process, or no such `ksoftirqd` in sight (in a container there often is none).
    pub fn new(pids: &[u32], cpus: &[usize]) -> Result<Meter, String> {
        for pid in pids {
            threads(*pid).map_err(|error| format!("no process {pid}: {error}"))?;
        }
        let softirqs = cpus.iter().map(|&cpu| {
            let found = find_process(&format!("ksoftirqd/{cpu}"));
            found
                .map(|pid| (cpu, pid))
                .ok_or_else(|| format!("no ksoftirqd/{cpu} in /proc (leave --core out?)"))
        });
        Ok(Meter {
            softirqs: softirqs.collect::<Result<_, _>>()?,
            pids: pids.to_vec(),
        })
    }

    /// Is there anything to count?
    pub fn is_empty(&self) -> bool {
        self.pids.is_empty()
    }

    /// Now. A process that has ended counts nothing.
    pub fn read(&self) -> Usage {
        let mut usage = Usage::default();
        for pid in &self.pids {
            for thread in threads(*pid).unwrap_or_default() {
                let path = format!("/proc/{pid}/task/{thread}/schedstat");
                usage.threads.insert(thread, on_cpu(&path));
            }
        }
        for (cpu, pid) in &self.softirqs {
            let path = format!("/proc/{pid}/schedstat");
            usage.softirqs.insert(*cpu, on_cpu(&path));
        }
        usage
    }

    /// Resident memory of the processes, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        self.pids
            .iter()
            .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/status")).ok())
            .filter_map(|status| resident(&status))
            .sum()
    }
}

impl Usage {
    /// What was spent since an earlier moment. A thread that ended meanwhile is not counted, one that began is.
    pub fn since(&self, earlier: &Usage) -> Spent {
        let mut spent = Spent::default();
        for (thread, now) in &self.threads {
            let before = earlier.threads.get(thread).copied().unwrap_or_default();
            let here = now.saturating_sub(before);
            spent.processes += here;
            spent.busiest = spent.busiest.max(here);
        }
        for (cpu, now) in &self.softirqs {
            let before = earlier.softirqs.get(cpu).copied().unwrap_or_default();
            spent.softirqs += now.saturating_sub(before);
        }
        spent
    }
}

/// CPU time of one thread of this process.
pub fn of_own_thread(thread: u32) -> Duration {
    on_cpu(&format!("/proc/self/task/{thread}/schedstat"))
}

fn threads(pid: u32) -> std::io::Result<Vec<u32>> {
    let entries = fs::read_dir(format!("/proc/{pid}/task"))?;
    Ok(entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect())
}

fn find_process(name: &str) -> Option<u32> {
    let mut pids = fs::read_dir("/proc").ok()?;
    pids.find_map(|entry| {
        let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        (comm.trim_end() == name).then_some(pid)
    })
}

/// The first number of a `schedstat`: nanoseconds on a CPU (Documentation/scheduler/sched-stats.rst).
fn on_cpu(path: &str) -> Duration {
    let text = fs::read_to_string(path).unwrap_or_default();
    let ns = text
        .split_whitespace()
        .next()
        .and_then(|ns| ns.parse().ok());
    Duration::from_nanos(ns.unwrap_or(0))
}

fn resident(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_is_measured() {
        let meter = Meter::new(&[std::process::id()], &[]).unwrap();
        let before = meter.read();
        let mut sum = 0u64;
        let spent = loop {
            for n in 0..100_000u64 {
                sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(n));
            }
            let spent = meter.read().since(&before);
            if spent.processes > Duration::from_millis(5) {
                break spent;
            }
        };
        assert!(spent.busiest <= spent.processes && spent.busiest > Duration::ZERO);
        assert_eq!(spent.softirqs, Duration::ZERO);
        assert!(meter.resident_bytes() > 100_000);
    }

    #[test]
    fn differences_count_threads_that_began_and_not_those_that_ended() {
        let usage = |times: &[(u32, u64)]| Usage {
            threads: times
                .iter()
                .map(|&(thread, ms)| (thread, Duration::from_millis(ms)))
                .collect(),
            softirqs: HashMap::new(),
        };
        let spent = usage(&[(1, 50), (3, 7)]).since(&usage(&[(1, 40), (2, 9)]));
        assert_eq!(spent.processes, Duration::from_millis(17));
        assert_eq!(spent.busiest, Duration::from_millis(10));
    }

    #[test]
    fn nobody_is_refused() {
        assert!(Meter::new(&[u32::MAX], &[]).is_err());
        assert!(Meter::new(&[], &[1_000_000]).is_err());
        assert!(Meter::new(&[], &[]).unwrap().is_empty());
    }

    #[test]
    fn status_is_read() {
        assert_eq!(
            resident("Name:\tx\nVmRSS:\t    1234 kB\nVmX: 1\n"),
            Some(1234 * 1024)
        );
        assert_eq!(resident("Name:\tkthreadd\n"), None);
    }
}
