//! Plain HTTP: whose connections a host takes.
//!
//! Where a Link of the broker's own process watches HTTP, a connection whose request is none of the broker's (it asks for
//! no WebSocket, and its path is not one of those where only WebSocket is spoken) is the host's from then on: it leaves the
//! shard with all its bytes, as one that is handed to another shard does. Several such Links take turns. The host's own
//! server decides on origins and paths; the next request of that connection may be the broker's all the same, and then the
//! host gives it back.

use crate::address::{SessionId, ShardId};
use crate::protocol::peer::Watch;
use crate::ws::http;

use super::super::{Effect, Shard};
use super::hosting::Hosts;

impl Hosts {
    /// Does anybody take plain HTTP?
    pub(in super::super) fn take_http(&self) -> bool {
        self.http().next().is_some()
    }

    fn http(&self) -> impl Iterator<Item = (ShardId, SessionId)> {
        self.watching(Watch::HTTP)
    }
}

impl Shard {
    /// A connection speaks plain HTTP, and these are all its bytes: it goes to the next host that takes such.
    pub(in super::super) fn give_http(&mut self, id: SessionId, bytes: Vec<u8>) {
        self.next_http = self.next_http.wrapping_add(1);
        let count = self.hosts.http().count().max(1);
        let next = self.hosts.http().nth(self.next_http % count);
        let Some(to) = next.filter(|&(shard, link)| !self.is_shut(shard, link)) else {
            let mut answer = Vec::new();
            let text = b"the server is behind\n";
            http::response(
                503,
                "text/plain",
                &[("Retry-After", "5")],
                text,
                &mut answer,
            );
            return self.refuse(id, &answer);
        };
        let Some(session) = self.sessions.remove(id) else {
            return;
        };
        self.stats.handed_over += 1;
        self.effects.push(Effect::Release {
            session: id,
            to,
            listener: session.listener,
            address: session.address,
            bytes,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{HEAD, House, Who};
    use super::*;
    use crate::protocol::peer::call::Call;

    const PAGE: &str =
        "GET /page HTTP/1.1\r\nHost: elsewhere.example\r\nOrigin: http://elsewhere.example\r\n\r\n";

    fn ask(house: &mut House, shard: usize, text: &str) -> Who {
        let client = house.accept(shard, 0, false);
        house.bytes(client, text.as_bytes());
        house.settle();
        client
    }

    #[test]
    fn what_is_not_the_broker_s_goes_to_a_link_that_takes_it_in_turn() {
        let mut house = House::new(2);
        let client = ask(&mut house, 1, PAGE);
        let head = house.head(client);
        assert!(
            house.released.is_empty() && head.starts_with("HTTP/1.1 404"),
            "{head}"
        );
        let links = [("one", 0), ("two", 1)].map(|(name, shard)| {
            let link = house.connect_link(shard, name);
            let (ticket, mask) = (1, Watch::HTTP);
            let told = house.ask_peer(link, &Call::Watch { ticket, mask });
            assert_eq!(told, ["done 1"]);
            link
        });
        let post = "POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /";
        let clients = [PAGE, post, PAGE, PAGE].map(|text| ask(&mut house, 1, text));
        let mut taken = [0, 0];
        for (client, text) in clients.iter().zip([PAGE, post, PAGE, PAGE]) {
            let released = house.released.iter().find(|(who, ..)| who == client);
            let (_, to, bytes) = released.expect("it was let go");
            assert_eq!(bytes, text.as_bytes(), "from the first byte on");
            let link = links
                .iter()
                .position(|link| (link.shard, link.id) == (to.0.index(), to.1));
            taken[link.expect("one of the two")] += 1;
        }
        assert_eq!(taken, [2, 2]);
        // These are the broker's as before.
        for (text, status) in [
            (HEAD, "HTTP/1.1 101"),
            (
                "GET /clusterws HTTP/1.1\r\nHost: localhost\r\n\r\n",
                "HTTP/1.1 426",
            ),
        ] {
            let client = ask(&mut house, 1, text);
            assert!(house.head(client).starts_with(status), "{text}");
        }
        assert_eq!(house.released.len(), 4);
        for link in links {
            house.end(link, crate::shard::Ending::EndOfInput);
        }
        house.settle();
        ask(&mut house, 1, PAGE);
        assert_eq!(house.released.len(), 4, "nobody is there to take it");
    }
}
