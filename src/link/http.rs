//! Plain HTTP connections of the broker's port, for a host that has a server of its own.
//!
//! Who watches [`Watch::HTTP`](super::Watch::HTTP) gets, as [`Event::Http`](super::Event::Http), every connection whose
//! request is not the broker's: the descriptor, and the bytes that have been read. It is the host's from then on, for as
//! many requests as it likes. A later request of the same connection may be the broker's (an upgrade after a page); then
//! the host gives the connection back, with all bytes that it has not answered.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::TrySendError;

use super::{Link, LinkError};
use crate::broker::Broker;
use crate::net::control::{Control, ControlSender};

/// The way of a connection from the host to a shard.
pub(super) struct Adoptions {
    shards: Arc<[ControlSender]>,
    /// The listeners of clients are those from 0 on.
    listeners: usize,
    next: AtomicUsize,
}

impl Adoptions {
    pub fn new(broker: &Broker) -> Adoptions {
        Adoptions {
            shards: broker.shards(),
            listeners: broker.listening.len(),
            next: AtomicUsize::new(0),
        }
    }
}

impl std::fmt::Debug for Adoptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Adoptions").finish_non_exhaustive()
    }
}

impl Link {
    /// Gives a connection to the broker, to be served as one that has just come to `listener` (that of its
    /// [`Event::Http`](super::Event::Http), or the index of one of [`Broker::listening`]): one that it gave to this host
    /// before, or any stream socket that the host has accepted itself. `bytes` are those that have been read and not
    /// answered, at least the whole of the last request's beginning; they are served first. Nothing of the host may read
    /// or write it any more.
    ///
    /// Whatever it asks for that is not the broker's comes back as an event.
    ///
    /// # Errors
    /// As for every call; [`LinkError::Invalid`] also for a Link to a broker elsewhere. The socket comes back.
    pub fn adopt(
        &self,
        listener: u16,
        socket: OwnedFd,
        bytes: Vec<u8>,
    ) -> Result<(), (LinkError, OwnedFd)> {
        if let Err(error) = self.check_process().and_then(|()| self.check_open()) {
            return Err((error, socket));
        }
        let Some(adoptions) = &self.inner.adoptions else {
            let elsewhere = "only a broker of this process can take a connection";
            return Err((LinkError::Invalid(elsewhere), socket));
        };
        if usize::from(listener) >= adoptions.listeners {
            return Err((LinkError::Invalid("there is no such listener"), socket));
        }
        let next = adoptions.next.fetch_add(1, Ordering::Relaxed);
        let shard = &adoptions.shards[next % adoptions.shards.len()];
        let word = Control::Adopt {
            socket,
            listener,
            bytes,
        };
        shard.offer(word).map_err(|refused| {
            let (error, word) = match refused {
                TrySendError::Full(word) => (LinkError::Full, word),
                TrySendError::Disconnected(word) => (LinkError::Stopped, word),
            };
            let Control::Adopt { socket, .. } = word else {
                unreachable!("what was offered comes back")
            };
            (error, socket)
        })
    }
}
