//! Numbers as Redis reads and writes them.

/// A number as Redis reads it (`string2ll`): decimal, without `+`, spaces or leading zeros, from -2^63 to 2^63 - 1.
pub(super) fn parse_number(text: &[u8]) -> Option<i64> {
    let (is_negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [] => return None,
        [b'0', ..] if text.len() > 1 => return None,
        _ => {}
    }
    // Downwards, because there is one more number below zero than above.
    let mut number = 0_i64;
    for &byte in digits {
        if !byte.is_ascii_digit() {
            return None;
        }
        number = number
            .checked_mul(10)?
            .checked_sub(i64::from(byte - b'0'))?;
    }
    if is_negative {
        Some(number)
    } else {
        number.checked_neg()
    }
}

/// The digits of a number: each header has one, and a formatter is a long way round.
pub(super) fn write_decimal(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// The bytes that [`write_decimal`] appends.
pub(super) fn decimal_size(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_redis() {
        for (text, expected) in [
            ("0", Some(0)),
            ("7", Some(7)),
            ("-1", Some(-1)),
            ("10", Some(10)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-9223372036854775809", None),
            ("99999999999999999999", None),
            ("", None),
            ("-", None),
            ("-0", None),
            ("00", None),
            ("01", None),
            ("-01", None),
            ("+1", None),
            (" 1", None),
            ("1 ", None),
            ("1\0", None),
            ("0x1", None),
            ("--1", None),
            ("1.0", None),
        ] {
            assert_eq!(parse_number(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn digits_are_those_of_display() {
        let powers = (0..20).map(|exponent| 10_u64.pow(exponent));
        for number in powers
            .flat_map(|power| [power - 1, power, power + 1])
            .chain([u64::MAX])
        {
            let mut out = b"x".to_vec();
            write_decimal(number, &mut out);
            assert_eq!(out, format!("x{number}").as_bytes());
            assert_eq!(decimal_size(number), out.len() - 1);
        }
    }
}
