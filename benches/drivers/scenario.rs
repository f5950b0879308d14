//! What the engines are asked to do, all the same: a round of messages, again and again.
//!
//! A round begins when the last one has arrived everywhere, so an engine has one thing to do and then nothing. Which
//! connection does what follows from the order in which they are made: first all that get messages.

use std::fmt;
use std::ops::Range;

/// Bytes of a message. Nothing frames it; all are as long.
pub const MESSAGE_BYTES: usize = 64;

/// What a round is.
#[derive(Clone, Copy, Debug)]
pub enum Scenario {
    /// Each connection sends `burst` messages in one piece and gets them back. All of them are there when the server
    /// begins with the first.
    Echo { connections: usize, burst: usize },
    /// Each of `window` publishers sends one message, one after the other and without waiting for anything; each
    /// subscriber gets all of them.
    FanOut { subscribers: usize, window: usize },
}

impl Scenario {
    /// How many there are, those of readers first.
    pub fn connections(self) -> usize {
        self.writers().end
    }

    /// Connections that get messages: numbers 0 to this.
    pub fn readers(self) -> usize {
        match self {
            Scenario::Echo { connections, .. } => connections,
            Scenario::FanOut { subscribers, .. } => subscribers,
        }
    }

    /// Connections that send messages.
    pub fn writers(self) -> Range<usize> {
        match self {
            Scenario::Echo { connections, .. } => 0..connections,
            Scenario::FanOut {
                subscribers,
                window,
            } => subscribers..subscribers + window,
        }
    }

    /// Messages that a writer sends in one piece.
    pub fn burst(self) -> usize {
        match self {
            Scenario::Echo { burst, .. } => burst,
            Scenario::FanOut { .. } => 1,
        }
    }

    /// Messages that each reader gets in a round.
    pub fn due(self) -> usize {
        match self {
            Scenario::Echo { burst, .. } => burst,
            Scenario::FanOut { window, .. } => window,
        }
    }

    /// Messages of a round, counted where they arrive.
    pub fn deliveries(self) -> usize {
        self.readers() * self.due()
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scenario::Echo { connections, burst } => {
                write!(f, "echo, {connections} connections, burst {burst}")
            }
            Scenario::FanOut {
                subscribers,
                window,
            } => write!(f, "fan-out, {subscribers} subscribers, window {window}"),
        }
    }
}
