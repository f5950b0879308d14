//! What a reader of the table must know of the machine.

use std::fs;

use crate::process::first_line;

/// The facts, a line each.
pub fn facts() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| -> String {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .map(|value| value.trim_start_matches([':', ' ', '\t']).to_owned())
            .unwrap_or_else(|| "unknown".to_owned())
    };
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let model = field(&read("/proc/cpuinfo"), "model name");
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    let kernel = first_line("uname", &["-sr"]).unwrap_or_default();
    let descriptors = field(&read("/proc/self/limits"), "Max open files");
    let descriptors = descriptors.split_whitespace().next().unwrap_or("?");
    let pages = read("/sys/kernel/mm/transparent_hugepage/enabled");
    let load = read("/proc/loadavg");
    let commit = first_line("git", &["rev-parse", "--short", "HEAD"]).unwrap_or_default();
    let version = first_line("rustc", &["--version"]).unwrap_or_default();
    format!(
        "machine      {cpus} CPUs, {model}\nmemory       {memory}\nkernel       {kernel}\n\
         descriptors  {descriptors}\nhuge pages   {}\nload         {}\ncompiler     {version}\ncommit       {commit}\n\
         The load generator runs on the same machine.\n",
        pages.trim(),
        load.trim(),
    )
}
