//! Goals: what the broker wants to be, each as a ratio within one run, or as a bound.

use serde_json::{Value, json};

use crate::contender::Contender::{self, *};
use crate::results::Results;
use crate::sample::Figure;
use crate::scenario::WINDOWS;

/// A wish and what became of it.
#[derive(Clone, PartialEq, Debug)]
pub struct Goal {
    /// In words.
    pub text: String,
    /// As it was measured; none if it was not.
    pub value: Option<f64>,
    /// At most this.
    pub limit: f64,
}

impl Goal {
    /// None if it was not measured.
    pub fn is_reached(&self) -> Option<bool> {
        self.value.map(|value| value <= self.limit)
    }

    /// In a word.
    pub fn verdict(&self) -> &'static str {
        match self.is_reached() {
            Some(true) => "reached",
            Some(false) => "missed",
            None => "not measured",
        }
    }

    /// For the results.
    pub fn json(&self) -> Value {
        json!({
            "goal": self.text,
            "value": self.value,
            "limit": self.limit,
            "verdict": self.verdict(),
        })
    }
}

/// CPU per delivery against another, at most so many times as much.
const AGAINST: [(&str, Contender, f64); 9] = [
    ("fanout", FloorJoined, 1.1),
    ("fanout", Bun, 0.9),
    ("rooms", FloorJoined, 1.1),
    ("rooms", Bun, 0.9),
    ("many", FloorJoined, 1.3),
    ("many", Bun, 0.6),
    ("single", FloorPlain, 1.0),
    ("single", Bun, 0.95),
    ("unique", Bun, 0.7),
];

/// CPU per delivery of one contender against another, where the question is one of protocols.
const PROTOCOLS: [(&str, Contender, Contender, f64); 4] = [
    ("resp", UringResp, Redis, 0.8),
    ("resp", EpollResp, UringResp, 1.25),
    ("clusterws", UringClusterws, Uring, 1.1),
    ("clusterws", EpollClusterws, UringClusterws, 1.25),
];

/// Who must not have become dearer than before, and by how much a figure may differ for no reason.
const KEPT: [&str; 5] = ["fanout", "rooms", "many", "single", "unique"];
const KEPT_LIMIT: f64 = 1.05;

/// From a window to any larger one a delivery may become so much dearer; more is a cliff.
const CLIFF: f64 = 1.25;

/// All of them, against the results.
pub fn judge(results: &Results) -> Vec<Goal> {
    let mut goals = Vec::new();
    let mut goal = |text: String, value, limit| goals.push(Goal { text, value, limit });
    let cpu = |point: &str, one, other| results.ratio(point, Figure::CpuUs, one, other);
    for (point, other, limit) in AGAINST {
        let text = format!("{point}: CPU per delivery / {}", other.name());
        goal(text, cpu(point, Uring, other), limit);
    }
    let text = "sweep: dearest window / cheapest smaller window".to_owned();
    goal(text, steepest(results, Uring), CLIFF);
    for point in ["fanout", "rooms", "many", "single", "unique"] {
        let text = format!("{point}: CPU per delivery, epoll / uring");
        goal(text, cpu(point, Epoll, Uring), 1.25);
    }
    for point in ["shards/fanout", "shards/rooms"] {
        let text = format!("{point}: CPU per delivery, 2 shards / 1 shard");
        goal(text, cpu(point, UringTwo, Uring), 1.2);
    }
    let at = |point| cpu(point, Uring, FloorJoined);
    let growth = at("scale/10000").zip(at("scale/100"));
    goal(
        "scale: ratio to floor-joined, 10 000 subscribers / 100".to_owned(),
        growth.map(|(large, small)| large / small),
        1.1,
    );
    for (figure, name) in [(Figure::P50Us, "p50"), (Figure::P99Us, "p99")] {
        for point in ["latency/1000", "latency/100"] {
            let text = format!("{point}: {name} / bun");
            goal(text, results.ratio(point, figure, Uring, Bun), 1.0);
        }
    }
    let of_uring = |point, figure| results.median(point, Uring, figure);
    goal(
        "idle: bytes per connection".to_owned(),
        of_uring("idle", Figure::ConnectionBytes),
        512.0,
    );
    goal(
        "nobody: user ns per publish".to_owned(),
        of_uring("nobody", Figure::UserNs),
        300.0,
    );
    for (point, one, other, limit) in PROTOCOLS {
        let (one_name, other_name) = (one.name(), other.name());
        let text = format!("{point}: CPU per delivery, {one_name} / {other_name}");
        goal(text, cpu(point, one, other), limit);
    }
    goal(
        "nobody: CPU per publish, uring-resp / redis".to_owned(),
        results.ratio("nobody", Figure::CpuNs, UringResp, Redis),
        1.0,
    );
    goal(
        "mixed: CPU per delivery / mean of native, RESP and ClusterWS".to_owned(),
        mixture(results),
        1.1,
    );
    // Without another build there is nothing to be asked.
    if results
        .samples
        .iter()
        .any(|sample| sample.contender == Before)
    {
        for point in KEPT {
            let text = format!("{point}: CPU per delivery / before");
            goal(text, cpu(point, Uring, Before), KEPT_LIMIT);
        }
        goal(
            "nobody: CPU per publish / before".to_owned(),
            results.ratio("nobody", Figure::CpuNs, Uring, Before),
            KEPT_LIMIT,
        );
    }
    goals
}

/// What a delivery to subscribers of three protocols costs, by what it costs on average to those of one.
fn mixture(results: &Results) -> Option<f64> {
    let cost = |contender| results.median("mixed", contender, Figure::CpuUs);
    let single = cost(Uring)? + cost(UringResp)? + cost(UringClusterws)?;
    (single > 0.0).then_some(cost(UringMixed)? / (single / 3.0))
}

/// How much dearer than at a smaller window a delivery becomes, at worst. None unless all windows were measured.
fn steepest(results: &Results, contender: Contender) -> Option<f64> {
    let costs: Vec<f64> = WINDOWS
        .iter()
        .map(|window| results.median(&format!("sweep/{window}"), contender, Figure::CpuUs))
        .collect::<Option<_>>()?;
    let mut cheapest = f64::INFINITY;
    let mut worst: f64 = 0.0;
    for cost in costs {
        cheapest = cheapest.min(cost);
        worst = worst.max(cost / cheapest);
    }
    Some(worst)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::sample::Sample;

    fn results(costs: &[(&str, Contender, f64)]) -> Results {
        let samples = costs.iter().map(|&(point, contender, cost)| Sample {
            point: point.to_owned(),
            contender,
            round: 0,
            figures: BTreeMap::from([(Figure::CpuUs, cost)]),
            is_generator_limit: false,
            failure: None,
            report: Value::Null,
        });
        Results {
            samples: samples.collect(),
        }
    }

    fn verdict(results: &Results, text: &str) -> &'static str {
        let goals = judge(results);
        let goal = goals.iter().find(|goal| goal.text == text);
        goal.unwrap_or_else(|| panic!("no goal {text}")).verdict()
    }

    #[test]
    fn ratios_are_judged() {
        let text = "fanout: CPU per delivery / bun";
        let check = |cost, expected| {
            let results = results(&[("fanout", Uring, cost), ("fanout", Bun, 2.0)]);
            assert_eq!(verdict(&results, text), expected, "{cost}");
        };
        check(1.0, "reached");
        check(1.8, "reached");
        check(1.9, "missed");
        assert_eq!(verdict(&results(&[]), text), "not measured");
        let alone = results(&[("fanout", Uring, 1.0)]);
        assert_eq!(verdict(&alone, text), "not measured");
    }

    #[test]
    fn a_cliff_is_seen_wherever_it_is() {
        let text = "sweep: dearest window / cheapest smaller window";
        let check = |costs: [f64; 10], expected| {
            let names = WINDOWS.map(|window| format!("sweep/{window}"));
            let costs: Vec<_> = names
                .iter()
                .zip(costs)
                .map(|(name, cost)| (name.as_str(), Uring, cost))
                .collect();
            assert_eq!(verdict(&results(&costs), text), expected);
            assert_eq!(verdict(&results(&costs[..9]), text), "not measured");
        };
        check([9., 8., 7., 6., 5., 4., 3., 2., 1., 1.2], "reached");
        check([9., 8., 7., 6., 5., 4., 3., 2., 1., 1.3], "missed");
        check([9., 1., 1.1, 1.2, 1.2, 1.2, 1.2, 1.26, 1., 1.], "missed");
    }

    #[test]
    fn growth_is_that_of_the_ratio() {
        let text = "scale: ratio to floor-joined, 10 000 subscribers / 100";
        let check = |large, expected| {
            let results = results(&[
                ("scale/100", Uring, 2.0),
                ("scale/100", FloorJoined, 1.0),
                ("scale/10000", Uring, large),
                ("scale/10000", FloorJoined, 2.0),
            ]);
            assert_eq!(verdict(&results, text), expected);
        };
        check(4.2, "reached");
        check(4.6, "missed");
    }

    #[test]
    fn a_mixture_is_held_against_the_mean_of_its_parts() {
        let text = "mixed: CPU per delivery / mean of native, RESP and ClusterWS";
        let check = |mixed, expected| {
            let costs = [
                ("mixed", Uring, 1.0),
                ("mixed", UringResp, 2.0),
                ("mixed", UringClusterws, 3.0),
                ("mixed", UringMixed, mixed),
            ];
            assert_eq!(verdict(&results(&costs), text), expected, "{mixed}");
            for missing in 0..4 {
                let mut costs = costs.to_vec();
                costs.remove(missing);
                assert_eq!(verdict(&results(&costs), text), "not measured");
            }
        };
        check(2.0, "reached");
        check(2.19, "reached");
        check(2.21, "missed");
    }

    #[test]
    fn another_build_is_asked_for_only_if_it_is_there() {
        let text = "rooms: CPU per delivery / before";
        let is_asked = |results: &Results| judge(results).iter().any(|goal| goal.text == text);
        let alone = [("rooms", Uring, 1.0)];
        assert!(!is_asked(&results(&alone)));
        let check = |before, expected| {
            let results = results(&[("rooms", Uring, 1.0), ("rooms", Before, before)]);
            assert_eq!(verdict(&results, text), expected, "{before}");
        };
        check(1.0, "reached");
        check(0.96, "reached");
        check(0.94, "missed");
    }
}
