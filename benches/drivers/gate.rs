//! A gate that holds a server at the first message of a round until all others are in its sockets.
//!
//! Without it an echo measures who keeps pace with whom: a server that is a little faster than the client finds one
//! message at a time, falls asleep after each, and looks dearer than a slow one.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// How long one side waits for the other.
const PATIENCE: Duration = Duration::from_secs(10);

/// The server's side.
pub struct Gate {
    arrived: Sender<()>,
    opened: Receiver<()>,
}

/// The client's side.
pub struct Keeper {
    arrived: Receiver<()>,
    opened: Sender<()>,
}

/// A gate and who opens it.
pub fn gate() -> (Gate, Keeper) {
    let (arrived, arrivals) = channel();
    let (opened, openings) = channel();
    let gate = Gate {
        arrived,
        opened: openings,
    };
    let keeper = Keeper {
        arrived: arrivals,
        opened,
    };
    (gate, keeper)
}

impl Gate {
    /// Waits until it is opened. A gate without a keeper is open.
    pub fn pass(&self) {
        if self.arrived.send(()).is_ok() {
            match self.opened.recv_timeout(PATIENCE) {
                Ok(()) | Err(RecvTimeoutError::Disconnected) => {}
                Err(RecvTimeoutError::Timeout) => panic!("the gate stays closed"),
            }
        }
    }
}

impl Keeper {
    /// Waits until the server is at the gate.
    ///
    /// # Panics
    /// If it does not come for ten seconds, or is gone.
    pub fn await_server(&self) {
        let arrived = self.arrived.recv_timeout(PATIENCE);
        arrived.expect("the server comes to the gate");
    }

    /// Lets it go on.
    ///
    /// # Panics
    /// If it is gone.
    pub fn open(&self) {
        self.opened.send(()).expect("the server is at the gate");
    }
}
