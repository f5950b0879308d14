//! The board as a Link uses it: a message that certainly nobody hears is not sent.
//!
//! The shards keep the board, each before it acknowledges a subscription. Until then a Link that subscribes holds it up
//! itself: what it publishes next is to come back to it.

use std::sync::{Arc, Mutex};

use hashbrown::HashMap;

use super::{Ticket, lock};
use crate::topic::board::Board;
use crate::topic::{Filter, Topic};

/// Who hears what this Link publishes.
pub(super) struct Hearing {
    board: Arc<Board>,
    /// Subscribes of this Link that were not answered yet.
    pending: Mutex<HashMap<Ticket, Filter>>,
}

impl Hearing {
    pub fn new(board: Arc<Board>) -> Hearing {
        Hearing {
            board,
            pending: Mutex::default(),
        }
    }

    /// Might a message to this topic reach anybody?
    pub fn may_match(&self, topic: &Topic) -> bool {
        self.board.may_match(topic)
    }

    /// A subscribe is about to be called.
    pub fn hold(&self, ticket: Ticket, filter: &Filter) {
        self.board.up(filter);
        lock(&self.pending).insert(ticket, filter.detached());
    }

    /// It was answered, or could not be called.
    pub fn release(&self, ticket: Ticket) {
        if let Some(filter) = lock(&self.pending).remove(&ticket) {
            self.board.down(&filter);
        }
    }
}

impl Drop for Hearing {
    fn drop(&mut self) {
        for filter in lock(&self.pending).values() {
            self.board.down(filter);
        }
    }
}

impl std::fmt::Debug for Hearing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hearing").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_subscribe_that_waits_for_its_answer_is_on_the_board() {
        let board = Arc::new(Board::default());
        let hearing = Hearing::new(board.clone());
        let topic = Topic::dotted(Bytes::from_static(b"news.uk")).expect("a topic");
        let filter = Filter::dotted(Bytes::from_static(b"news")).expect("a filter");
        assert!(!hearing.may_match(&topic));
        hearing.hold(Ticket(1), &filter);
        hearing.hold(Ticket(2), &filter);
        hearing.release(Ticket(1));
        hearing.release(Ticket(1));
        assert!(hearing.may_match(&topic));
        hearing.release(Ticket(2));
        assert!(!hearing.may_match(&topic));
        hearing.hold(Ticket(3), &filter);
        drop(hearing);
        assert!(!board.may_match(&topic));
    }
}
