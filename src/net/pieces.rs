//! What a driver knows of each slot, by the slot's number, in pieces that are never moved.
//!
//! The plain version is a vector that doubles. With 100 000 connections it moves megabytes at once while clients
//! wait, and its old copies stay with the allocator. A look-up here pays one more load.

/// A value for each slot. It only grows: slots are used again.
#[derive(Debug)]
pub(super) struct Pieces<T> {
    pieces: Vec<Box<[T; PIECE_SLOTS]>>,
}

const PIECE_SLOTS: usize = 256;

impl<T> Default for Pieces<T> {
    fn default() -> Self {
        Pieces { pieces: Vec::new() }
    }
}

impl<T> Pieces<T> {
    /// The value of a slot, if there is a piece with it.
    #[inline]
    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        let slot = slot as usize;
        let piece = self.pieces.get_mut(slot / PIECE_SLOTS)?;
        Some(&mut piece[slot % PIECE_SLOTS])
    }

    /// The value of a slot; what is missing up to there is made by `fresh`.
    #[inline]
    pub(super) fn reach(&mut self, slot: u32, fresh: impl FnMut() -> T) -> &mut T {
        let slot = slot as usize;
        if self.pieces.len() <= slot / PIECE_SLOTS {
            self.grow(slot / PIECE_SLOTS + 1, fresh);
        }
        &mut self.pieces[slot / PIECE_SLOTS][slot % PIECE_SLOTS]
    }

    #[cold]
    fn grow(&mut self, pieces: usize, mut fresh: impl FnMut() -> T) {
        self.pieces
            .resize_with(pieces, || Box::new(std::array::from_fn(|_| fresh())));
    }

    /// All values there are, whether their slots have been used or not.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.pieces.iter().flat_map(|piece| piece.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_where_they_are() {
        let mut pieces: Pieces<u32> = Pieces::default();
        assert_eq!(pieces.get_mut(0), None);
        *pieces.reach(255, || 7) = 8;
        assert_eq!(pieces.get_mut(254), Some(&mut 7));
        assert_eq!(pieces.iter().count(), 256);
        let before: *const u32 = pieces.reach(255, || 9);
        pieces.reach(256 * 100, || 1);
        let after: *const u32 = pieces.reach(255, || 9);
        assert_eq!(before, after);
        assert_eq!(pieces.get_mut(255), Some(&mut 8));
        assert_eq!(pieces.get_mut(256 * 101), None);
        assert_eq!(pieces.iter().sum::<u32>(), 255 * 7 + 8 + 100 * 256);
    }
}
