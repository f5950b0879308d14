//! Who sleeps is rung, once.
//!
//! To wake a thread costs its waker some 10 µs, to see that it is awake costs a load. So whoever is about to sleep
//! says so, and only then do the others wake it: one of them, once. How a thread sleeps and how it is woken (a ring
//! message, an eventfd) is not known here; a wake-up must only be one that is kept until the sleeper looks.
//!
//! **No wake-up is lost.** Two threads each write one thing and then read what the other wrote:
//!
//! | the owner, going to sleep             | another, with work for it              |
//! | ------------------------------------- | -------------------------------------- |
//! | S1 `asleep = true`                    | P1 publish the work                    |
//! | full fence                            | full fence                             |
//! | S2 look for work: sleep only if none  | P2 read `asleep`: wake the owner if so |
//!
//! Without fences both reads may miss both writes (each still waits in its CPU's store buffer), and the owner would
//! sleep on its work. All SeqCst fences of a program stand in one order. If the owner's stands first, P2 comes after
//! S1 and reads `true`, or something newer. If the other's stands first, S2 comes after P1 and finds the work.
//!
//! Newer than S1 can be: `false` by another ringer, who then is the one to wake the owner; `false` by the owner that
//! found work or woke; or the `true` of a later sleep. After [`Doorbell::awake`] the owner looks for work again
//! before the next sleep, by the same steps, so that work is found then at the latest.
//!
//! **One wake-up a sleep.** Of all that read `true` only one takes it out, since the exchange is atomic. If the owner
//! gets up by itself meanwhile, that wake-up comes late and cuts a later sleep short; nothing else can happen.

use crossbeam_utils::CachePadded;

use super::sync::{AtomicBool, Ordering, fence};

/// The flag by which one thread announces that it is about to sleep.
#[derive(Debug, Default)]
pub struct Doorbell {
    /// On a line of its own: all who publish read it every turn, and it changes only around a sleep.
    asleep: CachePadded<AtomicBool>,
}

impl Doorbell {
    /// A doorbell whose owner is awake.
    pub fn new() -> Doorbell {
        Doorbell::default()
    }

    /// Before sleeping: announce, full fence; then re-check every ring, then sleep.
    pub fn announce_sleep(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// After waking, or when the re-check found something.
    pub fn awake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// After publishing: full fence; true if the owner announced sleep and nobody rang before: the caller must wake it.
    #[must_use = "the owner sleeps until it is woken"]
    pub fn ring(&self) -> bool {
        fence(Ordering::SeqCst);
        // The load first: it leaves the line shared among all who find the owner awake. Then an exchange and no swap: a
        // swap that comes too late would write `false` over the `false` of the owner, and whether that write precedes
        // the `true` of the next sleep takes one more argument (it does; loom cannot follow it). Neither needs an
        // ordering: the fence gives it, and the work itself is read through the ring's Release and Acquire.
        let asleep = self.asleep.load(Ordering::Relaxed);
        asleep
            && self
                .asleep
                .compare_exchange(true, false, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

#[cfg(all(test, not(pubsub_loom)))]
mod tests {
    use super::*;

    #[test]
    fn only_a_sleeper_is_rung_and_once() {
        let doorbell = Doorbell::new();
        assert!(!doorbell.ring(), "awake from the start");
        doorbell.announce_sleep();
        assert!(doorbell.ring());
        assert!(!doorbell.ring(), "somebody rang before");
        doorbell.awake();
        assert!(!doorbell.ring());
        doorbell.announce_sleep();
        doorbell.awake();
        assert!(!doorbell.ring(), "it found something and did not sleep");
        doorbell.announce_sleep();
        assert!(doorbell.ring(), "each sleep counts anew");
    }
}

#[cfg(all(test, pubsub_loom))]
mod models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    #[test]
    fn of_two_ringers_exactly_one_wakes_the_sleeper() {
        loom::model(|| {
            let doorbell = Arc::new(Doorbell::new());
            doorbell.announce_sleep();
            let other = {
                let doorbell = doorbell.clone();
                thread::spawn(move || doorbell.ring())
            };
            let mine = doorbell.ring();
            let others = other.join().unwrap();
            assert!(mine != others, "one of the two, not {mine} and {others}");
        });
    }

    /// The bare pattern: two flags stand for the work of two ringers.
    #[test]
    fn whoever_stays_asleep_has_been_rung_for_all_work() {
        loom::model(|| {
            let doorbell = Arc::new(Doorbell::new());
            let work = Arc::new([AtomicBool::new(false), AtomicBool::new(false)]);
            let ringers: Vec<_> = (0..2)
                .map(|index| {
                    let (doorbell, work) = (doorbell.clone(), work.clone());
                    thread::spawn(move || {
                        work[index].store(true, Ordering::Relaxed);
                        doorbell.ring()
                    })
                })
                .collect();
            doorbell.announce_sleep();
            let found = work.iter().any(|flag| flag.load(Ordering::Relaxed));
            let rung = ringers
                .into_iter()
                .map(|ringer| usize::from(ringer.join().unwrap()))
                .sum::<usize>();
            assert!(found || rung == 1, "slept through both");
            assert!(rung <= 1, "rung {rung} times for one sleep");
        });
    }
}
