//! The world: the scheduler that lets shards, network, clients and the clock take their steps in random order.
//!
//! A shard's turn is not one step but as many as its event loop has, so everything else can happen in between, as it
//! does with threads. A world has two ages. In *chaos* anything goes: shards stall, readers freeze, connections
//! break, everything is late. Then it *settles*: faults are over, a shard runs only when it is woken, has input
//! or is due, and within bounds everything must come to rest and every promise be kept.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Sender, bounded};
use fastrand::Rng;

use pubsub::address::ShardId;
use pubsub::mesh::{self, Bell};
use pubsub::net::Driver as _;
use pubsub::net::control::Control;
use pubsub::net::event_loop::{EventLoop, Freight};
use pubsub::net::population::Population;
use pubsub::protocol::clusterws::{Dialect, Generation};
use pubsub::shard::Shard;
use pubsub::shard::metrics::ShardStats;
use pubsub::shard::parcel::Parcel;
use pubsub::shard::settings::{ListenerSettings, Settings};
use pubsub::shard::slow::{SlowPolicy, SlowRule, SlowRules};
use pubsub::topic::Topic;

use crate::client::{Client, End, Phase, Protocol};
use crate::clusterws::DIALECTS;
use crate::driver::SimDriver;
use crate::emissions::Room;
use crate::names::{Filter, TOPICS, Topic as Name};
use crate::network::Network;
use crate::oracle::{Kind, Moment, Oracle, Publication, Publisher, Violation};
use crate::profile::Profile;
use crate::stage::{Cue, Stage};
use crate::turn::{Step, TurnOrder};

/// Clients of a world at most, those of ambushes included.
pub const CLIENTS_MAX: usize = 40;

/// A shard, and where it is in its turn.
pub struct ShardRun {
    pub event_loop: EventLoop<SimDriver>,
    control: Sender<Control>,
    bell: Bell,
    steps: Vec<Step>,
    /// The next step; 0 is the wait.
    pub at: usize,
    pub wait: Option<Duration>,
    pub wait_since_ms: u64,
    pub stalled_until: Moment,
}

pub struct World {
    pub profile: Profile,
    pub shards: Vec<ShardRun>,
    population: Arc<Population>,
    pub clients: Vec<Client>,
    pub stage: Stage,
    /// What hosts were answered.
    answers: mpsc::Receiver<(u64, bool)>,
    answered: mpsc::Sender<(u64, bool)>,
    pub hosted: u64,
    pub hosted_answered: u64,
    pub is_draining: bool,
    /// All shards have said that what was taken is handed on.
    pub is_quiet: bool,
    /// When the sessions were told to leave, and by the clock.
    pub closes_at: Moment,
    pub closes_at_ms: u64,
    /// Shards that have answered that all are gone, once they were asked.
    pub gone: Option<Arc<AtomicUsize>>,
    turns: u64,
    /// A planted bug: shards say how many received what they have not got.
    counts_too_early: bool,
}

/// What a run is remembered by.
#[derive(Debug)]
pub struct Outcome {
    pub violations: Vec<Violation>,
    pub trace: Vec<String>,
    pub digest: u64,
    pub deliveries: u64,
    pub due: u64,
    pub gaps: u64,
    pub closed_slow: u64,
    pub counts: u64,
    pub answers: u64,
    pub emitted: u64,
    pub disconnects: u64,
    pub hosted: u64,
    pub handed_over: u64,
    pub stalls: u64,
    pub turns: u64,
    pub ends: Vec<End>,
}

impl ShardRun {
    pub fn next_step(&self) -> Step {
        self.steps[self.at]
    }

    fn last_step(&self) -> Step {
        self.steps[(self.at + self.steps.len() - 1) % self.steps.len()]
    }
}

/// Runs one seed from beginning to end.
pub fn run(seed: u64, order: TurnOrder, is_traced: bool) -> Outcome {
    let mut rng = Rng::with_seed(seed);
    // A planted order shows itself between shards; a handed-over connection needs three of them.
    let shards_min = if order == TurnOrder::Right { 1 } else { 3 };
    let mut profile = Profile::draw(&mut rng, shards_min);
    if order == TurnOrder::RouteAmongRings {
        // It is about them.
        profile.peers = 10;
    }
    let mut world = World::new(seed, rng, profile, order, is_traced);
    if let Err(violation) = world.live() {
        world.stage.oracle.violations.push(violation);
    }
    world.outcome()
}

impl World {
    pub fn new(seed: u64, rng: Rng, profile: Profile, order: TurnOrder, is_traced: bool) -> World {
        let network = Rc::new(RefCell::new(Network::new(seed ^ 0x5EED, profile.shards)));
        let listener = |dealt| ListenerSettings {
            native: true,
            http: true,
            clusterws: Some(Dialect::new(Generation::Three, false)),
            clusterws_path: "/clusterws".to_owned(),
            client_services: true,
            dealt,
            ..ListenerSettings::default()
        };
        let resp = |dealt| ListenerSettings {
            resp: true,
            dealt,
            ..ListenerSettings::default()
        };
        let peers = |dealt| ListenerSettings {
            peers: true,
            client_services: true,
            dealt,
            ..ListenerSettings::default()
        };
        let rule = |prefix: &'static str, policy| SlowRule {
            prefix: Bytes::from_static(prefix.as_bytes()),
            policy,
        };
        let settings = Arc::new(Settings {
            broker: 7,
            slow: SlowRules::new(vec![
                rule("d", SlowPolicy::DropOldest),
                rule("k", SlowPolicy::Conflate),
            ]),
            listeners: vec![
                listener(false),
                listener(true),
                resp(false),
                resp(true),
                peers(false),
                peers(true),
            ],
            server_limits: profile.server_limits.clone(),
            ..Settings::plain(profile.shards, profile.limits.clone())
        });
        let population = Arc::new(Population::new(profile.limits.connections_max));
        let ports = mesh::build(profile.shards, profile.ring_entries, profile.ring_bytes);
        let shards = ports
            .into_iter()
            .map(|ports| {
                let id = ports.shard();
                let mut driver = SimDriver::new(id.index(), network.clone());
                driver.reports_sends_twice = order == TurnOrder::SendsReportedTwice;
                let (control, words) = bounded(1024);
                let bell = ports.bell();
                let shard = Shard::new(id, settings.clone(), driver.now());
                ShardRun {
                    event_loop: EventLoop::new(shard, driver, ports, words, population.clone()),
                    control,
                    bell,
                    steps: order.steps(profile.shards, profile.dealer),
                    at: 0,
                    wait: Some(Duration::ZERO),
                    wait_since_ms: 0,
                    stalled_until: 0,
                }
            })
            .collect();
        let (answered, answers) = mpsc::channel();
        World {
            profile,
            shards,
            population,
            clients: Vec::new(),
            stage: Stage {
                network,
                oracle: Oracle::default(),
                requests: Vec::new(),
                emits: Vec::new(),
                emissions: Default::default(),
                hosts: Default::default(),
                let_in: Default::default(),
                rng,
                moment: 0,
                cues: Vec::new(),
                sessions: Default::default(),
                served: Vec::new(),
                left_services: Vec::new(),
                unserved: Vec::new(),
                leaving: Vec::new(),
                backs: Vec::new(),
                hears_events: Vec::new(),
                trace: is_traced.then(Default::default),
                digest: 0xcbf2_9ce4_8422_2325,
            },
            answers,
            answered,
            hosted: 0,
            hosted_answered: 0,
            is_draining: false,
            is_quiet: false,
            closes_at: 0,
            closes_at_ms: u64::MAX,
            gone: None,
            turns: 0,
            counts_too_early: order == TurnOrder::CountsTooEarly,
        }
    }

    fn live(&mut self) -> Result<(), Violation> {
        for _ in 0..3 {
            self.connect(false);
        }
        for _ in 0..self.profile.steps {
            self.chaos();
            if !self.stage.oracle.violations.is_empty() {
                return Ok(());
            }
        }
        self.prove();
        self.settle("after the faults", 90_000, World::is_answered)?;
        self.reckon(false);
        if self.profile.drains {
            self.drain()?;
        } else {
            for index in 0..self.clients.len() {
                self.leave(index);
            }
            self.settle("after all have left", 120_000, World::is_empty)?;
        }
        self.reckon(true);
        self.check_sums();
        Ok(())
    }

    /// Whoever gets no acks says something that proves what it said before.
    fn prove(&mut self) {
        for client in &mut self.clients {
            if matches!(client.protocol, Protocol::Clusterws(_)) && client.is_talking() {
                let mut out = Vec::new();
                client.prove(&mut self.stage, &mut out);
                client.write(&out, &mut self.stage);
            }
        }
    }

    fn outcome(mut self) -> Outcome {
        let stats: Vec<_> = self.stats().collect();
        let (emitted, disconnects) = self.stage.emissions.sums();
        Outcome {
            emitted,
            disconnects,
            hosted: self.stage.hosts.sum(),
            violations: std::mem::take(&mut self.stage.oracle.violations),
            trace: self.stage.trace.take().unwrap_or_default().into(),
            digest: self.stage.digest,
            deliveries: self.stage.oracle.deliveries,
            due: self.stage.oracle.musts,
            gaps: self.stage.oracle.gaps,
            counts: self.stage.oracle.exact_counts,
            answers: self.stage.oracle.answers,
            closed_slow: stats.iter().map(|stats| stats.closed_slow).sum(),
            handed_over: stats.iter().map(|stats| stats.handed_over).sum(),
            stalls: stats.iter().map(|stats| stats.stalls).sum(),
            turns: self.turns,
            ends: self
                .clients
                .iter()
                .filter_map(|client| client.end)
                .collect(),
        }
    }

    // ----------------------------------------------------------------------------------------- steps

    pub fn step(&mut self, index: usize) {
        if self.counts_too_early && self.shards[index].next_step() == Step::Finish {
            self.count_too_early(index);
        }
        let run = &mut self.shards[index];
        let step = run.steps[run.at];
        let event_loop = &mut run.event_loop;
        match step {
            Step::Collect => {
                self.turns += 1;
                event_loop.collect(run.wait).unwrap();
            }
            Step::Begin => event_loop.begin(run.wait),
            Step::Arrivals => event_loop.take_arrivals(),
            Step::Words => event_loop.take_words(),
            Step::Mark(source) => {
                let ports = event_loop.ports_mut();
                ports.mark(ShardId(source as u8));
            }
            Step::Drain(max) => {
                event_loop.ports_mut().begin_drain();
                event_loop.drain_to_marks(max);
            }
            Step::Route => event_loop.route(),
            Step::Publish => event_loop.publish(),
            Step::Send => event_loop.send(),
            Step::Finish => {
                event_loop.finish().unwrap();
                self.check_gone();
            }
            Step::Announce => {
                run.wait = event_loop.announce_wait();
                run.wait_since_ms = self.stage.network.borrow().now_ms;
            }
        }
        let run = &mut self.shards[index];
        run.at = (run.at + 1) % run.steps.len();
        match step {
            Step::Collect => self.stage.note(|| format!("shard {index} takes bytes")),
            Step::Drain(_) => self
                .stage
                .note(|| format!("shard {index} has drained its rings")),
            Step::Route => self.stage.note(|| format!("shard {index} has routed")),
            _ => {}
        }
    }

    /// A shard tells another that nobody received its publications, whatever their numbers are.
    fn count_too_early(&mut self, index: usize) {
        let to = self.stage.rng.usize(..self.shards.len());
        if to == index || self.stage.rng.u8(..8) > 0 {
            return;
        }
        // Numbers that are given up when a ring is full are given none the less.
        let numbers = 1..2 * self.stage.oracle.publications.len() as u64 + 100;
        let parcel = Parcel::Receivers(numbers.map(|number| (number, 0)).collect());
        let ports = self.shards[index].event_loop.ports_mut();
        // A full ring takes it later, or never.
        let _ = ports.push(ShardId(to as u8), Freight::Parcel(parcel), 100);
    }

    /// When all shards have said that all are gone, their loops end: whoever is held then never hears why.
    fn check_gone(&mut self) {
        let shards = self.shards.len();
        if self
            .gone
            .take_if(|gone| gone.load(Ordering::Relaxed) == shards)
            .is_none()
        {
            return;
        }
        let held = self.stage.network.borrow().held();
        let is_empty = self.population.is_empty();
        if held.is_some() || !is_empty {
            let text = format!(
                "all shards said that all are gone, but connection {held:?} is held; none is counted: {is_empty}"
            );
            self.stage.oracle.violate(Kind::Ending, text);
        }
    }

    /// A whole turn, or what is left of one.
    pub fn turn(&mut self, index: usize) {
        self.step(index);
        while self.shards[index].at != 0 {
            self.step(index);
        }
    }

    /// A turn in which the rings are not looked at: so two shards can fill their rings to each other.
    pub fn turn_without_drain(&mut self, index: usize) {
        for _ in 0..self.shards[index].steps.len() {
            match self.shards[index].steps[self.shards[index].at] {
                Step::Mark(_) | Step::Drain(_) => self.shards[index].at += 1,
                _ => self.step(index),
            }
        }
    }

    pub fn stats(&self) -> impl Iterator<Item = ShardStats> {
        self.shards.iter().map(|run| run.event_loop.shard().stats())
    }

    pub fn hear_hosts(&mut self) {
        while let Ok((number, is_done)) = self.answers.try_recv() {
            let moment = self.stage.now();
            self.hosted_answered += 1;
            let publication = &mut self.stage.oracle.publications[number as usize];
            if is_done {
                publication.acked = Some(moment);
            } else {
                publication.is_refused = true;
            }
        }
    }

    pub fn connect(&mut self, is_dealt: bool) -> usize {
        let shard = if is_dealt {
            self.profile.dealer
        } else {
            self.stage.rng.usize(..self.profile.shards)
        };
        let peers = self.profile.peers;
        if peers > 0 && self.stage.rng.u8(..10) < peers {
            return self.connect_as(Protocol::Peer, shard, is_dealt);
        }
        let protocol = match self.stage.rng.u8(..10) {
            drawn if drawn < self.profile.resp => Protocol::Resp,
            drawn if drawn < self.profile.resp + self.profile.clusterws => {
                Protocol::Clusterws(DIALECTS[self.stage.rng.usize(..DIALECTS.len())])
            }
            _ => Protocol::Native,
        };
        self.connect_as(protocol, shard, is_dealt)
    }

    /// A native client comes.
    pub fn connect_to(&mut self, shard: usize, is_dealt: bool) -> usize {
        self.connect_as(Protocol::Native, shard, is_dealt)
    }

    pub fn connect_as(&mut self, protocol: Protocol, shard: usize, is_dealt: bool) -> usize {
        let index = self.clients.len();
        let (profile, stage) = (&self.profile, &mut self.stage);
        let client = Client::connect(index, protocol, shard, is_dealt, profile, stage);
        self.clients.push(client);
        index
    }

    pub fn chaos(&mut self) {
        self.stage.now();
        let shards = self.shards.len();
        match self.stage.rng.u8(..100) {
            0..=44 => {
                let index = self.stage.rng.usize(..shards);
                if self.shards[index].stalled_until > self.stage.moment {
                    return;
                }
                if self.stage.rng.bool() {
                    self.step(index);
                } else {
                    self.turn(index);
                }
                self.hear_hosts();
            }
            45..=69 => {
                let mut network = self.stage.network.borrow_mut();
                let id = self.stage.rng.usize(..network.count());
                let bytes = match self.stage.rng.u8(..6) {
                    0 => 1,
                    1 => self.stage.rng.usize(1..300),
                    _ => usize::MAX,
                };
                network.carry(id, self.stage.rng.bool(), bytes);
            }
            70..=84 => {
                let index = self.stage.rng.usize(..self.clients.len());
                let bytes = match self.stage.rng.u8(..6) {
                    0 => self.stage.rng.usize(1..40),
                    _ => usize::MAX,
                };
                self.clients[index].read(&mut self.stage, bytes);
                self.follow_cues();
            }
            85..=95 => {
                if self.stage.rng.u8(..8) == 0 && self.clients.len() < self.profile.clients_max {
                    let is_dealt = self.stage.rng.u8(..3) > 0;
                    self.connect(is_dealt);
                }
                let index = self.stage.rng.usize(..self.clients.len());
                self.talk(index);
            }
            96..=98 => {
                let ms = match self.stage.rng.u8(..60) {
                    0 => 2_500,
                    1..=5 => 60,
                    _ => self.stage.rng.u64(1..5),
                };
                self.stage.network.borrow_mut().now_ms += ms;
            }
            _ => {}
        }
        if self.stage.rng.u32(..1_000) < self.profile.faults {
            self.fault();
        }
        if self.stage.rng.u32(..1_000) < self.profile.ambushes {
            self.ambush();
        }
    }

    /// One shard is caught in the middle of its turn, while elsewhere a client subscribes, reads its ack, and
    /// somebody publishes at once. All of it may happen by chance too, but rarely.
    fn ambush(&mut self) {
        let index = self.stage.rng.usize(..self.clients.len());
        if !self.clients[index].is_talking() {
            return;
        }
        let victim = match self.clients[index].shard {
            Some(own) if self.stage.rng.u8(..3) == 0 => own,
            _ => self.stage.rng.usize(..self.shards.len()),
        };
        self.stage
            .note(|| format!("shard {victim} is caught, client {index} subscribes"));
        let dealer = self.profile.dealer;
        let is_before = self.stage.rng.bool();
        let mut filter = None;
        if is_before {
            filter = Some(self.subscribe_at_once(index));
        }
        if self.stage.rng.bool() {
            self.turn(victim);
        }
        // Anywhere, or where the ring of the dealer is the only one that it will still look into; its own shard where acks
        // have just left.
        let is_own = self.clients[index].shard == Some(victim);
        let is_aim = |run: &ShardRun| match is_own {
            true => run.last_step() == Step::Send,
            false => run.next_step() == Step::Mark(dealer),
        };
        let is_aimed = self.stage.rng.bool();
        let steps = self.shards[victim].steps.len();
        let steps = match is_aimed {
            true => steps,
            false => self.stage.rng.usize(..steps),
        };
        for _ in 0..steps {
            if is_aimed && is_aim(&self.shards[victim]) {
                break;
            }
            self.step(victim);
        }
        if !is_before {
            filter = Some(self.subscribe_at_once(index));
        }
        let mut dealt = self.stage.rng.u8(..3) == 0 && self.clients.len() < CLIENTS_MAX;
        for _ in 0..8 {
            for shard in (0..self.shards.len()).filter(|shard| *shard != victim) {
                self.turn(shard);
            }
            self.carry_all();
            self.clients[index].read(&mut self.stage, usize::MAX);
            if let Some(filter) = filter
                && self.stage.cues.contains(&Cue::Subscribed(filter))
                && std::mem::take(&mut dealt)
            {
                // By one who is only coming, with a publish right behind the request head.
                self.publish_by_newcomer(filter);
            }
            self.follow_cues();
            if self.stage.rng.u8(..6) == 0 {
                let topic = TOPICS[self.stage.rng.usize(..TOPICS.len())];
                self.host_publishes(topic, victim);
            }
        }
        self.hear_hosts();
    }

    fn subscribe_at_once(&mut self, index: usize) -> Filter {
        let client = &mut self.clients[index];
        let mut frames = Vec::new();
        let filter = client.subscribe_to_any(&self.profile, &mut self.stage, &mut frames);
        client.write(&frames, &mut self.stage);
        let mut network = self.stage.network.borrow_mut();
        network.carry(client.connection, true, usize::MAX);
        filter
    }

    fn publish_by_newcomer(&mut self, filter: Filter) {
        let topic = self.topic_for(filter);
        let index = self.connect(true);
        self.publish_at_once(index, topic);
    }

    fn publish_at_once(&mut self, index: usize, topic: Name) {
        let client = &mut self.clients[index];
        if !client.is_talking() || !client.can_publish(topic) {
            return;
        }
        let mut frames = Vec::new();
        client.publish_any(topic, &mut self.stage, &mut frames);
        client.write(&frames, &mut self.stage);
        let mut network = self.stage.network.borrow_mut();
        network.carry(client.connection, true, usize::MAX);
    }

    /// Some topic that a filter matches.
    fn topic_for(&mut self, filter: Filter) -> Name {
        let fitting: Vec<_> = Name::all().filter(|topic| filter.matches(*topic)).collect();
        fitting[self.stage.rng.usize(..fitting.len())]
    }

    /// All that is on its way arrives, as far as there is room.
    pub fn carry_all(&mut self) {
        let mut network = self.stage.network.borrow_mut();
        for id in 0..network.count() {
            network.carry(id, true, usize::MAX);
            network.carry(id, false, usize::MAX);
        }
    }

    /// A client hands some commands to the network at once.
    fn talk(&mut self, index: usize) {
        let client = &mut self.clients[index];
        if !client.is_talking() {
            return;
        }
        let mut frames = Vec::new();
        for _ in 0..self.stage.rng.usize(1..4) {
            client.act(&self.profile, &mut self.stage, &mut frames);
        }
        client.write(&frames, &mut self.stage);
    }

    fn fault(&mut self) {
        let index = self.stage.rng.usize(..self.clients.len());
        let client = &mut self.clients[index];
        let moment = self.stage.moment;
        match self.stage.rng.u8(..10) {
            0..=3 => {
                let shard = self.stage.rng.usize(..self.shards.len());
                self.shards[shard].stalled_until = moment + self.stage.rng.u64(50..800);
                self.stage.note(|| format!("shard {shard} stalls"));
            }
            4..=6 if client.phase != Phase::Ended => {
                client.frozen_until = moment + self.stage.rng.u64(50..2_000);
                client.is_faulty = true;
                self.stage.note(|| format!("client {index} stops reading"));
            }
            7 if client.phase != Phase::Ended && self.stage.rng.bool() => {
                client.stops_reading(&mut self.stage);
                self.stage
                    .note(|| format!("client {index} stops reading for ever"));
            }
            8 if client.is_talking() => {
                let mut frames = Vec::new();
                match self.stage.rng.u8(..4) {
                    0 | 1 => client.close(&mut self.stage, &mut frames),
                    2 => client.fall_mute(&mut self.stage, &mut frames),
                    _ => {
                        client.refuses_pings = true;
                        client.is_faulty = true;
                    }
                }
                client.write(&frames, &mut self.stage);
            }
            9 if client.phase != Phase::Ended => {
                if self.stage.rng.bool() {
                    client.vanish(&mut self.stage);
                } else {
                    client.hang_up(&mut self.stage);
                }
            }
            _ => {}
        }
    }

    /// Whoever was just told that a subscription begins or ends is put to the test.
    fn follow_cues(&mut self) {
        for cue in std::mem::take(&mut self.stage.cues) {
            if let Cue::Joined(room) = cue {
                self.emit_by_another(room);
                continue;
            }
            let filter = match cue {
                Cue::Subscribed(filter) if self.stage.rng.u8(..10) < 7 => filter,
                Cue::Unsubscribed(filter) if self.stage.rng.u8(..10) < 3 => filter,
                _ => continue,
            };
            let topic = self.topic_for(filter);
            let index = match self.stage.rng.u8(..4) {
                0 if topic.is_dotted() => {
                    let shard = self.stage.rng.usize(..self.shards.len());
                    self.host_publishes(topic.name(), shard);
                    continue;
                }
                1 if self.clients.len() < self.profile.clients_max => self.connect(true),
                _ => {
                    let first = self.stage.rng.usize(..self.clients.len());
                    self.publisher_from(first, topic)
                }
            };
            let client = &mut self.clients[index];
            if !client.is_talking() || !client.can_publish(topic) {
                continue;
            }
            let mut frames = Vec::new();
            client.publish_any(topic, &mut self.stage, &mut frames);
            client.write(&frames, &mut self.stage);
            if self.stage.rng.bool() {
                let mut network = self.stage.network.borrow_mut();
                network.carry(client.connection, true, usize::MAX);
            }
        }
    }

    /// What any peer emits to a room from now on reaches those who are in it.
    fn emit_by_another(&mut self, room: Room) {
        let first = self.stage.rng.usize(..self.clients.len());
        let count = self.clients.len();
        let mut indexes = (first..first + count).map(|index| index % count);
        let other = indexes.find(|index| {
            let client = &self.clients[*index];
            client.protocol == Protocol::Peer && *index != room.0 && client.is_talking()
        });
        if let Some(index) = other.filter(|_| self.stage.rng.bool()) {
            let client = &mut self.clients[index];
            let mut frames = Vec::new();
            client.emit_to_room_of(room, &mut self.stage, &mut frames);
            client.write(&frames, &mut self.stage);
            let mut network = self.stage.network.borrow_mut();
            network.carry(client.connection, true, usize::MAX);
        }
    }

    /// Some client that can publish to a topic, if there is one.
    fn publisher_from(&self, first: usize, topic: Name) -> usize {
        let count = self.clients.len();
        let mut indexes = (first..first + count).map(|index| index % count);
        let fitting = indexes.find(|index| {
            let client = &self.clients[*index];
            client.is_talking() && client.can_publish(topic)
        });
        fitting.unwrap_or(first)
    }

    pub fn host_publishes(&mut self, topic: &'static str, shard: usize) {
        let sent = self.stage.now();
        let publication = Publication::new(Publisher::Host(shard), Name::Name(topic), 1, sent);
        let number = self.stage.oracle.publish(publication);
        let payload = self.stage.oracle.message(number);
        let answered = self.answered.clone();
        self.hosted += 1;
        self.stage
            .note(|| format!("host publishes {number} to {topic} by shard {shard}"));
        self.tell(
            shard,
            Control::Publish {
                topic: Topic::dotted(Bytes::from_static(topic.as_bytes())).unwrap(),
                payload: payload.into(),
                reply: Box::new(move |result| {
                    let _ = answered.send((number, result.is_ok()));
                }),
            },
        );
    }

    pub fn tell(&mut self, shard: usize, word: Control) {
        let run = &self.shards[shard];
        assert!(run.control.try_send(word).is_ok(), "1024 words fit");
        if run.bell.ring() {
            self.stage.network.borrow_mut().is_woken[shard] = true;
        }
    }

    pub fn leave(&mut self, index: usize) {
        let client = &mut self.clients[index];
        if client.phase == Phase::Ended {
            return;
        }
        let is_stuck = client.frozen_until == Moment::MAX;
        if client.is_talking() && !is_stuck && self.stage.rng.bool() {
            let mut frames = Vec::new();
            client.close(&mut self.stage, &mut frames);
            client.write(&frames, &mut self.stage);
        } else {
            client.vanish(&mut self.stage);
        }
    }
}
