//! A run: connect, subscribe, publish, wait for what is on its way, and measure in between.
//!
//! The conductor is the calling thread. It never touches a connection once the workers have them; it says which phase
//! it is, looks at the counters now and then, and reads `/proc` where measuring begins and ends.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::connect::{self, Way};
use crate::cpus;
use crate::ledger::Faults;
use crate::options::Scenario;
use crate::plan::{Extent, Pace, Party, Plan};
use crate::report::{Latency, Measured, Memory, Report};
use crate::shared::{Phase, Shared};
use crate::usage::{Usage, of_own_thread};
use crate::worker::{Outcome, Worker, histogram, worker_of_publisher, worker_of_subscriber};

/// How often the conductor looks whether something has ended.
const LOOK: Duration = Duration::from_millis(5);
/// How often it looks while a measurement takes its time: it should not be seen in it.
const GLANCE: Duration = Duration::from_millis(100);

/// Does what the plan says.
///
/// # Errors
/// The run could not begin. What happened once it had is in the report.
pub fn run(plan: &Plan) -> Result<Report, String> {
    if let Some(cpus) = &plan.cpus {
        cpus::pin(&cpus.0)?;
    }
    let shared = Shared::new(plan)?;
    let before_bytes = plan.meter.resident_bytes();
    let workers = connect_all(plan, &shared)?;
    thread::scope(|scope| {
        let handles: Vec<_> = workers
            .into_iter()
            .enumerate()
            .map(|(index, worker)| {
                let cpu = plan.cpus.as_ref().map(|cpus| cpus.0[index % cpus.0.len()]);
                scope.spawn(move || {
                    if let Some(cpu) = cpu {
                        // The conductor could, so this cannot fail.
                        let _ = cpus::pin(&[cpu]);
                    }
                    worker.run()
                })
            })
            .collect();
        let conductor = Conductor {
            plan,
            shared: &shared,
        };
        let conducted = conductor.conduct(before_bytes);
        shared.enter(Phase::Quit);
        let outcomes: Vec<Outcome> = handles
            .into_iter()
            .map(|handle| handle.join().expect("a worker does not panic"))
            .collect();
        Ok(conductor.report(conducted, outcomes))
    })
}

/// Opens all connections and deals them to the workers.
fn connect_all<'a>(plan: &'a Plan, shared: &'a Shared) -> Result<Vec<Worker<'a>>, String> {
    let mut workers = (0..plan.threads)
        .map(|index| Worker::new(plan, shared, index))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("epoll: {error}"))?;
    let topology = &plan.topology;
    let (subscribers, connections) = (topology.subscribers(), topology.connections());
    let roles = |index: usize| {
        let subscriber = (index < subscribers).then_some(index);
        (subscriber, topology.publisher_on(index))
    };
    let bar = progress("connecting", connections as u64);
    let mut index = 0;
    while index < connections {
        let count = plan.ramp.min(connections - index);
        let opened = connect::open(index, count, |index| {
            let (subscriber, publisher) = roles(index);
            let party = &plan.parties[plan.party_of(subscriber)];
            let topic = subscriber.map(|subscriber| topology.topic_of_subscriber(subscriber));
            let mut opening = Vec::new();
            let dialect = &party.dialect;
            dialect.open(topic, publisher.is_some(), &mut opening);
            let target = &party.targets[index % party.targets.len()];
            Way {
                target,
                dialect,
                opening,
            }
        })?;
        for opened in opened {
            let (subscriber, publisher) = roles(index);
            let worker = match (subscriber, publisher) {
                (Some(subscriber), _) => worker_of_subscriber(plan, subscriber),
                (None, publisher) => worker_of_publisher(plan, publisher.unwrap_or(0)),
            };
            workers[worker]
                .add(opened, subscriber, publisher)
                .map_err(|error| format!("epoll: {error}"))?;
            index += 1;
        }
        bar.set_position(index as u64);
    }
    bar.finish_and_clear();
    Ok(workers)
}

/// On standard error, if that is a terminal.
fn progress(what: &'static str, length: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:>12} {wide_bar} {percent:>3}% {msg}")
        .expect("the template is a valid one");
    ProgressBar::new(length).with_style(style).with_prefix(what)
}

struct Conductor<'a> {
    plan: &'a Plan,
    shared: &'a Shared,
}

/// What the conductor has seen.
#[derive(Default)]
struct Conducted {
    measured: Measured,
    memory: Option<Memory>,
    /// Why it broke off.
    failure: Option<String>,
}

/// The counters at a moment.
struct Sample {
    at_ns: u64,
    publishes: u64,
    acks: u64,
    deliveries: u64,
    broker: Usage,
    own: Vec<Duration>,
}

/// Nothing went on for longer than patience lasts, or something broke.
struct BrokenOff(String);

impl Conductor<'_> {
    fn conduct(&self, before_bytes: u64) -> Conducted {
        let mut conducted = Conducted::default();
        if let Err(BrokenOff(reason)) = self.phases(before_bytes, &mut conducted) {
            conducted.failure = Some(reason);
        }
        if let Some(memory) = &mut conducted.memory {
            memory.end_bytes = self.plan.meter.resident_bytes();
        }
        conducted
    }

    fn phases(&self, before_bytes: u64, conducted: &mut Conducted) -> Result<(), BrokenOff> {
        let subscribers = self.plan.topology.subscribers() as u64;
        let bar = progress("subscribing", subscribers);
        self.wait("subscriptions", &bar, || {
            let ready = self.shared.sum(|counters| &counters.ready);
            (ready, ready >= subscribers)
        })?;
        if let Extent::Memory { hold, .. } = self.plan.extent {
            self.pass("holding", hold)?;
        }
        if !self.plan.meter.is_empty() {
            conducted.memory = Some(Memory {
                before_bytes,
                connected_bytes: self.plan.meter.resident_bytes(),
                end_bytes: 0,
                connections: self.plan.topology.connections() as u64,
            });
        }
        let start = self.start();
        let measured = match self.plan.extent {
            Extent::Time { warm_up, measured } => {
                self.pass("warming up", warm_up)?;
                let start = self.sample();
                self.record_from(start.at_ns);
                self.pass("measuring", measured)?;
                let end = self.sample();
                self.stop()?;
                self.drain()?;
                self.between(&start, &end)
            }
            Extent::Messages(messages) | Extent::Memory { messages, .. } => {
                self.work_off(messages)?;
                let mut end = self.sample();
                // What follows the last delivery was waiting to be looked at.
                end.at_ns = self.last_ns().max(start.at_ns);
                self.stop()?;
                self.between(&start, &end)
            }
        };
        conducted.measured = measured;
        Ok(())
    }

    /// Lets publishers begin.
    fn start(&self) -> Sample {
        if !matches!(self.plan.extent, Extent::Time { .. }) {
            self.record_from(0);
        }
        let start = self.sample();
        self.shared
            .started_ns
            .store(self.shared.now_ns(), Ordering::Release);
        self.shared.enter(Phase::Run);
        start
    }

    /// From this moment on latency counts.
    fn record_from(&self, ns: u64) {
        if let Pace::Rate(_) = self.plan.pace {
            let recorded_from_ns = &self.shared.recorded_from_ns;
            recorded_from_ns.store(ns, Ordering::Release);
        }
    }

    /// Until so many publications have been made and delivered.
    fn work_off(&self, messages: u64) -> Result<(), BrokenOff> {
        let due = messages * self.plan.topology.subscribers_each as u64;
        let bar = progress("publishing", due);
        self.wait("deliveries", &bar, || {
            let shared = self.shared;
            let publishes = shared.sum(|counters| &counters.publishes);
            let deliveries = shared.sum(|counters| &counters.deliveries);
            let settled = deliveries + shared.sum(|counters| &counters.lost);
            let acks = shared.sum(|counters| &counters.acks);
            let has_acks = !self.plan.publishing().protocol.has_acks() || acks >= publishes;
            (
                settled + acks,
                publishes >= messages && settled >= due && has_acks,
            )
        })
    }

    fn stop(&self) -> Result<(), BrokenOff> {
        self.shared.enter(Phase::Drain);
        // From here on nothing more is published.
        self.wait("the workers", &ProgressBar::hidden(), || {
            (0, self.shared.have_all_seen(Phase::Drain))
        })
    }

    /// Until all that was published has been delivered.
    fn drain(&self) -> Result<(), BrokenOff> {
        self.work_off(self.shared.sum(|counters| &counters.publishes))
    }

    /// Waits as long as something goes on. `look` gives how far it is, and whether that is the end.
    fn wait(
        &self,
        what: &str,
        bar: &ProgressBar,
        look: impl Fn() -> (u64, bool),
    ) -> Result<(), BrokenOff> {
        let (mut latest, mut since) = (0, Instant::now());
        loop {
            // Before the look: what a worker counted before it failed is counted.
            self.check()?;
            let (now, is_done) = look();
            if is_done {
                bar.finish_and_clear();
                return Ok(());
            }
            if now != latest {
                (latest, since) = (now, Instant::now());
                bar.set_position(now.min(bar.length().unwrap_or(0)));
            } else if since.elapsed() > self.plan.patience {
                bar.finish_and_clear();
                let patience = self.plan.patience.as_secs_f64();
                return Err(BrokenOff(format!("waited {patience} s in vain for {what}")));
            }
            thread::sleep(LOOK);
        }
    }

    /// Lets time pass, unless nothing moves in it.
    fn pass(&self, what: &'static str, time: Duration) -> Result<(), BrokenOff> {
        let bar = progress(what, time.as_millis() as u64);
        let began = Instant::now();
        let (mut latest, mut since) = (0, began);
        loop {
            self.check()?;
            let passed = began.elapsed();
            let Some(rest) = time.checked_sub(passed).filter(|rest| !rest.is_zero()) else {
                bar.finish_and_clear();
                return Ok(());
            };
            let deliveries = self.shared.sum(|counters| &counters.deliveries);
            if deliveries != latest {
                (latest, since) = (deliveries, Instant::now());
            } else if self.shared.phase() == Phase::Run && since.elapsed() > self.plan.patience {
                bar.finish_and_clear();
                let patience = self.plan.patience.as_secs_f64();
                return Err(BrokenOff(format!("no delivery for {patience} s")));
            }
            bar.set_position(passed.as_millis() as u64);
            bar.set_message(format!("{deliveries} deliveries"));
            thread::sleep(rest.min(GLANCE));
        }
    }

    fn check(&self) -> Result<(), BrokenOff> {
        self.shared
            .failure()
            .map_or(Ok(()), |reason| Err(BrokenOff(reason)))
    }

    fn last_ns(&self) -> u64 {
        let counters = self.shared.counters.iter();
        let last = counters.map(|counters| &counters.last_ns);
        last.map(|ns| ns.load(Ordering::Acquire)).max().unwrap_or(0)
    }

    fn sample(&self) -> Sample {
        let own = self
            .shared
            .counters
            .iter()
            .map(|counters| of_own_thread(counters.thread.load(Ordering::Acquire)));
        Sample {
            own: own.collect(),
            broker: self.plan.meter.read(),
            at_ns: self.shared.now_ns(),
            publishes: self.shared.sum(|counters| &counters.publishes),
            acks: self.shared.sum(|counters| &counters.acks),
            deliveries: self.shared.sum(|counters| &counters.deliveries),
        }
    }

    fn between(&self, start: &Sample, end: &Sample) -> Measured {
        let own = start.own.iter().zip(&end.own);
        Measured {
            seconds: (end.at_ns - start.at_ns) as f64 / 1e9,
            publishes: end.publishes - start.publishes,
            acks: end.acks - start.acks,
            deliveries: end.deliveries - start.deliveries,
            broker: (!self.plan.meter.is_empty()).then(|| end.broker.since(&start.broker)),
            own: own.map(|(start, end)| end.saturating_sub(*start)).collect(),
        }
    }

    fn report(&self, conducted: Conducted, outcomes: Vec<Outcome>) -> Report {
        let plan = self.plan;
        let published: Vec<u64> = self
            .shared
            .published
            .iter()
            .map(|count| count.load(Ordering::Acquire))
            .collect();
        let publishes: u64 = published.iter().sum();
        let is_open_loop = matches!(plan.scenario, Scenario::Latency { .. });
        let (mut latency, mut lateness) = (histogram(), histogram());
        let (mut faults, mut announced) = (Faults::default(), 0);
        // Broken by a failure, not by patience: then what is on its way may still have come.
        let is_broken = self.shared.failure().is_some();
        for outcome in outcomes {
            let same = "histograms have the same bounds";
            latency.add(&outcome.latency).expect(same);
            lateness.add(&outcome.lateness).expect(same);
            announced += outcome.announced;
            faults.add(outcome.faults(plan, &published, is_broken));
        }
        let acks = self.shared.sum(|counters| &counters.acks);
        let protocol = |party: &Party| party.dialect.protocol;
        let delivery_size = |party: &Party| party.dialect.delivery_size();
        Report {
            scenario: plan.scenario.clone(),
            protocol: plan.publishing().protocol,
            audience: plan.audience().iter().map(protocol).collect(),
            topology: plan.topology,
            size: plan.size,
            frame_bytes: plan.publishing().publication_size(),
            delivery_bytes: plan.audience().iter().map(delivery_size).collect(),
            threads: plan.threads,
            measured: conducted.measured,
            published: publishes,
            due: publishes * plan.topology.subscribers_each as u64,
            delivered: self.shared.sum(|counters| &counters.deliveries),
            announced,
            acks_missing: if plan.publishing().protocol.has_acks() && !is_broken {
                publishes.saturating_sub(acks)
            } else {
                0
            },
            faults,
            latency: is_open_loop.then(|| Latency::of(&latency)),
            lateness: is_open_loop.then(|| Latency::of(&lateness)),
            memory: conducted.memory,
            failure: conducted.failure,
        }
    }
}
