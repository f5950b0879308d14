//! `pubsub-compare`: the broker, the floor and the peers, measured in one run.
//!
//! A `scenario` is one or several points; at each point every `contender` is started as a `server`, loaded by
//! `pubsub bench`, and ended, in as many rounds as asked for, in another order each. What came out are `sample`s; the
//! `results` are their medians, shown as a `table`, as `chart`s, as `goals` reached or missed, and kept as JSON.
//!
//! What holds in all of it: figures are only compared within one run, and a measurement with a wrong delivery is none.

mod chart;
mod contender;
mod goals;
mod machine;
mod pipeline;
mod places;
mod results;
mod sample;
mod scenario;
mod server;
mod spread;
mod table;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};

use contender::Contender;
use machine::Machine;
use places::Places;
use results::Results;
use sample::Method;
use scenario::{Point, Scenario};

/// Bad usage, or something is missing, as everywhere in `pubsub`.
const EXIT_USAGE: u8 = 2;
/// A measurement went wrong.
const EXIT_WRONG: u8 = 1;

/// Measure the broker beside a hand-made floor and its peers, in one run.
///
/// benches/README.md tells how to repeat a run, and how to read it.
#[derive(Parser, Debug)]
#[command(name = "pubsub-compare")]
struct Options {
    /// Scenarios; all of them if not given
    #[arg(long, value_enum, value_delimiter = ',', value_name = "SCENARIO")]
    only: Vec<Scenario>,

    /// Contenders; all of them if not given
    #[arg(long = "with", value_enum, value_delimiter = ',')]
    #[arg(value_name = "CONTENDER")]
    contenders: Vec<Contender>,

    /// Measurements of each contender at each point
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,

    /// Seconds of a measurement
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    seconds: f64,

    /// Another build of the broker
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,

    /// A further build of the broker, measured beside it as `before`
    #[arg(long, value_name = "PATH")]
    before: Option<PathBuf>,

    /// The CPU of the servers; two shards take the next one too
    #[arg(long, value_name = "CPU", default_value_t = 0)]
    server_cpu: usize,

    /// The CPU of the generator
    #[arg(long, value_name = "CPU", default_value_t = 1)]
    generator_cpu: usize,

    /// Where results go; benches/results of this checkout if not given
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// What the files of the results are called; date and commit if not given
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// Install the peers (npm and apt-get), and end
    #[arg(long)]
    install: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match compare(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_WRONG),
        Err(reason) => {
            eprintln!("pubsub-compare: {reason}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// False if a measurement went wrong.
fn compare(options: &Options) -> Result<bool, String> {
    let places = Places::new(options.binary.as_deref(), options.before.as_deref())
        .map_err(|error| format!("--binary or --before: {error}"))?;
    if options.install {
        return places.install().map(|()| true);
    }
    let points = points(options);
    check(options, &places, &points)?;
    open_files();
    let machine = Machine::look();
    let has_softirqs = machine::has_softirqs(options.server_cpu);
    println!("{}", machine.line());
    if let Some(doubt) = machine.doubt() {
        println!("beware: {doubt}");
    }
    if !has_softirqs {
        println!("beware: ksoftirqd is not in sight, so its time is not counted");
    }
    let method = Method {
        places: &places,
        seconds: options.seconds,
        server_cpu: options.server_cpu,
        generator_cpu: options.generator_cpu,
        has_softirqs,
    };
    let began = SystemTime::now();
    let mut results = Results::default();
    for point in &points {
        measure(&method, point, options, &mut results);
        println!("\n{}", table::point(&results, point, options.rounds));
    }
    println!("{}", table::goals(&goals::judge(&results)));
    let about = about(options, &places, &points, began);
    keep(options, &machine, &results, &points, about, began)?;
    Ok(results
        .samples
        .iter()
        .all(|sample| sample.failure.is_none()))
}

/// What is measured, with those who take part.
fn points(options: &Options) -> Vec<Point> {
    let asked = |scenario: &Scenario| options.only.is_empty() || options.only.contains(scenario);
    let scenarios = Scenario::ALL.into_iter().filter(asked);
    let mut points: Vec<Point> = scenarios.flat_map(Scenario::points).collect();
    for point in &mut points {
        if options.before.is_none() && !options.contenders.contains(&Contender::Before) {
            point
                .contenders
                .retain(|contender| *contender != Contender::Before);
        }
        if !options.contenders.is_empty() {
            point
                .contenders
                .retain(|contender| options.contenders.contains(contender));
        }
    }
    points.retain(|point| !point.contenders.is_empty());
    points
}

/// Is all there that the run needs?
fn check(options: &Options, places: &Places, points: &[Point]) -> Result<(), String> {
    if options.rounds == 0 || !(0.05..=3600.0).contains(&options.seconds) {
        return Err("--rounds is at least 1, --seconds from 0.05 to 3600".to_owned());
    }
    if points.is_empty() {
        return Err("none of these contenders takes part in these scenarios".to_owned());
    }
    if !places.generator.is_file() {
        let generator = places.generator.display();
        return Err(format!(
            "{generator}, the generator, is not there: cargo build --release"
        ));
    }
    let missing: Vec<String> = everybody(points)
        .into_iter()
        .filter_map(|contender| contender.missing(places))
        .collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "{} (or leave it out by --with)",
            missing.join("; ")
        )),
    }
}

/// All who take part somewhere.
fn everybody(points: &[Point]) -> Vec<Contender> {
    let mut all: Vec<Contender> = points
        .iter()
        .flat_map(|point| point.contenders.iter().copied())
        .collect();
    all.sort();
    all.dedup();
    all
}

/// As many descriptors as we may have, for all that we start.
fn open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // If that is refused, those who need more will say so.
    let _ = setrlimit(Resource::Nofile, raised);
}

/// All rounds of a point. Each round has another order, so that nobody is always first after a pause.
fn measure(method: &Method, point: &Point, options: &Options, results: &mut Results) {
    for round in 0..options.rounds {
        let count = point.contenders.len();
        for turn in 0..count {
            let contender = point.contenders[(turn + round) % count];
            let name = contender.name();
            progress(&format!(
                "{} {} of {} {name}",
                point.name,
                round + 1,
                options.rounds
            ));
            results
                .samples
                .push(method.measure(point, contender, round));
        }
    }
    progress("");
}

/// What is going on, on a terminal.
fn progress(text: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K{text}");
    }
}

/// What the run was: enough to do it again.
fn about(options: &Options, places: &Places, points: &[Point], began: SystemTime) -> Value {
    let versions: serde_json::Map<String, Value> = everybody(points)
        .into_iter()
        .filter_map(|contender| {
            Some((
                contender.name().to_owned(),
                contender.version(places)?.into(),
            ))
        })
        .collect();
    // Where something lies is of no interest to others, and may name somebody.
    let words =
        std::env::args()
            .skip(1)
            .map(|word| match (word.find('/'), word.rsplit_once('/')) {
                (Some(first), Some((_, name))) => {
                    let option = word[..first]
                        .rsplit_once('=')
                        .map_or("", |(option, _)| option);
                    let equals = if option.is_empty() { "" } else { "=" };
                    format!("{option}{equals}{name}")
                }
                _ => word,
            });
    let words: Vec<String> = std::iter::once("pubsub-compare".to_owned())
        .chain(words)
        .collect();
    let points: Vec<Value> = points
        .iter()
        .map(|point| json!({ "point": point.name, "load": point.load.words() }))
        .collect();
    json!({
        "date": humantime::format_rfc3339_seconds(began).to_string(),
        "command": words.join(" "),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "versions": versions,
        "points": points,
    })
}

/// Writes the results.
fn keep(
    options: &Options,
    machine: &Machine,
    results: &Results,
    points: &[Point],
    about: Value,
    began: SystemTime,
) -> Result<(), String> {
    let here = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../results"));
    let folder = options.out.clone().unwrap_or_else(here);
    let date = humantime::format_rfc3339_seconds(began).to_string();
    let name = options.name.clone().unwrap_or_else(|| {
        let date = date[..16].replace(':', "");
        format!("{date}-{}", machine.commit)
    });
    let write = |suffix: &str, text: &str| {
        let path = folder.join(format!("{name}{suffix}"));
        std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::write(&path, text))
            .map_err(|error| format!("{}: {error}", path.display()))
    };
    write(".json", &results.text(machine, about, points))?;
    if let Some(svg) = results.bars() {
        write(".svg", &svg)?;
    }
    if let Some(svg) = results.sweep() {
        write("-sweep.svg", &svg)?;
    }
    println!("kept in {}", folder.join(name).display());
    Ok(())
}
