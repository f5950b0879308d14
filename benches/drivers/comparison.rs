//! All engines in one scenario, in turns.
//!
//! A benchmark takes all samples of one function before it begins with the next, and a machine that is busy for a minute
//! then makes one engine look bad. So a sample that is asked of one engine is taken of all of them, one after the
//! other, each time beginning with another, and kept until it is their turn to be asked.

use std::collections::VecDeque;

use core_affinity::CoreId;
use criterion::measurement::Measurement as _;

use crate::client::Client;
use crate::gate::gate;
use crate::measurement::CpuTime;
use crate::scenario::Scenario;
use crate::server::{Engine, Server};

/// The engines of one scenario: servers that run, and their clients.
pub struct Comparison {
    scenario: Scenario,
    rounds: usize,
    cpu_time: CpuTime,
    contenders: Vec<Contender>,
}

struct Contender {
    engine: Engine,
    server: Server,
    client: Client,
    /// Nanoseconds per delivery, taken and not asked for.
    samples: VecDeque<f64>,
}

impl Comparison {
    /// Starts all engines on a CPU. A sample is so many sends, or as few more as make a round.
    ///
    /// # Panics
    /// If one can't be started.
    pub fn start(
        engines: &[Engine],
        scenario: Scenario,
        sends: usize,
        cpu: Option<CoreId>,
        cpu_time: CpuTime,
    ) -> Comparison {
        let start = |&engine: &Engine| {
            let (gate, keeper) = gate();
            let server = Server::start(engine, scenario, gate, cpu).expect("a server can start");
            let client = Client::connect(scenario, server.address, keeper);
            let mut client = client.expect("it can be connected to");
            // What is allocated, armed and mapped once is not what we ask about.
            client.round();
            client.round();
            Contender {
                engine,
                server,
                client,
                samples: VecDeque::new(),
            }
        };
        Comparison {
            scenario,
            rounds: sends.div_ceil(scenario.readers()),
            cpu_time,
            contenders: engines.iter().map(start).collect(),
        }
    }

    /// The next sample of an engine: nanoseconds of CPU time per delivery.
    ///
    /// # Panics
    /// If a message is lost, doubled or wrong.
    pub fn sample(&mut self, engine: Engine) -> f64 {
        let place = self.contenders.iter().position(|one| one.engine == engine);
        let place = place.expect("it takes part");
        if self.contenders[place].samples.is_empty() {
            self.sample_all();
        }
        let sample = self.contenders[place].samples.pop_front();
        sample.expect("one was just taken")
    }

    fn sample_all(&mut self) {
        self.contenders.rotate_left(1);
        let deliveries = self.scenario.deliveries() * self.rounds;
        for contender in &mut self.contenders {
            self.cpu_time.watch(contender.server.thread);
            let start = self.cpu_time.start();
            for _ in 0..self.rounds {
                contender.client.round();
            }
            let spent = self.cpu_time.end(start);
            contender.samples.push_back(spent / deliveries as f64);
        }
    }

    /// Ends all engines.
    ///
    /// # Panics
    /// If one has not ended well.
    pub fn end(self) {
        for contender in self.contenders {
            drop(contender.client);
            contender.server.join();
        }
    }
}
