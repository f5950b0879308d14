//! Bytes into frames: `u32` size of what follows, and that.
//!
//! The plain version collects bytes until a frame is whole and lends it out. The one departure: a frame that begins and
//! ends in the input is lent out of the input, which is nearly every one.
//!
//! Invariants: the result does not depend on how the bytes are cut; memory follows the bytes that came, never the size
//! that a frame announces; between frames nothing is held, once [`Reader::release`] was called.

use super::fields::SIZE_BYTES;

/// A size that no frame has: 0, or more than a frame may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooLong;

/// Cuts frames out of bytes that come in pieces. What is incomplete is kept here, and grows only as bytes come.
#[derive(Debug, Default)]
pub struct Reader {
    /// A frame with its size, as far as it has come; whole if it is lent out.
    carry: Vec<u8>,
}

impl Reader {
    /// The next frame (without its size) in `input`, if it is complete there, and how many bytes of `input` that took:
    /// all of them, if it is not. A frame that begins and ends in `input` is not copied.
    ///
    /// # Errors
    /// [`TooLong`], as soon as its size is known. The reader is not to be used again.
    pub fn next<'a>(
        &'a mut self,
        frame_bytes_max: usize,
        input: &'a [u8],
    ) -> Result<(usize, Option<&'a [u8]>), TooLong> {
        if self.is_whole() {
            self.carry.clear();
        }
        if self.carry.is_empty() {
            if let Some((size, rest)) = input.split_first_chunk() {
                let size = checked(*size, frame_bytes_max)?;
                if let Some(frame) = rest.get(..size) {
                    return Ok((SIZE_BYTES + size, Some(frame)));
                }
            }
            self.carry.extend_from_slice(input);
            return Ok((input.len(), None));
        }
        let mut taken = self.collect(SIZE_BYTES, input);
        if let Some(size) = self.carry.first_chunk() {
            let size = checked(*size, frame_bytes_max)?;
            taken += self.collect(SIZE_BYTES + size, &input[taken..]);
        }
        let frame = self.is_whole().then(|| &self.carry[SIZE_BYTES..]);
        Ok((taken, frame))
    }

    /// Has a frame begun that is not complete?
    pub fn is_in_frame(&self) -> bool {
        !self.carry.is_empty() && !self.is_whole()
    }

    /// Bytes held for a frame that is not complete.
    pub fn buffered_bytes(&self) -> usize {
        self.carry.len()
    }

    /// Gives back the memory of a frame that was joined. One that is not complete stays.
    pub fn release(&mut self) {
        if !self.is_in_frame() {
            self.carry = Vec::new();
        }
    }

    /// Takes from `input` until `wanted` bytes are here; how many that took.
    fn collect(&mut self, wanted: usize, input: &[u8]) -> usize {
        let missing = wanted.saturating_sub(self.carry.len());
        let taken = missing.min(input.len());
        self.carry.extend_from_slice(&input[..taken]);
        taken
    }

    fn is_whole(&self) -> bool {
        let size = self.carry.first_chunk().copied().map(u32::from_le_bytes);
        size.is_some_and(|size| self.carry.len() - SIZE_BYTES == size as usize)
    }
}

/// The size of a frame, if a frame may have it.
fn checked(size: [u8; SIZE_BYTES], frame_bytes_max: usize) -> Result<usize, TooLong> {
    match usize::try_from(u32::from_le_bytes(size)) {
        Ok(size) if (1..=frame_bytes_max).contains(&size) => Ok(size),
        _ => Err(TooLong),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME_BYTES_MAX: usize = 300;

    /// What a reader sees of these pieces, up to an error.
    fn read(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, bool) {
        let mut reader = Reader::default();
        let mut frames = Vec::new();
        let mut come = 0;
        for piece in pieces {
            let mut rest = *piece;
            while !rest.is_empty() {
                let Ok((taken, frame)) = reader.next(FRAME_BYTES_MAX, rest) else {
                    return (frames, true);
                };
                assert!(frame.is_some() || taken == rest.len());
                let is_frame = frame.is_some();
                frames.extend(frame.map(<[u8]>::to_vec));
                come += taken;
                rest = &rest[taken..];
                assert!(!(is_frame && reader.is_in_frame()));
                assert!(
                    reader.carry.capacity() <= (2 * come).max(8),
                    "memory follows the bytes"
                );
                reader.release();
                assert!(reader.is_in_frame() || reader.buffered_bytes() == 0);
            }
        }
        (frames, false)
    }

    /// Whole, cut at every position, and byte by byte.
    #[track_caller]
    fn check(bytes: &[u8], expected: &[&[u8]], is_error: bool) {
        let expected = (
            expected.iter().map(|frame| frame.to_vec()).collect(),
            is_error,
        );
        assert_eq!(read(&[bytes]), expected, "whole");
        for cut in 0..=bytes.len() {
            let (left, right) = bytes.split_at(cut);
            assert_eq!(read(&[left, right]), expected, "cut at {cut}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(read(&single), expected, "byte by byte");
    }

    #[test]
    fn frames_are_cut_out() {
        check(b"", &[], false);
        check(b"\x01\0\0\0a", &[b"a"], false);
        check(
            b"\x01\0\0\0a\x03\0\0\0bcd\x01\0\0\0e",
            &[b"a", b"bcd", b"e"],
            false,
        );
        check(b"\x02\0\0\0a", &[], false);
        let long = [&300_u32.to_le_bytes()[..], &[7; 300]].concat();
        check(
            &[&long[..], &long].concat(),
            &[&long[4..], &long[4..]],
            false,
        );
    }

    #[test]
    fn sizes_that_no_frame_has_are_errors_at_once() {
        check(b"\0\0\0\0", &[], true);
        check(b"\x01\0\0\0a\0\0\0\0", &[b"a"], true);
        check(b"\x2d\x01\0\0", &[], true);
        check(b"\xff\xff\xff\xff", &[], true);
        check(b"\x01\0\0\0a\x2d\x01\0\0bcd", &[b"a"], true);
        check(b"\x2d\x01\0", &[], false);
    }

    #[test]
    fn what_begins_and_ends_in_the_input_is_lent_from_it() {
        let mut reader = Reader::default();
        let input = b"\x01\0\0\0a\x02\0\0\0bc\x01\0";
        let (taken, frame) = reader.next(9, input).unwrap();
        assert!(taken == 5 && std::ptr::eq(frame.unwrap(), &input[4..5]));
        let (taken, frame) = reader.next(9, &input[5..]).unwrap();
        assert!(taken == 6 && std::ptr::eq(frame.unwrap(), &input[9..11]));
        assert_eq!(reader.buffered_bytes(), 0);
        assert_eq!(reader.next(9, &input[11..]), Ok((2, None)));
        reader.release();
        assert!(reader.is_in_frame() && reader.buffered_bytes() == 2);
        assert_eq!(reader.next(9, b"\0\0xy"), Ok((3, Some(&b"x"[..]))));
        assert!(!reader.is_in_frame());
    }
}
