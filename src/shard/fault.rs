//! Crash containment (promise 29), and the fault points that show it (DESIGN 5.1).
//!
//! Serving a connection has four places where only its own bytes are at stake: reading its request head, reading its
//! frames, decoding a text, encoding a word for it. A panic there is caught, ends that connection, and leaves the
//! shard as it was, because nothing shared is touched between entry and exit. Anywhere else a panic may leave
//! the shard's state half-changed; nobody here catches it, and the process ends.
//!
//! A fault point makes the Nth passage of one place panic, in release builds too. It is counted over all shards,
//! in the one word of memory that they share, and only while a fault is asked for.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where a fault can be planted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// A request head is examined. Ends the connection.
    Handshake,
    /// Bytes become a message. Ends the connection.
    Frame,
    /// A text becomes a command. Ends the connection.
    Decode,
    /// A word for one connection becomes bytes. Ends the connection.
    Encode,
    /// A command takes effect on the shard's state. Ends the process.
    Shard,
}

impl Place {
    const ALL: [Place; 5] = [
        Place::Handshake,
        Place::Frame,
        Place::Decode,
        Place::Encode,
        Place::Shard,
    ];

    /// The word in `PUBSUB_FAULT`.
    pub fn as_str(self) -> &'static str {
        match self {
            Place::Handshake => "handshake",
            Place::Frame => "frame",
            Place::Decode => "decode",
            Place::Encode => "encode",
            Place::Shard => "shard",
        }
    }
}

/// The fault that was asked for: `panic:PLACE:N`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FaultPoint {
    /// Where.
    pub place: Place,
    /// At which passage, counted from 1.
    pub passage: u64,
}

impl FromStr for FaultPoint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<FaultPoint, &'static str> {
        const WANTED: &str = "wants panic:PLACE:N, PLACE one of handshake, frame, decode, encode, shard and N from 1";
        let mut words = text.split(':');
        let (Some("panic"), Some(place), Some(passage), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(WANTED);
        };
        let place = Place::ALL.into_iter().find(|known| known.as_str() == place);
        match (place, passage.parse()) {
            (Some(place), Ok(passage)) if passage > 0 => Ok(FaultPoint { place, passage }),
            _ => Err(WANTED),
        }
    }
}

impl fmt::Display for FaultPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "panic:{}:{}", self.place.as_str(), self.passage)
    }
}

/// The fault point of a broker's shards; none by default.
#[derive(Clone, Default, Debug)]
pub struct Fault {
    armed: Option<Arc<Armed>>,
}

#[derive(Debug)]
struct Armed {
    point: FaultPoint,
    passages: AtomicU64,
}

impl Fault {
    /// To be shared by all shards of a broker.
    pub fn new(point: Option<FaultPoint>) -> Fault {
        Fault {
            armed: point.map(|point| {
                Arc::new(Armed {
                    point,
                    passages: AtomicU64::new(0),
                })
            }),
        }
    }

    /// A place is passed.
    ///
    /// # Panics
    /// If this is the passage that was asked for.
    #[inline]
    pub fn pass(&self, place: Place) {
        if let Some(armed) = &self.armed {
            armed.pass(place);
        }
    }

    /// Does work that touches nothing but one connection's bytes; `None` if it panicked.
    #[inline]
    pub fn contain<T>(&self, place: Place, work: impl FnOnce() -> T) -> Option<T> {
        contain(|| {
            self.pass(place);
            work()
        })
    }
}

/// The same without a fault point.
#[inline]
pub fn contain<T>(work: impl FnOnce() -> T) -> Option<T> {
    // Unwind safe: what the closure borrowed is the connection's own, and the caller ends the connection.
    catch_unwind(AssertUnwindSafe(work)).ok()
}

impl Armed {
    #[cold]
    fn pass(&self, place: Place) {
        if place == self.point.place
            && self.passages.fetch_add(1, Ordering::Relaxed) + 1 == self.point.passage
        {
            panic!("the planted fault {}", self.point);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_points_are_read_and_written() {
        let check = |text: &str, expected: Option<(Place, u64)>| {
            let point = text.parse::<FaultPoint>().ok();
            let expected = expected.map(|(place, passage)| FaultPoint { place, passage });
            assert_eq!(point, expected, "{text:?}");
            if let Some(point) = point {
                assert_eq!(point.to_string(), text);
            }
        };
        check("panic:handshake:1", Some((Place::Handshake, 1)));
        check("panic:frame:20", Some((Place::Frame, 20)));
        check("panic:decode:300", Some((Place::Decode, 300)));
        check("panic:encode:4", Some((Place::Encode, 4)));
        check(
            "panic:shard:18446744073709551615",
            Some((Place::Shard, u64::MAX)),
        );
        for wrong in [
            "",
            "panic",
            "panic:frame",
            "panic:frame:",
            "panic:frame:0",
            "panic:frame:-1",
            "panic:frame:1:2",
            "panic:Frame:1",
            "panic:outbox:1",
            "abort:frame:1",
            "panic:frame:18446744073709551616",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn only_the_passage_that_was_asked_for_panics() {
        let point = "panic:decode:3".parse().ok();
        let fault = Fault::new(point);
        // Shards share the count.
        let other = fault.clone();
        assert_eq!(fault.contain(Place::Decode, || 1), Some(1));
        assert_eq!(fault.contain(Place::Frame, || 2), Some(2));
        assert_eq!(other.contain(Place::Decode, || 3), Some(3));
        assert_eq!(fault.contain(Place::Decode, || 4), None);
        assert_eq!(other.contain(Place::Decode, || 5), Some(5));
        assert_eq!(Fault::default().contain(Place::Decode, || 6), Some(6));
    }
}
