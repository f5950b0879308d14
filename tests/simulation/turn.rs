//! The steps of a shard's turn, in the order that DESIGN decision 4 asks for, and in orders that break it.
//!
//! The wrong ones are planted to be caught: each was a plausible way to write the loop.

/// In which order a shard takes the steps of a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TurnOrder {
    /// As `EventLoop::turn` does.
    Right,
    /// At most so many parcels a turn.
    BoundedDrain(usize),
    /// Readiness, then the rings, then the bytes.
    DrainBeforeTake,
    /// Words of the control plane are picked up among the rings.
    WordsAfterDrain,
    /// What Links have said is routed among the rings, like one of them.
    RouteAmongRings,
    /// A handed-over connection is heard in the turn that found it.
    ArrivalsAfterDrain,
    /// Acks leave before the rings are published.
    SendBeforePublish,
    /// The right order, over a driver that reports some sends twice.
    SendsReportedTwice,
    /// The right order, but shards answer how many received a publication before they have it.
    CountsTooEarly,
}

/// One step. Between any two of one shard, everything else may happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    Collect,
    Begin,
    Arrivals,
    Words,
    Mark(usize),
    Drain(usize),
    Route,
    Publish,
    Send,
    Finish,
    Announce,
}

impl TurnOrder {
    /// The steps of a turn; the wait is before the first. The rings are marked in any order: the one from the shard
    /// that deals connections last, so that they can overtake the news of others.
    pub fn steps(self, shards: usize, dealer: usize) -> Vec<Step> {
        use Step::{
            Announce, Arrivals, Begin, Collect, Drain, Finish, Publish, Route, Send, Words,
        };
        let rings = |freights_max| {
            let marks = (1..=shards).map(|offset| Step::Mark((dealer + offset) % shards));
            marks.chain([Drain(freights_max)]).collect::<Vec<_>>()
        };
        let all = rings(usize::MAX);
        let first = match self {
            TurnOrder::Right
            | TurnOrder::SendBeforePublish
            | TurnOrder::SendsReportedTwice
            | TurnOrder::CountsTooEarly => [vec![Collect, Begin, Arrivals, Words], all].concat(),
            TurnOrder::BoundedDrain(freights_max) => {
                [vec![Collect, Begin, Arrivals, Words], rings(freights_max)].concat()
            }
            TurnOrder::DrainBeforeTake => {
                [vec![Begin], all, vec![Collect, Arrivals, Words]].concat()
            }
            TurnOrder::WordsAfterDrain => {
                [vec![Collect, Begin, Arrivals], all, vec![Words]].concat()
            }
            TurnOrder::RouteAmongRings => {
                let some = [Step::Mark((dealer + 1) % shards), Drain(usize::MAX), Route];
                [vec![Collect, Begin, Arrivals, Words], some.to_vec(), all].concat()
            }
            TurnOrder::ArrivalsAfterDrain => {
                [vec![Collect, Begin, Words], all, vec![Arrivals]].concat()
            }
        };
        let last = match self {
            TurnOrder::SendBeforePublish => vec![Route, Send, Publish, Finish, Announce],
            TurnOrder::RouteAmongRings => vec![Publish, Send, Finish, Announce],
            _ => vec![Route, Publish, Send, Finish, Announce],
        };
        [first, last].concat()
    }
}
