//! The clock of the edge: the one place below which nobody asks for the time.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::shard::Now;

/// A clock that all shards of a broker share.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
}

impl Clock {
    /// A clock that begins now.
    pub fn start() -> Clock {
        Clock {
            started: Instant::now(),
        }
    }

    /// The time.
    pub fn now(&self) -> Now {
        let unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Now {
            ms: self.started.elapsed().as_millis() as u64,
            unix_ms: unix.as_millis() as u64,
        }
    }
}
