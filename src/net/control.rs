//! The control plane: how threads that are no shard speak to the shards. Slow, simple, bounded.
//!
//! Each shard has one bounded channel. What is sent there is taken at the start of a turn, with the bytes of the
//! clients (DESIGN decision 4), and answered by a call of the closure that came along, on the shard's thread:
//! it must only pass the value on.

#![allow(missing_docs, reason = "the comment of a variant speaks of its fields")]

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Sender, TrySendError};

use crate::error::Code;
use crate::shard::Credentials;
use crate::shard::metrics::{ConnectionView, ShardStats};
use crate::topic::Topic;

use super::links::ShardEnd;

/// What a shard calls with its answer; must not block.
pub type Reply<T> = Box<dyn FnOnce(T) + Send>;

/// A word to a shard.
pub enum Control {
    /// Publish as nobody's session; answered when every interested shard has it, or with `busy`.
    Publish {
        topic: Topic,
        payload: Bytes,
        reply: Reply<Result<(), Code>>,
    },
    /// Count.
    Stats { reply: Reply<ShardStats> },
    /// List at most `count` connections, those with the most bytes waiting first.
    Connections {
        count: usize,
        reply: Reply<Vec<ConnectionView>>,
    },
    /// Believe these from now on. Who is in stays in.
    Reload { credentials: Arc<Credentials> },
    /// Here is a session that came to this listener: a Link.
    Link { end: ShardEnd, listener: u16 },
    /// Here is a connection that the host holds: serve it as one that came to this listener, these bytes first.
    Adopt {
        socket: OwnedFd,
        listener: u16,
        bytes: Vec<u8>,
    },
    /// Accept no more.
    StopAccepting { reply: Reply<()> },
    /// Take no more input; answered when everything taken has been routed and handed on.
    Quiesce { reply: Reply<()> },
    /// Close every session with 1001, spread over this time; answered when all are gone.
    Close { spread_ms: u64, reply: Reply<()> },
    /// End the event loop now.
    Stop,
}

/// Wakes one shard's thread from its wait.
pub type Wake = Box<dyn Fn() + Send + Sync>;

/// The way to one shard. Cheap to clone behind an `Arc`; any thread may send.
pub struct ControlSender {
    /// The shard's channel.
    pub channel: Sender<Control>,
    /// Rings its doorbell, and wakes it if it sleeps.
    pub wake: Wake,
}

/// The shard's channel is full, or its thread has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unreachable;

impl ControlSender {
    /// Sends without waiting.
    ///
    /// # Errors
    /// [`Unreachable`] if the channel is full or the shard has ended.
    pub fn send(&self, control: Control) -> Result<(), Unreachable> {
        self.channel.try_send(control).map_err(|_| Unreachable)?;
        (self.wake)();
        Ok(())
    }

    /// As [`ControlSender::send`], for a word that is to be had back.
    ///
    /// # Errors
    /// Which of both it is, and the word.
    #[expect(clippy::result_large_err, reason = "the word comes back as it went")]
    pub fn offer(&self, control: Control) -> Result<(), TrySendError<Control>> {
        self.channel.try_send(control)?;
        (self.wake)();
        Ok(())
    }

    /// Sends a word that must not be lost: while the channel is full of others' words, waits until the shard has taken
    /// one, for at most `time`.
    ///
    /// # Errors
    /// [`Unreachable`] if the channel stayed full, or the shard has ended.
    pub fn insist(&self, control: Control, time: Duration) -> Result<(), Unreachable> {
        self.channel
            .send_timeout(control, time)
            .map_err(|_| Unreachable)?;
        (self.wake)();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_channel_refuses_a_question_and_keeps_a_word_that_must_not_be_lost() {
        let (channel, words) = crossbeam_channel::bounded(1);
        let sender = ControlSender {
            channel,
            wake: Box::new(|| {}),
        };
        assert_eq!(sender.send(Control::Stop), Ok(()));
        assert_eq!(sender.send(Control::Stop), Err(Unreachable));
        let insisted = std::thread::scope(|scope| {
            let insisting = scope.spawn(|| sender.insist(Control::Stop, Duration::from_secs(60)));
            assert!(matches!(words.recv(), Ok(Control::Stop)));
            assert!(matches!(words.recv(), Ok(Control::Stop)));
            insisting.join().expect("no panic")
        });
        assert_eq!(insisted, Ok(()));
        drop(words);
        let insisted = sender.insist(Control::Stop, Duration::from_secs(60));
        assert_eq!(insisted, Err(Unreachable));
    }
}
