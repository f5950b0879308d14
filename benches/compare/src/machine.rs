//! The machine and the commit that figures belong to. No name of either's owner.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

/// What a stranger has to know.
pub struct Machine {
    kernel: String,
    cpu: String,
    cpus: usize,
    memory_kib: u64,
    /// With `-dirty` behind it if files were changed.
    pub commit: String,
    /// Does the kernel keep the time of interrupts apart, so that no process pays for it?
    irq_time_accounting: Option<bool>,
}

impl Machine {
    /// This one.
    pub fn look() -> Machine {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| -> Option<String> {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
        Machine {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            cpu: field(&read("/proc/cpuinfo"), "model name").unwrap_or("unknown".to_owned()),
            cpus: std::thread::available_parallelism().map_or(0, |count| count.get()),
            memory_kib: memory
                .split(' ')
                .next()
                .and_then(|kib| kib.parse().ok())
                .unwrap_or(0),
            commit: commit().unwrap_or("unknown".to_owned()),
            irq_time_accounting: kernel_option("CONFIG_IRQ_TIME_ACCOUNTING"),
        }
    }

    /// For the results.
    pub fn json(&self) -> Value {
        json!({
            "kernel": self.kernel,
            "cpu": self.cpu,
            "cpus": self.cpus,
            "memory_kib": self.memory_kib,
            "irq_time_accounting": self.irq_time_accounting,
            "commit": self.commit,
        })
    }

    /// In a line.
    pub fn line(&self) -> String {
        let gib = self.memory_kib as f64 / f64::from(1 << 20);
        let Machine {
            kernel,
            cpu,
            cpus,
            commit,
            ..
        } = self;
        format!("{cpu}, {cpus} CPUs, {gib:.0} GiB, Linux {kernel}, commit {commit}")
    }

    /// What makes figures of this machine doubtful, in a sentence.
    pub fn doubt(&self) -> Option<&'static str> {
        (self.irq_time_accounting == Some(true)).then_some(
            "this kernel keeps the time of softirqs apart (CONFIG_IRQ_TIME_ACCOUNTING), so what a \
             send costs in the network stack is on nobody's bill here",
        )
    }
}

/// Is the `ksoftirqd` of this CPU in sight? In a container it often is not.
pub fn has_softirqs(cpu: usize) -> bool {
    let name = format!("ksoftirqd/{cpu}");
    let Ok(entries) = fs::read_dir("/proc") else {
        return false;
    };
    entries.flatten().any(|entry| {
        let comm = fs::read_to_string(entry.path().join("comm"));
        comm.is_ok_and(|comm| comm.trim_end() == name)
    })
}

fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .args(arguments)
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
            .output()
            .ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=10", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    let mark = if changed.is_empty() { "" } else { "-dirty" };
    Some(format!("{commit}{mark}"))
}

/// As the kernel tells, where it does.
fn kernel_option(name: &str) -> Option<bool> {
    let output = Command::new("zcat").arg("/proc/config.gz").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output
        .status
        .success()
        .then(|| text.lines().any(|line| line == format!("{name}=y")))
}
