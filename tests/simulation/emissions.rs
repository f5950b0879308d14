//! What peers emit to clients, and put them into rooms for: whom it must reach, in which order, and whom it must not.
//!
//! Each room is filled by one peer alone, so who is in it is decided by the order of that peer's calls and nothing else:
//! who joined before an event was emitted gets it, on whatever shard, and who has left does not. Nobody waits for an
//! answer in between. Others emit to it, too: what they say must reach those of whose join the answer was read before,
//! and nobody of whose leaving it was; in between it may.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;

use crate::client::ClientIndex;
use crate::oracle::{Kind, Oracle, Standing};

/// An event for one client, or for many.
#[derive(Debug)]
pub struct Emission {
    pub by: ClientIndex,
    /// Who must get it, as long as the connection lasts.
    pub must: BTreeSet<ClientIndex>,
    /// Who else may.
    pub may: BTreeSet<ClientIndex>,
    /// The room, if it is another's.
    pub room: Option<Room>,
    /// Any other client may, but the one that is left out.
    pub is_for_all: bool,
    pub left_out: Option<ClientIndex>,
    /// For many, it is counted as a delivery to each.
    pub is_counted: bool,
    pub is_volatile: bool,
    /// Its answer was read.
    pub is_done: bool,
    pub came: BTreeSet<ClientIndex>,
}

/// A peer, and which of its rooms.
pub type Room = (ClientIndex, usize);

/// What is known of a client in a room.
#[derive(Debug)]
struct Stay {
    /// The peer's last word, and its ticket.
    is_in: bool,
    ticket: u64,
    is_answered: bool,
}

/// All of them, in the order in which they were sent.
#[derive(Debug, Default)]
pub struct Emissions {
    all: Vec<Emission>,
    /// Who is in a room, or on the way into it or out of it.
    rooms: BTreeMap<Room, BTreeMap<ClientIndex, Stay>>,
    /// By peer and client: the last that came.
    last: BTreeMap<(ClientIndex, ClientIndex), usize>,
    /// By close code: which peer disconnects whom by it, and how many emissions there were before.
    disconnects: BTreeMap<u16, (ClientIndex, ClientIndex, usize)>,
}

/// The first of the close codes of disconnects.
const CODE_MIN: u16 = 4100;
const CODE_MAX: u16 = 4999;

/// Is this one of theirs? That it was sent to who heard it, and nobody else, is seen when it is heard.
pub fn is_of_a_disconnect(code: u16) -> bool {
    (CODE_MIN..=CODE_MAX).contains(&code)
}

impl Emissions {
    /// Another one; its number.
    pub fn push(&mut self, emission: Emission) -> usize {
        self.all.push(emission);
        self.all.len() - 1
    }

    /// Its answer was read.
    pub fn done(&mut self, number: usize) {
        self.all[number].is_done = true;
    }

    /// A peer has a client join a room of its own, or leave it.
    pub fn moves(&mut self, room: Room, client: ClientIndex, is_in: bool, ticket: u64) {
        let stay = Stay {
            is_in,
            ticket,
            is_answered: false,
        };
        self.rooms.entry(room).or_default().insert(client, stay);
        // What others have emitted and not been answered yet, may come before this or behind it.
        let under_way = self.all.iter_mut().filter(|emission| !emission.is_done);
        for emission in under_way.filter(|emission| emission.room == Some(room)) {
            emission.must.remove(&client);
            emission.may.insert(client);
        }
    }

    /// The answer to that was read.
    pub fn moved(&mut self, room: Room, client: ClientIndex, ticket: u64) {
        let clients = self.rooms.entry(room).or_default();
        if let Some(stay) = clients.get_mut(&client)
            && stay.ticket == ticket
        {
            stay.is_answered = true;
            if !stay.is_in {
                clients.remove(&client);
            }
        }
    }

    /// A room that somebody may be in, or was.
    pub fn any_room(&self, rng: &mut Rng) -> Option<Room> {
        let chosen = (!self.rooms.is_empty()).then(|| rng.usize(..self.rooms.len()))?;
        self.rooms.keys().nth(chosen).copied()
    }

    /// Who is in a room, and who may be.
    pub fn members(&self, room: Room) -> (BTreeSet<ClientIndex>, BTreeSet<ClientIndex>) {
        let (mut must, mut may) = (BTreeSet::new(), BTreeSet::new());
        for (client, stay) in self.rooms.get(&room).into_iter().flatten() {
            match stay.is_in && stay.is_answered {
                true => must.insert(*client),
                false => may.insert(*client),
            };
        }
        (must, may)
    }

    /// A client heard one.
    pub fn hear(&mut self, client: ClientIndex, number: u64, oracle: &mut Oracle) {
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        let Some(emission) = self.all.get_mut(number) else {
            let text = format!("client {client} hears emission {number}, which is none");
            return oracle.violate(Kind::Content, text);
        };
        let may = emission.must.contains(&client)
            || emission.may.contains(&client)
            || emission.is_for_all && emission.left_out != Some(client);
        if !may {
            let text = format!("client {client} hears emission {number}: {emission:?}");
            return oracle.violate(Kind::Stray, text);
        }
        if !emission.came.insert(client) {
            let text = format!("client {client} hears emission {number} twice");
            return oracle.violate(Kind::Twice, text);
        }
        let last = self.last.insert((emission.by, client), number);
        if last.is_some_and(|last| last > number) {
            let text = format!("client {client} hears emission {number} behind {last:?}");
            oracle.violate(Kind::Order, text);
        }
    }

    /// A peer disconnects a client: the code by which it is known, unless there were too many.
    pub fn disconnect(&mut self, by: ClientIndex, client: ClientIndex) -> Option<u16> {
        let code = CODE_MIN + u16::try_from(self.disconnects.len()).ok()?;
        (code <= CODE_MAX).then(|| {
            let before = self.all.len();
            self.disconnects.insert(code, (by, client, before));
            code
        })
    }

    /// Has any peer asked for this client's end? Who does not read the close frame in time meets a reset.
    pub fn is_disconnected(&self, client: ClientIndex) -> bool {
        let mut disconnects = self.disconnects.values();
        disconnects.any(|(_, disconnected, _)| *disconnected == client)
    }

    /// A client was closed with this code: what was emitted to it before has come.
    pub fn closed(&self, client: ClientIndex, code: u16, oracle: &mut Oracle) {
        if !is_of_a_disconnect(code) {
            return;
        }
        let Some(&(by, who, before)) = self.disconnects.get(&code) else {
            let text = format!("client {client} is closed with {code}");
            return oracle.violate(Kind::Ending, text);
        };
        if who != client {
            let text = format!("client {client} is closed with {code}, which is for {who}");
            return oracle.violate(Kind::Ending, text);
        }
        for (number, emission) in self.all[..before].iter().enumerate() {
            if emission.by == by && emission.lacks(client) {
                let text = format!("client {client} is closed before emission {number} came");
                oracle.violate(Kind::Missing, text);
            }
        }
    }

    /// What must have come by now.
    pub fn reckon(&self, standings: &[Standing], oracle: &mut Oracle) {
        for (number, emission) in self.all.iter().enumerate().filter(|(_, one)| one.is_done) {
            for &client in &emission.must {
                if standings[client] == Standing::Open && emission.lacks(client) {
                    let text = format!("client {client} misses emission {number}: {emission:?}");
                    oracle.violate(Kind::Missing, text);
                }
            }
        }
    }

    /// How many deliveries were due, at least and at most, where so many clients came in all.
    pub fn due(&self, clients: usize) -> (u64, u64) {
        let counted = || self.all.iter().filter(|emission| emission.is_counted);
        let most = |emission: &Emission| match emission.is_for_all {
            true => clients,
            false => emission.must.len() + emission.may.len(),
        };
        let least: usize = counted().map(|emission| emission.came.len()).sum();
        let most: usize = counted().map(most).sum();
        (least as u64, most as u64)
    }

    /// How many came, and how many close frames were asked for.
    pub fn sums(&self) -> (u64, u64) {
        let came: usize = self.all.iter().map(|emission| emission.came.len()).sum();
        (came as u64, self.disconnects.len() as u64)
    }
}

impl Emission {
    fn lacks(&self, client: ClientIndex) -> bool {
        !self.is_volatile && self.must.contains(&client) && !self.came.contains(&client)
    }
}
