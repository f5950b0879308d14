//! What the sessions of this shard want: counted, told to the other shards, and shown on the board.

use std::ops::Deref;
use std::sync::Arc;

use crate::address::{ShardId, ShardSet};
use crate::topic::board::Board;
use crate::topic::interest::{Edge, Interest};

use super::parcel::Key;

/// The interest of this shard. The board follows it, whoever adds or removes: a filter is up on it from its first local
/// subscriber, before the subscribe is acknowledged, to its last.
#[derive(Debug)]
pub(super) struct Wants {
    interest: Interest<Key>,
    board: Option<Arc<Board>>,
}

impl Wants {
    /// Nothing yet; `peers` are to be told.
    pub(super) fn new(peers: ShardSet, board: Option<Arc<Board>>) -> Wants {
        Wants {
            interest: Interest::new(peers),
            board,
        }
    }

    /// As [`Interest::add`].
    pub(super) fn add(&mut self, key: &Key) -> bool {
        let is_first = self.interest.add(key);
        if is_first
            && let Key::Filter(filter) = key
            && let Some(board) = &self.board
        {
            board.up(filter);
        }
        is_first
    }

    /// As [`Interest::remove`].
    pub(super) fn remove(&mut self, key: &Key) -> bool {
        let was_last = self.interest.remove(key);
        if was_last
            && let Key::Filter(filter) = key
            && let Some(board) = &self.board
        {
            board.down(filter);
        }
        was_last
    }

    /// As [`Interest::next_edge`].
    pub(super) fn next_edge(&mut self, peer: ShardId) -> Option<Edge<Key>> {
        self.interest.next_edge(peer)
    }

    /// As [`Interest::told`].
    pub(super) fn told(&mut self, peer: ShardId) {
        self.interest.told(peer);
    }
}

/// To look at.
impl Deref for Wants {
    type Target = Interest<Key>;

    fn deref(&self) -> &Interest<Key> {
        &self.interest
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::testing::House;
    use super::*;
    use crate::topic::Topic;

    #[test]
    fn the_board_shows_who_listens_from_before_the_ack_to_the_last_end() {
        let board = Arc::new(Board::default());
        let mut house = House::with(2, |settings| settings.board = Some(board.clone()));
        let heard = |name: &'static str| {
            let topic = Topic::dotted(Bytes::from(name)).expect("it is a topic");
            board.may_match(&topic)
        };
        let (one, two) = (house.connect(0), house.connect(1));
        assert!(!heard("a.b"));
        house.fill(0, 1);
        house.send(one, r#"{"type":"subscribe","topic":"a"}"#);
        house.turn(0);
        assert_eq!(
            house.read(one),
            [""; 0],
            "the other shard has to know first"
        );
        assert!(heard("a.b"));
        house.unfill(0, 1);
        house.settle();
        house.subscribe(one, "a");
        house.subscribe(two, "a");
        house.ask(one, r#"{"type":"unsubscribe","topic":"a"}"#);
        assert!(heard("a.b"), "the other is there");
        house.end(two, crate::shard::Ending::Failed);
        house.settle();
        assert!(!heard("a.b"));
    }
}
