//! Matching a topic against many filters: the tree, beside a scan that asks each filter.
//!
//! The scan is the tree's twin in the tests, too. A few filters decide nothing, so the interesting rows are those
//! where the scan has long lost, and the costs of keeping the tree (insert and remove).

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

use pubsub::topic::board::Board;
use pubsub::topic::tree::TopicTree;
use pubsub::topic::{Filter, Topic};

/// Filters as a chat, a market and a few dashboards might have them: mostly whole names, some prefixes, some `*`.
fn filters(count: usize) -> Vec<Filter> {
    (0..count)
        .map(|n| {
            let written = match n % 10 {
                0 => format!("market.{}", n / 10),
                1 => format!("*.{}.price", n / 10),
                2 => format!("=market.*.{}", n / 10),
                _ => format!("chat.room.{n}"),
            };
            Filter::dotted(Bytes::from(written)).expect("it is a filter")
        })
        .collect()
}

fn topic(name: &'static str) -> Topic {
    Topic::dotted(Bytes::from_static(name.as_bytes())).expect("it is a topic")
}

fn matching(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("topic_tree/match");
    for count in [10, 1000, 100_000] {
        let filters = filters(count);
        let mut tree = TopicTree::default();
        for filter in &filters {
            tree.insert_with(filter, || ());
        }
        for (name, topic) in [
            ("one", topic("chat.room.7")),
            ("several", topic("market.0.price")),
            ("none", topic("weather.oslo.wind")),
        ] {
            group.bench_function(
                BenchmarkId::new(format!("tree, {name}"), count),
                |bencher| {
                    let mut matches = Vec::new();
                    bencher.iter(|| {
                        matches.clear();
                        tree.match_topic(black_box(&topic), &mut matches);
                        matches.len()
                    });
                },
            );
            group.bench_function(
                BenchmarkId::new(format!("scan, {name}"), count),
                |bencher| {
                    bencher.iter(|| {
                        let topic = black_box(&topic);
                        filters
                            .iter()
                            .filter(|filter| filter.matches(topic))
                            .count()
                    });
                },
            );
        }
    }
    group.finish();
}

fn keeping(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("topic_tree/keep");
    for count in [10, 100_000] {
        let mut tree = TopicTree::default();
        for filter in &filters(count) {
            tree.insert_with(filter, || ());
        }
        let newcomer = Filter::dotted(Bytes::from_static(b"chat.room.newcomer")).expect("a filter");
        group.bench_function(BenchmarkId::new("insert and remove", count), |bencher| {
            bencher.iter(|| {
                let id = tree.insert_with(black_box(&newcomer), || ());
                tree.remove(id)
            });
        });
    }
    group.finish();
}

/// What a publisher outside the shards asks before each publication.
fn board(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("topic_tree/board");
    for count in [0, 1000] {
        let board = Board::default();
        filters(count).iter().for_each(|filter| board.up(filter));
        for (name, topic) in [
            ("heard", topic("chat.room.7")),
            ("unheard", topic("weather.oslo.wind")),
        ] {
            group.bench_function(BenchmarkId::new(name, count), |bencher| {
                bencher.iter(|| board.may_match(black_box(&topic)));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, matching, keeping, board);
criterion_main!(benches);
