//! The outbox and its obvious twin, step by step.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::shard::log::OpenLog;

const SOFT: usize = 100_000;
const MAX: usize = 200_000;

fn topic(number: u8) -> Bytes {
    Bytes::from(format!("topic.{number}"))
}

/// An outbox in its turns, with the logs of three filters.
#[derive(Default)]
struct Desk {
    outbox: Outbox,
    logs: TurnLogs,
    open: [OpenLog; 3],
    /// Frames so far: no two are the same.
    frames: u32,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Policy {
    Close,
    DropOldest,
    Conflate,
}

impl Desk {
    fn frame(&mut self, size: usize) -> Vec<u8> {
        self.frames += 1;
        let number = self.frames.to_be_bytes();
        number.iter().copied().cycle().take(size).collect()
    }

    /// Queues a delivery; its range and its bytes as well.
    fn push(
        &mut self,
        policy: Policy,
        filter: u8,
        of: u8,
        size: usize,
    ) -> (Queued, LogRange, Vec<u8>) {
        let bytes = self.frame(size);
        let open = &mut self.open[usize::from(filter)];
        let range = self
            .logs
            .append(open, size, |out| out.extend_from_slice(&bytes));
        let logs = &self.logs;
        let mut frame = || logs.copy(range);
        let name = topic(of);
        let outbox = &mut self.outbox;
        let delivery = |frame| Delivery {
            frame,
            size,
            filter: FilterId(filter.into()),
            topic: &name,
        };
        let queued = match policy {
            Policy::Close => {
                let mut run = Run {
                    range,
                    deliveries: 1,
                    frames: &mut frame,
                };
                outbox.push_run(&mut run, MAX)
            }
            Policy::DropOldest => outbox.push_droppable(&mut delivery(&mut frame), SOFT, MAX),
            Policy::Conflate => outbox.push_conflated(&mut delivery(&mut frame), MAX),
        };
        (queued, range, bytes)
    }

    /// Sends what there is; the bytes.
    fn transmit(&mut self) -> Option<Vec<u8>> {
        self.outbox
            .transmit(&mut self.logs)
            .map(|chunks| chunks.concat())
    }

    fn end_turn(&mut self) {
        self.outbox.settle(&mut self.logs);
        self.logs.next_turn();
    }
}

const YES: Queued = Queued::Yes { skipped: 0 };

#[test]
fn an_empty_outbox_takes_one_whole_message_of_any_size() {
    for policy in [Policy::Close, Policy::DropOldest, Policy::Conflate] {
        let mut desk = Desk::default();
        let (queued, _, bytes) = desk.push(policy, 0, 0, 3 * MAX);
        assert_eq!(queued, YES, "{policy:?}");
        // And no more of them.
        let (queued, _, _) = desk.push(Policy::Close, 0, 0, 1);
        assert_eq!(queued, Queued::Full, "{policy:?}");
        let mut sent = Vec::new();
        while let Some(chunk) = desk.transmit() {
            assert!(chunk.len() <= SEND_BYTES_MAX);
            sent.extend_from_slice(&chunk);
            assert_eq!(desk.outbox.transmit(&mut desk.logs), None, "one at a time");
            let is_last = sent.len() == bytes.len();
            assert_eq!(desk.outbox.sent(), (chunk.len(), u64::from(is_last)));
        }
        assert_eq!(sent, bytes);
        assert_eq!((desk.outbox.charged(), desk.outbox.deliveries()), (0, 0));
    }
    let mut outbox = Outbox::default();
    assert_eq!(outbox.push_words([&[1; MAX + 1], &[]], true, MAX), YES);
    assert_eq!(outbox.push_words([&[1], &[]], true, MAX), Queued::Full);
}

#[test]
fn touching_deliveries_are_one_chunk() {
    let mut desk = Desk::default();
    for _ in 0..10 {
        let _ = desk.push(Policy::Close, 1, 1, 100);
    }
    let chunks = desk.outbox.transmit(&mut desk.logs).unwrap();
    assert_eq!((chunks.len(), chunks[0].len()), (1, 1000));
    assert_eq!(
        desk.outbox.charged(),
        1000,
        "no entry but the one in flight"
    );
    assert_eq!(desk.outbox.sent(), (1000, 10));
}

#[test]
fn drop_oldest_leaves_the_newest_and_says_how_many_went() {
    let mut desk = Desk::default();
    let _ = desk.push(Policy::DropOldest, 0, 0, 50);
    desk.transmit().unwrap();
    let mut skipped = 0;
    let mut last = Vec::new();
    for number in 0..1000 {
        let (queued, _, bytes) = desk.push(Policy::DropOldest, 0, number as u8 % 2, 1000);
        let Queued::Yes { skipped: more } = queued else {
            panic!("{queued:?}");
        };
        skipped += more;
        last = bytes;
        assert!(desk.outbox.charged() <= SOFT);
    }
    assert!(skipped > 900);
    assert_eq!(desk.outbox.deliveries(), 1001 - skipped);
    desk.outbox.sent();
    let gaps = desk.outbox.take_gaps();
    let topics: Vec<_> = gaps.iter().map(|(topic, _)| topic.clone()).collect();
    assert_eq!(topics, [topic(0), topic(1)]);
    assert_eq!(gaps.iter().map(|(_, count)| count).sum::<u64>(), skipped);
    let mut sent = Vec::new();
    while let Some(bytes) = desk.transmit() {
        sent = bytes;
        desk.outbox.sent();
    }
    assert!(sent.ends_with(&last));
    assert_eq!(desk.outbox.charged(), 0);
}

#[test]
fn what_can_not_be_dropped_costs_the_new_one_and_not_the_session() {
    let mut desk = Desk::default();
    let _ = desk.push(Policy::Close, 0, 0, 50);
    desk.transmit().unwrap();
    let _ = desk.push(Policy::DropOldest, 1, 1, 1000);
    while desk.outbox.charged() < MAX - 2000 {
        assert_eq!(desk.push(Policy::Close, 0, 0, 1000).0, YES);
    }
    // Dropping the old one would not help: it stays, and the new one goes.
    let before = desk.outbox.deliveries();
    for _ in 0..100 {
        let (queued, _, _) = desk.push(Policy::DropOldest, 1, 1, 1000);
        assert_eq!(queued, Queued::Yes { skipped: 1 });
    }
    assert_eq!(desk.outbox.deliveries(), before);
    // Even gaps have an end.
    let mut topics = 2..=255;
    while desk
        .push(Policy::DropOldest, 1, topics.next().unwrap(), 1000)
        .0
        != Queued::Full
    {}
    assert!(desk.outbox.charged() <= MAX);
}

#[test]
fn a_conflated_value_can_not_grow_past_the_bound() {
    let mut desk = Desk::default();
    let _ = desk.push(Policy::Conflate, 0, 0, 50);
    desk.transmit().unwrap();
    for of in 0..100 {
        assert_eq!(desk.push(Policy::Conflate, 0, of, 10).0, YES);
    }
    let mut of = 0;
    while desk.push(Policy::Conflate, 0, of, 10_000).0 == (Queued::Yes { skipped: 1 }) {
        of += 1;
    }
    assert!(of > 10 && desk.outbox.charged() <= MAX + 100 * OUTBOX_ENTRY_BYTES);
    // Smaller ones are always welcome.
    let (queued, _, _) = desk.push(Policy::Conflate, 0, 0, 10);
    assert_eq!(queued, Queued::Yes { skipped: 1 });
}

#[test]
fn a_gap_does_not_keep_the_message_alive() {
    let message = Bytes::from(vec![b'm'; 50_000]);
    let mut outbox = Outbox::default();
    let mut logs = TurnLogs::default();
    let range = logs.append(&mut OpenLog::default(), 10, |out| {
        out.resize(out.len() + 10, 0)
    });
    assert_eq!(outbox.push_words([&[0; MAX], &[]], false, MAX), YES);
    for policy in [Policy::DropOldest, Policy::Conflate] {
        let name = message.slice(..3);
        let mut frame = || logs.copy(range);
        let mut delivery = Delivery {
            frame: &mut frame,
            size: 10,
            filter: FilterId(0),
            topic: &name,
        };
        let _ = match policy {
            Policy::DropOldest => outbox.push_droppable(&mut delivery, SOFT, 2 * MAX),
            _ => outbox.push_conflated(&mut delivery, 2 * MAX),
        };
    }
    assert!(outbox.has_gaps() && outbox.parts.len() == 2);
    assert!(message.is_unique());
}

/// The obvious outbox: a list of parts with their bytes, everything added up when it is asked for.
#[derive(Default)]
struct Model {
    tail: Vec<u8>,
    tail_deliveries: u64,
    tail_replies: bool,
    parts: Vec<ModelPart>,
    gaps: BTreeMap<Bytes, u64>,
    flight: Option<ModelFlight>,
}

#[derive(Clone, Debug)]
struct ModelPart {
    bytes: Vec<u8>,
    deliveries: u64,
    kind: Kind,
}

#[derive(Clone, PartialEq, Debug)]
enum Kind {
    Log(LogRange),
    Frames,
    Droppable(u8),
    /// `fresh`: a newer one may still take its place.
    Conflated {
        of: (u8, u8),
        fresh: bool,
    },
    Words {
        replies: bool,
    },
}

#[derive(Default)]
struct ModelFlight {
    size: usize,
    charge: usize,
    deliveries: u64,
    replies: usize,
}

impl ModelPart {
    fn charge(&self) -> usize {
        self.bytes.len()
            + match self.kind {
                Kind::Log(_) | Kind::Words { .. } => 0,
                Kind::Frames | Kind::Droppable(_) | Kind::Conflated { .. } => OUTBOX_ENTRY_BYTES,
            }
    }

    fn replies(&self) -> bool {
        self.kind == Kind::Words { replies: true }
    }
}

impl Model {
    fn charged(&self) -> usize {
        let gaps: usize = self
            .gaps
            .keys()
            .map(|topic| topic.len() + OUTBOX_ENTRY_BYTES)
            .sum();
        let parts: usize = self.parts.iter().map(ModelPart::charge).sum();
        self.tail.len() + parts + gaps + self.flight.as_ref().map_or(0, |flight| flight.charge)
    }

    fn droppable(&self) -> usize {
        let is_droppable = |part: &&ModelPart| matches!(part.kind, Kind::Droppable(_));
        let parts = self.parts.iter().filter(is_droppable);
        parts.map(ModelPart::charge).sum()
    }

    fn reply_bytes(&self) -> usize {
        let words = self.parts.iter().filter(|part| part.replies());
        words.map(|part| part.bytes.len()).sum::<usize>()
            + if self.tail_replies {
                self.tail.len()
            } else {
                0
            }
            + self.flight.as_ref().map_or(0, |flight| flight.replies)
    }

    fn deliveries(&self) -> u64 {
        self.parts.iter().map(|part| part.deliveries).sum::<u64>()
            + self.tail_deliveries
            + self.flight.as_ref().map_or(0, |flight| flight.deliveries)
    }

    fn fits(&self, charge: usize, max: usize) -> bool {
        self.charged() == 0 || self.charged() + charge <= max
    }

    fn gap(&mut self, of: u8) {
        *self.gaps.entry(topic(of)).or_default() += 1;
    }

    fn part(&mut self, bytes: Vec<u8>, kind: Kind) {
        let deliveries = u64::from(!matches!(kind, Kind::Words { .. }));
        self.parts.push(ModelPart {
            bytes,
            deliveries,
            kind,
        });
    }

    fn push(
        &mut self,
        policy: Policy,
        filter: u8,
        of: u8,
        range: LogRange,
        bytes: Vec<u8>,
    ) -> Queued {
        let charge = bytes.len() + OUTBOX_ENTRY_BYTES;
        match policy {
            Policy::Close if self.flight.is_some() => {
                if !self.fits(charge, MAX) {
                    return Queued::Full;
                }
                self.part(bytes, Kind::Frames);
            }
            Policy::Close => {
                if !self.fits(bytes.len(), MAX) {
                    return Queued::Full;
                }
                if let Some(last) = self.parts.last_mut()
                    && let Kind::Log(before) = &mut last.kind
                    && before.extend(range)
                {
                    last.bytes.extend(bytes);
                    last.deliveries += 1;
                } else {
                    self.part(bytes, Kind::Log(range));
                }
            }
            Policy::DropOldest => {
                let mut skipped = 0;
                if !self.fits(charge, SOFT) {
                    if self.charged() - self.droppable() + charge > SOFT {
                        let name = topic(of);
                        let gap = name.len() + OUTBOX_ENTRY_BYTES;
                        if !self.gaps.contains_key(&name) && self.charged() + gap > MAX {
                            return Queued::Full;
                        }
                        self.gap(of);
                        return Queued::Yes { skipped: 1 };
                    }
                    let target = (SOFT - SOFT / 4).saturating_sub(charge);
                    let mut over = self.charged();
                    let mut kept = Vec::new();
                    for part in std::mem::take(&mut self.parts) {
                        match part.kind {
                            Kind::Droppable(of) if over > target => {
                                over -= part.charge();
                                skipped += 1;
                                self.gap(of);
                            }
                            _ => kept.push(part),
                        }
                    }
                    self.parts = kept;
                    if !self.fits(charge, SOFT) {
                        self.gap(of);
                        return Queued::Yes {
                            skipped: skipped + 1,
                        };
                    }
                }
                self.part(bytes, Kind::Droppable(of));
                return Queued::Yes { skipped };
            }
            Policy::Conflate => {
                let charged = self.charged();
                let newest = self.parts.iter_mut().rev().find(|part| {
                    let place = Kind::Conflated {
                        of: (filter, of),
                        fresh: true,
                    };
                    part.kind == place
                });
                match newest {
                    Some(part) if self.flight.is_some() => {
                        let growth = bytes.len().saturating_sub(part.bytes.len());
                        if growth > 0 && charged + growth > MAX {
                            return Queued::Full;
                        }
                        part.bytes = bytes;
                        self.gap(of);
                        return Queued::Yes { skipped: 1 };
                    }
                    _ => {
                        if !self.fits(charge, MAX) {
                            return Queued::Full;
                        }
                        // Only the last one of a turn may be replaced.
                        self.forget(|other| other == (filter, of));
                        let of = (filter, of);
                        self.part(bytes, Kind::Conflated { of, fresh: true });
                    }
                }
            }
        }
        YES
    }

    fn forget(&mut self, which: impl Fn((u8, u8)) -> bool) {
        for part in &mut self.parts {
            if let Kind::Conflated { of, fresh } = &mut part.kind
                && which(*of)
            {
                *fresh = false;
            }
        }
    }

    fn words(&mut self, words: &[u8], replies: bool) {
        match self.parts.last_mut() {
            Some(part)
                if part.kind == Kind::Words { replies } && part.bytes.len() < SEND_BYTES_MAX =>
            {
                part.bytes.extend_from_slice(words);
            }
            _ => self.part(words.to_vec(), Kind::Words { replies }),
        }
    }

    fn transmit(&mut self) -> Option<Vec<u8>> {
        if self.flight.is_some() || self.tail.is_empty() && self.parts.is_empty() {
            return None;
        }
        let mut flight = ModelFlight::default();
        let mut sent: Vec<u8> = self
            .tail
            .drain(..self.tail.len().min(SEND_BYTES_MAX))
            .collect();
        flight.charge = sent.len();
        flight.replies = if self.tail_replies { sent.len() } else { 0 };
        if self.tail.is_empty() {
            flight.deliveries = std::mem::take(&mut self.tail_deliveries);
            self.tail_replies = false;
        }
        while sent.len() < SEND_BYTES_MAX && self.tail.is_empty() && !self.parts.is_empty() {
            let mut part = self.parts.remove(0);
            let (charge, replies) = (part.charge(), part.replies());
            self.tail = part
                .bytes
                .split_off(part.bytes.len().min(SEND_BYTES_MAX - sent.len()));
            flight.charge += charge - self.tail.len();
            flight.replies += if replies { part.bytes.len() } else { 0 };
            if self.tail.is_empty() {
                flight.deliveries += part.deliveries;
            } else {
                self.tail_deliveries = part.deliveries;
                self.tail_replies = replies;
            }
            sent.extend(part.bytes);
        }
        flight.size = sent.len();
        self.flight = Some(flight);
        Some(sent)
    }

    fn settle(&mut self) {
        for part in &mut self.parts {
            if let Kind::Log(_) = part.kind {
                part.kind = Kind::Frames;
            }
        }
    }

    fn drop_waiting(&mut self) -> u64 {
        self.gaps.clear();
        self.parts.drain(..).map(|part| part.deliveries).sum()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Push(Policy, u8, u8, usize),
    Words(usize, bool),
    LastWords(usize),
    Transmit,
    Sent,
    EndTurn,
    TakeGaps,
    DropWaiting,
    ForgetFilter(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let size = select(
        &[
            1, 9, 60, 60, 60, 700, 5_000, 16_384, 30_000, 70_000, 150_000,
        ][..],
    );
    let policy = select(&[Policy::Close, Policy::DropOldest, Policy::Conflate][..]);
    prop_oneof![
        12 => (policy, 0..3_u8, 0..4_u8, size.clone())
            .prop_map(|(policy, filter, of, size)| Step::Push(policy, filter, of, size)),
        4 => (size.clone(), any::<bool>()).prop_map(|(size, replies)| Step::Words(size, replies)),
        1 => size.prop_map(Step::LastWords),
        4 => Just(Step::Transmit),
        3 => Just(Step::Sent),
        3 => Just(Step::EndTurn),
        2 => Just(Step::TakeGaps),
        1 => Just(Step::DropWaiting),
        1 => (0..3_u8).prop_map(Step::ForgetFilter),
    ]
}

/// Both do the same, and say the same of themselves.
fn take(step: Step, desk: &mut Desk, model: &mut Model) {
    match step {
        Step::Push(policy, filter, of, size) => {
            let (queued, range, bytes) = desk.push(policy, filter, of, size);
            assert_eq!(queued, model.push(policy, filter, of, range, bytes));
        }
        Step::Words(size, replies) => {
            let words = desk.frame(size);
            let queued = desk.outbox.push_words([&words, &[]], replies, MAX);
            assert_eq!(queued == YES, model.fits(size, MAX));
            if queued == YES {
                model.words(&words, replies);
            }
        }
        Step::LastWords(size) => {
            let words = desk.frame(size);
            desk.outbox.push_last(&words);
            model.words(&words, false);
        }
        Step::Transmit => {
            let sent = desk.transmit();
            assert!(
                sent.as_ref()
                    .is_none_or(|sent| sent.len() <= SEND_BYTES_MAX)
            );
            assert!(sent == model.transmit(), "other bytes");
        }
        Step::Sent => {
            let flight = model.flight.take().unwrap_or_default();
            assert_eq!(desk.outbox.sent(), (flight.size, flight.deliveries));
        }
        Step::EndTurn => {
            desk.end_turn();
            model.settle();
            let refers = |part: &Part| matches!(part, Part::Log { .. });
            assert!(!desk.outbox.parts.iter().any(refers));
        }
        Step::TakeGaps => {
            let gaps = desk.outbox.take_gaps();
            let twin: Vec<_> = std::mem::take(&mut model.gaps).into_iter().collect();
            assert_eq!(gaps, twin);
            if !gaps.is_empty() {
                let words = desk.frame(40);
                desk.outbox.put_first(BytesMut::from(&words[..]));
                let part = ModelPart {
                    bytes: words,
                    deliveries: 0,
                    kind: Kind::Words { replies: false },
                };
                model.parts.insert(0, part);
            }
        }
        Step::DropWaiting => assert_eq!(desk.outbox.drop_waiting(), model.drop_waiting()),
        Step::ForgetFilter(filter) => {
            desk.outbox.forget_filter(FilterId(filter.into()));
            model.forget(|of| of.0 == filter);
        }
    }
    let outbox = &desk.outbox;
    assert_eq!(outbox.charged(), model.charged());
    assert_eq!(outbox.droppable(), model.droppable());
    assert_eq!(outbox.reply_bytes(), model.reply_bytes());
    assert_eq!(outbox.deliveries(), model.deliveries());
    assert_eq!(outbox.is_in_flight(), model.flight.is_some());
    assert_eq!(outbox.has_gaps(), !model.gaps.is_empty());
    assert_eq!(outbox.is_empty(), model.charged() == 0);
    if let Some(slow) = &outbox.slow {
        let is_value = |part: &&ModelPart| matches!(part.kind, Kind::Conflated { .. });
        assert_eq!(
            slow.values.len(),
            model.parts.iter().filter(is_value).count()
        );
        assert!(slow.newest.len() <= slow.values.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn it_is_its_obvious_twin(steps in proptest::collection::vec(step(), 1..120)) {
        let (mut desk, mut model) = (Desk::default(), Model::default());
        desk.logs.next_turn();
        for step in steps {
            take(step, &mut desk, &mut model);
        }
        // Whatever happened: a reader that reads gets all of it, and nothing is left.
        while !desk.outbox.is_empty() {
            for step in [Step::TakeGaps, Step::Transmit, Step::Sent] {
                take(step, &mut desk, &mut model);
            }
        }
        prop_assert_eq!(desk.outbox.charged(), 0);
        prop_assert!(desk.outbox.slow.is_none() && desk.outbox.parts.is_empty());
    }
}
