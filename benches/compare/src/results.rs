//! Results: all samples of a run, and what is asked of them.

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::chart::{self, Bar, Group, Line};
use crate::contender::{Contender, EVERYBODY};
use crate::goals;
use crate::machine::Machine;
use crate::sample::{Figure, Sample};
use crate::scenario::{Point, WINDOWS};
use crate::spread::Spread;

/// A run.
#[derive(Default)]
pub struct Results {
    /// In the order in which they were taken.
    pub samples: Vec<Sample>,
}

impl Results {
    /// Of the rounds that were right.
    pub fn spread(&self, point: &str, contender: Contender, figure: Figure) -> Option<Spread> {
        let of = self.of(point, contender);
        Spread::of(of.filter_map(|sample| sample.figures.get(&figure).copied()))
    }

    /// The median of those.
    pub fn median(&self, point: &str, contender: Contender, figure: Figure) -> Option<f64> {
        self.spread(point, contender, figure)
            .map(|spread| spread.median)
    }

    /// One median by another.
    pub fn ratio(
        &self,
        point: &str,
        figure: Figure,
        one: Contender,
        other: Contender,
    ) -> Option<f64> {
        let below = self.median(point, other, figure)?;
        (below > 0.0).then_some(self.median(point, one, figure)? / below)
    }

    /// All samples of a contender there.
    pub fn of(&self, point: &str, contender: Contender) -> impl Iterator<Item = &Sample> {
        self.samples
            .iter()
            .filter(move |sample| sample.point == point && sample.contender == contender)
    }

    /// All there is to keep, as JSON with a line for each sample. `about` is what the run was.
    pub fn text(&self, machine: &Machine, about: Value, points: &[Point]) -> String {
        let mut medians = Vec::new();
        for point in points {
            for &contender in &point.contenders {
                let figures: serde_json::Map<String, Value> = Self::FIGURES
                    .iter()
                    .filter_map(|&figure| {
                        let Spread { median, min, max } =
                            self.spread(&point.name, contender, figure)?;
                        let spread = json!({ "median": median, "min": min, "max": max });
                        Some((figure.name().to_owned(), spread))
                    })
                    .collect();
                if !figures.is_empty() {
                    medians.push(json!({
                        "point": point.name,
                        "contender": contender.name(),
                        "figures": figures,
                    }));
                }
            }
        }
        let goals: Vec<Value> = goals::judge(self).iter().map(goals::Goal::json).collect();
        let lines = |values: &[Value]| -> String {
            let lines: Vec<String> = values.iter().map(|value| format!("    {value}")).collect();
            lines.join(",\n")
        };
        let samples: Vec<Value> = self.samples.iter().map(Sample::json).collect();
        let (machine, goals) = (machine.json(), lines(&goals));
        let (medians, samples) = (lines(&medians), lines(&samples));
        format!(
            "{{\n  \"about\": {about},\n  \"machine\": {machine},\n  \"goals\": [\n{goals}\n  ],\n  \
             \"medians\": [\n{medians}\n  ],\n  \"samples\": [\n{samples}\n  ]\n}}\n"
        )
    }

    /// CPU time per delivery, a group for each scenario; none without any.
    pub fn bars(&self) -> Option<String> {
        const POINTS: [&str; 8] = [
            "fanout",
            "rooms",
            "many",
            "single",
            "unique",
            "resp",
            "clusterws",
            "mixed",
        ];
        let groups = POINTS.map(|point| Group {
            name: point.to_owned(),
            bars: Contender::value_variants()
                .iter()
                .filter_map(|&contender| {
                    Some(Bar {
                        label: contender.name().to_owned(),
                        side: contender.side(),
                        spread: self.spread(point, contender, Figure::CpuUs)?,
                    })
                })
                .collect(),
        });
        let groups: Vec<Group> = groups
            .into_iter()
            .filter(|group| !group.bars.is_empty())
            .collect();
        chart::bars("CPU time per delivery", "µs, logarithmic", &groups)
    }

    /// The same over the window of the publishers; none if there was no sweep.
    pub fn sweep(&self) -> Option<String> {
        let lines = EVERYBODY.iter().map(|&contender| Line {
            label: contender.name().to_owned(),
            side: contender.side(),
            points: WINDOWS
                .iter()
                .filter_map(|&window| {
                    let point = format!("sweep/{window}");
                    let cost = self.median(&point, contender, Figure::CpuUs)?;
                    Some((window as f64, cost))
                })
                .collect(),
        });
        let lines: Vec<Line> = lines.filter(|line| !line.points.is_empty()).collect();
        chart::lines(
            "CPU time per delivery, 10 publishers and 100 subscribers",
            "publications of each publisher on their way",
            "µs, logarithmic",
            &lines,
        )
    }

    /// In the order of tables.
    pub const FIGURES: [Figure; 7] = [
        Figure::CpuUs,
        Figure::Rate,
        Figure::P50Us,
        Figure::P99Us,
        Figure::ConnectionBytes,
        Figure::UserNs,
        Figure::CpuNs,
    ];
}
