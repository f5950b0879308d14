//! The limits that cgroups put on this process. Both versions are read, through `/proc/self/mountinfo`, because a
//! container sees its cgroup at another path than the host does. Pure but for [`Cgroups::of_this_process`]: files
//! come through a reader that the caller gives.
//!
//! Invariant: a limit counts wherever it is on the way up; of several the smallest.

use std::path::{Path, PathBuf};

use super::read_text;

/// The directories of the cgroups that this process is in, for each kind from the innermost to the mount point.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Cgroups {
    /// Version 2: one tree for everything.
    unified: Vec<PathBuf>,
    /// Version 1: the tree of the `cpu` controller.
    cpu: Vec<PathBuf>,
    /// Version 1: the tree of the `memory` controller.
    memory: Vec<PathBuf>,
}

/// Reads a file, if it is there.
pub(super) type Read<'r> = &'r dyn Fn(&Path) -> Option<String>;

impl Cgroups {
    pub fn of_this_process() -> Cgroups {
        let read = |path: &str| read_text(Path::new(path)).unwrap_or_default();
        Cgroups::parse(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"))
    }

    /// From `/proc/self/cgroup` (cgroups(7)) and `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
    fn parse(own: &str, mountinfo: &str) -> Cgroups {
        let mut cgroups = Cgroups::default();
        for line in mountinfo.lines() {
            let Some((fields, rest)) = line.split_once(" - ") else {
                continue;
            };
            let mut fields = fields.split(' ').skip(3);
            let (Some(root), Some(mount)) = (fields.next(), fields.next()) else {
                continue;
            };
            let mut rest = rest.split(' ');
            let (kind, options) = (rest.next(), rest.nth(1).unwrap_or(""));
            let (root, mount) = (unescaped(root), unescaped(mount));
            let directories = |controller: &str| match own_path(own, controller) {
                Some(path) => upward(&root, &mount, path),
                None => Vec::new(),
            };
            let controls = |controller: &str| options.split(',').any(|name| name == controller);
            match kind {
                Some("cgroup2") => cgroups.unified = directories(""),
                Some("cgroup") if controls("cpu") => cgroups.cpu = directories("cpu"),
                Some("cgroup") if controls("memory") => cgroups.memory = directories("memory"),
                Some(_) | None => {}
            }
        }
        cgroups
    }

    /// The smallest CPU quota, in thousandths of a CPU.
    pub fn quota_milli(&self, read: Read<'_>) -> Option<u64> {
        let unified = self
            .unified
            .iter()
            .filter_map(|directory| cpu_max(&read(&directory.join("cpu.max"))?));
        let cpu = self.cpu.iter().filter_map(|directory| {
            let quota = read(&directory.join("cpu.cfs_quota_us"))?;
            let period = read(&directory.join("cpu.cfs_period_us"))?;
            cpu_max(&format!("{} {}", quota.trim(), period.trim()))
        });
        unified.chain(cpu).min()
    }

    /// The smallest memory limit, in bytes.
    pub fn memory_bytes(&self, read: Read<'_>) -> Option<u64> {
        let limit = |directory: &PathBuf, file| read(&directory.join(file))?.trim().parse().ok();
        let unified = self
            .unified
            .iter()
            .filter_map(|directory| limit(directory, "memory.max"));
        let memory = self
            .memory
            .iter()
            .filter_map(|directory| limit(directory, "memory.limit_in_bytes"));
        unified.chain(memory).min()
    }
}

/// The path of the cgroup for a controller; version 2 has the empty name.
fn own_path<'o>(own: &'o str, controller: &str) -> Option<&'o str> {
    own.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers
            .split(',')
            .any(|name| name == controller)
            .then_some(path)
    })
}

/// From the own cgroup up to the mount point. The mount shows the tree below `root`; a cgroup that is not below it
/// (another cgroup namespace) leaves the mount point alone, which is then the best that can be seen.
fn upward(root: &Path, mount: &Path, own: &str) -> Vec<PathBuf> {
    let below = Path::new(own)
        .strip_prefix(root)
        .ok()
        .filter(|below| !below.components().any(|part| part.as_os_str() == ".."))
        .unwrap_or(Path::new(""));
    below
        .ancestors()
        .map(|part| {
            if part == Path::new("") {
                mount.to_owned()
            } else {
                mount.join(part)
            }
        })
        .collect()
}

/// `QUOTA PERIOD` in microseconds, as in `cpu.max`, in thousandths of a CPU; `None` for `max` or -1.
fn cpu_max(text: &str) -> Option<u64> {
    let mut words = text.split_whitespace();
    let quota: u64 = words.next()?.parse().ok()?;
    let period: u64 = words.next()?.parse().ok()?;
    quota.checked_mul(1000)?.checked_div(period)
}

/// mountinfo writes blanks and backslashes in octal, as `\040`.
fn unescaped(field: &str) -> PathBuf {
    let mut text = field.to_owned();
    for (octal, character) in [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ] {
        text = text.replace(octal, character);
    }
    PathBuf::from(text)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// A tree of files.
    fn tree(files: &[(&str, &str)]) -> impl Fn(&Path) -> Option<String> {
        let files: HashMap<PathBuf, String> = files
            .iter()
            .map(|(path, text)| (PathBuf::from(path), (*text).to_owned()))
            .collect();
        move |path| files.get(path).cloned()
    }

    const UNIFIED: &str =
        "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn quotas() {
        let check = |text, milli| assert_eq!(cpu_max(text), milli, "{text}");
        check("max 100000\n", None);
        check("150000 100000\n", Some(1500));
        check("50000 100000", Some(500));
        check("-1 100000", None);
        check("", None);
        check("100000", None);
        check("100000 0", None);
        check("18446744073709551615 1", None);
    }

    #[test]
    fn the_smallest_limit_on_the_way_up_counts() {
        let cgroups = Cgroups::parse("0::/system.slice/pubsub.service\n", UNIFIED);
        let directories = [
            "/sys/fs/cgroup/system.slice/pubsub.service",
            "/sys/fs/cgroup/system.slice",
            "/sys/fs/cgroup",
        ];
        assert_eq!(cgroups.unified, directories.map(PathBuf::from));
        let read = tree(&[
            (
                "/sys/fs/cgroup/system.slice/pubsub.service/cpu.max",
                "300000 100000\n",
            ),
            ("/sys/fs/cgroup/system.slice/cpu.max", "150000 100000\n"),
            (
                "/sys/fs/cgroup/system.slice/pubsub.service/memory.max",
                "max\n",
            ),
            ("/sys/fs/cgroup/system.slice/memory.max", "1073741824\n"),
        ]);
        assert_eq!(cgroups.quota_milli(&read), Some(1500));
        assert_eq!(cgroups.memory_bytes(&read), Some(1 << 30));
        assert_eq!(cgroups.quota_milli(&tree(&[])), None);
        assert_eq!(cgroups.memory_bytes(&tree(&[])), None);
    }

    #[test]
    fn a_container_sees_its_cgroup_at_the_mount_point() {
        // Without a cgroup namespace: host paths in both files.
        let mountinfo = "900 890 0:31 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n\
                         901 890 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        let own = "4:memory:/docker/abc/inner\n3:cpu,cpuacct:/docker/abc\n";
        let cgroups = Cgroups::parse(own, mountinfo);
        let read = tree(&[
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "200000\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "536870912\n"),
            (
                "/sys/fs/cgroup/memory/inner/memory.limit_in_bytes",
                "9223372036854771712\n",
            ),
        ]);
        assert_eq!(cgroups.quota_milli(&read), Some(2000));
        assert_eq!(cgroups.memory_bytes(&read), Some(512 << 20));

        // Outside of what the mount shows.
        for own in ["0::/../../elsewhere\n", "0::/\n"] {
            let cgroups = Cgroups::parse(own, UNIFIED);
            assert_eq!(cgroups.unified, [PathBuf::from("/sys/fs/cgroup")], "{own}");
        }
        let narrow = UNIFIED.replace(" / ", " /pod ");
        let cgroups = Cgroups::parse("0::/other\n", &narrow);
        assert_eq!(cgroups.unified, [PathBuf::from("/sys/fs/cgroup")]);
    }

    #[test]
    fn odd_files_are_passed_over() {
        for mountinfo in ["", "x", "1 2 3 - cgroup2", " - ", "1 2 3 4 5 - \n"] {
            assert_eq!(Cgroups::parse("0::/\n", mountinfo), Cgroups::default());
        }
        assert_eq!(Cgroups::parse("", UNIFIED), Cgroups::default());
        assert_eq!(unescaped("/a\\040b\\134c"), PathBuf::from("/a b\\c"));
    }
}
