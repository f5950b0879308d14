//! `cargo xtask fuzz`: each target for some minutes, under AddressSanitizer.
//!
//! cargo-fuzz wants flags that only a nightly compiler takes; `RUSTC_BOOTSTRAP` has the stable one take them too. What a
//! run finds new goes to a working corpus under `fuzz/target`, which is nobody's business; `--keep` puts the
//! smallest set of inputs that covers as much into `fuzz/corpus`, to be committed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::process::{cargo, first_line, root, run};

/// What one run is to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Only this target.
    pub target: Option<String>,
    /// For how long, each.
    pub minutes: u64,
    /// Put what was found into the committed corpora.
    pub keep: bool,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            target: None,
            minutes: 10,
            keep: false,
        }
    }
}

impl Plan {
    /// What stands behind `fuzz` on the command line.
    pub fn parse<'a>(mut words: impl Iterator<Item = &'a str>) -> Result<Plan, String> {
        let mut plan = Plan::default();
        while let Some(word) = words.next() {
            match word {
                "--keep" => plan.keep = true,
                "--minutes" => {
                    let minutes = words.next().and_then(|minutes| minutes.parse().ok());
                    // libFuzzer takes 0 for no end.
                    let minutes = minutes.filter(|minutes| *minutes > 0);
                    plan.minutes = minutes.ok_or("--minutes wants a number above 0")?;
                }
                option if option.starts_with('-') => {
                    return Err(format!("no such option: {option}"));
                }
                target if plan.target.is_none() => plan.target = Some(target.to_owned()),
                _ => return Err("one target or all of them".to_owned()),
            }
        }
        Ok(plan)
    }

    /// Does it; true if nothing was found.
    pub fn carry_out(&self) -> bool {
        let all = match targets() {
            Ok(all) => all,
            Err(error) => {
                eprintln!("fuzz/fuzz_targets can't be read: {error}");
                return false;
            }
        };
        let chosen: Vec<String> = match &self.target {
            None => all,
            Some(target) if all.contains(target) => vec![target.clone()],
            Some(target) => {
                eprintln!("no such target: {target} (there are {})", all.join(", "));
                return false;
            }
        };
        if !is_installed() {
            return false;
        }
        let found: Vec<&String> = chosen.iter().filter(|target| !self.fuzz(target)).collect();
        for target in &found {
            println!(
                "{target} failed: what it failed on is in fuzz/artifacts/{target}. When it is mended, keep that \
                 input in fuzz/seeds/{target} under a name that says what it shows."
            );
        }
        found.is_empty()
    }

    fn fuzz(&self, target: &str) -> bool {
        println!("\n== {target}: {} minutes", self.minutes);
        let (corpus, seeds) = (folder("corpus", target), folder("seeds", target));
        let work = folder("target/corpus", target);
        for folder in [&corpus, &seeds, &work] {
            if let Err(error) = fs::create_dir_all(folder) {
                eprintln!("{}: {error}", folder.display());
                return false;
            }
        }
        let mut options = vec![
            format!("-max_total_time={}", 60 * self.minutes),
            "-max_len=4096".to_owned(),
            "-timeout=10".to_owned(),
            "-print_final_stats=1".to_owned(),
        ];
        let dictionary = folder("dictionaries", target).with_extension("dict");
        if dictionary.exists() {
            options.push(format!("-dict={}", dictionary.display()));
        }
        let found_nothing = libfuzzer(target, &[&work, &corpus, &seeds], &options);
        if found_nothing && self.keep {
            return keep(target, &work, &corpus);
        }
        found_nothing
    }
}

/// The smallest set of inputs that covers the code that both folders cover, in place of the second. How often each
/// place was passed does not count: that is for the working corpus, and would be thousands of files.
fn keep(target: &str, work: &Path, corpus: &Path) -> bool {
    let smallest = folder("target/smallest", target);
    // Of a run that was broken off.
    let _ = fs::remove_dir_all(&smallest);
    let merged = fs::create_dir_all(&smallest).is_ok()
        && libfuzzer(
            target,
            &[&smallest, corpus, work],
            &[
                "-set_cover_merge=1".to_owned(),
                "-use_counters=0".to_owned(),
            ],
        );
    merged
        && fs::remove_dir_all(corpus)
            .and_then(|()| fs::rename(&smallest, corpus))
            .is_ok()
}

/// Runs a target with folders of inputs, the first of which takes what is new.
fn libfuzzer(target: &str, folders: &[&Path], options: &[String]) -> bool {
    let mut command = cargo(&["fuzz", "run", target]);
    command.args(folders).arg("--").args(options);
    run(command.env("RUSTC_BOOTSTRAP", "1")).0
}

fn folder(kind: &str, target: &str) -> PathBuf {
    root().join("fuzz").join(kind).join(target)
}

/// The names of all targets.
fn targets() -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root().join("fuzz/fuzz_targets"))? {
        let path = entry?.path();
        names.extend(
            path.file_stem()
                .map(|name| name.to_string_lossy().into_owned()),
        );
    }
    names.sort();
    Ok(names)
}

fn is_installed() -> bool {
    if first_line("cargo", &["fuzz", "--version"]).is_some() {
        return true;
    }
    println!("cargo-fuzz is not here: installing it");
    let (installed, _) = run(&mut cargo(&["install", "cargo-fuzz", "--locked"]));
    if !installed {
        eprintln!("cargo-fuzz could not be installed");
    }
    installed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_read() {
        let check = |line: &str, expected: Result<Plan, &str>| {
            let found = Plan::parse(line.split_whitespace());
            assert_eq!(found, expected.map_err(str::to_owned), "{line}");
        };
        let plan = |target: Option<&str>, minutes, keep| Plan {
            target: target.map(str::to_owned),
            minutes,
            keep,
        };
        check("", Ok(plan(None, 10, false)));
        check("shard", Ok(plan(Some("shard"), 10, false)));
        check("--minutes 3 shard --keep", Ok(plan(Some("shard"), 3, true)));
        check("--minutes x", Err("--minutes wants a number above 0"));
        check("--minutes 0", Err("--minutes wants a number above 0"));
        check("--minutes", Err("--minutes wants a number above 0"));
        check("--jobs", Err("no such option: --jobs"));
        check("shard frames", Err("one target or all of them"));
    }

    #[test]
    fn targets_are_found() {
        let targets = targets().unwrap();
        assert!(targets.iter().any(|target| target == "shard"));
        assert!(targets.is_sorted());
    }
}
