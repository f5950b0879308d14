//! The stamp: 32 characters at a fixed place of each payload that say which publication it is, and when it was due.
//!
//! Written in an alphabet that needs no escape in JSON and no table to read: a nibble is the character `@` plus its
//! value, so `@` to `O`. Eight characters are a number of 32 bits, spread and gathered in three steps each instead of
//! eight (the naive twin is in the tests): a generator that spends its time reading stamps measures itself.

/// What a publication says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stamp {
    /// The stream of one publisher to one topic ([`crate::topology`]).
    pub lane: u32,
    /// Its number in that lane, from 0.
    pub sequence: u32,
    /// When it should have been sent, in nanoseconds of the run; 0 where latency is not measured.
    pub due_ns: u64,
}

impl Stamp {
    /// In characters.
    pub const SIZE: usize = 32;

    /// Its characters, eight in a word, the first character first in memory if the word is stored big-endian.
    pub fn words(self) -> [u64; 4] {
        [
            spread(self.lane),
            spread(self.sequence),
            spread((self.due_ns >> 32) as u32),
            spread(self.due_ns as u32),
        ]
    }

    /// Reads the stamp at the beginning of `text`; none if there is none.
    pub fn read(text: &[u8]) -> Option<Stamp> {
        let (words, _) = text.get(..Stamp::SIZE)?.as_chunks::<8>();
        let word = |at: usize| gather(u64::from_be_bytes(words[at]));
        Some(Stamp {
            lane: word(0)?,
            sequence: word(1)?,
            due_ns: u64::from(word(2)?) << 32 | u64::from(word(3)?),
        })
    }
}

const ALPHABET: u64 = u64::from_ne_bytes([b'@'; 8]);

/// A nibble to each byte, then a letter of each.
fn spread(number: u32) -> u64 {
    let x = u64::from(number);
    let x = (x | x << 16) & 0x0000_ffff_0000_ffff;
    let x = (x | x << 8) & 0x00ff_00ff_00ff_00ff;
    let x = (x | x << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    x | ALPHABET
}

/// The way back; none if one of the eight is no letter.
fn gather(word: u64) -> Option<u32> {
    if word & 0xf0f0_f0f0_f0f0_f0f0 != ALPHABET {
        return None;
    }
    let x = word & 0x0f0f_0f0f_0f0f_0f0f;
    let x = (x | x >> 4) & 0x00ff_00ff_00ff_00ff;
    let x = (x | x >> 8) & 0x0000_ffff_0000_ffff;
    Some((x | x >> 16) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naive(number: u32) -> [u8; 8] {
        std::array::from_fn(|i| b'@' + (number >> (28 - 4 * i) & 15) as u8)
    }

    #[test]
    fn numbers_are_written_as_the_naive_twin_does() {
        for number in (0..32)
            .map(|bit| 1 << bit)
            .chain([0, 1, 0x1234_5678, u32::MAX])
        {
            assert_eq!(spread(number).to_be_bytes(), naive(number), "{number:x}");
            assert_eq!(gather(spread(number)), Some(number));
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for stamp in [
            Stamp::default(),
            Stamp {
                lane: 1,
                sequence: 2,
                due_ns: 3,
            },
            Stamp {
                lane: u32::MAX,
                sequence: 0x8000_0001,
                due_ns: 0x0123_4567_89ab_cdef,
            },
        ] {
            let mut text: Vec<u8> = stamp
                .words()
                .iter()
                .flat_map(|word| word.to_be_bytes())
                .collect();
            assert!(text.iter().all(|c| (b'@'..=b'O').contains(c)));
            assert_eq!(Stamp::read(&text), Some(stamp));
            text.extend_from_slice(b"xxxx");
            assert_eq!(Stamp::read(&text), Some(stamp));
        }
    }

    #[test]
    fn what_is_no_stamp_is_none() {
        assert_eq!(Stamp::read(b""), None);
        assert_eq!(Stamp::read(&[b'@'; 31]), None);
        for at in 0..Stamp::SIZE {
            for wrong in [b'?', b'P', b'"', 0, 0xff] {
                let mut text = [b'@'; Stamp::SIZE];
                text[at] = wrong;
                assert_eq!(Stamp::read(&text), None, "{wrong} at {at}");
            }
        }
    }
}
