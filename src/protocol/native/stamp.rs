//! A moment as native JSON writes it.

/// A moment, written once per turn: `2018-02-16T00:31:37.123Z` (ISO 8601, UTC, always 24 bytes).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// Milliseconds since 1970.
    pub unix_ms: u64,
    written: [u8; Stamp::WRITTEN_SIZE],
}

/// 9999-12-31T23:59:59.999Z, the last moment of four-digit years.
const WRITTEN_MS_MAX: u64 = 253_402_300_799_999;

impl Stamp {
    /// The length of the written form, in bytes.
    pub const WRITTEN_SIZE: usize = 24;

    /// The moment `unix_ms` after 1970 began. Years past 9999 are written as its last moment.
    pub fn new(unix_ms: u64) -> Stamp {
        let ms = unix_ms.min(WRITTEN_MS_MAX);
        let (year, month, day) = civil(ms / 86_400_000);
        let mut written = *b"0000-00-00T00:00:00.000Z";
        let mut write = |at: usize, width: usize, mut number: u64| {
            for digit in written[at..at + width].iter_mut().rev() {
                *digit = b'0' + (number % 10) as u8;
                number /= 10;
            }
        };
        write(0, 4, year);
        write(5, 2, month);
        write(8, 2, day);
        write(11, 2, ms / 3_600_000 % 24);
        write(14, 2, ms / 60_000 % 60);
        write(17, 2, ms / 1000 % 60);
        write(20, 3, ms % 1000);
        Stamp { unix_ms, written }
    }

    /// The 24 bytes, ASCII.
    pub fn as_bytes(&self) -> &[u8; Stamp::WRITTEN_SIZE] {
        &self.written
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar. Years are taken to begin in
/// March, so that the leap day is the last of its year; an era is 400 years. (Howard Hinnant, "chrono-Compatible
/// Low-Level Date Algorithms", `civil_from_days`.)
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // from 0000-03-01
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let months = (5 * day_of_year + 2) / 153; // since March
    let day = day_of_year - (153 * months + 2) / 5 + 1;
    let month = if months < 10 { months + 3 } else { months - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn check(unix_ms: u64) {
        let expected =
            humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(unix_ms))
                .to_string();
        let stamp = Stamp::new(unix_ms);
        assert_eq!(std::str::from_utf8(stamp.as_bytes()), Ok(&*expected));
        assert_eq!(stamp.unix_ms, unix_ms);
    }

    #[test]
    fn stamps_agree_with_humantime() {
        assert_eq!(
            Stamp::new(1_518_741_097_123).as_bytes(),
            b"2018-02-16T00:31:37.123Z"
        );
        for unix_ms in [
            0,
            1,
            999,
            86_399_999,
            86_400_000,
            951_782_399_999,
            951_782_400_000,
            4_107_542_400_000,
            WRITTEN_MS_MAX,
        ] {
            check(unix_ms);
        }
        // Every day to 2400 and beyond, so every kind of leap year, each at another time of day.
        (0..170_000).for_each(|day| check(day * 86_400_000 + day * 7_919_993 % 86_400_000));
    }

    #[test]
    fn no_moment_is_too_late() {
        assert_eq!(Stamp::new(u64::MAX).as_bytes(), b"9999-12-31T23:59:59.999Z");
        assert_eq!(Stamp::new(u64::MAX).unix_ms, u64::MAX);
    }
}
