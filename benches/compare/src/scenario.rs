//! Scenarios: what is asked of a server, and of whom.

use clap::ValueEnum;

use crate::contender::Contender::{self, *};
use crate::contender::EVERYBODY;

/// A question.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, ValueEnum)]
pub enum Scenario {
    /// 1 publisher, 1000 subscribers, 16 publications on their way
    Fanout,
    /// 200 rooms of 10, every member publishes one at a time
    Rooms,
    /// 10 publishers, 100 subscribers, 16 publications of each on their way
    Many,
    /// 1 publisher, 100 subscribers, one at a time: nothing to join
    Single,
    /// 10 publishers over 1000 topics with one subscriber each, 64 publications of each on their way
    Unique,
    /// 50 000 deliveries a second at a fixed rate, to 1000 and to 100 subscribers
    Latency,
    /// 10 000 connections that wait: their memory
    Idle,
    /// Many, with 1 to 512 publications on their way
    Sweep,
    /// Fanout to 100 and to 10 000 subscribers
    Scale,
    /// Fanout and rooms on two shards, and on one
    Shards,
    /// Publications that nobody subscribes to, pipelined
    Nobody,
    /// Fanout over RESP
    Resp,
    /// Fanout over ClusterWS, and native
    Clusterws,
    /// Fanout to subscribers of three protocols, and to those of each
    Mixed,
}

/// One measurement of a scenario, done by each contender in each round.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Point {
    /// Of which.
    pub scenario: Scenario,
    /// Unique: the scenario, and what makes the point.
    pub name: String,
    /// What the generator is told.
    pub load: Load,
    /// Who takes part.
    pub contenders: Vec<Contender>,
    /// May the generator run on any CPU?
    pub is_generator_free: bool,
}

/// What the generator is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Load {
    /// `pubsub bench` with these words, for so long as measurements last.
    Timed(String),
    /// `pubsub bench` with these words, which end by themselves.
    Whole(String),
    /// The same for subscribers of the contender's protocols, and a publisher that speaks native JSON.
    Audience(String),
    /// Publications without subscribers, by [`crate::pipeline`].
    Nobody,
}

impl Load {
    /// In words.
    pub fn words(&self) -> &str {
        match self {
            Load::Timed(words) | Load::Audience(words) | Load::Whole(words) => words,
            Load::Nobody => "publications without subscribers, 1024 on their way",
        }
    }
}

/// Publications of each publisher on their way, in the sweep.
pub const WINDOWS: [usize; 10] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512];

/// Where the floor and the fastest peer are enough.
const BEST: &[Contender] = &[Uring, Epoll, FloorJoined, FloorPlain, Bun];

impl Scenario {
    /// In the order of the tables.
    pub const ALL: [Scenario; 14] = [
        Scenario::Fanout,
        Scenario::Rooms,
        Scenario::Many,
        Scenario::Single,
        Scenario::Unique,
        Scenario::Latency,
        Scenario::Idle,
        Scenario::Sweep,
        Scenario::Scale,
        Scenario::Shards,
        Scenario::Nobody,
        Scenario::Resp,
        Scenario::Clusterws,
        Scenario::Mixed,
    ];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Scenario::Fanout => "fanout",
            Scenario::Rooms => "rooms",
            Scenario::Many => "many",
            Scenario::Single => "single",
            Scenario::Unique => "unique",
            Scenario::Latency => "latency",
            Scenario::Idle => "idle",
            Scenario::Sweep => "sweep",
            Scenario::Scale => "scale",
            Scenario::Shards => "shards",
            Scenario::Nobody => "nobody",
            Scenario::Resp => "resp",
            Scenario::Clusterws => "clusterws",
            Scenario::Mixed => "mixed",
        }
    }

    /// Its measurements.
    pub fn points(self) -> Vec<Point> {
        const FANOUT: &str = "fan-out -p 1 -s 1000 -w 16";
        const ROOMS: &str = "rooms --rooms 200 --members 10 -w 1";
        let timed = |suffix: &str, words: &str| self.point(suffix, Load::Timed(words.to_owned()));
        match self {
            Scenario::Fanout => vec![timed("", FANOUT)],
            Scenario::Rooms => vec![timed("", ROOMS)],
            Scenario::Many => vec![timed("", "fan-out -p 10 -s 100 -w 16")],
            Scenario::Single => vec![timed("", "fan-out -p 1 -s 100 -w 1")],
            Scenario::Unique => vec![timed("", "unique --topics 1000 -p 10 -w 64")],
            Scenario::Latency => vec![
                timed("/1000", "latency --rate 50000 -p 1 -s 1000"),
                timed("/100", "latency --rate 50000 -p 1 -s 100"),
            ],
            Scenario::Idle => {
                let words = "idle --connections 10000 --hold 1";
                vec![self.point("", Load::Whole(words.to_owned()))]
            }
            Scenario::Sweep => WINDOWS
                .iter()
                .map(|window| {
                    let words = format!("fan-out -p 10 -s 100 -w {window}");
                    timed(&format!("/{window}"), &words).among(BEST)
                })
                .collect(),
            Scenario::Scale => vec![
                timed("/100", "fan-out -p 1 -s 100 -w 16").among(BEST),
                timed("/10000", "fan-out -p 1 -s 10000 -w 16").among(BEST),
            ],
            Scenario::Shards => [("/fanout", FANOUT), ("/rooms", ROOMS)]
                .map(|(suffix, words)| Point {
                    is_generator_free: true,
                    ..timed(suffix, words).among(&[Uring, UringTwo])
                })
                .into(),
            Scenario::Nobody => {
                let all = &[Uring, Epoll, Before, UringResp, EpollResp, Redis];
                vec![self.point("", Load::Nobody).among(all)]
            }
            Scenario::Resp => {
                vec![timed("", FANOUT).among(&[Uring, UringResp, EpollResp, Redis])]
            }
            Scenario::Clusterws => {
                vec![timed("", FANOUT).among(&[Uring, UringClusterws, EpollClusterws])]
            }
            Scenario::Mixed => {
                // In thirds.
                let words = "fan-out -p 1 -s 999 -w 16".to_owned();
                let all = &[Uring, UringResp, UringClusterws, UringMixed];
                vec![self.point("", Load::Audience(words)).among(all)]
            }
        }
    }

    fn point(self, suffix: &str, load: Load) -> Point {
        Point {
            scenario: self,
            name: format!("{}{suffix}", self.name()),
            load,
            contenders: EVERYBODY.to_vec(),
            is_generator_free: false,
        }
    }
}

impl Point {
    fn among(self, contenders: &[Contender]) -> Point {
        Point {
            contenders: contenders.to_vec(),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_command_lines_and_points_are_told_apart() {
        let mut names = Vec::new();
        for (value, scenario) in Scenario::value_variants().iter().zip(Scenario::ALL) {
            assert_eq!(*value, scenario);
            let written = value.to_possible_value().unwrap();
            assert_eq!(written.get_name(), scenario.name());
            names.extend(scenario.points().into_iter().map(|point| point.name));
        }
        assert_eq!(Scenario::value_variants().len(), Scenario::ALL.len());
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
        for contender in Contender::value_variants() {
            let written = contender.to_possible_value().unwrap();
            assert_eq!(written.get_name(), contender.name());
        }
    }
}
