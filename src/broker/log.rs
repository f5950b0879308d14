//! The log of one broker: what its threads say, for whoever listens in this process, beside what the host does with
//! logs.
//!
//! The threads of a broker have a subscriber of their own for `tracing`. It hands everything on to the one that the host
//! had when the broker started, unchanged, and gives lines of this crate, from `info` up, to listeners. So a library
//! prints nothing, a program with a subscriber sees what it saw before, and of two brokers in one process each has its
//! own lines. A listener is called on a thread of the broker: it must not block, and must not log.

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::dispatcher::Dispatch;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{Interest, Subscriber};
use tracing::{Event, Level, Metadata};

/// What hears the lines: a level from 1 (error) to 3 (info), and a text. False when it is gone.
type Listener = Box<dyn Fn(u8, &str) -> bool + Send + Sync>;

/// Who listens.
#[derive(Default)]
pub struct Log {
    listeners: Mutex<Vec<Listener>>,
    /// As many as `listeners` has, to be asked without the lock.
    count: AtomicUsize,
}

impl Log {
    /// Calls this with each line from now on, until it says that it is gone.
    pub fn listen(&self, listener: impl Fn(u8, &str) -> bool + Send + Sync + 'static) {
        let mut listeners = self
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        listeners.push(Box::new(listener));
        self.count.store(listeners.len(), Ordering::Release);
    }

    /// For the threads of a broker, to be set as their default.
    pub(super) fn dispatch(self: &Arc<Log>) -> Dispatch {
        Dispatch::new(Tee {
            host: tracing::dispatcher::get_default(Dispatch::clone),
            log: self.clone(),
        })
    }

    fn is_heard(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    fn say(&self, level: u8, line: &str) {
        let mut listeners = self
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| listener(level, line));
        self.count.store(listeners.len(), Ordering::Release);
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").finish_non_exhaustive()
    }
}

/// The subscriber of a broker's threads: the host's, and the listeners.
struct Tee {
    host: Dispatch,
    log: Arc<Log>,
}

/// Might listeners hear of it?
fn is_ours(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let is_crate = target == "pubsub" || target.starts_with("pubsub::");
    is_crate && metadata.is_event() && *metadata.level() <= Level::INFO
}

impl Subscriber for Tee {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        let host = self.host.register_callsite(metadata);
        if host.is_never() && is_ours(metadata) {
            Interest::sometimes()
        } else {
            host
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        // The host's own hint counts beside this one.
        Some(LevelFilter::INFO)
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.host.enabled(metadata) || is_ours(metadata) && self.log.is_heard()
    }

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        if self.host.enabled(metadata) {
            self.host.event(event);
        }
        if is_ours(metadata) && self.log.is_heard() {
            let mut line = Line::default();
            event.record(&mut line);
            let level = match *metadata.level() {
                Level::ERROR => 1,
                Level::WARN => 2,
                _ => 3,
            };
            self.log.say(level, &line.whole());
        }
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.host.new_span(span)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        self.host.record(span, values);
    }

    fn record_follows_from(&self, span: &Id, follows: &Id) {
        self.host.record_follows_from(span, follows);
    }

    fn enter(&self, span: &Id) {
        self.host.enter(span);
    }

    fn exit(&self, span: &Id) {
        self.host.exit(span);
    }

    fn clone_span(&self, span: &Id) -> Id {
        self.host.clone_span(span)
    }

    fn try_close(&self, span: Id) -> bool {
        self.host.try_close(span)
    }
}

/// A line: the message, then the fields.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Line {
    fn whole(self) -> String {
        self.message + &self.fields
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let written = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.fields, " {}={value:?}", field.name())
        };
        debug_assert!(written.is_ok(), "a string takes every text");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Heard(Mutex<Vec<(u8, String)>>);

    impl Heard {
        fn lines(&self) -> Vec<(u8, String)> {
            self.0.lock().expect("no panic").clone()
        }
    }

    #[test]
    fn listeners_hear_lines_as_long_as_they_are_there() {
        let log = Arc::new(Log::default());
        tracing::dispatcher::with_default(&log.dispatch(), || {
            tracing::info!("nobody listens");
            let heard = Arc::new(Heard::default());
            let weak = Arc::downgrade(&heard);
            log.listen(move |level, line| {
                let Some(heard) = weak.upgrade() else {
                    return false;
                };
                let mut lines = heard.0.lock().expect("no panic");
                lines.push((level, line.to_owned()));
                true
            });
            tracing::warn!(shard = 3, address = %"127.0.0.1", "too slow");
            tracing::debug!("for developers");
            tracing::error!("the end");
            let expected = [
                (2, "too slow shard=3 address=127.0.0.1".to_owned()),
                (1, "the end".to_owned()),
            ];
            assert_eq!(heard.lines(), expected);
            drop(heard);
            tracing::info!("it is gone");
            assert!(!log.is_heard());
        });
    }

    #[test]
    fn what_the_host_has_sees_what_it_saw_before() {
        let host = Arc::new(Log::default());
        let heard = Arc::new(Heard::default());
        let keep = heard.clone();
        host.listen(move |level, line| {
            let mut lines = keep.0.lock().expect("no panic");
            lines.push((level, line.to_owned()));
            true
        });
        tracing::dispatcher::with_default(&host.dispatch(), || {
            let log = Arc::new(Log::default());
            tracing::dispatcher::with_default(&log.dispatch(), || tracing::info!("seen"));
        });
        assert_eq!(heard.lines(), [(3, "seen".to_owned())]);
    }
}
