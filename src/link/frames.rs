//! Chunks into frames. A frame that lies in one chunk is lent as it lies there; one that does not is joined.

use bytes::{Buf as _, Bytes};

/// Chunks that have come, and what of them was not lent yet.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// Begins with a frame, or with the rest of the one in `carry`.
    chunk: Bytes,
    /// A frame that began in an earlier chunk, size included; empty if none did.
    carry: Vec<u8>,
}

/// The size that a frame says is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct NoFrame;

/// The bytes of a frame's size.
pub(super) const SIZE_BYTES: usize = 4;

/// The longest frame that is joined: some messages of the server class, so that whoever speaks something else is not
/// listened to for long.
pub(super) const FRAME_BYTES_MAX: usize = 64 * crate::limits::MIB;

impl Frames {
    /// Adds a chunk. The last one must have been used up: [`Frames::next`] gave none.
    pub fn push(&mut self, chunk: Bytes) {
        debug_assert!(self.chunk.is_empty(), "the frames of a chunk are lost");
        self.chunk = chunk;
    }

    /// Lends the next frame (without its size) and the bytes that it is a part of.
    ///
    /// # Errors
    /// [`NoFrame`]; nothing behind it can be read.
    pub fn next<R>(&mut self, read: impl FnOnce(&Bytes, &[u8]) -> R) -> Result<Option<R>, NoFrame> {
        if self.carry.is_empty()
            && let Some(size) = whole(&self.chunk)?
            && size <= self.chunk.len()
        {
            let result = read(&self.chunk, &self.chunk[SIZE_BYTES..size]);
            self.chunk.advance(size);
            return Ok(Some(result));
        }
        loop {
            // First its size, then what that says.
            let wanted = whole(&self.carry)?.unwrap_or(SIZE_BYTES);
            let missing = wanted - self.carry.len();
            if missing == 0 {
                break;
            }
            let taken = missing.min(self.chunk.len());
            if taken == 0 {
                return Ok(None);
            }
            self.carry.extend_from_slice(&self.chunk[..taken]);
            self.chunk.advance(taken);
        }
        let frame = Bytes::from(std::mem::take(&mut self.carry));
        Ok(Some(read(&frame, &frame[SIZE_BYTES..])))
    }
}

/// The size of the frame that `bytes` begin with, its own size included; none if that is not there yet.
///
/// # Errors
/// [`NoFrame`] if it is empty, or longer than any.
pub(super) fn whole(bytes: &[u8]) -> Result<Option<usize>, NoFrame> {
    let Some(size) = bytes.first_chunk::<SIZE_BYTES>() else {
        return Ok(None);
    };
    match u32::from_le_bytes(*size) as usize {
        0 => Err(NoFrame),
        size if size > FRAME_BYTES_MAX => Err(NoFrame),
        size => Ok(Some(SIZE_BYTES + size)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(body: &[u8]) -> Vec<u8> {
        let mut frame = (body.len() as u32).to_le_bytes().to_vec();
        frame.extend_from_slice(body);
        frame
    }

    /// All frames that can be read by now, and whether they were lent from the chunk itself.
    fn read_all(frames: &mut Frames, chunk: Bytes) -> Result<Vec<(Vec<u8>, bool)>, NoFrame> {
        let here = chunk.as_ptr_range();
        frames.push(chunk);
        let mut read = Vec::new();
        while let Some(frame) = frames.next(|owner, frame| {
            assert!(owner.as_ptr_range().contains(&frame.as_ptr()));
            (frame.to_vec(), here.contains(&frame.as_ptr()))
        })? {
            read.push(frame);
        }
        Ok(read)
    }

    proptest! {
        #[test]
        fn however_they_are_cut_frames_come_whole_and_in_order(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..12),
            cuts in prop::collection::vec(0.0..1.0f64, 0..20),
        ) {
            let stream: Vec<u8> = bodies.iter().flat_map(|body| frame(body)).collect();
            let mut ends: Vec<usize> = cuts
                .iter()
                .map(|cut| (cut * stream.len() as f64) as usize)
                .chain([stream.len()])
                .collect();
            ends.sort_unstable();
            let mut frames = Frames::default();
            let (mut begun, mut read) = (0, Vec::new());
            for end in ends {
                let chunk = Bytes::copy_from_slice(&stream[begun..end]);
                begun = end;
                let here = read_all(&mut frames, chunk).expect("frames");
                read.extend(here.into_iter().map(|(frame, _)| frame));
            }
            prop_assert_eq!(read, bodies);
        }
    }

    #[test]
    fn only_a_frame_of_two_chunks_is_copied() {
        let stream = [frame(b"one"), frame(b"two"), frame(b"three")].concat();
        let mut frames = Frames::default();
        let read = read_all(&mut frames, Bytes::copy_from_slice(&stream[..10])).expect("frames");
        assert_eq!(read, [(b"one".to_vec(), true)]);
        let read = read_all(&mut frames, Bytes::copy_from_slice(&stream[10..])).expect("frames");
        assert_eq!(read, [(b"two".to_vec(), false), (b"three".to_vec(), true)]);
    }

    #[test]
    fn a_size_that_no_frame_has_is_an_error_at_once() {
        for size in [0, FRAME_BYTES_MAX as u32 + 1, u32::MAX] {
            let chunk = Bytes::copy_from_slice(&size.to_le_bytes());
            let mut frames = Frames::default();
            assert_eq!(read_all(&mut frames, chunk.clone()), Err(NoFrame), "{size}");
            let mut frames = Frames::default();
            assert_eq!(read_all(&mut frames, chunk.slice(..2)), Ok(Vec::new()));
            assert_eq!(read_all(&mut frames, chunk.slice(2..)), Err(NoFrame));
        }
    }
}
