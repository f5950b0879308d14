//! What the threads of a run share: the phase, the counters, and the windows.
//!
//! A window needs to know when everybody has a publication, and its subscribers may be on several threads. So each
//! publication on its way has a slot with the number of deliveries that are still to come. Whoever takes the last
//! one wakes the publisher's thread. Slots are reused in turn: the publisher moves on past its *oldest* publication
//! that is not everywhere yet, so a slot is empty before it is filled again.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;

use crate::plan::{Pace, Plan};

/// What workers do now.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug)]
#[repr(u8)]
pub enum Phase {
    /// Subscribing.
    Setup,
    /// Publishing.
    Run,
    /// Receiving what is on its way.
    Drain,
    /// Going home.
    Quit,
}

impl Phase {
    fn of(number: u8) -> Phase {
        match number {
            0 => Phase::Setup,
            1 => Phase::Run,
            2 => Phase::Drain,
            _ => Phase::Quit,
        }
    }
}

/// Shared by all workers and the conductor ([`crate::run`]).
pub struct Shared {
    began: Instant,
    phase: AtomicU8,
    /// When publishing began, in nanoseconds of the run.
    pub started_ns: AtomicU64,
    /// From when on latency is recorded; never, until it is said.
    pub recorded_from_ns: AtomicU64,
    /// By worker.
    pub counters: Vec<Counters>,
    doorbells: Vec<Doorbell>,
    /// By publisher: its publications so far.
    pub published: Vec<AtomicU64>,
    /// By publisher, a ring each; none in the open loop.
    slots: Vec<AtomicU32>,
    ring: u64,
    failure: Mutex<Option<String>>,
}

/// What a worker has counted, written at the end of each of its turns. On cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
pub struct Counters {
    /// Subscriptions that stand.
    pub ready: AtomicU64,
    /// Publications sent.
    pub publishes: AtomicU64,
    /// Publications acknowledged.
    pub acks: AtomicU64,
    /// Deliveries, each counted once.
    pub deliveries: AtomicU64,
    /// Deliveries skipped so far.
    pub lost: AtomicU64,
    /// When something last came, in nanoseconds of the run.
    pub last_ns: AtomicU64,
    /// The latest phase that it has seen.
    pub phase: AtomicU8,
    /// Its thread.
    pub thread: AtomicU32,
}

struct Doorbell {
    event: OwnedFd,
    is_rung: AtomicBool,
}

impl Shared {
    /// For a plan.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn new(plan: &Plan) -> Result<Shared, String> {
        let publishers = plan.topology.publishers;
        let ring = match plan.pace {
            Pace::Window(window) => window.next_power_of_two(),
            Pace::Rate(_) => 0,
        };
        let doorbells = (0..plan.threads).map(|_| {
            Ok(Doorbell {
                event: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)
                    .map_err(|error| format!("eventfd: {error}"))?,
                is_rung: AtomicBool::new(false),
            })
        });
        Ok(Shared {
            began: Instant::now(),
            phase: AtomicU8::new(Phase::Setup as u8),
            started_ns: AtomicU64::new(0),
            recorded_from_ns: AtomicU64::new(u64::MAX),
            counters: (0..plan.threads).map(|_| Counters::default()).collect(),
            doorbells: doorbells.collect::<Result<_, String>>()?,
            published: (0..publishers).map(|_| AtomicU64::new(0)).collect(),
            slots: (0..publishers * ring).map(|_| AtomicU32::new(0)).collect(),
            ring: ring as u64,
            failure: Mutex::new(None),
        })
    }

    /// Nanoseconds of the run.
    pub fn now_ns(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// The phase.
    pub fn phase(&self) -> Phase {
        Phase::of(self.phase.load(Ordering::Acquire))
    }

    /// The next phase, for all.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
        for worker in 0..self.doorbells.len() {
            self.wake(worker);
        }
    }

    /// Has every worker seen this phase?
    pub fn have_all_seen(&self, phase: Phase) -> bool {
        let mut counters = self.counters.iter();
        counters.all(|counters| counters.phase.load(Ordering::Acquire) >= phase as u8)
    }

    /// One counter of all workers together.
    pub fn sum(&self, counter: impl Fn(&Counters) -> &AtomicU64) -> u64 {
        let counters = self.counters.iter();
        counters
            .map(|all| counter(all).load(Ordering::Acquire))
            .sum()
    }

    /// Wakes a worker, unless somebody has just done it.
    pub fn wake(&self, worker: usize) {
        let doorbell = &self.doorbells[worker];
        if !doorbell.is_rung.swap(true, Ordering::AcqRel) {
            // It can only fail when the counter is full, and then it is readable.
            let _ = rustix::io::write(&doorbell.event, &1u64.to_ne_bytes());
        }
    }

    /// What a worker polls.
    pub fn doorbell(&self, worker: usize) -> &OwnedFd {
        &self.doorbells[worker].event
    }

    /// A worker has heard its doorbell; to be called before it looks for what happened.
    pub fn silence(&self, worker: usize) {
        let doorbell = &self.doorbells[worker];
        let _ = rustix::io::read(&doorbell.event, &mut [0; 8]);
        // A swap, not a store: it sees what was settled by whoever found the bell already rung.
        doorbell.is_rung.swap(false, Ordering::AcqRel);
    }

    fn slot(&self, publisher: usize, n: u64) -> &AtomicU32 {
        &self.slots[publisher * self.ring as usize + (n & (self.ring - 1)) as usize]
    }

    /// Publication `n` is about to go to so many subscribers.
    pub fn send(&self, publisher: usize, n: u64, subscribers: u32) {
        self.slot(publisher, n)
            .store(subscribers, Ordering::Release);
    }

    /// One of its deliveries has come, or never will. Was it the last one?
    #[inline]
    pub fn settle(&self, publisher: usize, n: u64) -> bool {
        let slot = self.slot(publisher, n);
        // A lone thread needs no locked instruction.
        let before = if self.counters.len() == 1 {
            let before = slot.load(Ordering::Relaxed);
            slot.store(before.saturating_sub(1), Ordering::Relaxed);
            before
        } else {
            let take = |left: u32| left.checked_sub(1);
            slot.fetch_update(Ordering::AcqRel, Ordering::Relaxed, take)
                .unwrap_or(0)
        };
        before == 1
    }

    /// Does everybody have publication `n`?
    pub fn is_settled(&self, publisher: usize, n: u64) -> bool {
        self.slot(publisher, n).load(Ordering::Acquire) == 0
    }

    /// The run cannot go on. The first reason counts.
    pub fn fail(&self, reason: String) {
        let mut failure = self
            .failure
            .lock()
            .unwrap_or_else(|broken| broken.into_inner());
        failure.get_or_insert(reason);
    }

    /// Why the run cannot go on.
    pub fn failure(&self) -> Option<String> {
        let failure = self
            .failure
            .lock()
            .unwrap_or_else(|broken| broken.into_inner());
        failure.clone()
    }
}
