//! Handles: numbers that look like pointers.
//!
//! A handle says where in a table its object is, and which of the objects that were there; so one that was freed, or was
//! never a handle, is recognised without following it, for ever. It is odd, so it is no pointer to anything that has an
//! alignment, and below 2^47 for hosts that keep their pointers so.
//!
//! ```text
//! generation (from bit 13 up) | index (10 bits) | kind (2 bits) | 1
//! ```
//!
//! Whoever has looked an object up keeps it alive until it is done, even if the handle is freed meanwhile.

use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::status::Failure;
use crate::status::pubsub_status::{PUBSUB_EFULL, PUBSUB_EINVAL};

/// Handles of a kind at a time.
pub const HANDLES_MAX: usize = 1 << INDEX_BITS;

const INDEX_BITS: u32 = 10;
const KIND_BITS: u32 = 2;
const INDEX_SHIFT: u32 = KIND_BITS + 1;
const GENERATION_SHIFT: u32 = INDEX_SHIFT + INDEX_BITS;

/// The objects of one kind. Each place has a lock of its own, so that threads with different links do not meet.
pub struct Table<T> {
    kind: usize,
    /// What the messages call it.
    noun: &'static str,
    places: [RwLock<Place<T>>; HANDLES_MAX],
    /// Where to look for room first; also held while a place is taken.
    next: Mutex<usize>,
}

/// The number of a handle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Handle(usize);

impl Handle {
    /// As C has it.
    pub fn pointer<H>(self) -> *mut H {
        std::ptr::without_provenance_mut(self.0)
    }
}

struct Place<T> {
    /// How many objects have been here.
    generation: usize,
    object: Option<Arc<T>>,
}

impl<T> Table<T> {
    /// An empty table; tables differ in their kinds, 0 to 3.
    pub const fn new(kind: usize, noun: &'static str) -> Table<T> {
        assert!(kind < 1 << KIND_BITS);
        Table {
            kind,
            noun,
            places: [const {
                RwLock::new(Place {
                    generation: 0,
                    object: None,
                })
            }; HANDLES_MAX],
            next: Mutex::new(0),
        }
    }

    /// Takes an object in.
    ///
    /// # Errors
    /// `PUBSUB_EFULL`: there are [`HANDLES_MAX`] of them already.
    pub fn insert(&self, object: T) -> Result<Handle, Failure> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        for index in (0..HANDLES_MAX).map(|step| (*next + step) % HANDLES_MAX) {
            let mut place = write(&self.places[index]);
            if place.object.is_none() {
                place.generation += 1;
                place.object = Some(Arc::new(object));
                *next = index + 1;
                let number = place.generation << GENERATION_SHIFT
                    | index << INDEX_SHIFT
                    | self.kind << 1
                    | 1;
                return Ok(Handle(number));
            }
        }
        let why = format!(
            "there are {HANDLES_MAX} of this kind already: {}",
            self.noun
        );
        Err(Failure::told(PUBSUB_EFULL, why))
    }

    /// The object of this handle.
    ///
    /// # Errors
    /// `PUBSUB_EINVAL`.
    pub fn object<H>(&self, handle: *const H) -> Result<Arc<T>, Failure> {
        let (index, generation) = self.parts(handle)?;
        let place = read(&self.places[index]);
        match &place.object {
            Some(object) if place.generation == generation => Ok(object.clone()),
            _ => Err(self.freed()),
        }
    }

    /// Takes the object of this handle out; the handle is none from now on.
    ///
    /// # Errors
    /// `PUBSUB_EINVAL`.
    pub fn remove<H>(&self, handle: *const H) -> Result<Arc<T>, Failure> {
        let (index, generation) = self.parts(handle)?;
        let mut place = write(&self.places[index]);
        if place.generation != generation {
            return Err(self.freed());
        }
        place.object.take().ok_or_else(|| self.freed())
    }

    fn parts<H>(&self, handle: *const H) -> Result<(usize, usize), Failure> {
        let number = handle.addr();
        if number == 0 {
            return Err(Failure::told(
                PUBSUB_EINVAL,
                format_args!("{} is NULL", self.noun),
            ));
        }
        if number & ((1 << INDEX_SHIFT) - 1) != self.kind << 1 | 1 {
            return Err(Failure::told(
                PUBSUB_EINVAL,
                format_args!("this is not {}", self.noun),
            ));
        }
        let index = number >> INDEX_SHIFT & (HANDLES_MAX - 1);
        Ok((index, number >> GENERATION_SHIFT))
    }

    fn freed(&self) -> Failure {
        Failure::told(
            PUBSUB_EINVAL,
            format_args!("{} was freed, or never was", self.noun),
        )
    }
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    static TABLE: Table<u32> = Table::new(1, "a number");
    static OTHERS: Table<u32> = Table::new(2, "another number");
    static SMALL: Table<()> = Table::new(3, "nothing");

    #[test]
    fn handles_are_recognised() {
        let one: *const u8 = TABLE.insert(1).unwrap().pointer();
        let two: *const u8 = TABLE.insert(2).unwrap().pointer();
        assert_eq!(
            (*TABLE.object(one).unwrap(), *TABLE.object(two).unwrap()),
            (1, 2)
        );
        assert_eq!(*TABLE.remove(one).unwrap(), 1);
        assert!(TABLE.object(one).is_err() && TABLE.remove(one).is_err());
        assert_eq!(*TABLE.object(two).unwrap(), 2);
        // The same place again, another handle.
        while TABLE.insert(3).is_ok() {}
        assert!(TABLE.object(one).is_err());
        let local = 5_u64;
        for none in [
            std::ptr::null(),
            std::ptr::without_provenance(1),
            std::ptr::without_provenance(3),
            std::ptr::without_provenance(usize::MAX),
            (&raw const local).cast::<u8>(),
        ] {
            assert!(TABLE.object(none).is_err(), "{none:?}");
            assert!(TABLE.remove(none).is_err(), "{none:?}");
        }
        let of_others: *const u8 = OTHERS.insert(9).unwrap().pointer();
        assert!(TABLE.object(of_others).is_err() && OTHERS.object(two).is_err());
        let texts = |handle: *const u8| TABLE.object(handle).unwrap_err().to_string();
        assert_eq!(texts(std::ptr::null()), "a number is NULL");
        assert_eq!(texts(of_others), "this is not a number");
        assert_eq!(texts(one), "a number was freed, or never was");
    }

    #[test]
    fn an_object_in_use_outlives_its_handle() {
        let handle: *const u8 = OTHERS.insert(7).unwrap().pointer();
        let object = OTHERS.object(handle).unwrap();
        drop(OTHERS.remove(handle).unwrap());
        assert_eq!(*object, 7);
    }

    #[test]
    fn a_full_table_has_room_again() {
        let handles = (0..HANDLES_MAX).map(|_| SMALL.insert(()).unwrap());
        let handles: Vec<*mut u8> = handles.map(Handle::pointer).collect();
        assert_eq!(SMALL.insert(()).unwrap_err().status, PUBSUB_EFULL);
        SMALL.remove(handles[500]).unwrap();
        let again = SMALL.insert(()).unwrap().pointer();
        assert_ne!(again, handles[500]);
        assert!(SMALL.object(again).is_ok());
    }
}
