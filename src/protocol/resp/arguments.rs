//! The arguments of one command: lent out while they lie in a buffer of somebody else, or owned.

use smallvec::SmallVec;

/// The arguments that are lent out without an allocation.
const INLINE_ARGUMENTS: usize = 8;

/// The arguments of a command, its name the first of them. Each is any bytes.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Arguments<'a> {
    slices: SmallVec<[&'a [u8]; INLINE_ARGUMENTS]>,
}

impl<'a> Arguments<'a> {
    /// How many, the name included.
    pub fn len(&self) -> usize {
        self.slices.len()
    }

    /// None at all. What a reader lends out never is.
    pub fn is_empty(&self) -> bool {
        self.slices.is_empty()
    }

    /// The argument at this place; the name is at 0.
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        self.slices.get(index).copied()
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + '_ {
        self.slices.iter().copied()
    }

    /// All, in order.
    pub fn as_slice(&self) -> &[&'a [u8]] {
        &self.slices
    }

    /// The same in memory of its own: for a command that has to wait.
    pub fn to_owned(&self) -> OwnedArguments {
        let mut owned = OwnedArguments {
            bytes: Vec::with_capacity(self.iter().map(<[u8]>::len).sum()),
            ends: Vec::with_capacity(self.len()),
        };
        for argument in self.iter() {
            owned.bytes.extend_from_slice(argument);
            owned.end();
        }
        owned
    }

    pub(super) fn push(&mut self, argument: &'a [u8]) {
        self.slices.push(argument);
    }
}

impl<'a> FromIterator<&'a [u8]> for Arguments<'a> {
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(arguments: I) -> Arguments<'a> {
        Arguments {
            slices: arguments.into_iter().collect(),
        }
    }
}

/// Arguments in memory of their own. A reader joins a command in one, too; then the last may be incomplete.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct OwnedArguments {
    /// One after the other.
    pub(super) bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
}

impl OwnedArguments {
    /// What [`OwnedArguments::size`] counts for an argument beside its bytes: the place of its end.
    pub const ARGUMENT_BYTES: usize = size_of::<usize>();

    /// The arguments that are complete.
    pub fn borrow(&self) -> Arguments<'_> {
        let mut start = 0;
        self.ends
            .iter()
            .map(|&end| {
                let argument = &self.bytes[start..end];
                start = end;
                argument
            })
            .collect()
    }

    /// The bytes that they take.
    pub fn size(&self) -> usize {
        self.bytes.len() + self.ends.len() * OwnedArguments::ARGUMENT_BYTES
    }

    /// The argument to which bytes were appended last is complete.
    pub(super) fn end(&mut self) {
        self.ends.push(self.bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_come_back() {
        let many: Vec<Vec<u8>> = (0..100).map(|size| vec![b'x'; size]).collect();
        for words in [&many[..], &many[..1], &many[..8], &many[..9], &[]] {
            let arguments: Arguments<'_> = words.iter().map(Vec::as_slice).collect();
            assert_eq!(arguments.len(), words.len());
            assert_eq!(arguments.is_empty(), words.is_empty());
            assert!(arguments.iter().eq(words));
            assert_eq!(arguments.as_slice(), words);
            assert_eq!(arguments.get(words.len()), None);
            let owned = arguments.to_owned();
            assert!(owned.borrow().iter().eq(words));
            let bytes: usize = words.iter().map(Vec::len).sum();
            assert_eq!(owned.size(), bytes + 8 * words.len());
        }
    }

    #[test]
    fn few_arguments_need_no_memory() {
        let arguments: Arguments<'_> = [&b"x"[..]; INLINE_ARGUMENTS].into_iter().collect();
        assert!(!arguments.slices.spilled());
    }
}
