//! The real ring: operations become entries, and their memory is kept until the kernel has done with it. The unsafe
//! code of the driver is here and in `buffers`.
//!
//! Invariant: whatever an entry points to lives in `sends` (by slot), `adoptions` (by number) or `buffers` from before it is queued
//! until its last completion was reaped; when the ring is dropped with operations under way, that memory is
//! leaked rather than freed under the kernel's hands.

#![allow(
    unsafe_code,
    reason = "entries of the submission queue point to our memory"
)]

use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use hashbrown::HashMap;
use io_uring::types::{CancelBuilder, DestinationSlot, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use smallvec::SmallVec;

use crate::net::listener::Listening;
use crate::net::pieces::Pieces;
use crate::net::waker::Waker;
use crate::shard::outbox::Chunks;

use super::buffers::{Buffers, GROUP};
use super::features::Features;
use super::kernel::{Completion, Kernel, Kind, Operation, Tag};

/// Provided buffers of one shard, and the bytes of each: together what one turn takes at the most. Most messages
/// are small; a larger one spans several.
const BUFFERS: u16 = 1024;
const BUFFER_BYTES: usize = 2048;
/// Frames of one send up to this size are copied together; above it the kernel gathers them.
const COPY_BYTES_MAX: usize = 16 * 1024;
/// The most parts that one gathering send may have (`UIO_MAXIOV`).
const PARTS_MAX: usize = 1024;
/// `IORING_MSG_RING_CQE_SKIP`: the other ring gets no completion.
const MSG_RING_CQE_SKIP: u32 = 1;
/// Completions that a gathering wait waits for, if they come in its time.
const GATHERED: usize = 1024;
/// `IORING_FILE_INDEX_ALLOC`: into any free slot.
const FILE_INDEX_ALLOC: i32 = -1;
/// `IORING_ENTER_GETEVENTS`.
const ENTER_GETEVENTS: u32 = 1;
/// Enters that a ring which is dropped may take to collect what it cancelled.
const LAST_PASSES: usize = 64;

/// The rings of all shards, by shard; -1 where there is none.
pub type RingFds = Arc<[AtomicI32]>;

/// The bytes of a send under way, and what points to them. Boxed: most connections have none.
struct InFlight {
    chunks: Chunks,
    /// How many bytes that are.
    size: usize,
    /// For a gathering send: both in boxes, so that they stay where they are.
    gather: Option<Box<(libc::msghdr, SmallVec<[libc::iovec; 8]>)>>,
    /// Its entry's number: those from `queued - len` on are not the kernel's yet.
    order: u64,
}

/// A descriptor on its way into the table: the kernel reads its number here, and writes the slot in its place.
struct Adoption {
    number: Box<RawFd>,
    /// Kept open until the table has it.
    _socket: OwnedFd,
    /// As of [`InFlight`].
    order: u64,
}

/// One shard's ring. Not `Send`: it points to what the kernel knows as this thread's.
pub struct Ring {
    ring: ManuallyDrop<IoUring>,
    buffers: ManuallyDrop<Buffers>,
    /// By slot.
    sends: ManuallyDrop<Pieces<Option<Box<InFlight>>>>,
    /// By the number of their tag.
    adoptions: ManuallyDrop<HashMap<u32, Adoption>>,
    /// Entries that ever went into the submission queue or the backlog.
    queued: u64,
    listeners: Vec<Option<Listening>>,
    waker: Waker,
    wakers: Arc<[Waker]>,
    rings: RingFds,
    features: Features,
    overflows: u64,
    /// Entries that the submission queue had no room for, because the kernel wanted completions reaped first.
    backlog: Vec<squeue::Entry>,
}

impl Ring {
    /// Wraps a ring that was just set up, on the thread that will use it.
    ///
    /// # Errors
    /// If the kernel refuses a table of direct descriptors or the buffers.
    pub fn new(
        ring: IoUring,
        features: Features,
        own: usize,
        listeners: Vec<Listening>,
        wakers: Arc<[Waker]>,
        rings: RingFds,
        slots_max: usize,
    ) -> io::Result<Ring> {
        ring.submitter().register_files_sparse(slots_max as u32)?;
        let mut buffers = Buffers::new(BUFFERS, BUFFER_BYTES);
        buffers.register(&ring.submitter())?;
        rings[own].store(ring.as_raw_fd(), Ordering::Release);
        let mut ring = Ring {
            ring: ManuallyDrop::new(ring),
            buffers: ManuallyDrop::new(buffers),
            sends: ManuallyDrop::new(Pieces::default()),
            adoptions: ManuallyDrop::new(HashMap::new()),
            queued: 0,
            listeners: listeners.into_iter().map(Some).collect(),
            waker: wakers[own].clone(),
            wakers,
            rings,
            features,
            overflows: 0,
            backlog: Vec::new(),
        };
        ring.watch_waker();
        Ok(ring)
    }

    /// The listeners that this ring accepts from.
    pub fn listeners(&self) -> &[Option<Listening>] {
        &self.listeners
    }

    fn watch_waker(&mut self) {
        let fd = Fd(self.waker.raw_fd());
        let tag = Tag {
            kind: Kind::Waker,
            slot: 0,
            generation: 0,
        };
        self.queue(
            opcode::PollAdd::new(fd, libc::POLLIN as u32)
                .multi(true)
                .build()
                .user_data(tag.pack()),
        );
    }

    fn queue(&mut self, entry: squeue::Entry) {
        self.queued += 1;
        self.queue_again(entry);
    }

    /// Entries keep their order: once one waits in the backlog, all that follow do.
    fn queue_again(&mut self, entry: squeue::Entry) {
        if self.backlog.is_empty() {
            if self.try_queue(&entry) {
                return;
            }
            // The queue is full: what is in it begins now, without waiting for anything; unless completions are to be
            // reaped first.
            if !self.has_overflowed() && self.enter_raw(true, 0).is_ok() && self.try_queue(&entry) {
                return;
            }
        }
        self.backlog.push(entry);
    }

    fn try_queue(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: what the entry points to is in `sends`, `adoptions` or `buffers` or static, and stays there until the
        // operation's last completion has been reaped (the invariant of this file); descriptors are direct ones, those of
        // listeners, which outlive their accept, or those of other rings, which the broker closes only when no shard
        // runs any more.
        unsafe { self.ring.submission().push(entry).is_ok() }
    }

    /// Enters without waiting, and lets what is queued begin or not.
    fn enter_raw(&mut self, begins: bool, flags: u32) -> io::Result<()> {
        let queued = self.ring.submission().len() as u32;
        let queued = if begins { queued } else { 0 };
        // SAFETY: no argument is passed along. What the queue's entries point to is kept (see `try_queue`).
        let entered = unsafe {
            self.ring
                .submitter()
                .enter::<libc::sigset_t>(queued, 0, flags, None)
        };
        entered.map(drop)
    }

    fn has_overflowed(&mut self) -> bool {
        self.ring.submission().cq_overflow()
    }

    /// Entries that the kernel has not seen.
    fn unseen(&mut self) -> u64 {
        (self.ring.submission().len() + self.backlog.len()) as u64
    }

    fn entry(&mut self, tag: Tag, operation: Operation) -> Option<squeue::Entry> {
        let entry = match operation {
            Operation::Accept { listener } => {
                let listening = self.listeners.get(usize::from(listener))?.as_ref()?;
                let fd = Fd(listening.socket().as_raw_fd());
                opcode::AcceptMulti::new(fd)
                    .allocate_file_index(true)
                    .build()
            }
            Operation::Receive { slot } => opcode::RecvMulti::new(Fixed(slot), GROUP).build(),
            Operation::Send { slot, chunks } => self.send_entry(slot, chunks),
            Operation::Cancel { tag } => {
                opcode::AsyncCancel2::new(CancelBuilder::user_data(tag.pack())).build()
            }
            Operation::Shutdown { slot, both } => {
                let how = if both { libc::SHUT_RDWR } else { libc::SHUT_WR };
                opcode::Shutdown::new(Fixed(slot), how).build()
            }
            Operation::Linger { slot } => {
                static RESET: libc::linger = libc::linger {
                    l_onoff: 1,
                    l_linger: 0,
                };
                opcode::SetSockOpt::new(
                    Fixed(slot),
                    libc::SOL_SOCKET as u32,
                    libc::SO_LINGER as u32,
                    (&raw const RESET).cast(),
                    size_of::<libc::linger>() as u32,
                )
                .build()
            }
            Operation::Close { slot } => opcode::Close::new(Fixed(slot)).build(),
            Operation::SendFd { slot, to } => {
                let ring = Fd(self.rings[to.index()].load(Ordering::Acquire));
                let anywhere = DestinationSlot::auto_target();
                opcode::MsgRingSendFd::new(ring, Fixed(slot), anywhere, 0)
                    .opcode_flags(MSG_RING_CQE_SKIP)
                    .build()
            }
            Operation::InstallFd { slot } => opcode::FixedFdInstall::new(Fixed(slot), 0).build(),
            Operation::AdoptFd { socket } => {
                let mut number = Box::new(socket.as_raw_fd());
                let entry = opcode::FilesUpdate::new(&raw mut *number, 1)
                    .offset(FILE_INDEX_ALLOC)
                    .build();
                let adoption = Adoption {
                    number,
                    _socket: socket,
                    order: self.queued,
                };
                let before = self.adoptions.insert(tag.slot, adoption);
                assert!(before.is_none(), "one adoption of a number at a time");
                entry
            }
            Operation::Wake { shard } => {
                let ring = self.rings[shard.index()].load(Ordering::Acquire);
                if !self.features.messages || ring < 0 {
                    self.wakers[shard.index()].wake();
                    return None;
                }
                let woken = Tag {
                    kind: Kind::Woken,
                    slot: 0,
                    generation: 0,
                };
                opcode::MsgRingData::new(Fd(ring), 0, woken.pack(), None)
                    .build()
                    .flags(squeue::Flags::SKIP_SUCCESS)
            }
        };
        Some(entry.user_data(tag.pack()))
    }

    fn send_entry(&mut self, slot: u32, mut chunks: Chunks) -> squeue::Entry {
        let flags = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        let total: usize = chunks.iter().map(|chunk| chunk.len()).sum();
        if chunks.len() > 1 && total <= COPY_BYTES_MAX {
            let mut joined = Vec::with_capacity(total);
            for chunk in &chunks {
                joined.extend_from_slice(chunk);
            }
            chunks = smallvec::smallvec![joined.into()];
        }
        let order = self.queued;
        let in_flight = self.sends.reach(slot, || None);
        assert!(
            in_flight.is_none(),
            "at most one send is under way per connection"
        );
        let in_flight = in_flight.insert(Box::new(InFlight {
            chunks,
            size: total,
            gather: None,
            order,
        }));
        if let [chunk] = in_flight.chunks.as_slice() {
            return opcode::Send::new(Fixed(slot), chunk.as_ptr(), chunk.len() as u32)
                .flags(flags)
                .build();
        }
        let parts = in_flight
            .chunks
            .iter()
            .take(PARTS_MAX)
            .map(|chunk| libc::iovec {
                iov_base: chunk.as_ptr().cast_mut().cast(),
                iov_len: chunk.len(),
            })
            .collect();
        // SAFETY: all-zero is a msghdr without address, parts and control data.
        let header: libc::msghdr = unsafe { std::mem::zeroed() };
        let gather = in_flight.gather.insert(Box::new((header, parts)));
        let (header, parts) = &mut **gather;
        header.msg_iov = parts.as_mut_ptr();
        header.msg_iovlen = parts.len() as _;
        opcode::SendMsg::new(Fixed(slot), header)
            .flags(flags as u32)
            .build()
    }

    /// The completion that an entry of the queue stands for.
    fn complete(&mut self, entry: &cqueue::Entry) -> Option<Completion> {
        let Some(tag) = Tag::unpack(entry.user_data()) else {
            debug_assert!(false, "a completion of nothing: {entry:?}");
            return None;
        };
        let more = cqueue::more(entry.flags());
        let mut completion = Completion {
            tag,
            result: entry.result(),
            more,
            buffer: None,
            unsent: None,
            descriptor: None,
        };
        match tag.kind {
            Kind::Receive => {
                completion.buffer =
                    cqueue::buffer_select(entry.flags()).filter(|id| self.buffers.take(*id));
            }
            Kind::Send if !more => {
                // By slot alone: at most one send of a slot is under way, whatever its generation.
                let in_flight = self.sends.get_mut(tag.slot)?.take()?;
                let sent = usize::try_from(completion.result);
                if !sent.is_ok_and(|sent| sent >= in_flight.size) {
                    completion.unsent = Some(Box::new(in_flight.chunks));
                }
            }
            Kind::Waker => {
                self.waker.clear();
                if !more {
                    self.watch_waker();
                }
            }
            Kind::InstallFd | Kind::ReleaseFd if entry.result() >= 0 => {
                // SAFETY: a descriptor that the kernel has just made for us; nobody else knows of it.
                completion.descriptor = Some(unsafe { OwnedFd::from_raw_fd(entry.result()) });
            }
            Kind::AdoptFd => {
                let adoption = self.adoptions.remove(&tag.slot)?;
                // The result is how many were taken, the slot stands where the number stood.
                completion.result = match completion.result {
                    1.. => *adoption.number,
                    0 => -libc::ENFILE,
                    error => error,
                };
            }
            Kind::Wake => self.wakers[tag.slot as usize].wake(),
            _ => {}
        }
        Some(completion)
    }
}

impl Kernel for Ring {
    fn push(&mut self, tag: Tag, operation: Operation) {
        if let Some(entry) = self.entry(tag, operation) {
            self.queue(entry);
        }
    }

    fn enter(&mut self, wait: Option<Duration>, gather: Duration) -> io::Result<()> {
        let has_overflowed = self.has_overflowed();
        if has_overflowed {
            self.overflows += 1;
        } else {
            for entry in std::mem::take(&mut self.backlog) {
                self.queue_again(entry);
            }
        }
        let is_short_of_room = has_overflowed || !self.backlog.is_empty();
        let timespec = wait.map(Timespec::from);
        let mut arguments = SubmitArgs::new();
        if let Some(timespec) = &timespec {
            arguments = arguments.timespec(timespec);
        }
        let result = if is_short_of_room {
            // What the kernel keeps beside the full queue moves into it; nothing new begins before it was reaped.
            self.enter_raw(!has_overflowed, ENTER_GETEVENTS)
        } else if wait == Some(Duration::ZERO) {
            self.enter_raw(true, ENTER_GETEVENTS)
        } else if !gather.is_zero() {
            // Returns at once if so many are there, and after this time if any is.
            let arguments = arguments.min_wait_usec(gather.as_micros() as u32);
            self.ring
                .submitter()
                .submit_with_args(GATHERED, &arguments)
                .map(drop)
        } else if wait.is_some() {
            self.ring
                .submitter()
                .submit_with_args(1, &arguments)
                .map(drop)
        } else {
            self.ring.submitter().submit_and_wait(1).map(drop)
        };
        match result.as_ref().map_err(io::Error::raw_os_error) {
            Ok(()) => Ok(()),
            // Time is up; a signal came; the kernel has more completions than room and wants them reaped.
            Err(Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)) => Ok(()),
            Err(_) => result,
        }
    }

    fn reap(&mut self, completions: &mut VecDeque<Completion>) {
        let mut entries: SmallVec<[cqueue::Entry; 64]> = SmallVec::new();
        loop {
            entries.clear();
            entries.extend(self.ring.completion().take(64));
            for entry in &entries {
                completions.extend(self.complete(entry));
            }
            if entries.len() < 64 {
                return;
            }
        }
    }

    fn has_deferred(&self) -> bool {
        // SAFETY: no other submission queue is borrowed meanwhile: `&self` on the one thread that has this ring (it is
        // neither Send nor Sync). Only flags are read; dropping the queue stores the tail that it had.
        let queue = unsafe { self.ring.submission_shared() };
        queue.taskrun() || queue.cq_overflow()
    }

    fn buffer(&mut self, id: u16, size: usize) -> &mut [u8] {
        self.buffers.bytes(id, size)
    }

    fn give_back(&mut self, id: u16) {
        self.buffers.give_back(id);
    }

    fn drop_listener(&mut self, listener: u16) {
        if let Some(listening) = self.listeners.get_mut(usize::from(listener)) {
            *listening = None;
        }
    }

    fn overflows(&self) -> u64 {
        // Those that were kept aside, and those that even for that there was no memory.
        // SAFETY: as in `has_deferred`, of the completion queue.
        self.overflows + u64::from(unsafe { self.ring.completion_shared() }.overflow())
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        for ring in self.rings.iter() {
            let own: RawFd = self.ring.as_raw_fd();
            let _ = ring.compare_exchange(own, -1, Ordering::AcqRel, Ordering::Relaxed);
        }
        // Everything under way is cancelled, and the kernel waits until it is. What it has not seen stays unseen: a
        // ring that is given up before its first turn must accept nobody.
        let patience = Timespec::from(Duration::from_secs(1));
        let cancelled = self
            .ring
            .submitter()
            .register_sync_cancel(Some(patience), CancelBuilder::any());
        // The last completions: their memory and descriptors come home.
        let mut completions = VecDeque::new();
        for _ in 0..LAST_PASSES {
            let entered = self.enter_raw(false, ENTER_GETEVENTS);
            let count = completions.len();
            self.reap(&mut completions);
            if entered.is_err() || completions.len() == count {
                break;
            }
        }
        drop(completions);
        let seen = self.queued - self.unseen();
        let is_busy = self.sends.iter().flatten().any(|send| send.order < seen)
            || self.adoptions.values().any(|one| one.order < seen);
        // SAFETY: each is dropped at most once, here, and not used after. The ring goes first; the memory that it
        // was told of follows only if nothing that the kernel has seen is under way any more, and is leaked otherwise.
        unsafe {
            ManuallyDrop::drop(&mut self.ring);
            if cancelled.is_ok() && !is_busy {
                ManuallyDrop::drop(&mut self.buffers);
                ManuallyDrop::drop(&mut self.sends);
                ManuallyDrop::drop(&mut self.adoptions);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;

    use bytes::Bytes;

    use super::*;
    use crate::address::SessionId;
    use crate::net::listener::{Bound, bind_tcp};
    use crate::net::uring::Uring;
    use crate::net::uring::features::set_up;
    use crate::net::{Driver, Taken};
    use crate::shard::Now;

    /// A driver on a ring with queues of this size, and the address that it listens on; none where there is no ring.
    fn driver(submissions: u32, completions: u32) -> Option<(Uring<Ring>, String)> {
        let (_, features) = match set_up(&Features::ALL) {
            Ok(had) => had,
            Err(why) => {
                let _ = writeln!(io::stderr(), "skipped: ring: {why}");
                return None;
            }
        };
        let mut builder = IoUring::builder();
        builder.setup_cqsize(completions);
        builder.setup_submit_all().setup_single_issuer();
        builder.setup_defer_taskrun().setup_taskrun_flag();
        let ring = builder.build(submissions).expect("as before");
        let (bound, listeners) = bind_tcp(0, "127.0.0.1", 0, 1).expect("a port");
        let Bound::Tcp(address) = bound else {
            unreachable!("it was TCP")
        };
        let wakers = [Waker::new().expect("an eventfd")].into();
        let rings: RingFds = [AtomicI32::new(-1)].into();
        let ring = Ring::new(ring, features.clone(), 0, listeners, wakers, rings, 64)
            .expect("tables and buffers");
        let clock = Box::new(|| Now { ms: 0, unix_ms: 0 });
        let driver = Uring::new(ring, features, &[0], Duration::ZERO, clock);
        Some((driver, address.to_string()))
    }

    /// What a test keeps of a connection.
    struct Session {
        id: SessionId,
        received: Vec<u8>,
        sent: usize,
    }

    fn turn(driver: &mut Uring<Ring>, sessions: &mut Vec<Session>) {
        let mut taken = Vec::new();
        let wait = Some(Duration::from_secs(5));
        driver.take(wait, &mut taken).expect("a ring");
        for taken in taken {
            match taken {
                Taken::Accepted { session, .. } => sessions.push(Session {
                    id: session,
                    received: Vec::new(),
                    sent: 0,
                }),
                Taken::Received { session, buffer } => {
                    let bytes = driver.bytes(buffer).to_vec();
                    let mut sessions = sessions.iter_mut();
                    let of = sessions.find(|of| of.id == session).expect("one of ours");
                    of.received.extend(bytes);
                }
                Taken::Sent { session } => {
                    let mut sessions = sessions.iter_mut();
                    sessions.find(|of| of.id == session).expect("ours").sent += 1;
                }
                Taken::Ended { .. }
                | Taken::Detached { .. }
                | Taken::Released { .. }
                | Taken::Adopted { .. } => {}
            }
        }
    }

    #[test]
    fn queues_that_are_too_small_lose_nothing() {
        const CLIENTS: usize = 40;
        const ROUNDS: usize = 5;
        let Some((mut driver, address)) = driver(4, 8) else {
            return;
        };
        let connect = |_| TcpStream::connect(&address).expect("it listens");
        let mut clients: Vec<TcpStream> = (0..CLIENTS).map(connect).collect();
        let mut sessions = Vec::new();
        while sessions.len() < CLIENTS {
            turn(&mut driver, &mut sessions);
        }
        for round in 0..ROUNDS {
            for (number, client) in clients.iter_mut().enumerate() {
                client.write_all(&[number as u8; 3]).expect("it is read");
            }
            // Far more sends at once than either queue has room for.
            for session in &sessions {
                driver.send(
                    session.id,
                    smallvec::smallvec![Bytes::from_static(b"hello")],
                );
            }
            let is_done = |session: &Session| {
                session.sent > round && session.received.len() == 3 * (round + 1)
            };
            while !sessions.iter().all(is_done) {
                turn(&mut driver, &mut sessions);
            }
        }
        assert!(driver.overflows() > 0, "the overflow is counted");
        for client in &mut clients {
            let mut read = [0; 5 * ROUNDS];
            client.read_exact(&mut read).expect("all of it");
            assert_eq!(read, b"hello".repeat(ROUNDS)[..]);
        }
        for session in &sessions {
            let of = session.received[0];
            assert!(session.received.iter().all(|&byte| byte == of));
        }
    }

    #[test]
    fn an_address_is_known_before_anything_is_read() {
        let Some((mut driver, address)) = driver(64, 128) else {
            return;
        };
        if !driver.features.install {
            let _ = writeln!(io::stderr(), "skipped: ring: no descriptor installs");
            return;
        }
        driver.addresses_first = true;
        let mut clients: Vec<TcpStream> = Vec::new();
        for _ in 0..3 {
            let mut client = TcpStream::connect(&address).expect("it listens");
            client.write_all(b"hello").expect("it waits");
            clients.push(client);
        }
        let (mut told, mut received) = (Vec::new(), 0);
        let mut taken = Vec::new();
        while received < 3 {
            let wait = Some(Duration::from_secs(5));
            driver.take(wait, &mut taken).expect("a ring");
            assert!(
                !taken.is_empty() || !driver.nameless.is_empty(),
                "nothing comes"
            );
            for taken in taken.drain(..) {
                match taken {
                    Taken::Accepted {
                        session, address, ..
                    } => told.push((session, address.to_string())),
                    Taken::Received { session, .. } => {
                        assert!(told.iter().any(|(of, _)| *of == session));
                        received += 1;
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        let mut told: Vec<String> = told.into_iter().map(|(_, address)| address).collect();
        let own = |client: &TcpStream| client.local_addr().expect("its own").to_string();
        let mut expected: Vec<String> = clients.iter().map(own).collect();
        told.sort();
        expected.sort();
        assert_eq!(told, expected);
    }

    #[test]
    fn a_send_of_many_parts_arrives_whole() {
        let Some((mut driver, address)) = driver(64, 128) else {
            return;
        };
        let mut client = TcpStream::connect(&address).expect("it listens");
        let mut sessions = Vec::new();
        while sessions.is_empty() {
            turn(&mut driver, &mut sessions);
        }
        // One part; few that are joined; few that are gathered; more than one gathering send may have.
        for (parts, size) in [(1, 100_000), (3, 10), (5, 9_000), (PARTS_MAX * 2 + 7, 17)] {
            let chunks: Chunks = (0..parts)
                .map(|part| Bytes::from(vec![part as u8; size]))
                .collect();
            let expected: Vec<u8> = chunks.iter().flatten().copied().collect();
            let before = sessions[0].sent;
            driver.send(sessions[0].id, chunks);
            let mut reader = client.try_clone().expect("a descriptor");
            let reading = std::thread::spawn(move || {
                let mut read = vec![0; expected.len()];
                reader.read_exact(&mut read).expect("all of it");
                assert!(read == expected, "{parts} parts of {size}");
            });
            while sessions[0].sent == before {
                turn(&mut driver, &mut sessions);
            }
            reading.join().expect("as sent");
        }
        client.write_all(b"x").expect("still there");
        while sessions[0].received.is_empty() {
            turn(&mut driver, &mut sessions);
        }
    }

    #[test]
    fn a_ring_may_be_dropped_with_everything_under_way() {
        let Some((mut driver, address)) = driver(64, 128) else {
            return;
        };
        let mut client = TcpStream::connect(&address).expect("it listens");
        let mut sessions = Vec::new();
        while sessions.is_empty() {
            turn(&mut driver, &mut sessions);
        }
        // Nobody reads it: stuck in the kernel, gathered from many parts.
        let chunks: Chunks = (0..900).map(|_| Bytes::from(vec![7; 30_000])).collect();
        driver.send(sessions[0].id, chunks);
        client.write_all(b"x").expect("it is read");
        while sessions[0].received.is_empty() {
            turn(&mut driver, &mut sessions);
        }
        assert_eq!(sessions[0].sent, 0);
        // And one that the kernel has not seen.
        let _late = TcpStream::connect(&address).expect("it listens");
        while sessions.len() < 2 {
            turn(&mut driver, &mut sessions);
        }
        driver.send(
            sessions[1].id,
            smallvec::smallvec![Bytes::from(vec![1; 100])],
        );
        client.write_all(b"y").expect("it waits");
        drop(driver);
        // Bytes that come now meet no ring.
        let _ = client.write_all(&[9; 5_000]);
    }
}
