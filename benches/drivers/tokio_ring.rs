//! tokio-uring as its users write it: a task for each direction of a connection, an owned buffer for each operation.
//!
//! Where this is not the raw ring: the library has single-shot receives only, each with a buffer of its own that stays
//! pinned; its ring is set up without flags; and tokio waits for it by epoll, one system call more per turn. Its turns
//! are tokio's: a publication wakes the tasks of all subscribers, and these run after the tasks that are ready already,
//! so what came together is sent together as far as tokio saw it together. There is no way to ask the ring for the
//! rest first, as the loops do.

use std::cell::{Cell, RefCell};
use std::net::TcpListener;
use std::rc::Rc;

use tokio::sync::Notify;
use tokio_uring::buf::BoundedBuf as _;
use tokio_uring::net::TcpStream;

use crate::gate::Gate;
use crate::scenario::Scenario;
use crate::server;

const BUFFER_BYTES: usize = 2048;

/// Serves until all clients are gone.
pub fn serve(listener: TcpListener, scenario: Scenario, gate: Gate) {
    let sockets = server::accept_all(&listener, scenario);
    tokio_uring::start(async move {
        let streams = sockets.into_iter().map(TcpStream::from_std).map(Rc::new);
        let tasks = match scenario {
            Scenario::Echo { .. } => {
                // The first one has the gate to pass.
                let mut gate = Some(gate);
                streams
                    .map(|stream| tokio_uring::spawn(echo(stream, gate.take())))
                    .collect()
            }
            Scenario::FanOut { .. } => fan_out(streams.collect(), scenario),
        };
        for task in tasks {
            task.await.expect("no task panics");
        }
    });
}

async fn echo(stream: Rc<TcpStream>, gate: Option<Gate>) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let (result, filled) = stream.read(buffer).await;
        let size = match result {
            Ok(size) if size > 0 => size,
            _ => return,
        };
        if let Some(gate) = &gate {
            gate.pass();
        }
        let (result, sent) = stream.write_all(filled.slice(..size)).await;
        if result.is_err() {
            return;
        }
        buffer = sent.into_inner();
    }
}

/// What waits for one subscriber.
#[derive(Default)]
struct Queue {
    bytes: RefCell<Vec<u8>>,
    is_closed: Cell<bool>,
    news: Notify,
}

fn fan_out(streams: Vec<Rc<TcpStream>>, scenario: Scenario) -> Vec<tokio::task::JoinHandle<()>> {
    let mut queues = Vec::new();
    queues.resize_with(scenario.readers(), Queue::default);
    let queues: Rc<[Queue]> = queues.into();
    let mut tasks = Vec::new();
    for (number, stream) in streams.into_iter().enumerate() {
        if number < queues.len() {
            tasks.push(tokio_uring::spawn(deliver(
                stream.clone(),
                queues.clone(),
                number,
            )));
        }
        tasks.push(tokio_uring::spawn(publish(stream, queues.clone(), number)));
    }
    tasks
}

/// Reads what a connection publishes and queues it for all subscribers.
async fn publish(stream: Rc<TcpStream>, queues: Rc<[Queue]>, own: usize) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let (result, filled) = stream.read(buffer).await;
        buffer = filled;
        let size = match result {
            Ok(size) if size > 0 => size,
            _ => break,
        };
        for queue in queues.iter() {
            queue.bytes.borrow_mut().extend_from_slice(&buffer[..size]);
            queue.news.notify_one();
        }
    }
    if let Some(queue) = queues.get(own) {
        queue.is_closed.set(true);
        queue.news.notify_one();
    }
}

/// Writes what is queued for a subscriber, all of it at a time.
async fn deliver(stream: Rc<TcpStream>, queues: Rc<[Queue]>, own: usize) {
    let queue = &queues[own];
    // One buffer is filled while the other is written.
    let mut spare = Vec::new();
    while !queue.is_closed.get() {
        let bytes = queue.bytes.replace(spare);
        if bytes.is_empty() {
            spare = bytes;
            queue.news.notified().await;
            continue;
        }
        let (result, mut sent) = stream.write_all(bytes).await;
        if result.is_err() {
            return;
        }
        sent.clear();
        spare = sent;
    }
}
