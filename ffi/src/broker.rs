//! A broker in this process.
//!
//! A home of unsafe: its names are exported, and it reads and writes the memory of the caller.
//!
//! A broker that lost a shard is stopped by its *watch*, a thread that waits for just that; its links are told by the end
//! of what they were connected to. So a host never talks to half a broker.

#![allow(unsafe_code)]

use std::ffi::c_char;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use broker::admin::{AdminHandle, Phase, Readiness};
use broker::broker::Broker;
use broker::config::Config;
use broker::net::control::Control;

use crate::argument::{Output, optional_text};
use crate::handle::Table;
use crate::options::{config, pubsub_options};
use crate::panic::{boundary, prepare};
use crate::status::Failure;
use crate::status::pubsub_status::{
    self, PUBSUB_EINVAL, PUBSUB_ENOTFOUND, PUBSUB_ESTOPPED, PUBSUB_ESYSTEM,
};
use crate::thread::apart;

/// A broker in this process.
pub struct pubsub_broker;

/// A broker, and what goes with it.
pub struct Hosted {
    /// None once it was stopped.
    running: RwLock<Option<Running>>,
    /// Listeners by the option that they come from, with their addresses.
    addresses: Vec<(&'static str, String)>,
    drain: Duration,
    /// Why it stopped by itself.
    failure: Arc<Mutex<Option<String>>>,
}

struct Running {
    broker: Broker,
    admin: Option<AdminHandle>,
    ready: Arc<Readiness>,
    watch: JoinHandle<()>,
}

static ALL: Table<Hosted> = Table::new(1, "a pubsub_broker");

/// Starts a broker. When this returns, clients can connect.
///
/// `options` may be NULL, for all defaults; it is read, and stays yours. `*broker` is written on success only, and yours
/// until `pubsub_broker_free`. Its threads block all signals and are named `shard-N`. Any thread; no other thread may change
/// the environment (`setenv`) meanwhile.
///
/// `PUBSUB_ECONFIG`: the options are at odds, or an address is in use. `PUBSUB_ESYSTEM`: the system has no thread or
/// descriptor left. Nothing runs then, and no address is taken.
///
/// # Safety
/// `broker` points to room for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pubsub_broker_start(
    options: *const pubsub_options,
    broker: *mut *mut pubsub_broker,
) -> pubsub_status {
    boundary(|| {
        let output = Output::new(broker, "broker")?;
        prepare();
        // The address of a handle is all that there is of it.
        let options = options.addr();
        let handle = apart(move || {
            let config = config(std::ptr::without_provenance(options))?;
            ALL.insert(Hosted::start(&config)?)
        })?;
        // SAFETY: the header asks for room, and the call has not returned.
        unsafe { output.write(handle.pointer()) };
        Ok(())
    })
}

/// Where a listener listens: the `index`-th of the option `listener` (`"listen"`, `"resp"`, `"peers"`, `"admin"`; NULL is
/// `"listen"`), as `host:port` with the real port where 0 was asked for, or `unix:/path`.
///
/// Written to `text` with a NUL, if that fits into `size` bytes. `PUBSUB_EINVAL`: it does not; `pubsub_last_error` says how
/// many bytes it takes. `PUBSUB_ENOTFOUND`: there is no such listener. Also of a broker that was stopped. Any thread.
///
/// # Safety
/// `listener` is a text that ends with NUL, or NULL; `text` points to `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pubsub_broker_address(
    broker: *const pubsub_broker,
    listener: *const c_char,
    index: usize,
    text: *mut c_char,
    size: usize,
) -> pubsub_status {
    boundary(|| {
        let hosted = ALL.object(broker)?;
        // SAFETY: the header asks for a text that ends.
        let listener = unsafe { optional_text(listener, "listener")? }.unwrap_or("listen");
        if text.is_null() {
            return Err(Failure::invalid("text is NULL"));
        }
        let of_option = hosted.addresses.iter().filter(|(of, _)| *of == listener);
        let (_, address) = of_option.into_iter().nth(index).ok_or_else(|| {
            let why = format_args!("there is no {listener} listener {index}").to_string();
            Failure::told(PUBSUB_ENOTFOUND, why)
        })?;
        if size <= address.len() {
            let why = format!("the address takes {} bytes", address.len() + 1);
            return Err(Failure::told(PUBSUB_EINVAL, why));
        }
        // SAFETY: the header asks for `size` bytes of room, which is more than the address has.
        unsafe {
            std::ptr::copy_nonoverlapping(address.as_ptr().cast(), text, address.len());
            text.add(address.len()).write(0);
        }
        Ok(())
    })
}

/// Stops a broker in good order: what was taken is handed on, every client is told to go elsewhere (1001; with the option
/// `drain`, one after the other), every link gets `PUBSUB_EV_STOPPED` as its last event. Returns when its threads have
/// ended, after at most 10 s and the `drain`.
///
/// The handle stays yours. `PUBSUB_ESTOPPED`: it was stopped before, or has stopped by itself since a shard failed
/// (`pubsub_last_error` says how). Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn pubsub_broker_stop(broker: *mut pubsub_broker) -> pubsub_status {
    boundary(|| {
        let hosted = ALL.object(broker)?;
        apart(|| hosted.stop(true))
    })
}

/// Frees a broker, and stops it if it runs: at once, so that its clients see their connections break. (Call
/// `pubsub_broker_stop` before, where that is not wanted.) Its links stay yours; they get `PUBSUB_EV_STOPPED`. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn pubsub_broker_free(broker: *mut pubsub_broker) -> pubsub_status {
    boundary(|| {
        let hosted = ALL.remove(broker)?;
        apart(move || {
            drop(hosted);
            Ok(())
        })
    })
}

/// The broker of a handle.
///
/// # Errors
/// `PUBSUB_EINVAL`.
pub fn hosted(broker: *const pubsub_broker) -> Result<Arc<Hosted>, Failure> {
    ALL.object(broker)
}

impl Hosted {
    fn start(config: &Config) -> Result<Hosted, Failure> {
        let mut broker = Broker::start(config)?;
        tracing::info!("{}", broker.pinning);
        tracing::info!("driver: {}", broker.driver);
        let ready = Arc::new(Readiness::default());
        let failure = Arc::default();
        let admin = broker.serve_admin(config, &ready);
        let watch = watch(&broker, &ready, &failure);
        let (admin, watch) = match (admin, watch) {
            (Ok(admin), Ok(watch)) => (admin, watch),
            (Err(error), _) | (_, Err(error)) => {
                broker.stop();
                return Err(Failure::told(PUBSUB_ESYSTEM, error));
            }
        };
        ready.set(Phase::Ready);
        let mut addresses = Vec::new();
        addresses.extend(broker.listening.iter().map(|at| ("listen", at.to_string())));
        addresses.extend(broker.resp.iter().map(|at| ("resp", at.to_string())));
        addresses.extend(broker.peers.iter().map(|at| ("peers", at.to_string())));
        let at = admin.iter().map(|admin| admin.address().to_string());
        addresses.extend(at.map(|at| ("admin", at)));
        Ok(Hosted {
            running: RwLock::new(Some(Running {
                broker,
                admin,
                ready,
                watch,
            })),
            addresses,
            drain: Duration::from_millis(config.drain_ms),
            failure,
        })
    }

    /// Asks the broker, if it runs.
    ///
    /// # Errors
    /// `PUBSUB_ESTOPPED`, whatever `ask` fails with.
    pub fn ask<T>(&self, ask: impl FnOnce(&Broker) -> Result<T, Failure>) -> Result<T, Failure> {
        let running = self.running.read().unwrap_or_else(PoisonError::into_inner);
        let running = running.as_ref().ok_or_else(|| self.stopped())?;
        match self.failure() {
            Some(failure) => Err(failure),
            None => ask(&running.broker),
        }
    }

    /// Stops it, and waits for its threads; `in_order`: with a drain before.
    fn stop(&self, in_order: bool) -> Result<(), Failure> {
        let running = self
            .running
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Running {
            broker,
            admin,
            ready,
            watch,
        } = running.ok_or_else(|| self.stopped())?;
        ready.set(Phase::Draining);
        if in_order && self.failure().is_none() {
            broker.drain(self.drain, &|_| self.failure().is_some());
        }
        drop(admin);
        broker.stop();
        // It ends with the last shard.
        let _ = watch.join();
        self.failure().map_or(Ok(()), Err)
    }

    fn failure(&self) -> Option<Failure> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let failure = failure.as_ref();
        failure.map(|why| Failure::told(PUBSUB_ESTOPPED, why))
    }

    fn stopped(&self) -> Failure {
        let why = "the broker was stopped";
        self.failure()
            .unwrap_or_else(|| Failure::new(PUBSUB_ESTOPPED, why))
    }
}

impl Drop for Hosted {
    fn drop(&mut self) {
        // It may have been stopped already, and that is fine.
        let _ = self.stop(false);
    }
}

/// The thread that stops a broker whose shard has failed.
fn watch(
    broker: &Broker,
    ready: &Arc<Readiness>,
    failure: &Arc<Mutex<Option<String>>>,
) -> std::io::Result<JoinHandle<()>> {
    let (shards, failures) = (broker.shards(), broker.failures().clone());
    let (ready, failure) = (ready.clone(), failure.clone());
    let watch = move || {
        // Ends with the last shard.
        let Ok(failed) = failures.recv() else { return };
        let why = format!("shard {} has ended: {}", failed.shard, failed.reason);
        tracing::error!("{why}");
        ready.set(Phase::Draining);
        *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        for shard in shards.iter() {
            let _ = shard.insist(Control::Stop, STOP_TIME);
        }
    };
    std::thread::Builder::new()
        .name("pubsub-watch".to_owned())
        .spawn(watch)
}

/// How long a shard may take to hear that it is to stop, when another one has failed.
const STOP_TIME: Duration = Duration::from_secs(2);
