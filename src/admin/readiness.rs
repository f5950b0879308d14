//! What `/readyz` tells a load balancer: the one word that the broker and its admin listener share.

use std::sync::atomic::{AtomicU8, Ordering};

/// Where the broker is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Not yet listening.
    Starting,
    /// Takes clients.
    Ready,
    /// On its way out; `/readyz` fails before the listeners close (promise 28).
    Draining,
}

impl Phase {
    /// The word in `/readyz` and `/stats`.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Ready => "ready",
            Phase::Draining => "draining",
        }
    }
}

/// The phase, written by the broker, read by the admin listener.
#[derive(Default, Debug)]
pub struct Readiness(AtomicU8);

impl Readiness {
    /// Enters a phase. It is what the next `/readyz` answers.
    pub fn set(&self, phase: Phase) {
        self.0.store(phase as u8, Ordering::Release);
    }

    /// The phase now; [`Phase::Starting`] before anything was set.
    pub fn phase(&self) -> Phase {
        match self.0.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            // `set` is the only writer, and this the only number left.
            _ => Phase::Draining,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_reads_as_it_was_set() {
        let readiness = Readiness::default();
        assert_eq!(readiness.phase(), Phase::Starting);
        for phase in [Phase::Ready, Phase::Draining, Phase::Starting] {
            readiness.set(phase);
            assert_eq!(readiness.phase(), phase);
        }
    }
}
