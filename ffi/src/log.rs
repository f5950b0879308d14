//! The log: lines for the links that ask for them, since a library prints nothing.
//!
//! As long as no link does, a line costs what a compare costs: the level of all is off. A link that does not drain keeps
//! [`LINES_MAX`] lines; what comes then is dropped, and counted.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};

use broker::link::Event;
use bytes::Bytes;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{Interest, Subscriber};
use tracing::{Level, Metadata};

/// Lines that wait for one link.
const LINES_MAX: usize = 1024;
/// The longest line, in bytes; a longer one is cut.
const LINE_BYTES_MAX: usize = 4096;

/// Lines that wait for a link.
#[derive(Default)]
pub struct Lines(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    lines: VecDeque<(Level, String)>,
    dropped: u64,
}

/// A link that asks for lines.
struct Watcher {
    lines: Arc<Lines>,
    wake: Box<dyn Fn() + Send>,
}

static WATCHERS: Mutex<Vec<Watcher>> = Mutex::new(Vec::new());
/// The most detailed level that is told, as an index of [`LEVELS`].
static LEVEL: AtomicUsize = AtomicUsize::new(3);

const LEVELS: [LevelFilter; 6] = [
    LevelFilter::OFF,
    LevelFilter::ERROR,
    LevelFilter::WARN,
    LevelFilter::INFO,
    LevelFilter::DEBUG,
    LevelFilter::TRACE,
];

/// How detailed they are: what the last broker that was started says.
pub fn set_level(level: LevelFilter) {
    let index = LEVELS.iter().position(|known| *known == level);
    LEVEL.store(index.unwrap_or(3), Ordering::Relaxed);
    tracing::callsite::rebuild_interest_cache();
}

/// Has lines come to a link; `wake` is called for each.
///
/// From the first time on all lines come here. Somebody else may have asked for them before, in a program that is in Rust
/// too: then they go there.
pub fn watch(lines: &Arc<Lines>, wake: impl Fn() + Send + 'static) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Not before somebody asks: tracing keeps a hundred bytes for it, which stay when the library is unloaded.
        let _ = tracing::subscriber::set_global_default(Listener);
    });
    let mut watchers = watchers();
    if !watchers
        .iter()
        .any(|watcher| Arc::ptr_eq(&watcher.lines, lines))
    {
        watchers.push(Watcher {
            lines: lines.clone(),
            wake: Box::new(wake),
        });
    }
    drop(watchers);
    tracing::callsite::rebuild_interest_cache();
}

/// No more of them come.
pub fn forget(lines: &Arc<Lines>) {
    let mut watchers = watchers();
    let before = watchers.len();
    watchers.retain(|watcher| !Arc::ptr_eq(&watcher.lines, lines));
    let has_changed = watchers.len() != before;
    if watchers.is_empty() {
        // Nothing of ours is to be left when the library goes.
        *watchers = Vec::new();
    }
    drop(watchers);
    if has_changed {
        tracing::callsite::rebuild_interest_cache();
    }
}

fn watchers() -> MutexGuard<'static, Vec<Watcher>> {
    WATCHERS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lines {
    /// Appends at most `events_max` lines as events; are there more?
    pub fn drain(&self, events: &mut Vec<Event>, events_max: usize) -> bool {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let event = |level: Level, text: String| Event::Log {
            level: number(level),
            text: Bytes::from(text),
        };
        for _ in 0..events_max {
            match waiting.lines.pop_front() {
                Some((level, text)) => events.push(event(level, text)),
                None if waiting.dropped > 0 => {
                    let dropped = std::mem::take(&mut waiting.dropped);
                    let text = format!("{dropped} lines of the log were dropped: nobody took them");
                    events.push(event(Level::WARN, text));
                }
                None => break,
            }
        }
        !waiting.lines.is_empty() || waiting.dropped > 0
    }

    fn push(&self, level: Level, text: &str) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The oldest lines tell how it began.
        if waiting.dropped > 0 || waiting.lines.len() == LINES_MAX {
            waiting.dropped += 1;
        } else {
            waiting.lines.push_back((level, text.to_owned()));
        }
    }
}

/// 1 for an error, to 5 for a trace.
fn number(level: Level) -> u8 {
    let levels = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG];
    let index = levels.iter().position(|known| *known == level);
    index.map_or(5, |index| index as u8 + 1)
}

struct Listener;

impl Listener {
    fn level() -> LevelFilter {
        if watchers().is_empty() {
            return LevelFilter::OFF;
        }
        LEVELS[LEVEL.load(Ordering::Relaxed)]
    }
}

impl Subscriber for Listener {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(Listener::level())
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Listener::level() && metadata.is_event()
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let level = *event.metadata().level();
        let text = line.text();
        for watcher in watchers().iter() {
            watcher.lines.push(level, &text);
            (watcher.wake)();
        }
    }

    // There are no spans here.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// A line as it is read: the message, then the fields.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Line {
    fn text(mut self) -> String {
        self.message += &self.fields;
        if let Some((end, _)) = self
            .message
            .char_indices()
            .find(|(at, c)| at + c.len_utf8() > LINE_BYTES_MAX)
        {
            self.message.truncate(end);
        }
        self.message
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a `String` does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn lines_come_to_those_who_ask() {
        let lines = Arc::<Lines>::default();
        let (woken, waking) = channel();
        tracing::info!("before");
        watch(&lines, move || woken.send(()).unwrap());
        tracing::info!(count = 3, name = "x", "hello");
        tracing::debug!("too detailed");
        waking.recv().unwrap();
        forget(&lines);
        tracing::info!("after");
        let mut events = Vec::new();
        assert!(!lines.drain(&mut events, 10));
        let [Event::Log { level: 3, text }] = &events[..] else {
            panic!("{events:?}")
        };
        assert_eq!(text, "hello count=3 name=x");
        assert!(waking.recv().is_err());
    }

    #[test]
    fn what_nobody_takes_is_counted() {
        let lines = Lines::default();
        for index in 0..LINES_MAX + 5 {
            lines.push(Level::ERROR, &index.to_string());
        }
        let mut events = Vec::new();
        assert!(lines.drain(&mut events, LINES_MAX));
        assert!(!lines.drain(&mut events, LINES_MAX));
        let Some(Event::Log { level: 2, text }) = events.last() else {
            panic!("{events:?}")
        };
        assert!(text.starts_with(b"5 lines"), "{text:?}");
        lines.push(Level::ERROR, "again");
        assert!(!lines.drain(&mut events, 1));
    }
}
