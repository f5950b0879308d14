//! Masking of client frames (RFC 6455, 5.3): an exclusive or with a key of four bytes that repeats.
//!
//! The plain version is one line, `payload[i] ^= key[i % 4]` (the naive twin in the tests). Departures: eight
//! bytes at a time, which the compiler widens to vectors, so that unmasking runs at the speed of memory; and a
//! phase, so that a payload may come in pieces of any size.

/// Unmasks `payload` in place. `phase` is the position of its first byte in the payload of its frame.
pub fn unmask(payload: &mut [u8], key: [u8; 4], phase: usize) {
    // Turned to the phase, the key starts at the first byte here.
    let [a, b, c, d]: [u8; 4] = std::array::from_fn(|i| key[((phase & 3) + i) & 3]);
    let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, tail) = payload.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    // A chunk is two keys long, so the tail starts at the key's first byte again.
    for (byte, key) in tail.iter_mut().zip([a, b, c, d, a, b, c]) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naive(payload: &mut [u8], key: [u8; 4], phase: usize) {
        for (i, byte) in payload.iter_mut().enumerate() {
            *byte ^= key[(phase % 4 + i) % 4];
        }
    }

    #[test]
    fn same_as_the_naive_twin_at_every_size_and_phase() {
        let key = [0x12, 0xF0, 0x55, 0x9B];
        for size in 0..70 {
            for phase in (0..9).chain([usize::MAX - 2, usize::MAX]) {
                let original: Vec<u8> = (0..size).map(|i| (i * 37 + 11) as u8).collect();
                let (mut quick, mut slow) = (original.clone(), original.clone());
                unmask(&mut quick, key, phase);
                naive(&mut slow, key, phase);
                assert_eq!(quick, slow, "size {size} phase {phase}");
                unmask(&mut quick, key, phase);
                assert_eq!(quick, original, "masking twice is nothing");
            }
        }
    }

    #[test]
    fn pieces_are_the_same_as_the_whole() {
        let key = [1, 2, 4, 8];
        let whole: Vec<u8> = (0..64).collect();
        let mut expected = whole.clone();
        unmask(&mut expected, key, 0);
        for cut in 0..=whole.len() {
            let mut pieces = whole.clone();
            let (left, right) = pieces.split_at_mut(cut);
            unmask(left, key, 0);
            unmask(right, key, cut);
            assert_eq!(pieces, expected, "cut at {cut}");
        }
    }

    #[test]
    fn the_example_of_the_rfc() {
        // RFC 6455, 5.7: a masked "Hello".
        let mut payload = [0x7f, 0x9f, 0x4d, 0x51, 0x58];
        unmask(&mut payload, [0x37, 0xfa, 0x21, 0x3d], 0);
        assert_eq!(&payload, b"Hello");
    }
}
