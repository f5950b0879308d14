//! Counts of tests, read from what the test programs print.

use std::fmt;
use std::ops::AddAssign;

/// How many tests passed, failed, and were skipped.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Tally {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
}

impl Tally {
    /// Takes a line of libtest's standard output; lines that are no `test result:` change nothing.
    pub fn take_result(&mut self, line: &str) {
        let Some((_, counts)) = line
            .strip_prefix("test result: ")
            .and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for part in counts.split("; ") {
            match part
                .split_once(' ')
                .map(|(count, word)| (count.parse::<usize>(), word))
            {
                Some((Ok(count), "passed")) => self.passed += count,
                Some((Ok(count), "failed")) => self.failed += count,
                Some((Ok(count), "ignored")) => self.skipped += count,
                _ => {}
            }
        }
    }

    /// Takes a line of a test's standard error: a test that lacks what it needs returns early and writes
    /// `skipped: NAME: WHY` there, past libtest's capture. libtest counts it as passed; we do not.
    pub fn take_skip(&mut self, line: &str) {
        if line.starts_with("skipped: ") {
            self.skipped += 1;
            self.passed = self.passed.saturating_sub(1);
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally {
            passed,
            failed,
            skipped,
        } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_add_up() {
        let check = |output: &str, expected: &str| {
            let mut tally = Tally::default();
            output.lines().for_each(|line| tally.take_result(line));
            assert_eq!(tally.to_string(), expected, "{output}");
        };
        check(
            "running 2 tests\n..\n\
             test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 7 filtered out; finished in 0.00s\n\
             test result: FAILED. 3 passed; 1 failed; 4 ignored; 0 measured; 0 filtered out; finished in 1.00s\n",
            "5 passed, 1 failed, 4 skipped",
        );
        check("", "0 passed, 0 failed, 0 skipped");
        check(
            "a test result: ok. 2 passed",
            "0 passed, 0 failed, 0 skipped",
        );
        check(
            "test result: ok. x passed; 1",
            "0 passed, 0 failed, 0 skipped",
        );
    }

    #[test]
    fn a_test_that_says_it_skipped_has_not_passed() {
        let mut tally = Tally::default();
        tally.take_result("test result: ok. 2 passed; 0 failed; 0 ignored");
        tally.take_skip("skipped: console: no Chromium");
        tally.take_skip("nothing skipped: here");
        assert_eq!(tally.to_string(), "1 passed, 0 failed, 1 skipped");
    }
}
