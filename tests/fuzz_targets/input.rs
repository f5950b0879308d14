//! The fuzzer's bytes as a supply of small choices, which ends with zeros.

/// Bytes that have not been used for a choice yet.
pub struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    /// All of them.
    pub fn new(bytes: &'a [u8]) -> Input<'a> {
        Input { rest: bytes }
    }

    /// Has every byte been used?
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        match self.rest.split_first() {
            Some((&byte, rest)) => {
                self.rest = rest;
                byte
            }
            None => 0,
        }
    }

    /// A number below `bound`, which is at most 256. The digits 0 to 9 mean themselves if they are below it.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte().wrapping_sub(b'0')) % bound
    }

    /// The next bytes, at most so many.
    pub fn take(&mut self, size: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(size.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// What is left.
    pub fn rest(self) -> &'a [u8] {
        self.rest
    }
}
