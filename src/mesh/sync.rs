//! The primitives that `ring`, `doorbell` and `link` are built from, so that loom can look inside.
//!
//! An ordinary build takes them from `std`. With `--cfg pubsub_loom` they are loom's twins, which try every
//! interleaving and every value that the memory model allows a load to return, and which notice when two threads
//! are in one slot. The cfg has a name of our own, because other crates of the tree listen to plain `loom`.
//! Nothing else in the crate knows which of the two it runs on. To run the models:
//!
//! ```text
//! RUSTFLAGS="--cfg pubsub_loom" CARGO_TARGET_DIR=target/loom cargo test --release --lib mesh::
//! ```

pub(super) use imp::{Arc, AtomicBool, AtomicUsize, Mutex, MutexGuard, Ordering, Slots, fence};

#[cfg(not(pubsub_loom))]
mod imp {
    use std::cell::UnsafeCell;
    use std::mem::MaybeUninit;

    pub use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
    pub use std::sync::{Arc, Mutex, MutexGuard};

    /// Places for values, shared by threads that agree among themselves who may touch which.
    ///
    /// The memory is not written before the first value is: a ring that is never full never costs its pages.
    pub struct Slots<T>(Box<[MaybeUninit<UnsafeCell<T>>]>);

    impl<T> Slots<T> {
        pub fn uninit(count: usize) -> Slots<T> {
            Slots(Box::new_uninit_slice(count))
        }

        pub fn count(&self) -> usize {
            self.0.len()
        }

        /// The place itself. To use the pointer is the caller's affair, and unsafe.
        #[inline]
        pub fn with<R>(&self, index: usize, f: impl FnOnce(*mut T) -> R) -> R {
            f(UnsafeCell::raw_get(self.0[index].as_ptr()))
        }
    }
}

#[cfg(pubsub_loom)]
mod imp {
    use std::mem::MaybeUninit;

    use loom::cell::UnsafeCell;

    pub use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
    pub use loom::sync::{Arc, Mutex, MutexGuard};

    /// The twin of the above; each access counts as a write, so any two at once are a failure.
    pub struct Slots<T>(Box<[UnsafeCell<MaybeUninit<T>>]>);

    impl<T> Slots<T> {
        pub fn uninit(count: usize) -> Slots<T> {
            Slots(
                (0..count)
                    .map(|_| UnsafeCell::new(MaybeUninit::uninit()))
                    .collect(),
            )
        }

        pub fn count(&self) -> usize {
            self.0.len()
        }

        pub fn with<R>(&self, index: usize, f: impl FnOnce(*mut T) -> R) -> R {
            self.0[index].with_mut(|place| f(place.cast()))
        }
    }
}
