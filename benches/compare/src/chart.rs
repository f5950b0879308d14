//! Charts as SVG: bars of several groups, and lines over a doubling axis.
//!
//! The value axis is logarithmic, since the contenders lie a hundredfold apart; so each bar has its number beside it.
//! Colours are chosen for light and dark pages alike, and change with what the reader's system prefers.

use std::fmt::Write;

use crate::spread::Spread;
use crate::table::number;

/// Bars that belong together.
pub struct Group {
    /// Above them.
    pub name: String,
    /// From top to bottom.
    pub bars: Vec<Bar>,
}

/// A bar.
pub struct Bar {
    /// At its left.
    pub label: String,
    /// Its colour.
    pub side: Side,
    /// Its length, and the line through its end.
    pub spread: Spread,
}

/// A line.
pub struct Line {
    /// At its end.
    pub label: String,
    /// Its colour.
    pub side: Side,
    /// From left to right; the x are larger than 0 and rise.
    pub points: Vec<(f64, f64)>,
}

/// Whose figures they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// Of this broker.
    Ours,
    /// Of the floor.
    Floor,
    /// Of another.
    Peer,
}

impl Side {
    fn class(self) -> &'static str {
        match self {
            Side::Ours => "ours",
            Side::Floor => "floor",
            Side::Peer => "peer",
        }
    }
}

const WIDTH: f64 = 820.0;
const LEFT: f64 = 110.0;
const RIGHT: f64 = 90.0;
const TOP: f64 = 56.0;
const BOTTOM: f64 = 44.0;
/// From bar to bar.
const STEP: f64 = 18.0;
const BAR_HEIGHT: f64 = 13.0;
/// For the name of a group, and the space before it.
const GROUP_HEAD: f64 = 34.0;
/// Labels of lines keep this distance.
const LABEL_STEP: f64 = 15.0;

const STYLE: &str = "\
text { font: 12px system-ui, sans-serif; fill: #444 }
.title { font-size: 15px; font-weight: 600 }
.group { font-weight: 600 }
.axis { fill: #777; font-size: 11px }
.grid { stroke: #888; stroke-opacity: .25 }
.spread { stroke: #444; stroke-opacity: .7 }
.ours { fill: #2a78c8; stroke: #2a78c8 }
.floor { fill: #9aa0a6; stroke: #9aa0a6 }
.peer { fill: #c8873a; stroke: #c8873a }
text.ours, text.floor, text.peer { stroke: none }
polyline.ours, polyline.floor, polyline.peer { fill: none; stroke-width: 2 }
rect { stroke: none }
@media (prefers-color-scheme: dark) {
text { fill: #ccc }
.axis { fill: #999 }
.spread { stroke: #ddd }
.ours { fill: #5aa2ea; stroke: #5aa2ea }
.peer { fill: #d9a05b; stroke: #d9a05b }
}
";

/// A logarithmic axis in pixels.
struct Axis {
    low: f64,
    high: f64,
    start: f64,
    end: f64,
}

impl Axis {
    /// Over all of these, which are larger than 0, between two pixels.
    fn over(values: impl Iterator<Item = f64>, start: f64, end: f64) -> Axis {
        let (low, high) = values.fold((f64::INFINITY, 0.0_f64), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        let ticks = Axis::steps();
        // The first tick lies below all, so that the shortest bar has a length.
        let below = ticks.iter().rev().find(|tick| **tick < low * 0.8);
        let above = ticks.iter().find(|tick| **tick >= high);
        Axis {
            low: below.copied().unwrap_or(ticks[0]),
            high: above.copied().unwrap_or(ticks[ticks.len() - 1]),
            start,
            end,
        }
    }

    /// 1, 2, 5, 10 and so on, over all that could be.
    fn steps() -> Vec<f64> {
        (-4..7)
            .flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(power)))
            .collect()
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let (low, high) = (self.low * 0.999, self.high * 1.001);
        Axis::steps()
            .into_iter()
            .filter(move |tick| (low..=high).contains(tick))
    }

    fn at(&self, value: f64) -> f64 {
        let share = (value.max(self.low) / self.low).ln() / (self.high / self.low).ln();
        self.start + share * (self.end - self.start)
    }
}

/// Groups of horizontal bars, one below the other. Values are larger than 0; without any there is no chart.
pub fn bars(title: &str, unit: &str, groups: &[Group]) -> Option<String> {
    let all = || groups.iter().flat_map(|group| &group.bars);
    all().next()?;
    let ends = all().flat_map(|bar| [bar.spread.min, bar.spread.max]);
    let axis = Axis::over(ends, LEFT, WIDTH - RIGHT);
    let rows = all().count() as f64;
    let bottom = TOP + groups.len() as f64 * GROUP_HEAD + rows * STEP;
    let mut svg = Svg::new(title, bottom + BOTTOM);
    for tick in axis.ticks() {
        let x = axis.at(tick);
        svg.line("grid", (x, TOP), (x, bottom + 6.0));
        svg.text("axis", (x, bottom + 20.0), "middle", &tick.to_string());
    }
    svg.text("axis", (LEFT, bottom + 36.0), "start", unit);
    let mut y = TOP;
    for group in groups {
        y += GROUP_HEAD;
        svg.text("group", (LEFT, y - 8.0), "start", &group.name);
        for bar in &group.bars {
            let (x, middle) = (axis.at(bar.spread.median), y + BAR_HEIGHT / 2.0);
            svg.text("label", (LEFT - 8.0, y + 11.0), "end", &bar.label);
            svg.bar(bar.side, (LEFT, y), x - LEFT);
            let (from, to) = (axis.at(bar.spread.min), axis.at(bar.spread.max));
            svg.line("spread", (from, middle), (to, middle));
            let at = (to.max(x) + 6.0, y + 11.0);
            svg.text("value", at, "start", &number(bar.spread.median));
            y += STEP;
        }
    }
    Some(svg.end())
}

/// Lines over an axis on which each step doubles. Values are larger than 0; without any there is no chart.
pub fn lines(title: &str, x_name: &str, unit: &str, lines: &[Line]) -> Option<String> {
    const HEIGHT: f64 = 420.0;
    let all = || lines.iter().flat_map(|line| &line.points);
    all().next()?;
    let y_axis = Axis::over(all().map(|(_, y)| *y), HEIGHT - BOTTOM, TOP);
    let mut columns: Vec<f64> = all().map(|(x, _)| *x).collect();
    columns.sort_by(f64::total_cmp);
    columns.dedup();
    let (first, last) = (columns[0], columns[columns.len() - 1].max(columns[0] * 2.0));
    let x_axis = Axis {
        low: first,
        high: last,
        start: LEFT - 50.0,
        end: WIDTH - RIGHT,
    };
    let mut svg = Svg::new(title, HEIGHT);
    for tick in y_axis.ticks() {
        let y = y_axis.at(tick);
        svg.line("grid", (x_axis.start, y), (x_axis.end, y));
        let at = (x_axis.start - 8.0, y + 4.0);
        svg.text("axis", at, "end", &tick.to_string());
    }
    for &column in &columns {
        let at = (x_axis.at(column), HEIGHT - BOTTOM + 18.0);
        svg.text("axis", at, "middle", &column.to_string());
    }
    let below = format!("{x_name}; {unit}");
    svg.text("axis", (x_axis.start, HEIGHT - 8.0), "start", &below);
    let mut labels: Vec<(f64, &Line)> = Vec::new();
    for line in lines {
        let path: Vec<(f64, f64)> = line
            .points
            .iter()
            .map(|(x, y)| (x_axis.at(*x), y_axis.at(*y)))
            .collect();
        svg.path(line.side, &path);
        labels.extend(path.last().map(|(_, y)| (*y, line)));
    }
    labels.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    let mut next = TOP;
    for (y, line) in labels {
        let y = y.max(next);
        next = y + LABEL_STEP;
        let at = (x_axis.end + 8.0, y + 4.0);
        svg.text(line.side.class(), at, "start", &line.label);
    }
    Some(svg.end())
}

/// What is written so far.
struct Svg(String);

impl Svg {
    fn new(title: &str, height: f64) -> Svg {
        let title = escaped(title);
        Svg(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n<title>{title}</title>\n\
             <style>\n{STYLE}</style>\n<text class=\"title\" x=\"16\" y=\"28\">{title}</text>\n"
        ))
    }

    fn text(&mut self, class: &str, (x, y): (f64, f64), anchor: &str, text: &str) {
        let text = escaped(text);
        self.put(&format!(
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
        ));
    }

    fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let ((x1, y1), (x2, y2)) = (from, to);
        self.put(&format!(
            "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
        ));
    }

    fn bar(&mut self, side: Side, (x, y): (f64, f64), width: f64) {
        let class = side.class();
        self.put(&format!(
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{BAR_HEIGHT}\"/>"
        ));
    }

    fn path(&mut self, side: Side, points: &[(f64, f64)]) {
        let places: Vec<String> = points
            .iter()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        let (class, places) = (side.class(), places.join(" "));
        self.put(&format!(
            "<polyline class=\"{class}\" points=\"{places}\"/>"
        ));
    }

    fn put(&mut self, element: &str) {
        writeln!(self.0, "{element}").expect("a string takes all");
    }

    fn end(mut self) -> String {
        self.put("</svg>");
        self.0
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use roxmltree::{Document, Node};

    use super::*;

    fn bar(label: &str, median: f64) -> Bar {
        Bar {
            label: label.to_owned(),
            side: Side::Peer,
            spread: Spread {
                median,
                min: median * 0.9,
                max: median * 1.2,
            },
        }
    }

    fn all<'a>(document: &'a Document, name: &str) -> Vec<Node<'a, 'a>> {
        let nodes = document.descendants();
        nodes.filter(|node| node.has_tag_name(name)).collect()
    }

    fn pixels(node: &Node, name: &str) -> f64 {
        node.attribute(name).unwrap().parse().unwrap()
    }

    #[test]
    fn bars_are_well_formed_and_as_long_as_they_should_be() {
        let group = |name: &str, bars| Group {
            name: name.to_owned(),
            bars,
        };
        let groups = [
            group("a <b> & c", vec![bar("x", 0.1), bar("y", 1.0)]),
            group("other", vec![bar("z", 10.0)]),
        ];
        let svg = bars("Title & <more>", "µs", &groups).unwrap();
        let document = Document::parse(&svg).unwrap();
        let texts: Vec<&str> = all(&document, "text")
            .iter()
            .filter_map(|text| text.text())
            .collect();
        for expected in ["Title & <more>", "a <b> & c", "x", "z", "0.100", "10.0"] {
            assert!(texts.contains(&expected), "{expected}: {texts:?}");
        }
        let lengths: Vec<f64> = all(&document, "rect")
            .iter()
            .map(|rect| pixels(rect, "width"))
            .collect();
        assert_eq!(lengths.len(), 3);
        assert!(lengths[0] > 0.0 && lengths[2] < WIDTH - LEFT - RIGHT + 0.1);
        // Ten times as much is the same step each time.
        let (one, two) = (lengths[1] - lengths[0], lengths[2] - lengths[1]);
        assert!((one - two).abs() < 0.3, "{lengths:?}");
        let height = pixels(&document.root_element(), "height");
        for rect in all(&document, "rect") {
            assert!(pixels(&rect, "y") + BAR_HEIGHT < height);
        }
    }

    #[test]
    fn lines_are_well_formed_and_their_labels_apart() {
        let line = |label: &str, y: f64| Line {
            label: label.to_owned(),
            side: Side::Ours,
            points: vec![(1.0, y), (2.0, y / 2.0), (4.0, y / 4.0)],
        };
        let svg = lines(
            "Sweep",
            "window",
            "µs",
            &[line("a", 1.0), line("b", 1.01), line("c&", 9.0)],
        )
        .unwrap();
        let document = Document::parse(&svg).unwrap();
        let paths = all(&document, "polyline");
        assert_eq!(paths.len(), 3);
        let points: Vec<f64> = paths[0]
            .attribute("points")
            .unwrap()
            .split([' ', ','])
            .map(|number| number.parse().unwrap())
            .collect();
        // Doubling is the same step each time, and less is lower on the page.
        assert!((points[2] - points[0] - (points[4] - points[2])).abs() < 0.3);
        assert!(points[1] < points[3] && points[3] < points[5]);
        let mut heights: Vec<f64> = all(&document, "text")
            .iter()
            .filter(|text| text.attribute("class") == Some("ours"))
            .map(|text| pixels(text, "y"))
            .collect();
        heights.sort_by(f64::total_cmp);
        assert_eq!(heights.len(), 3);
        assert!(heights.windows(2).all(|two| two[1] - two[0] > 14.0));
    }

    #[test]
    fn nothing_is_no_chart() {
        assert!(bars("a", "b", &[]).is_none());
        assert!(lines("a", "b", "c", &[]).is_none());
    }
}
