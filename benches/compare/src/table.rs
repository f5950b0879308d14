//! Tables for people: a scenario's figures beside each other, and the goals.

use crate::contender::Contender::{self, *};
use crate::goals::Goal;
use crate::results::Results;
use crate::sample::Figure;
use crate::scenario::Point;

/// Columns of text, the first to the left and the others to the right.
struct Table(Vec<Vec<String>>);

impl Table {
    fn text(&self) -> String {
        let columns = self.0.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.0.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.0 {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = widths[column];
                match column {
                    0 => line += &format!("{cell:<width$}"),
                    _ => line += &format!("  {cell:>width$}"),
                }
            }
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}

/// What a figure is called above its column.
fn heading(figure: Figure) -> &'static str {
    match figure {
        Figure::CpuUs => "CPU us/delivery",
        Figure::Rate => "per second",
        Figure::P50Us => "p50 us",
        Figure::P99Us => "p99 us",
        Figure::ConnectionBytes => "bytes/connection",
        Figure::UserNs => "user ns/publish",
        Figure::CpuNs => "CPU ns/publish",
    }
}

/// A point's figures: medians, and in parentheses the smallest and the largest; then ratios of CPU time.
pub fn point(results: &Results, point: &Point, rounds: usize) -> String {
    let there: Vec<Contender> = point
        .contenders
        .iter()
        .copied()
        .filter(|contender| results.of(&point.name, *contender).next().is_some())
        .collect();
    let figures: Vec<Figure> = Results::FIGURES
        .into_iter()
        .filter(|&figure| {
            let mut there = there.iter();
            there.any(|&contender| results.spread(&point.name, contender, figure).is_some())
        })
        .collect();
    let costs = [Figure::CpuUs, Figure::CpuNs];
    let cost = costs.into_iter().find(|cost| figures.contains(cost));
    let among = |others: &[Contender]| -> Vec<Contender> {
        let others = others.iter().copied();
        others
            .filter(|other| cost.is_some() && there.contains(other))
            .collect()
    };
    let mut against = among(&[FloorJoined, FloorPlain, Bun]);
    if against.is_empty() {
        against = among(&[Redis, Uring]);
    }
    against.extend(among(&[Before]));
    let mut heads = vec![point.name.clone()];
    heads.extend(figures.iter().map(|&figure| heading(figure).to_owned()));
    heads.extend(against.iter().map(|other| format!("/{}", other.name())));
    let mut rows = vec![heads];
    for contender in there {
        let mut row = vec![contender.name().to_owned()];
        for &figure in &figures {
            let spread = results.spread(&point.name, contender, figure);
            row.push(spread.map_or("-".to_owned(), |spread| {
                let median = number(spread.median);
                match figure {
                    // Rates depend on what the generator leaves over, so their spread says nothing.
                    Figure::Rate => median,
                    _ => format!("{median} ({}..{})", number(spread.min), number(spread.max)),
                }
            }));
        }
        for &other in &against {
            let ratio = cost.and_then(|cost| results.ratio(&point.name, cost, contender, other));
            row.push(ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}")));
        }
        row.extend(remark(results, &point.name, contender, rounds));
        rows.push(row);
    }
    Table(rows).text()
}

fn remark(results: &Results, point: &str, contender: Contender, rounds: usize) -> Option<String> {
    let mut remarks = Vec::new();
    let failures: Vec<&String> = results
        .of(point, contender)
        .filter_map(|sample| sample.failure.as_ref())
        .collect();
    if let Some(last) = failures.last() {
        remarks.push(format!("{} of {rounds} failed: {last}", failures.len()));
    }
    let limited = results.of(point, contender);
    if limited.filter(|sample| sample.is_generator_limit).count() * 2 > rounds {
        remarks.push("generator at its end".to_owned());
    }
    (!remarks.is_empty()).then(|| remarks.join("; "))
}

/// The goals.
pub fn goals(goals: &[Goal]) -> String {
    let head = ["goal", "measured", "limit", ""].map(str::to_owned);
    let mut rows = vec![head.to_vec()];
    for goal in goals {
        rows.push(vec![
            goal.text.clone(),
            goal.value.map_or("-".to_owned(), number),
            number(goal.limit),
            goal.verdict().to_owned(),
        ]);
    }
    Table(rows).text()
}

/// Three digits that matter, thousands apart.
pub fn number(number: f64) -> String {
    let digits = match number.abs() {
        0.0..1.0 => 3,
        1.0..10.0 => 2,
        10.0..100.0 => 1,
        _ => 0,
    };
    let text = format!("{number:.digits$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) && whole.len() > 3 {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_that_matter() {
        let check = |value, expected: &str| assert_eq!(number(value), expected);
        check(0.1234, "0.123");
        check(1.25, "1.25");
        check(12.34, "12.3");
        check(123.4, "123");
        check(1234.0, "1 234");
        check(1_234_567.0, "1 234 567");
        check(0.0, "0.000");
    }

    #[test]
    fn columns_are_aligned() {
        let cell = |text: &str| text.to_owned();
        let table = Table(vec![
            vec![cell("a"), cell("long"), cell("x")],
            vec![cell("abc"), cell("1")],
        ]);
        assert_eq!(table.text(), "a    long  x\nabc     1\n");
    }
}
