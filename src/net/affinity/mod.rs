//! What this process may use of the machine, and which CPU each shard runs on (DESIGN decision 2).
//!
//! CPU lists are written as `taskset` and cpusets write them: `0,2-5`.
//!
//! [`Facts::read`] asks the kernel: the affinity mask of the calling thread, the CPU quota and the memory limit of
//! the own cgroup and of all above it. [`plan`] decides, and is pure. Both versions of cgroups are read, through
//! `/proc/self/mountinfo`, because a container sees its cgroup at another path than the host does.
//!
//! Invariant: a plan pins to CPUs of the mask only, and without being told to it pins only if every CPU of the mask
//! gets a shard: else two brokers on one machine, or every container of it, would sit on CPU 0.

mod cgroup;

use std::fs;
use std::path::Path;

use self::cgroup::Cgroups;
use crate::address::SHARDS_MAX;

/// The CPUs that an affinity mask has room for (`CPU_SETSIZE`).
pub const CPUS_MAX: usize = 1024;

/// What the kernel allows this process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// The CPUs of the affinity mask, rising; never empty.
    pub cpus: Vec<usize>,
    /// The CPU quota in thousandths of a CPU, if there is one.
    pub quota_milli: Option<u64>,
    /// The memory limit of the cgroup or, if it is smaller or there is none, the memory of the machine.
    pub memory_bytes: Option<u64>,
}

impl Facts {
    /// Asks the kernel. To be called before any shard is pinned: a thread inherits the mask of its creator.
    pub fn read() -> Facts {
        let cgroups = Cgroups::of_this_process();
        Facts {
            cpus: allowed_cpus(),
            quota_milli: cgroups.quota_milli(&read_text),
            memory_bytes: memory(&cgroups),
        }
    }
}

/// The memory that this process may use, for the bound on all outboxes together (promise 8).
pub fn memory_bytes() -> Option<u64> {
    memory(&Cgroups::of_this_process())
}

/// How many shards there are, and where they run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// For each shard the CPU to pin it to.
    pub shards: Vec<Option<usize>>,
    /// The decision and its reason, for one line of the log.
    pub reason: String,
}

/// Decides about shards and CPUs.
///
/// As many shards as `--shards` says, else one per CPU of `--cores`, else one per CPU of the mask or, if that is
/// less, of the quota, rounded up; embedded in another program one, unless told. Pinned in turn to the CPUs of
/// `--cores`; without it, and not embedded, to the CPUs of the mask if no quota is smaller than it and there is a
/// shard for each.
///
/// # Errors
/// A CPU of `cores` is outside the mask, or `cores` is empty; a sentence for the operator.
pub fn plan(
    shards: Option<usize>,
    cores: Option<&[usize]>,
    embedded: bool,
    facts: &Facts,
) -> Result<Plan, String> {
    let cpus = &facts.cpus;
    if let Some(cores) = cores {
        if cores.is_empty() {
            return Err("cores: the list is empty".to_owned());
        }
        if let Some(core) = cores.iter().find(|core| !cpus.contains(core)) {
            return Err(format!(
                "cores: CPU {core} is not among those that this process may use: {}",
                write_cpus(cpus)
            ));
        }
    }
    let quota_cpus = facts
        .quota_milli
        .map(|milli| usize::try_from(milli.div_ceil(1000).max(1)).unwrap_or(usize::MAX));
    let mask_and_quota = quota_cpus.unwrap_or(usize::MAX).min(cpus.len());
    let count = match (shards, cores) {
        (Some(shards), _) => shards,
        (None, Some(cores)) => cores.len(),
        (None, None) if embedded => 1,
        (None, None) => mask_and_quota,
    }
    .clamp(1, SHARDS_MAX);

    let short_quota = facts
        .quota_milli
        .filter(|milli| *milli < cpus.len() as u64 * 1000);
    let (pinned_to, why) = match (cores, short_quota) {
        (Some(cores), _) => (Some(cores), format!("pinned to CPUs {}", write_cpus(cores))),
        (None, _) if embedded => (None, "not pinned: embedded".to_owned()),
        (None, Some(milli)) => (
            None,
            format!(
                "not pinned: the CPU quota of {}.{:02} is smaller than the {} CPUs allowed",
                milli / 1000,
                milli % 1000 / 10,
                cpus.len()
            ),
        ),
        (None, None) if count < cpus.len() => (
            None,
            format!("not pinned: fewer than the {} CPUs allowed", cpus.len()),
        ),
        (None, None) => (
            Some(&cpus[..]),
            format!("pinned to CPUs {}, all that are allowed", write_cpus(cpus)),
        ),
    };
    let shards = (0..count)
        .map(|index| pinned_to.map(|cpus| cpus[index % cpus.len()]))
        .collect();
    let noun = if count == 1 { "shard" } else { "shards" };
    Ok(Plan {
        shards,
        reason: format!("{count} {noun}, {why}"),
    })
}

/// Pins the calling thread; false if the kernel refuses.
pub fn pin_current_thread(cpu: usize) -> bool {
    // Above it the mask has no bit, and setting one would panic.
    cpu < CPUS_MAX && core_affinity::set_for_current(core_affinity::CoreId { id: cpu })
}

fn allowed_cpus() -> Vec<usize> {
    let mask = core_affinity::get_core_ids().unwrap_or_default();
    if !mask.is_empty() {
        return mask.into_iter().map(|core| core.id).collect();
    }
    // A machine with more CPUs than the mask has bits: their number is known at least.
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    (0..count).collect()
}

fn memory(cgroups: &Cgroups) -> Option<u64> {
    let machine = read_text(Path::new("/proc/meminfo")).and_then(|text| machine_memory(&text));
    let limit = cgroups.memory_bytes(&read_text);
    [machine, limit].into_iter().flatten().min()
}

fn read_text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// A list of CPUs, in the order written.
///
/// # Errors
/// What was wanted, or which CPU is there twice.
pub fn read_cpus(text: &str) -> Result<Vec<usize>, String> {
    let cpu = |text: &str| {
        let digits =
            Some(text.trim()).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        digits
            .and_then(|digits| digits.parse::<usize>().ok())
            .filter(|cpu| *cpu < CPUS_MAX)
            .ok_or_else(|| "wants a list of CPUs, such as 0,2-5".to_owned())
    };
    let mut cpus = Vec::new();
    for range in text.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (cpu(first)?, cpu(last)?);
        if last < first {
            return Err(format!("wants the smaller CPU first, not {range}"));
        }
        for cpu in first..=last {
            if cpus.contains(&cpu) {
                return Err(format!("names CPU {cpu} twice"));
            }
            cpus.push(cpu);
        }
    }
    Ok(cpus)
}

/// The inverse of [`read_cpus`].
pub fn write_cpus(cpus: &[usize]) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for &cpu in cpus {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => ranges.push((cpu, cpu)),
        }
    }
    let ranges: Vec<String> = ranges
        .into_iter()
        .map(|(first, last)| {
            if first == last {
                first.to_string()
            } else {
                format!("{first}-{last}")
            }
        })
        .collect();
    ranges.join(",")
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn machine_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(cpus: usize, quota_milli: Option<u64>) -> Facts {
        Facts {
            cpus: (0..cpus).collect(),
            quota_milli,
            memory_bytes: None,
        }
    }

    #[test]
    fn plans() {
        let check = |shards: Option<usize>,
                     cores: Option<&[usize]>,
                     embedded,
                     facts: &Facts,
                     expected: &[Option<usize>],
                     reason: &str| {
            let plan = plan(shards, cores, embedded, facts).unwrap();
            assert_eq!(plan.shards, expected, "{reason}");
            assert_eq!(plan.reason, reason);
        };
        let all = |count| facts(count, None);
        check(
            None,
            None,
            false,
            &all(2),
            &[Some(0), Some(1)],
            "2 shards, pinned to CPUs 0-1, all that are allowed",
        );
        check(
            None,
            None,
            false,
            &all(1),
            &[Some(0)],
            "1 shard, pinned to CPUs 0, all that are allowed",
        );
        check(
            Some(3),
            None,
            false,
            &all(2),
            &[Some(0), Some(1), Some(0)],
            "3 shards, pinned to CPUs 0-1, all that are allowed",
        );
        check(
            Some(1),
            None,
            false,
            &all(2),
            &[None],
            "1 shard, not pinned: fewer than the 2 CPUs allowed",
        );
        check(
            None,
            Some(&[3, 1]),
            false,
            &all(4),
            &[Some(3), Some(1)],
            "2 shards, pinned to CPUs 3,1",
        );
        check(
            Some(3),
            Some(&[3, 1]),
            false,
            &all(4),
            &[Some(3), Some(1), Some(3)],
            "3 shards, pinned to CPUs 3,1",
        );
        check(
            Some(1),
            Some(&[3, 1]),
            true,
            &facts(4, Some(500)),
            &[Some(3)],
            "1 shard, pinned to CPUs 3,1",
        );
        check(
            None,
            None,
            true,
            &all(4),
            &[None],
            "1 shard, not pinned: embedded",
        );
        check(
            Some(4),
            None,
            true,
            &all(4),
            &[None; 4],
            "4 shards, not pinned: embedded",
        );
        check(
            None,
            None,
            false,
            &facts(8, Some(1500)),
            &[None; 2],
            "2 shards, not pinned: the CPU quota of 1.50 is smaller than the 8 CPUs allowed",
        );
        check(
            None,
            None,
            false,
            &facts(8, Some(0)),
            &[None],
            "1 shard, not pinned: the CPU quota of 0.00 is smaller than the 8 CPUs allowed",
        );
        // A quota as large as the mask takes nothing away.
        check(
            None,
            None,
            false,
            &facts(2, Some(2000)),
            &[Some(0), Some(1)],
            "2 shards, pinned to CPUs 0-1, all that are allowed",
        );
        assert_eq!(
            plan(None, None, false, &all(200)).unwrap().shards.len(),
            SHARDS_MAX
        );
    }

    #[test]
    fn cores_outside_the_mask_are_refused() {
        let facts = Facts {
            cpus: vec![4, 5],
            ..facts(0, None)
        };
        let refusal = plan(None, Some(&[4, 6]), false, &facts).unwrap_err();
        assert_eq!(
            refusal,
            "cores: CPU 6 is not among those that this process may use: 4-5"
        );
        assert!(plan(None, Some(&[]), false, &facts).is_err());
        let own = plan(None, None, false, &facts).unwrap();
        assert_eq!(own.shards, [Some(4), Some(5)]);
    }

    #[test]
    fn cpu_lists() {
        let check = |text, cpus: Option<&[usize]>| {
            assert_eq!(read_cpus(text).ok().as_deref(), cpus, "{text}");
        };
        check("0", Some(&[0]));
        check("0,2-5", Some(&[0, 2, 3, 4, 5]));
        check("3, 1", Some(&[3, 1]));
        check("1023", Some(&[1023]));
        for refused in [
            "", ",", "0,", "5-2", "0-", "a", "0,0", "0-2,1", "1024", "0--1",
        ] {
            check(refused, None);
        }
        for (cpus, text) in [
            (&[0][..], "0"),
            (&[0, 2, 3, 4, 5], "0,2-5"),
            (&[3, 1], "3,1"),
            (&[], ""),
        ] {
            assert_eq!(write_cpus(cpus), text);
        }
    }

    #[test]
    fn memory_of_the_machine() {
        let text = "MemTotal:       24684084 kB\nMemFree: 1 kB\n";
        assert_eq!(machine_memory(text), Some(24_684_084 * 1024));
        assert_eq!(machine_memory(""), None);
        assert_eq!(machine_memory("MemTotal: x"), None);
    }

    #[test]
    fn this_process_may_use_something() {
        let facts = Facts::read();
        assert!(!facts.cpus.is_empty());
        assert_eq!(facts.memory_bytes, memory_bytes());
        // On a thread of its own: the mask is the thread's.
        let cpu = facts.cpus[0];
        std::thread::spawn(move || {
            assert!(pin_current_thread(cpu));
            assert_eq!(allowed_cpus(), [cpu]);
            assert!(!pin_current_thread(CPUS_MAX));
        })
        .join()
        .unwrap();
    }
}
