//! Rest, the drain, and the reckoning: what must hold when the faults are over.
//!
//! While a world settles a shard runs only when it is awake: woken by another, with input, or due. So a wake-up that is
//! lost is a shard that sleeps for ever, and a loop that spins is one that runs while nothing moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pubsub::net::control::{Control, Reply};

use crate::client::{Client, End, Phase};
use crate::emissions;
use crate::oracle::{Kind, Moment, Standing, Violation};
use crate::peer::is_hostable;
use crate::world::{CLIENTS_MAX, World};

impl World {
    /// Is a waiting shard's thread awake, as far as its driver and the doorbells say?
    fn is_runnable(&self, index: usize) -> bool {
        let run = &self.shards[index];
        let network = self.stage.network.borrow();
        let is_due = run
            .wait
            .is_some_and(|wait| run.wait_since_ms + wait.as_millis() as u64 <= network.now_ms);
        run.at != 0 || is_due || network.is_woken[index]
    }

    /// Without faults, until nothing moves any more and `is_done`; in bounded time and without spinning.
    pub fn settle(
        &mut self,
        when: &str,
        ms_max: u64,
        is_done: impl Fn(&World) -> bool,
    ) -> Result<(), Violation> {
        let fail = |text: String| {
            Err(Violation {
                kind: Kind::Liveness,
                text: format!("{when}: {text}"),
            })
        };
        let start_ms = {
            let mut network = self.stage.network.borrow_mut();
            network.is_kind = true;
            network.set_buffer_bytes(1 << 20);
            network.now_ms
        };
        for client in &mut self.clients {
            if client.frozen_until != Moment::MAX {
                client.frozen_until = 0;
            }
            client.clusterws.pinged_at_ms = None;
        }
        self.stage.note(|| format!("----- {when}"));
        let mut idle_rounds = 0;
        for _ in 0..20_000 {
            self.stage.now();
            let before = self.stage.network.borrow().progress;
            let mut has_run = false;
            for index in 0..self.shards.len() {
                let is_ready = self.shards[index].event_loop.driver_mut().is_ready();
                if is_ready || self.is_runnable(index) {
                    self.turn(index);
                    has_run = true;
                }
            }
            self.hear_hosts();
            self.carry_all();
            for client in &mut self.clients {
                client.read(&mut self.stage, usize::MAX);
                if client.has_been_asked() && client.is_talking() && client.phase == Phase::Open {
                    let mut frames = Vec::new();
                    client.reply(&mut self.stage, &mut frames);
                    client.write(&frames, &mut self.stage);
                }
            }
            self.stage.cues.clear();
            if !self.stage.oracle.violations.is_empty() {
                return Ok(());
            }
            if self.stage.network.borrow().progress != before {
                idle_rounds = 0;
                continue;
            }
            if has_run {
                idle_rounds += 1;
                if idle_rounds > 300 {
                    return fail("a shard spins".to_owned());
                }
                continue;
            }
            idle_rounds = 0;
            // Everybody sleeps.
            if let Some(index) = (0..self.shards.len())
                .find(|&index| self.shards[index].event_loop.is_waiting_for_room())
            {
                return fail(format!("shard {index} waits for room and nobody wakes it"));
            }
            if let Some(late) = self.late_ping() {
                return fail(late);
            }
            if is_done(self) {
                return Ok(());
            }
            let due = (self.shards.iter())
                .filter_map(|run| Some(run.wait_since_ms + run.wait?.as_millis() as u64))
                .min();
            let late = self.clients.iter().find(|client| !client.is_answered());
            let late = late.map_or_else(String::new, Client::missing_answers);
            let Some(due) = due else {
                return fail(format!("all shards sleep for ever; {late}"));
            };
            let now_ms = &mut self.stage.network.borrow_mut().now_ms;
            *now_ms = due.max(*now_ms);
            if *now_ms > start_ms + ms_max {
                let residue: Vec<_> = (self.shards.iter())
                    .map(|run| run.event_loop.shard().residue())
                    .collect();
                return fail(format!(
                    "not done in {ms_max} ms; {late}; left: {residue:?}"
                ));
            }
        }
        fail("it never comes to rest".to_owned())
    }

    /// At rest, a client that waits longer for a ping than it was told.
    fn late_ping(&self) -> Option<String> {
        let now_ms = self.stage.network.borrow().now_ms;
        let is_late = |client: &&Client| {
            client.is_talking()
                && client.frozen_until != Moment::MAX
                && client.clusterws.is_ping_late(now_ms)
        };
        let late = self.clients.iter().find(is_late)?;
        Some(format!("client {} gets no pings", late.index))
    }

    /// Has everybody who reads been answered everything?
    pub fn is_answered(&self) -> bool {
        let reads = |client: &Client| client.frozen_until != Moment::MAX;
        self.hosted == self.hosted_answered
            && (self.clients.iter()).all(|client| client.is_answered() || !reads(client))
            && self.stage.requests.iter().all(|request| {
                let client = &self.clients[request.client];
                request.replies > 0 || !client.is_talking() || !reads(client)
            })
    }

    /// Has everybody gone, and every shard heard of it?
    pub fn is_empty(&self) -> bool {
        self.shards
            .iter()
            .all(|run| run.event_loop.shard().residue().is_none())
    }

    /// What the broker does when it is told to end.
    pub fn drain(&mut self) -> Result<(), Violation> {
        self.is_draining = true;
        // Meanwhile life goes on.
        let is_stormy = self.stage.rng.u8(..4) > 0;
        if is_stormy {
            self.stage.network.borrow_mut().is_kind = false;
            let bytes = self.profile.buffer_bytes;
            self.stage.network.borrow_mut().set_buffer_bytes(bytes);
            self.storm(200);
        }
        self.ask(is_stormy, |reply| Control::StopAccepting { reply });
        let spread_ms = if self.stage.rng.u8(..3) == 0 {
            self.stage.rng.u64(1..3_000)
        } else {
            self.is_quiet = self.ask(is_stormy, |reply| Control::Quiesce { reply });
            0
        };
        self.closes_at = self.stage.now();
        self.closes_at_ms = self.stage.network.borrow().now_ms;
        let gone = Arc::new(AtomicUsize::new(0));
        self.gone = Some(gone.clone());
        self.tell_all(&gone, is_stormy, |reply| Control::Close {
            spread_ms,
            reply,
        });
        if is_stormy {
            let steps = self.stage.rng.usize(..200);
            self.storm(steps);
        }
        let shards = self.shards.len();
        // Readers that froze for ever hold it up for the linger, no longer.
        self.settle("after the drain", spread_ms + 8_000, move |world| {
            gone.load(Ordering::Relaxed) == shards
                && (world.clients.iter()).all(|client| {
                    client.phase == Phase::Ended || client.frozen_until == Moment::MAX
                })
        })?;
        for index in 0..self.clients.len() {
            if self.clients[index].phase != Phase::Ended {
                self.clients[index].vanish(&mut self.stage);
            }
        }
        self.settle("after the end of the drain", 30_000, World::is_empty)
    }

    /// Life goes on, and some come just now, most of them to the dealer.
    fn storm(&mut self, steps: usize) {
        for _ in 0..steps {
            if self.clients.len() < CLIENTS_MAX && self.stage.rng.u8(..20) == 0 {
                let is_dealt = self.stage.rng.u8(..4) > 0;
                self.connect(is_dealt);
            }
            self.chaos();
        }
    }

    /// Sends a word to every shard; counts the answers.
    pub fn send_words(&mut self, word: impl Fn(Reply<()>) -> Control) -> Arc<AtomicUsize> {
        let answers = Arc::new(AtomicUsize::new(0));
        self.tell_all(&answers, false, word);
        answers
    }

    /// Sends a word to one shard after the other. In a storm, something may happen in between.
    fn tell_all(
        &mut self,
        answers: &Arc<AtomicUsize>,
        is_stormy: bool,
        word: impl Fn(Reply<()>) -> Control,
    ) {
        for shard in 0..self.shards.len() {
            if is_stormy && self.stage.rng.bool() {
                let steps = self.stage.rng.usize(..40);
                self.storm(steps);
            }
            let answers = answers.clone();
            self.tell(
                shard,
                word(Box::new(move |()| {
                    answers.fetch_add(1, Ordering::Relaxed);
                })),
            );
        }
    }

    /// Sends a word to all shards and waits for the answers, at most two seconds. True if all have come.
    fn ask(&mut self, is_stormy: bool, word: impl Fn(Reply<()>) -> Control) -> bool {
        let answers = Arc::new(AtomicUsize::new(0));
        self.tell_all(&answers, is_stormy, word);
        let until_ms = self.stage.network.borrow().now_ms + 2_000;
        while answers.load(Ordering::Relaxed) < self.shards.len()
            && self.stage.network.borrow().now_ms < until_ms
        {
            if is_stormy {
                self.storm(20);
            } else {
                self.turns_of_all();
            }
            self.stage.network.borrow_mut().now_ms += 1;
        }
        answers.load(Ordering::Relaxed) == self.shards.len()
    }

    fn turns_of_all(&mut self) {
        for shard in 0..self.shards.len() {
            self.turn(shard);
        }
        self.carry_all();
        for client in &mut self.clients {
            client.read(&mut self.stage, usize::MAX);
        }
        self.hear_hosts();
        self.stage.cues.clear();
    }

    // ----------------------------------------------------------------------------------------- checks

    /// Compares every client with the oracle, at rest.
    pub fn reckon(&mut self, is_end: bool) {
        let mut standings = Vec::new();
        for index in 0..self.clients.len() {
            standings.push(self.standing(index));
            let client = &self.clients[index];
            let was_told = matches!(client.end, Some(End::Closed(1001) | End::Finished));
            if was_told && self.is_draining && !self.is_quiet {
                // Some publish while others have left already.
                self.stage.oracle.all_leave(index, self.closes_at);
            }
            self.check_end(index);
            self.check_last_replies(index, standings[index]);
        }
        self.stage.oracle.reckon(&standings);
        if !is_end {
            let stage = &mut self.stage;
            stage.emissions.reckon(&standings, &mut stage.oracle);
            let network = stage.network.borrow();
            let is_gone = |client: &Client| network.server_is_gone(client.connection);
            let oracle = &mut stage.oracle;
            stage
                .hosts
                .reckon(&self.clients, &standings, is_gone, oracle);
        }
        let hostable = |client: &&Client| is_hostable(client.protocol);
        let hostable = self.clients.iter().filter(hostable).count();
        let (least, most) = self.stage.oracle.due_in_all();
        let emitted = self.stage.emissions.due(hostable);
        let (least, most) = (least + emitted.0, most + emitted.1);
        let due: u64 = self.stats().map(|stats| stats.deliveries_due).sum();
        if !(least..=most).contains(&due) {
            let text = format!("{due} deliveries were due, not {least} to {most}");
            self.stage.oracle.violate(Kind::Count, text);
        }
        if is_end {
            return;
        }
        let left = std::mem::take(&mut self.stage.left_services);
        for (service, text) in std::mem::take(&mut self.stage.unserved) {
            if !left.contains(&service) {
                self.stage.oracle.violate(Kind::Answer, text);
            }
        }
        for emitted in &self.stage.emits {
            if emitted.was_served
                && emitted.is_done
                && emitted.came == 0
                && !left.contains(&emitted.service)
            {
                let text = format!("nobody heard {emitted:?}");
                self.stage.oracle.violations.push(Violation {
                    kind: Kind::Answer,
                    text,
                });
            }
        }
        self.stage.left_services = left;
    }

    fn standing(&self, index: usize) -> Standing {
        let client = &self.clients[index];
        match client.end {
            None if client.frozen_until == Moment::MAX => Standing::CutOff,
            None => Standing::Open,
            Some(End::Closed(1001)) if self.is_draining => Standing::Ended,
            // An orderly end by this side is answered by an echo of its code.
            Some(End::Closed(code)) if client.closed == Some(code) && code != 4008 => match code {
                1000 | 3001 => Standing::Ended,
                _ => Standing::CutOff,
            },
            // No word says whether it was the drain, or that it was slow.
            Some(End::Finished)
                if self.is_draining
                    && !client.is_faulty
                    && self.profile.is_generous_to(client.protocol) =>
            {
                Standing::Ended
            }
            Some(_) => Standing::CutOff,
        }
    }

    /// Is there a reason for the way in which a client's connection ended?
    fn check_end(&mut self, index: usize) {
        let client = &self.clients[index];
        let limits = &self.profile.limits;
        let is_generous = self.profile.is_generous_to(client.protocol);
        // Told to leave, it did not read in time, or what it sent met a closed socket.
        let is_late = self.is_draining
            && client.ended_at_ms >= self.closes_at_ms.saturating_add(limits.discard_ms);
        let was_unheard = self.is_draining
            && !self
                .stage
                .network
                .borrow()
                .at(client.connection)
                .is_accepted;
        let is_explained = match client.end {
            None | Some(End::Own) => true,
            Some(End::Closed(1001)) => self.is_draining,
            Some(End::Closed(4008)) => client.is_faulty || !is_generous,
            Some(End::Closed(1008 | 4009)) => client.is_faulty,
            Some(End::Closed(1012)) => {
                let network = self.stage.network.borrow();
                let is_gone = |client: &Client| network.server_is_gone(client.connection);
                let hosts = &self.stage.hosts;
                hosts.has_lost_its_host(&self.clients, is_gone)
            }
            Some(End::Closed(code)) if emissions::is_of_a_disconnect(code) => true,
            Some(End::Closed(code)) => client.closed == Some(code),
            Some(End::Finished) => {
                let is_told = match client.peer.goodbye.as_deref() {
                    None => true,
                    Some("going_away") => self.is_draining,
                    Some("too_slow") => client.is_faulty || !is_generous,
                    Some("timeout") => client.is_faulty,
                    Some(_) => false,
                };
                is_told && (self.is_draining || client.is_faulty || !is_generous)
            }
            Some(End::Refused(503)) => self.is_draining || limits.connections_max < 1_000,
            Some(End::Refused(408)) => self.profile.faults > 0 || self.is_draining,
            Some(End::Refused(_)) => false,
            // What was written behind a refused head makes the refusal a reset.
            Some(End::Cut) if !client.was_let_in => {
                was_unheard
                    || is_late
                    || self.profile.faults > 0
                    || limits.connections_max < 1_000
                    || !is_generous
            }
            Some(End::Cut) => {
                // Its close frame lay unread, or the answer unsent, for longer than that may take.
                let has_lingered = client.closed.is_some()
                    && client.ended_at_ms >= client.closed_at_ms + limits.linger_ms;
                let is_disconnected = self.stage.emissions.is_disconnected(index);
                has_lingered || client.is_faulty || is_late || !is_generous || is_disconnected
            }
        };
        if !is_explained {
            let text = format!(
                "client {index} ended by {:?} without a reason",
                self.clients[index].end
            );
            self.stage.oracle.violate(Kind::Ending, text);
        }
    }

    /// A drain closes RESP clients after the last reply: what was carried out was answered.
    fn check_last_replies(&mut self, index: usize, standing: Standing) {
        if !self.is_quiet || standing != Standing::Ended {
            return;
        }
        for number in self.clients[index].uncounted() {
            if self.stage.oracle.has_come(number) {
                let text = format!("client {index} was not told who got its message {number}");
                self.stage.oracle.violate(Kind::Answer, text);
            }
        }
    }

    pub fn check_sums(&mut self) {
        for run in &mut self.shards {
            let stats = run.event_loop.shard().stats();
            let held = run.event_loop.driver_mut().count();
            if stats.deliveries_due != stats.delivered + stats.announced
                || stats.outbox_bytes != 0
                || stats.connections != 0
                || stats.requests_pending != 0
                || held != 0
            {
                let text = format!("the driver holds {held}; {stats:?}");
                self.stage.oracle.violate(Kind::Residue, text);
            }
        }
        let network = self.stage.network.clone();
        for client in &self.clients {
            if !network.borrow().server_is_gone(client.connection)
                && !matches!(client.end, Some(End::Cut | End::Own))
            {
                let text = format!("the connection of client {} is forgotten", client.index);
                self.stage.oracle.violate(Kind::Residue, text);
            }
        }
    }
}
