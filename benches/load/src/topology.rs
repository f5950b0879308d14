//! Who publishes where, and who listens: the shape that all scenarios share.
//!
//! There are `topics`, each with the same number of subscribers and the same number of *lanes*. A lane is the stream
//! of one publisher to one topic, numbered by topic first: topic `t` has lanes `t·K .. (t+1)·K`. Within a lane
//! publications are numbered; order, loss and doubles are questions about a lane.
//!
//! A publisher's own publications are numbered too, over all its lanes, which it serves in turn. Either each
//! publisher has one lane (then lane and publisher have the same number), or every publisher has a lane in every
//! topic.

/// The shape of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Topology {
    /// Topics.
    pub topics: usize,
    /// Subscribers of each topic. Each subscriber has one topic and one connection.
    pub subscribers_each: usize,
    /// Publishers in all.
    pub publishers: usize,
    /// Does each publisher have a lane in every topic, or one lane in all?
    pub is_crossed: bool,
    /// Are the publishers the first of the subscribers, on the same connections? In rooms that is all of them.
    pub is_shared: bool,
}

impl Topology {
    /// One topic.
    pub fn one_topic(publishers: usize, subscribers: usize) -> Topology {
        Topology {
            topics: 1,
            subscribers_each: subscribers,
            publishers,
            is_crossed: false,
            is_shared: false,
        }
    }

    /// One topic, to which the first of its subscribers publish; they are as many at most.
    pub fn circle(publishers: usize, subscribers: usize) -> Topology {
        Topology {
            is_shared: true,
            ..Topology::one_topic(publishers, subscribers)
        }
    }

    /// Rooms, in which every member publishes.
    pub fn rooms(rooms: usize, members: usize) -> Topology {
        Topology {
            topics: rooms,
            subscribers_each: members,
            publishers: rooms * members,
            is_crossed: false,
            is_shared: true,
        }
    }

    /// A subscriber to each topic; each publisher serves all topics.
    pub fn unique(topics: usize, publishers: usize) -> Topology {
        Topology {
            topics,
            subscribers_each: 1,
            publishers,
            is_crossed: true,
            is_shared: false,
        }
    }

    /// Subscribers in all.
    pub fn subscribers(&self) -> usize {
        self.topics * self.subscribers_each
    }

    /// The publisher on connection number `index`. Subscribers come first; publishers have connections of their own
    /// behind them, or the same ones.
    pub fn publisher_on(&self, index: usize) -> Option<usize> {
        let publisher = if self.is_shared {
            index
        } else {
            index.checked_sub(self.subscribers())?
        };
        (publisher < self.publishers).then_some(publisher)
    }

    /// Connections in all.
    pub fn connections(&self) -> usize {
        let publishers = if self.is_shared { 0 } else { self.publishers };
        self.subscribers() + publishers
    }

    /// Lanes of each topic: what a subscriber hears.
    pub fn lanes_each(&self) -> usize {
        if self.is_crossed {
            self.publishers
        } else {
            self.publishers / self.topics
        }
    }

    /// Lanes of each publisher.
    fn turns(&self) -> usize {
        if self.is_crossed { self.topics } else { 1 }
    }

    /// The topic of a subscriber.
    pub fn topic_of_subscriber(&self, subscriber: usize) -> usize {
        subscriber / self.subscribers_each
    }

    /// The topic of a lane.
    pub fn topic_of_lane(&self, lane: usize) -> usize {
        lane / self.lanes_each()
    }

    /// The lane, and the number in it, of a publisher's `n`th publication.
    pub fn lane(&self, publisher: usize, n: u64) -> (usize, u32) {
        if self.is_crossed {
            let topic = (n % self.topics as u64) as usize;
            let sequence = (n / self.topics as u64) as u32;
            (topic * self.publishers + publisher, sequence)
        } else {
            (publisher, n as u32)
        }
    }

    /// The way back: who published number `sequence` of a lane, as the how many-th publication.
    pub fn publication(&self, lane: usize, sequence: u32) -> (usize, u64) {
        if self.is_crossed {
            let n = u64::from(sequence) * self.topics as u64 + (lane / self.publishers) as u64;
            (lane % self.publishers, n)
        } else {
            (lane, u64::from(sequence))
        }
    }

    /// How many of a publisher's first `count` publications went to a lane of it.
    pub fn sent_on(&self, lane: usize, count: u64) -> u32 {
        let (_, first) = self.publication(lane, 0);
        count.saturating_sub(first).div_ceil(self.turns() as u64) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts what each lane gets, the slow way.
    fn check(shape: Topology) {
        let lanes = shape.topics * shape.lanes_each();
        let mut sent = vec![0u32; lanes];
        for publisher in 0..shape.publishers {
            for n in 0..23 {
                let (lane, sequence) = shape.lane(publisher, n);
                assert_eq!(sequence, sent[lane], "{shape:?}: a lane counts from 0");
                assert_eq!(shape.publication(lane, sequence), (publisher, n));
                assert_eq!(shape.sent_on(lane, n), sent[lane]);
                sent[lane] += 1;
                assert_eq!(shape.sent_on(lane, n + 1), sent[lane]);
                let topic = shape.topic_of_lane(lane);
                assert!(topic < shape.topics);
                if shape.is_crossed {
                    assert_eq!(topic, n as usize % shape.topics, "topics take turns");
                }
                if shape.is_shared {
                    assert_eq!(topic, shape.topic_of_subscriber(publisher), "its own room");
                }
            }
        }
        let all: u32 = sent.iter().sum();
        assert_eq!(all as usize, shape.publishers * 23);
    }

    #[test]
    fn lanes_and_publications_are_two_names_for_the_same() {
        for publishers in [1, 2, 7] {
            check(Topology::one_topic(publishers, 3));
            check(Topology::circle(publishers, 7));
            check(Topology::unique(1, publishers));
            check(Topology::unique(5, publishers));
            check(Topology::rooms(publishers, 1));
            check(Topology::rooms(4, publishers));
        }
    }

    #[test]
    fn connections_are_counted() {
        assert_eq!(Topology::one_topic(2, 100).connections(), 102);
        assert_eq!(Topology::circle(2, 100).connections(), 100);
        assert_eq!(Topology::rooms(10, 5).connections(), 50);
        assert_eq!(Topology::unique(100, 3).connections(), 103);
        assert_eq!(Topology::one_topic(0, 100).connections(), 100);
    }

    #[test]
    fn publishers_have_their_connections() {
        let check = |topology: Topology, index, expected| {
            assert_eq!(topology.publisher_on(index), expected, "{topology:?}");
        };
        check(Topology::one_topic(2, 100), 99, None);
        check(Topology::one_topic(2, 100), 100, Some(0));
        check(Topology::one_topic(2, 100), 101, Some(1));
        check(Topology::circle(2, 100), 1, Some(1));
        check(Topology::circle(2, 100), 2, None);
        check(Topology::rooms(10, 5), 49, Some(49));
    }
}
