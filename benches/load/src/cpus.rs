//! Lists of CPUs, `0,2-5`, and pinning to them.

use std::fmt;
use std::str::FromStr;

use rustix::thread::{CpuSet, sched_setaffinity};

/// CPUs in the order given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cpus(pub Vec<usize>);

impl FromStr for Cpus {
    type Err = String;

    fn from_str(text: &str) -> Result<Cpus, String> {
        let number = |text: &str| match text.parse() {
            Ok(number) if number < CpuSet::MAX_CPU => Ok(number),
            _ => Err(format!("{text:?} is no CPU (a list is 0,2-5)")),
        };
        let mut list = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (usize, usize) = (number(first)?, number(last)?);
            if first > last {
                return Err(format!("{part} counts backwards"));
            }
            list.extend(first..=last);
        }
        Ok(Cpus(list))
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list: Vec<String> = self.0.iter().map(usize::to_string).collect();
        f.write_str(&list.join(","))
    }
}

/// Keeps the calling thread to these CPUs.
///
/// # Errors
/// The machine has no such CPU, or this process may not use it.
pub fn pin(cpus: &[usize]) -> Result<(), String> {
    let mut set = CpuSet::new();
    for &cpu in cpus {
        set.set(cpu);
    }
    sched_setaffinity(None, &set).map_err(|error| format!("cannot pin to CPU {cpus:?}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read() {
        let check = |text: &str, expected: &[usize]| {
            assert_eq!(text.parse::<Cpus>().unwrap().0, expected, "{text}");
        };
        check("0", &[0]);
        check("1,0", &[1, 0]);
        check("0,2-5", &[0, 2, 3, 4, 5]);
        check("3-3", &[3]);
        for wrong in ["", "a", "1,", "-1", "2-1", "1-2-3", "99999"] {
            assert!(wrong.parse::<Cpus>().is_err(), "{wrong}");
        }
    }
}
