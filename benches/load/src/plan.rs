//! The plan: options that were checked, and what follows from them.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::cpus::Cpus;
use crate::dialect::{Carriage, Dialect, Payload, Protocol, TOPICS_MAX};
use crate::options::{Options, Scenario};
use crate::stamp::Stamp;
use crate::target::{Scheme, Target};
use crate::topology::Topology;
use crate::usage::Meter;

/// A run.
pub struct Plan {
    /// As on the command line.
    pub scenario: Scenario,
    /// The message's bytes.
    pub size: usize,
    /// Who publishes where.
    pub topology: Topology,
    /// The publishers' party, and if the subscribers are not of it, theirs in turn.
    pub parties: Vec<Party>,
    /// When a publisher publishes.
    pub pace: Pace,
    /// How much is published.
    pub extent: Extent,
    /// How long nothing may happen.
    pub patience: Duration,
    /// What is measured beside.
    pub meter: Meter,
    /// Threads.
    pub threads: usize,
    /// Where they run.
    pub cpus: Option<Cpus>,
    /// Connections opened at once.
    pub ramp: usize,
}

/// Connections that speak the same to the same.
pub struct Party {
    /// How they speak.
    pub dialect: Dialect,
    /// To whom; several take turns.
    pub targets: Vec<Target>,
}

/// When a publisher publishes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pace {
    /// As soon as fewer than so many of its publications are on their way: not delivered to everybody (closed loop).
    Window(usize),
    /// So many deliveries a second by all publishers together, whatever happens (open loop).
    Rate(u64),
}

/// How much is published.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Extent {
    /// So many publications.
    Messages(u64),
    /// As many as fit.
    Time {
        /// Before measuring.
        warm_up: Duration,
        /// While measuring.
        measured: Duration,
    },
    /// None, or one at the end; memory is measured after `hold`.
    Memory {
        /// How long the connections are left alone.
        hold: Duration,
        /// Publications at the end.
        messages: u64,
    },
}

/// Descriptors that are no connections: standard streams, epoll, timers, `/proc`.
const DESCRIPTORS_APART: u64 = 64;

impl Plan {
    /// Checks the options.
    ///
    /// # Errors
    /// What is wrong with them, in a sentence.
    pub fn new(options: &Options) -> Result<Plan, String> {
        let one_topic = if options.protocol.relays_only_subscribers() {
            Topology::circle
        } else {
            Topology::one_topic
        };
        let messages = options.messages;
        let timed = Extent::Time {
            warm_up: seconds("--warm-up", options.warm_up)?,
            measured: seconds("--duration", options.duration)?,
        };
        let extent = messages.map_or(timed, Extent::Messages);
        let (topology, pace, extent) = match options.scenario {
            Scenario::FanOut {
                publishers,
                subscribers,
                window,
            } => (
                one_topic(publishers, subscribers),
                Pace::Window(window),
                extent,
            ),
            Scenario::Rooms {
                rooms,
                members,
                window,
            } => (
                Topology::rooms(rooms, members),
                Pace::Window(window),
                extent,
            ),
            Scenario::Unique {
                topics,
                publishers,
                window,
            } => (
                Topology::unique(topics, publishers),
                Pace::Window(window),
                extent,
            ),
            Scenario::Latency {
                rate,
                publishers,
                subscribers,
            } => (one_topic(publishers, subscribers), Pace::Rate(rate), extent),
            Scenario::Idle {
                connections,
                publish,
                hold,
            } => {
                let messages = u64::from(publish);
                let hold = Duration::from_secs(hold);
                (
                    one_topic(usize::from(publish), connections),
                    Pace::Window(1),
                    Extent::Memory { hold, messages },
                )
            }
        };
        let is_idle = matches!(extent, Extent::Memory { .. });
        check_numbers(options, topology, pace, is_idle)?;
        check_audience(options, topology)?;
        let parties = parties(options)?;
        let cores = options.cores.as_ref().map_or(&[][..], |cores| &cores.0);
        make_room(topology.connections() as u64)?;
        Ok(Plan {
            scenario: options.scenario.clone(),
            size: options.size,
            topology,
            parties,
            pace,
            extent,
            patience: patience(options.patience, pace, topology)?,
            meter: Meter::new(&options.pids, cores)?,
            threads: options.threads,
            cpus: options.cpus.clone(),
            ramp: options.ramp,
        })
    }

    /// The publishers' dialect.
    pub fn publishing(&self) -> &Dialect {
        &self.parties[0].dialect
    }

    /// The parties of the subscribers.
    pub fn audience(&self) -> &[Party] {
        match &self.parties[1..] {
            [] => &self.parties,
            audience => audience,
        }
    }

    /// The place in [`Plan::parties`] of a connection's party: a subscriber's, or else a publisher's.
    pub fn party_of(&self, subscriber: Option<usize>) -> usize {
        match (subscriber, self.parties.len() - 1) {
            (Some(subscriber), others) if others > 0 => 1 + subscriber % others,
            _ => 0,
        }
    }

    /// The quota of a publisher, if there is one.
    pub fn quota(&self, publisher: usize) -> u64 {
        let messages = match self.extent {
            Extent::Messages(messages) | Extent::Memory { messages, .. } => messages,
            Extent::Time { .. } => return u64::MAX,
        };
        let (count, index) = (self.topology.publishers as u64, publisher as u64);
        messages / count + u64::from(index < messages % count)
    }
}

fn seconds(option: &str, seconds: f64) -> Result<Duration, String> {
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if seconds <= 1e6 => Ok(duration),
        _ => Err(format!("{option} {seconds} is no time to wait")),
    }
}

/// A slow schedule is no reason to lose it.
fn patience(given: f64, pace: Pace, topology: Topology) -> Result<Duration, String> {
    let interval = match pace {
        Pace::Window(_) => 0.0,
        Pace::Rate(rate) => topology.subscribers_each as f64 / rate as f64,
    };
    Ok(seconds("--patience", given)? + Duration::from_secs_f64(interval))
}

fn check_numbers(
    options: &Options,
    topology: Topology,
    pace: Pace,
    is_idle: bool,
) -> Result<(), String> {
    if topology.subscribers() == 0 || topology.publishers == 0 && !is_idle {
        return Err("a run needs publishers and subscribers".to_owned());
    }
    if pace == Pace::Window(0) || pace == Pace::Rate(0) {
        return Err("nothing would be published".to_owned());
    }
    if let Pace::Window(window) = pace
        && window > 1 << 20
    {
        return Err("a window of more than 1048576 is none".to_owned());
    }
    if topology.topics > TOPICS_MAX {
        return Err(format!("more than {TOPICS_MAX} topics"));
    }
    if !(Stamp::SIZE..=16 << 20).contains(&options.size) {
        return Err(format!("--size is from {} to 16777216", Stamp::SIZE));
    }
    if options.threads == 0 || options.threads > 256 || options.ramp == 0 {
        return Err("--threads is from 1 to 256, --ramp at least 1".to_owned());
    }
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-/#".contains(c);
    if options.topic.is_empty() || options.topic.len() > 200 || !options.topic.chars().all(is_plain)
    {
        return Err("--topic is 1 to 200 letters, digits and . _ - / #".to_owned());
    }
    Ok(())
}

/// Who can hear what these publishers publish?
fn check_audience(options: &Options, topology: Topology) -> Result<(), String> {
    let name = options.protocol.name();
    if options.protocol.relays_only_subscribers() {
        if topology.publishers > topology.subscribers() {
            return Err(format!(
                "over {name} the first subscribers are the publishers, so there are as many at least"
            ));
        }
        if topology.is_crossed {
            return Err(format!(
                "over {name} a publisher must subscribe, and here it would have to subscribe to all topics"
            ));
        }
    }
    if options.audience.is_empty() {
        return Ok(());
    }
    if topology.is_shared {
        return Err(
            "--audience is for publishers that do not subscribe: not for rooms or clusterws"
                .to_owned(),
        );
    }
    let protocols = options.audience.iter().map(|audience| audience.protocol);
    for protocol in protocols.chain([options.protocol]) {
        if !protocol.has_envelope() {
            let name = protocol.name();
            return Err(format!(
                "with --audience nobody can speak {name}, in which a delivery is what was published"
            ));
        }
    }
    Ok(())
}

/// The publishers' party and those of the audience.
fn parties(options: &Options) -> Result<Vec<Party>, String> {
    let payload = match options.audience.is_empty() {
        true => Payload::Object,
        false => Payload::Message,
    };
    let party = |protocol, urls: &[String]| -> Result<Party, String> {
        let targets: Vec<Target> = urls
            .iter()
            .map(|url| Target::parse(url))
            .collect::<Result<_, _>>()?;
        let carriage = carriage(protocol, &targets)?;
        Ok(Party {
            dialect: Dialect::new(protocol, carriage, payload, &options.topic, options.size),
            targets,
        })
    };
    let mut parties = vec![party(options.protocol, &options.urls)?];
    for audience in &options.audience {
        parties.push(party(
            audience.protocol,
            std::slice::from_ref(&audience.url),
        )?);
    }
    Ok(parties)
}

/// How the protocol travels to these targets.
fn carriage(protocol: Protocol, targets: &[Target]) -> Result<Carriage, String> {
    let mut found = None;
    for target in targets {
        let carriage = match (protocol, target.scheme) {
            (
                Protocol::Native | Protocol::Plain | Protocol::Clusterws,
                Scheme::Ws | Scheme::Unix,
            ) => Carriage::Text,
            (Protocol::Redis, Scheme::Redis | Scheme::Unix) => Carriage::Stream,
            (Protocol::Nats, Scheme::Nats | Scheme::Unix) => Carriage::Stream,
            (Protocol::Nats, Scheme::Ws) => Carriage::BinaryStream,
            _ => {
                let name = protocol.name();
                return Err(format!("{target}: the protocol {name} is not spoken there"));
            }
        };
        if found.is_some_and(|found| found != carriage) {
            return Err("the URLs are of different kinds".to_owned());
        }
        found = Some(carriage);
    }
    found.ok_or_else(|| "no --url".to_owned())
}

/// Raises the limit of descriptors as far as it may be raised.
fn make_room(connections: u64) -> Result<(), String> {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    let wanted = connections + DESCRIPTORS_APART;
    if wanted > most {
        return Err(format!(
            "{connections} connections need {wanted} descriptors, and the limit is {most} (ulimit -Hn)"
        ));
    }
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit {
            current: Some(wanted),
            maximum: limit.maximum,
        };
        setrlimit(Resource::Nofile, raised)
            .map_err(|error| format!("cannot raise the limit of descriptors: {error}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::*;

    fn plan(arguments: &str) -> Result<Plan, String> {
        let words = std::iter::once("bench").chain(arguments.split_whitespace());
        let matches = crate::command()
            .try_get_matches_from(words)
            .map_err(|error| error.to_string())?;
        Plan::new(&Options::from_arg_matches(&matches).map_err(|error| error.to_string())?)
    }

    #[test]
    fn command_lines_are_plans() {
        let fan_out = plan("fan-out -p 2 -s 30 -w 4 --messages 5").unwrap();
        assert_eq!(fan_out.topology, Topology::one_topic(2, 30));
        assert_eq!(fan_out.pace, Pace::Window(4));
        assert_eq!((fan_out.quota(0), fan_out.quota(1)), (3, 2));
        let rooms = plan("rooms --duration 2 --warm-up 0.5 --rooms 3 --members 4").unwrap();
        assert_eq!(rooms.topology, Topology::rooms(3, 4));
        let (warm_up, measured) = (Duration::from_millis(500), Duration::from_secs(2));
        assert_eq!(rooms.extent, Extent::Time { warm_up, measured });
        assert_eq!(rooms.quota(7), u64::MAX);
        let latency = plan("--protocol redis latency --rate 7 --url unix:/tmp/r").unwrap();
        assert_eq!(latency.pace, Pace::Rate(7));
        // 100 subscribers, so a publication in 14 s.
        assert!(latency.patience > Duration::from_secs(19));
        assert_eq!(latency.publishing().carriage, Carriage::Stream);
        let idle = plan("idle --connections 9 --publish").unwrap();
        assert_eq!(idle.topology.connections(), 10);
        assert_eq!(idle.quota(0), 1);
        assert_eq!(plan("idle").unwrap().topology.publishers, 0);
        let unique = plan("unique --topics 5 --url ws://127.0.0.1:1 --protocol nats").unwrap();
        assert_eq!(unique.publishing().carriage, Carriage::BinaryStream);
    }

    #[test]
    fn over_clusterws_subscribers_publish() {
        let protocol = "--protocol clusterws --url ws://127.0.0.1:1/clusterws";
        let plan = |arguments: &str| plan(&format!("{arguments} {protocol}")).unwrap();
        assert_eq!(plan("fan-out -p 2 -s 30").topology, Topology::circle(2, 30));
        assert_eq!(plan("latency -p 2 -s 3").topology, Topology::circle(2, 3));
        let idle = plan("idle --connections 9 --publish");
        assert_eq!(idle.topology.connections(), 9);
        let rooms = plan("rooms --rooms 3 --members 4");
        assert_eq!(rooms.topology, Topology::rooms(3, 4));
    }

    #[test]
    fn an_audience_takes_turns() {
        let plan = plan(
            "fan-out -s 10 --audience native=ws://127.0.0.1:1/ --audience \
             redis=redis://127.0.0.1:2 --audience clusterws=ws://127.0.0.1:1/clusterws?v=3",
        )
        .unwrap();
        let parties = (0..5).map(|subscriber| plan.party_of(Some(subscriber)));
        assert_eq!(parties.collect::<Vec<_>>(), [1, 2, 3, 1, 2]);
        assert_eq!(plan.party_of(None), 0);
        let protocols = plan.audience().iter().map(|party| party.dialect.protocol);
        assert_eq!(
            protocols.collect::<Vec<_>>(),
            [Protocol::Native, Protocol::Redis, Protocol::Clusterws]
        );
        assert_eq!(plan.publishing().protocol, Protocol::Native);
        let alone = super::tests::plan("fan-out -s 10").unwrap();
        assert_eq!(alone.party_of(Some(7)), 0);
        assert_eq!(alone.audience().len(), 1);
    }

    #[test]
    fn other_command_lines_are_refused() {
        for arguments in [
            "",
            "fan-out --subscribers 0",
            "fan-out --publishers 0",
            "fan-out --window 0",
            "fan-out --size 31",
            "fan-out --duration -1",
            "fan-out --duration nan",
            "fan-out --duration 1 --messages 1",
            "fan-out --threads 0",
            "fan-out --topic a\"b",
            "fan-out --pid 4294967295",
            "fan-out --cpu 2-1",
            "fan-out --subscribers 100000000",
            "unique --topics 99999999",
            "latency --rate 0",
            "rooms --url redis://127.0.0.1",
            "rooms --protocol redis --url ws://127.0.0.1/",
            "rooms --protocol nats --url ws://127.0.0.1/ --url nats://127.0.0.1/",
            "rooms --url http://127.0.0.1/",
            "unique --protocol clusterws --url ws://127.0.0.1/clusterws",
            "fan-out -p 3 -s 2 --protocol clusterws",
            "fan-out --protocol clusterws --url redis://127.0.0.1",
            "fan-out --protocol clusterws --audience native=ws://127.0.0.1/",
            "rooms --audience native=ws://127.0.0.1/",
            "fan-out --protocol plain --audience native=ws://127.0.0.1/",
            "fan-out --audience nats=ws://127.0.0.1/",
            "fan-out --audience native=redis://127.0.0.1",
            "fan-out --audience ws://127.0.0.1/",
            "fan-out --audience resp=redis://127.0.0.1/",
        ] {
            assert!(plan(arguments).is_err(), "{arguments}");
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        crate::command().debug_assert();
    }
}
