//! A bounded single-producer single-consumer ring. (stub: signatures to keep)

/// Room that is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    pub entries: usize,
    pub bytes: usize,
}

/// How far a ring had been filled at some moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark(usize);

pub struct Producer<T>(std::marker::PhantomData<T>);
pub struct Consumer<T>(std::marker::PhantomData<T>);

pub fn ring<T: Send>(_entries_max: usize, _bytes_max: usize) -> (Producer<T>, Consumer<T>) {
    todo!()
}
impl<T: Send> Producer<T> {
    /// refreshed from the consumer's side; only grows until the next push
    pub fn room(&mut self) -> Room {
        todo!()
    }
    /// An empty ring always takes one entry, whatever its size. Not visible to the consumer before `publish`.
    pub fn push(&mut self, _item: T, _bytes: usize) -> Result<(), T> {
        todo!()
    }
    /// Makes all pushed entries visible; true if there were any
    pub fn publish(&mut self) -> bool {
        todo!()
    }
    pub fn is_closed(&self) -> bool {
        todo!()
    }
}
impl<T: Send> Consumer<T> {
    /// Acquire-reads the tail.
    pub fn mark(&self) -> Mark {
        todo!()
    }
    /// The next entry before `mark`
    pub fn pop(&mut self, _mark: Mark) -> Option<T> {
        todo!()
    }
    /// gives the room of popped entries back to the producer (call once per turn)
    pub fn release(&mut self) {
        todo!()
    }
    pub fn is_empty(&self) -> bool {
        todo!()
    }
}
