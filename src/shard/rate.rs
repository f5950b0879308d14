//! Rates: how many publishes and subscribes a connection may make (promise 21). Off by default, since whoever is
//! slowed down here is never seen to be slow anywhere else.
//!
//! The plain version: a bucket for each kind holds up to *burst* tokens, gets *rate* of them a second, and a command takes
//! one. A command that finds none is stalled as one is that finds no room in a ring: reading stops, nothing is
//! dropped, and the liveness clock stands still. But nobody else's doing ends the wait, so it has a deadline and no
//! turns are spent on it. What departs from it: who waits, waits for what comes in 20 ms, if the bucket holds as much,
//! so that a flood at a high rate is resumed fifty times a second and not for each command.
//!
//! A command is paid for when it has been carried out. So one that then waits for a ring is not paid for twice.

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::address::SessionId;
use crate::limits::Limits;
use crate::protocol::Command;

use super::session::Since;
use super::settings::Settings;
use super::{Ending, Shard};

/// So many times a second a connection that waits is resumed at most, unless its bucket is smaller than that.
const RESUMES_PER_SECOND: u64 = 50;

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rated {
    Publish,
    Subscribe,
}

impl Rated {
    /// As what a command counts, if it does.
    pub fn of(command: &Command) -> Option<Rated> {
        match command {
            Command::Publish { .. } => Some(Rated::Publish),
            Command::Subscribe { .. } => Some(Rated::Subscribe),
            Command::Unsubscribe { .. }
            | Command::Emit { .. }
            | Command::Request { .. }
            | Command::Reply { .. }
            | Command::Handle { .. }
            | Command::Unhandle { .. }
            | Command::Whoami { .. }
            | Command::Ping { .. }
            | Command::Peer(_) => None,
        }
    }

    /// What is allowed of it; `None`: any number.
    fn rate(self, limits: &Limits) -> Option<Rate> {
        let (per_second, burst) = match self {
            Rated::Publish => (limits.publish_rate_max, limits.publish_burst_max),
            Rated::Subscribe => (limits.subscribe_rate_max, limits.subscribe_burst_max),
        };
        let burst = if burst == 0 { per_second } else { burst };
        (per_second > 0).then_some(Rate {
            per_second: per_second.into(),
            burst: burst.into(),
        })
    }
}

/// Tokens a second, and the most that are kept; neither is 0.
#[derive(Clone, Copy, Debug)]
struct Rate {
    per_second: u64,
    burst: u64,
}

/// What a token counts for in a bucket. A rate in tokens a second is the same in these a millisecond.
const TOKEN: u64 = 1000;

/// Tokens, in thousandths, as of a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Bucket {
    level: u64,
    at_ms: u64,
}

impl Bucket {
    fn full(rate: Rate, now_ms: u64) -> Bucket {
        Bucket {
            level: rate.burst * TOKEN,
            at_ms: now_ms,
        }
    }

    /// How long until a command may be carried out: 0 for now.
    fn wait_ms(&mut self, rate: Rate, now_ms: u64) -> u64 {
        let come = (now_ms - self.at_ms).saturating_mul(rate.per_second);
        self.level = self.level.saturating_add(come).min(rate.burst * TOKEN);
        self.at_ms = now_ms;
        if self.level >= TOKEN {
            return 0;
        }
        let wanted = (rate.per_second / RESUMES_PER_SECOND).clamp(1, rate.burst) * TOKEN;
        (wanted - self.level).div_ceil(rate.per_second)
    }

    fn take(&mut self, count: u64) {
        self.level = self.level.saturating_sub(TOKEN.saturating_mul(count));
    }
}

/// The buckets of one session, once it has needed them.
#[derive(Default, Debug)]
struct Buckets {
    publish: Option<Bucket>,
    subscribe: Option<Bucket>,
}

impl Buckets {
    fn of(&mut self, rated: Rated) -> &mut Option<Bucket> {
        match rated {
            Rated::Publish => &mut self.publish,
            Rated::Subscribe => &mut self.subscribe,
        }
    }
}

/// The buckets of a shard's sessions. Beside the sessions, since where there are no rates it costs these nothing.
#[derive(Debug)]
pub(super) struct Rates {
    /// Is anybody's rate limited?
    is_on: bool,
    sessions: HashMap<SessionId, Buckets, RandomState>,
}

impl Rates {
    pub fn new(settings: &Settings) -> Rates {
        let limited = |limits: &Limits| {
            [Rated::Publish, Rated::Subscribe]
                .iter()
                .any(|rated| rated.rate(limits).is_some())
        };
        Rates {
            is_on: [
                &settings.limits,
                &settings.echo_limits,
                &settings.server_limits,
            ]
            .into_iter()
            .any(limited),
            sessions: HashMap::default(),
        }
    }

    /// The session has ended.
    pub fn forget(&mut self, id: SessionId) {
        self.sessions.remove(&id);
    }

    /// How many sessions have buckets.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }
}

impl Shard {
    /// May a session carry out one more command of this kind now? If not, its stall knows until when it waits: the
    /// command is to be kept in it. Whoever carries the command out calls [`Shard::spend_rate`].
    pub(super) fn rate_allows(&mut self, id: SessionId, rated: Rated) -> bool {
        if !self.rates.is_on {
            return true;
        }
        let now_ms = self.now.ms;
        let Some(session) = self.sessions.find(id) else {
            return true;
        };
        let Some(rate) = rated.rate(session.limits(&self.settings)) else {
            return true;
        };
        let buckets = self.rates.sessions.entry(id).or_default();
        let bucket = buckets.of(rated);
        let wait_ms = bucket
            .get_or_insert_with(|| Bucket::full(rate, now_ms))
            .wait_ms(rate, now_ms);
        if wait_ms == 0 {
            if let Some(stall) = &mut session.stall {
                stall.until = Since::NEVER;
            }
            return true;
        }
        let stall = session.stall.get_or_insert_default();
        if stall.until == Since::NEVER {
            self.stats.throttled += 1;
        }
        stall.until = Since::at(now_ms + wait_ms);
        false
    }

    /// A command of this kind has been carried out.
    pub(super) fn spend_rate(&mut self, id: SessionId, rated: Rated) {
        self.spend_rate_of(id, rated, 1);
    }

    /// The same of a command that stands for several.
    pub(super) fn spend_rate_of(&mut self, id: SessionId, rated: Rated, count: usize) {
        if self.rates.is_on
            && let Some(buckets) = self.rates.sessions.get_mut(&id)
            && let Some(bucket) = buckets.of(rated)
        {
            bucket.take(count as u64);
        }
    }

    /// The wait of a stalled session is over: the next turn goes on with it.
    pub(super) fn rate_due(&mut self, id: SessionId) {
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        if let Some(stall) = &mut session.stall {
            stall.until = Since::NEVER;
        }
        self.leave_clog(id);
        if !self.is_sealed {
            self.resume_later(id);
            self.has_leftovers = true;
            return;
        }
        // Others have been told that everything taken is handed on: what waits still is as good as never read.
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        session.stall = None;
        if session.is_input_ended {
            self.ended(id, Ending::EndOfInput);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Ending;
    use super::super::testing::{House, Who, brief, publish};
    use super::*;

    #[test]
    fn a_bucket_holds_its_burst_and_fills_at_its_rate() {
        let rate = |per_second, burst| Rate { per_second, burst };
        for (rate, waits) in [
            // At a moment, how long until one may be taken.
            (
                rate(1, 2),
                &[
                    (0, 0),
                    (0, 0),
                    (0, 1_000),
                    (500, 500),
                    (1_000, 0),
                    (1_000, 1_000),
                ][..],
            ),
            (
                rate(10, 1),
                &[
                    (0, 0),
                    (0, 100),
                    (99, 1),
                    (100, 0),
                    (100, 100),
                    (9_000, 0),
                    (9_000, 100),
                ],
            ),
            // For 20 ms of it, if it holds as much.
            (rate(1_000, 100), &[(7, 0)]),
            (rate(1_000, 1), &[(0, 0), (0, 1), (1, 0), (1, 1)]),
            (
                rate(1_000, 5),
                &[(0, 0), (0, 0), (0, 0), (0, 0), (0, 0), (0, 5), (5, 0)],
            ),
            (
                rate(3, 1),
                &[(0, 0), (0, 334), (333, 1), (334, 0), (334, 334)],
            ),
            (
                rate(u32::MAX.into(), u32::MAX.into()),
                &[(0, 0), (1 << 50, 0)],
            ),
        ] {
            let mut bucket = Bucket::full(rate, 0);
            for &(now_ms, expected) in waits {
                let found = bucket.wait_ms(rate, now_ms);
                assert_eq!(found, expected, "{rate:?} at {now_ms}");
                if found == 0 {
                    bucket.take(1);
                }
            }
        }
        let mut bucket = Bucket::full(rate(1_000, 100), 0);
        for _ in 0..100 {
            assert_eq!(bucket.wait_ms(rate(1_000, 100), 0), 0);
            bucket.take(1);
        }
        assert_eq!(bucket.wait_ms(rate(1_000, 100), 0), 20);
    }

    fn house(change: impl FnOnce(&mut Limits)) -> House {
        House::with(2, |settings| change(&mut settings.limits))
    }

    fn ten_a_second() -> House {
        house(|limits| {
            limits.publish_rate_max = 10;
            limits.publish_burst_max = 3;
        })
    }

    fn numbered(kind: &str, id: u32) -> String {
        format!(r#"{{"type":"{kind}","topic":"a.{id}","message":1,"id":{id}}}"#)
    }

    fn expect(house: &mut House, client: Who, kind: &str, ids: std::ops::Range<u32>) {
        let expected: Vec<_> = ids.map(|id| format!("ack {kind} {id}")).collect();
        assert_eq!(brief(&house.read(client)), expected);
    }

    #[test]
    fn who_publishes_too_fast_is_read_as_fast_as_it_may_and_loses_nothing() {
        let mut house = ten_a_second();
        let (client, other) = (house.connect(0), house.connect(0));
        for id in 0..8 {
            house.send(client, &numbered("publish", id));
        }
        house.settle();
        expect(&mut house, client, "publish", 0..3);
        assert!(house.is_paused(client));
        let shard = &house.shards[0];
        assert!(
            !shard.has_work() && !shard.is_restless(),
            "it waits for the clock alone"
        );
        assert_eq!((shard.stats().throttled, shard.stats().stalls), (1, 0));
        for id in 3..8 {
            house.pass(99);
            house.settle();
            expect(&mut house, client, "publish", 0..0);
            house.pass_to_deadline(0);
            house.settle();
            expect(&mut house, client, "publish", id..id + 1);
        }
        assert!(!house.is_paused(client));
        // Others have buckets of their own, and other commands cost nothing.
        assert_eq!(brief(&house.ask(other, &publish("a", 1))), ["ack publish"]);
        for _ in 0..20 {
            house.subscribe(client, "b");
        }
        for client in [client, other] {
            house.end(client, Ending::Failed);
        }
        house.turn(0);
        assert_eq!(house.shards[0].rates.len(), 0);
        house.check_empty(0);
    }

    #[test]
    fn subscribes_have_a_rate_of_their_own() {
        let mut house = house(|limits| limits.subscribe_rate_max = 2);
        let client = house.connect(0);
        for id in 0..4 {
            house.send(client, &numbered("subscribe", id));
        }
        house.settle();
        expect(&mut house, client, "subscribe", 0..2);
        house.pass(500);
        house.turn(0);
        house.settle();
        expect(&mut house, client, "subscribe", 2..3);
        house.pass(500);
        house.turn(0);
        house.settle();
        expect(&mut house, client, "subscribe", 3..4);
        for _ in 0..20 {
            let told = house.ask(client, &publish("b", 1));
            assert_eq!(brief(&told), ["ack publish"]);
        }
    }

    #[test]
    fn a_command_that_waits_for_a_ring_is_paid_for_once() {
        let mut house = ten_a_second();
        let (client, far) = (house.connect(0), house.connect(1));
        house.subscribe(far, "a");
        house.fill(0, 1);
        for id in 0..3 {
            house.send(client, &numbered("publish", id));
        }
        for _ in 0..50 {
            house.turn(0);
        }
        assert_eq!(house.read(client), [""; 0]);
        house.unfill(0, 1);
        house.settle();
        expect(&mut house, client, "publish", 0..3);
        assert_eq!(house.shards[0].stats().throttled, 0);
    }

    #[test]
    fn both_waits_come_to_their_end() {
        let mut house = house(|limits| {
            limits.publish_rate_max = 10;
            limits.publish_burst_max = 1;
            limits.subscribe_rate_max = 10;
            limits.subscribe_burst_max = 2;
        });
        let client = house.connect(0);
        house.fill(0, 1);
        for (kind, id) in [
            ("subscribe", 0),
            ("subscribe", 1),
            ("subscribe", 2),
            ("publish", 3),
        ] {
            house.send(client, &numbered(kind, id));
        }
        // Two wait to be known, the third for its turn.
        house.turn(0);
        house.pass(1_000);
        house.turn(0);
        house.turn(0);
        assert_eq!(house.read(client), [""; 0]);
        house.unfill(0, 1);
        house.turn(0);
        house.settle();
        let told = brief(&house.read(client));
        let expected = [
            "ack subscribe 0",
            "ack subscribe 1",
            "ack subscribe 2",
            "ack publish 3",
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn who_waits_is_not_called_dead_and_ends_with_its_last_command() {
        let mut house = house(|limits| {
            limits.publish_rate_max = 1;
            limits.ping_interval_ms = 100;
            limits.ping_timeout_ms = 100;
        });
        let (client, gone) = (house.connect(0), house.connect(0));
        for id in 0..3 {
            house.send(client, &numbered("publish", id));
            house.send(gone, &numbered("publish", id));
        }
        house.end(gone, Ending::EndOfInput);
        house.settle();
        for _ in 0..19 {
            house.pass(100);
            house.turn(0);
            house.settle();
        }
        assert!(house.session(client).is_open() && house.session(gone).is_open());
        house.pass(100);
        house.turn(0);
        house.settle();
        expect(&mut house, client, "publish", 0..3);
        assert_eq!(house.closed(gone), Some(false));
        assert_eq!(house.shards[0].stats().publishes, 6);
    }

    #[test]
    fn a_drain_does_not_wait_for_those_who_are_too_fast() {
        let mut house = ten_a_second();
        let client = house.connect(0);
        for id in 0..8 {
            house.send(client, &numbered("publish", id));
        }
        house.settle();
        expect(&mut house, client, "publish", 0..3);
        house.shards[0].quiesce();
        house.turn(0);
        assert!(house.shards[0].is_settled());
        house.shards[0].seal();
        house.pass(1_000);
        house.turn(0);
        house.settle();
        expect(&mut house, client, "publish", 0..0);
        assert_eq!(house.shards[0].stats().publishes, 3);
    }
}
