//! Links: a host's part in a broker, and how it is told things.
//!
//! A home of unsafe: its names are exported, and it writes events into the array of the caller.

#![allow(unsafe_code)]

use std::ffi::{c_char, c_int};
use std::os::fd::AsRawFd as _;
use std::ptr::null_mut;
use std::sync::{Arc, Mutex, TryLockError};
use std::time::Duration;

use broker::link::{Answer, Link};
use broker::secret::Secret;

use crate::argument::{Output, optional_text, text};
use crate::broker::{hosted, pubsub_broker};
use crate::event::{Batch, pubsub_event, watch_of};
use crate::handle::Table;
use crate::panic::{boundary, counting, prepare};
use crate::status::Failure;
use crate::status::pubsub_status::{
    self, PUBSUB_EBUSY, PUBSUB_EINVAL, PUBSUB_ESTOPPED, PUBSUB_ETIMEOUT,
};
use crate::thread::apart;

/// A program's part in a broker: calls go in, events come out.
pub struct pubsub_link;

/// A link, and the events that its host has been given last.
pub struct Linked {
    pub link: Link,
    batch: Mutex<Batch>,
}

static ALL: Table<Linked> = Table::new(2, "a pubsub_link");

/// Opens a link to a broker of this process, under a name that no other peer of the broker has: 1 to 255 bytes without
/// control characters.
///
/// Waits until every shard knows the name: some microseconds, or up to 2 s if another peer has it, which is asked whether it
/// is still there. `*link` is written on success only, and yours until `pubsub_link_free`; it may live longer than the broker.
/// Any thread.
///
/// `PUBSUB_EREFUSED`: the name is taken. `PUBSUB_ESTOPPED`, `PUBSUB_ETIMEOUT`, `PUBSUB_ESYSTEM`; `PUBSUB_EFULL`: there are 1024
/// links.
///
/// # Safety
/// `name` is a text that ends with NUL, `link` points to room for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pubsub_link_open(
    broker: *mut pubsub_broker,
    name: *const c_char,
    link: *mut *mut pubsub_link,
) -> pubsub_status {
    boundary(|| {
        let output = Output::new(link, "link")?;
        // SAFETY: the header asks for a text that ends.
        let name = unsafe { text(name, "name")? };
        let hosted = hosted(broker)?;
        let link = apart(|| hosted.ask(|broker| Ok(Link::open(broker, name)?)))?;
        // SAFETY: the header asks for room, and the call has not returned.
        unsafe { keep(link, output) }
    })
}

/// Opens a link to a broker elsewhere, by its listener for peers (option `peers`): `unix:/path` or `tcp://host:port`. `key` is
/// the one that it asks for (option `peer-key`), or NULL.
///
/// Returns at once; `PUBSUB_EV_UP` tells when it is in, `PUBSUB_EV_DOWN` when the connection has broken or could not be had.
/// Meanwhile calls wait (8 MiB of them at most, requests for as long as their timeout), and it connects again after 50 ms to
/// 5 s. What it subscribed to, handles and asked for holds again before the calls that waited. Otherwise as
/// `pubsub_link_open`.
///
/// # Safety
/// The texts end with NUL, `link` points to room for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pubsub_connect(
    url: *const c_char,
    name: *const c_char,
    key: *const c_char,
    link: *mut *mut pubsub_link,
) -> pubsub_status {
    boundary(|| {
        let output = Output::new(link, "link")?;
        // SAFETY: the header asks for texts that end, and none is kept.
        let (url, name, key) = unsafe {
            (
                text(url, "url")?,
                text(name, "name")?,
                optional_text(key, "key")?,
            )
        };
        prepare();
        // The reason does not quote it.
        let key = key.map(Secret::text).transpose();
        let key = key.map_err(|why| Failure::told(PUBSUB_EINVAL, format_args!("key: {why}")))?;
        let link = apart(|| Ok(Link::connect(url, name, key.as_ref())?))?;
        // SAFETY: the header asks for room, and the call has not returned.
        unsafe { keep(link, output) }
    })
}

/// Makes a handle of a link.
///
/// # Safety
/// The output is still that of a call.
unsafe fn keep(link: Link, output: Output<*mut pubsub_link>) -> Result<(), Failure> {
    let linked = Linked {
        link,
        batch: Mutex::default(),
    };
    let handle = ALL.insert(linked)?;
    // SAFETY: the caller's.
    unsafe { output.write(handle.pointer()) };
    Ok(())
}

/// The descriptor to watch: readable, level-triggered, while there are events. Not to be read, written or closed; it is gone
/// with `pubsub_link_free`. Negative: a status (`-PUBSUB_EINVAL`). Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn pubsub_link_fd(link: *const pubsub_link) -> c_int {
    counting(|| Ok(linked(link)?.link.fd().as_raw_fd()))
}

/// Asks for events: `PUBSUB_EV_...` with `|` between, in place of what was asked for before.
///
/// A link that asks for CONNECT, ADMIT, EVENT or DISCONNECT *hosts* clients: each client that comes in from then on belongs to
/// one such link, for life. As soon as any link asks for ADMIT, no client comes in unasked, even if that link goes away: the
/// broker fails closed. `PUBSUB_EINVAL`: a bit means nothing. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn pubsub_link_events(link: *mut pubsub_link, mask: u32) -> pubsub_status {
    // SAFETY: it wants no ticket.
    unsafe { pubsub_link_events_with(link, mask, null_mut()) }
}

/// The same with a ticket: once its `PUBSUB_EV_DONE` has come, every client that comes in is told of, or asked about.
///
/// # Safety
/// `ticket` is where the call's number goes, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pubsub_link_events_with(
    link: *mut pubsub_link,
    mask: u32,
    ticket: *mut u64,
) -> pubsub_status {
    boundary(|| {
        let linked = linked(link)?;
        let watch = watch_of(mask)?;
        let output = Output::optional(ticket, "ticket")?;
        let answer = match output {
            Some(_) => Answer::Wanted,
            None => Answer::Unwanted,
        };
        let made = linked.link.watch(watch, answer)?;
        if let Some(output) = output {
            // SAFETY: the header asks for room.
            unsafe { output.write(made.0) };
        }
        Ok(())
    })
}

/// Takes the events that have come, at most `capacity`, into your array; how many. Never waits; 0 if there is none.
///
/// What the events of the call before point to is gone with this one. One thread at a time: another gets `-PUBSUB_EBUSY`.
/// Negative is a status: `-PUBSUB_ESTOPPED` after the last event (`PUBSUB_EV_STOPPED` or `PUBSUB_EV_CLOSED`);
/// `-PUBSUB_EINVAL`.
///
/// # Safety
/// `events` points to room for `capacity` events.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pubsub_link_drain(
    link: *mut pubsub_link,
    events: *mut pubsub_event,
    capacity: usize,
) -> c_int {
    counting(|| {
        let linked = linked(link)?;
        if events.is_null() || !events.is_aligned() {
            return Err(Failure::invalid("events is NULL, or no pointer to events"));
        }
        // As many as the result can count.
        let capacity = capacity.min(c_int::MAX as usize);
        if capacity == 0 {
            return Err(Failure::invalid("there is room for no event"));
        }
        let mut batch = match linked.batch.try_lock() {
            Ok(batch) => batch,
            Err(TryLockError::Poisoned(batch)) => batch.into_inner(),
            Err(TryLockError::WouldBlock) => {
                let why = "another thread drains this link";
                return Err(Failure::new(PUBSUB_EBUSY, why));
            }
        };
        batch.clear();
        if batch.has_ended {
            // The descriptor was readable, or it would not have been asked for.
            linked.link.drain(&mut batch.events, 1);
            return Err(ended());
        }
        linked.link.drain(&mut batch.events, capacity);
        let mut count = 0;
        batch.tell(|event| {
            // SAFETY: the header asks for room for `capacity` events, and no more than that were drained.
            unsafe { events.add(count).write(event) };
            count += 1;
        });
        Ok(count as c_int)
    })
}

/// Waits until there is an event, for at most `timeout_ms` milliseconds; negative: for ever.
///
/// `PUBSUB_OK`: there is, so drain. `PUBSUB_ETIMEOUT`: there was none in time. `PUBSUB_ESTOPPED`: there will be none any more.
/// Any thread, also while another one makes calls or closes the link.
#[unsafe(no_mangle)]
pub extern "C" fn pubsub_link_wait(link: *mut pubsub_link, timeout_ms: i32) -> pubsub_status {
    boundary(|| {
        let linked = linked(link)?;
        let has_ended = match linked.batch.try_lock() {
            Ok(batch) => batch.has_ended,
            Err(TryLockError::Poisoned(batch)) => batch.into_inner().has_ended,
            // Who drains it has not seen the end yet.
            Err(TryLockError::WouldBlock) => false,
        };
        if has_ended {
            return Err(ended());
        }
        let timeout = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
        if linked.link.wait(timeout) {
            Ok(())
        } else {
            Err(Failure::new(PUBSUB_ETIMEOUT, "no event in time"))
        }
    })
}

/// Ends a link after the calls made so far: its clients are told to come back (1012), what it subscribed to, handles and
/// joined is gone. The events that are left can still be drained, `PUBSUB_EV_CLOSED` is the last. The handle stays yours.
///
/// `PUBSUB_ESTOPPED`: it had ended. Any thread, also while another one drains.
#[unsafe(no_mangle)]
pub extern "C" fn pubsub_link_close(link: *mut pubsub_link) -> pubsub_status {
    boundary(|| Ok(linked(link)?.link.close()?))
}

/// Frees a link, and ends it as `pubsub_link_close` does. Its events and its descriptor are gone: take the descriptor out of
/// your loop before. Of a link to a broker elsewhere it waits until the calls made so far are on their way, for some seconds at
/// most. Any thread; calls of other threads that have begun are finished.
#[unsafe(no_mangle)]
pub extern "C" fn pubsub_link_free(link: *mut pubsub_link) -> pubsub_status {
    boundary(|| {
        let linked = ALL.remove(link)?;
        // Who waits for its events is told.
        let _ = linked.link.close();
        apart(move || {
            // Somebody may be in the middle of a call; then that is the last one.
            if let Some(linked) = Arc::into_inner(linked) {
                linked.link.finish();
            }
            Ok(())
        })
    })
}

/// The link of a handle.
///
/// # Errors
/// `PUBSUB_EINVAL`.
pub fn linked(link: *const pubsub_link) -> Result<Arc<Linked>, Failure> {
    ALL.object(link)
}

fn ended() -> Failure {
    let why = "the broker has stopped, or has let this link go";
    Failure::new(PUBSUB_ESTOPPED, why)
}
