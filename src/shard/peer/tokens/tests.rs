//! Tokens in a house: accepting, coming in by an id, being replaced, being rejected, and what is kept.

use super::super::super::Ending;
use super::super::super::settings::Settings;
use super::super::super::testing::{HEAD, House, Who, bytes};
use super::*;
use crate::address::Address;
use crate::limits::KIB;
use crate::protocol::peer::call::Call;

const TERMINATED: [&str; 2] = [
    r#"{"type":"event","event":"termination","data":{"data":"forced disconnection"}}"#,
    "close 4001 forced disconnection",
];

fn accept(house: &mut House, peer: Who, token: &str, id: &str) -> Vec<String> {
    let (token, id) = (token.as_bytes(), id.as_bytes());
    let ticket = 1;
    house.ask_peer(peer, &Call::Accept { ticket, token, id })
}

fn reject(house: &mut House, peer: Who, token: &str) -> Vec<String> {
    let token = token.as_bytes();
    house.ask_peer(peer, &Call::Reject { ticket: 2, token })
}

/// A client that shows an id; its head and what it says are on their way.
fn show(house: &mut House, shard: usize, id: &str) -> Who {
    let client = house.accept(shard, 0, false);
    let head = HEAD.replace("GET / ", &format!("GET /?id={id} "));
    house.bytes(client, head.as_bytes());
    client
}

fn come_in(house: &mut House, shard: usize, id: &str) -> Who {
    let client = show(house, shard, id);
    house.settle();
    assert!(house.head(client).starts_with("HTTP/1.1 101 "));
    client
}

fn changes(house: &mut House) -> Vec<String> {
    let changes = house.token_changes.drain(..);
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    changes
        .map(|change| match change {
            TokenChange::Accepted(Acceptance { peer, token, id }) => {
                format!("+{}/{} {}", text(&peer), text(&token), text(&id))
            }
            TokenChange::Rejected { peer, token } => format!("-{}/{}", text(&peer), text(&token)),
        })
        .collect()
}

#[test]
fn a_token_has_one_id_and_an_id_one_token() {
    let mut house = House::new(2);
    let (one, two) = (house.connect_peer(1, "one"), house.connect_link(0, "two"));
    let told = accept(&mut house, one, "a", "");
    let made = told[0].strip_prefix("done 1 ").unwrap().to_owned();
    assert_eq!(made.len(), 40);
    assert_eq!(accept(&mut house, one, "a", ""), [format!("done 1 {made}")]);
    assert_eq!(
        accept(&mut house, one, "a", &made),
        [format!("done 1 {made}")]
    );
    assert_eq!(accept(&mut house, one, "a", "x"), ["failed 1 not_allowed"]);
    assert_eq!(accept(&mut house, one, "b", "x"), ["done 1 x"]);
    assert_eq!(accept(&mut house, one, "c", "x"), ["failed 1 not_allowed"]);
    assert_eq!(accept(&mut house, two, "a", "x"), ["failed 1 not_allowed"]);
    assert_eq!(accept(&mut house, two, "b", "y"), ["done 1 y"]);
    // Another one for the next; and none that is told by the one before.
    let told = accept(&mut house, two, "a", "");
    assert!(told[0].starts_with("done 1 ") && told[0] != format!("done 1 {made}"));
    assert_eq!(
        changes(&mut house)[..3],
        [
            format!("+one/a {made}"),
            "+one/b x".to_owned(),
            "+two/b y".to_owned()
        ]
    );
    assert_eq!(reject(&mut house, one, "b"), ["token rejected b", "done 2"]);
    assert_eq!(changes(&mut house), ["-one/b"]);
    // One that is not there is rejected all the same, and changes nothing.
    assert_eq!(reject(&mut house, one, "b"), ["token rejected b", "done 2"]);
    assert_eq!(changes(&mut house), [""; 0]);
    assert_eq!(accept(&mut house, one, "c", "x"), ["done 1 x"]);
}

#[test]
fn who_shows_an_accepted_id_is_in_and_who_shows_another_is_terminated() {
    for (owner, shard) in [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 1)] {
        let mut house = House::new(3);
        let peer = house.connect_peer(owner, "one");
        accept(&mut house, peer, "a", "x");
        let client = show(&mut house, shard, "x");
        house.send(client, r#"{"type":"whoami"}"#);
        house.turn(shard);
        if shard != 0 {
            assert_eq!(house.head(client), "", "the registrar has not spoken");
            assert!(house.is_paused(client));
        }
        house.settle();
        assert!(house.head(client).starts_with("HTTP/1.1 101 "));
        assert!(house.read(client)[0].contains("session"));
        assert!(!house.is_paused(client));
        assert_eq!(house.told(peer), ["token up a"]);

        let payload = Payload::json(Bytes::from_static(b"1"));
        let to = &Address::Token(bytes("a"));
        let emit = |ticket| Call::Emit {
            ticket,
            to,
            event: b"e",
            payload: &payload,
            volatile: false,
        };
        assert_eq!(house.ask_peer(peer, &emit(3)), ["done 3"]);
        assert_eq!(house.read(client).len(), 1);
        for stranger in ["y", "%78%78", &"x".repeat(4 * KIB)] {
            let stranger = come_in(&mut house, shard, stranger);
            assert_eq!(house.read(stranger), TERMINATED);
        }
        // Without an id, or with an empty one, nothing is asked.
        let nobody = come_in(&mut house, shard, "");
        assert_eq!(house.ask(nobody, r#"{"type":"ping"}"#).len(), 1);
        let coded = come_in(&mut house, shard, "%78");
        assert_eq!(house.read(client), TERMINATED, "it is the same id");
        assert_eq!(house.told(peer), ["token down a", "token up a"]);
        house.end(coded, Ending::Failed);
        house.settle();
        assert_eq!(house.told(peer), ["token down a"]);
        assert_eq!(house.ask_peer(peer, &emit(4)), ["failed 4 no_handler"]);
    }
}

#[test]
fn the_newest_connection_stays_wherever_the_others_are() {
    for (first, second) in [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)] {
        let mut house = House::new(3);
        let peer = house.connect_peer(2, "one");
        accept(&mut house, peer, "a", "x");
        let older = come_in(&mut house, first, "x");
        assert_eq!(house.told(peer), ["token up a"]);
        let newer = come_in(&mut house, second, "x");
        assert_eq!(house.read(older), TERMINATED);
        assert_eq!(house.told(peer), ["token down a", "token up a"]);
        assert!(house.session(newer).is_open());
        // The end of the older one is not the token's.
        house.end(older, Ending::EndOfInput);
        house.settle();
        assert_eq!(house.told(peer), [""; 0]);
        // Two at once: one of them.
        let both = [show(&mut house, first, "x"), show(&mut house, second, "x")];
        house.settle();
        let told = house.told(peer);
        assert_eq!(told.last().unwrap(), "token up a", "{told:?}");
        let open = both
            .iter()
            .filter(|who| house.closed(**who).is_none() && !house.is_shut(**who));
        assert_eq!(open.count(), 1);
    }
}

#[test]
fn rejecting_ends_the_client_also_while_it_comes_in() {
    let mut house = House::new(3);
    let peer = house.connect_peer(1, "one");
    accept(&mut house, peer, "a", "x");
    let client = come_in(&mut house, 2, "x");
    house.told(peer);
    let told = reject(&mut house, peer, "a");
    assert_eq!(told, ["token down a", "token rejected a", "done 2"]);
    assert_eq!(house.read(client), TERMINATED);
    assert_eq!(house.shards[2].stats().closed.iter().sum::<u64>(), 1);

    accept(&mut house, peer, "b", "y");
    let late = show(&mut house, 2, "y");
    house.turn(2);
    house.turn(0);
    // The registrar has let it in; what it says is on its way to both.
    let told = reject(&mut house, peer, "b");
    let news = told.join(", ");
    assert!(news.ends_with("token rejected b, done 2"), "{news}");
    assert!(!house.session_is_open(late), "it is not in");
    assert_eq!(house.told(peer), [""; 0]);
    for client in [client, late] {
        house.end(client, Ending::Failed);
    }
    house.ask_peer(peer, &Call::Bye);
    house.end(peer, Ending::EndOfInput);
    house.settle();
    for shard in 0..3 {
        assert_eq!(house.shards[shard].residue(), None);
    }
}

#[test]
fn a_client_that_leaves_while_it_is_asked_about_leaves_nothing() {
    let mut house = House::new(2);
    let peer = house.connect_peer(0, "one");
    accept(&mut house, peer, "a", "x");
    let client = show(&mut house, 1, "x");
    house.turn(1);
    house.end(client, Ending::Failed);
    house.turn(1);
    house.settle();
    assert_eq!(house.told(peer), [""; 0]);
    house.check_empty(1);
    come_in(&mut house, 1, "x");
    assert_eq!(house.told(peer), ["token up a"]);
}

#[test]
fn tokens_outlive_their_peer_s_connection_and_the_broker() {
    let mut house = House::new(3);
    let peer = house.connect_peer(1, "one");
    accept(&mut house, peer, "a", "x");
    accept(&mut house, peer, "b", "y");
    let client = come_in(&mut house, 2, "x");
    house.told(peer);
    house.end(peer, Ending::Failed);
    house.settle();
    assert!(house.session(client).is_open());
    come_in(&mut house, 0, "y");
    // Whoever has the name has the tokens, and is told who is there.
    let peer = house.say_hello(0, super::super::super::testing::PEERS, "one", "");
    house.settle();
    assert_eq!(house.told(peer), ["welcome", "token up a", "token up b"]);
    let other = house.connect_peer(0, "two");
    assert_eq!(house.told(other), [""; 0]);

    let kept: Vec<_> = house.token_changes.drain(..).collect();
    let restore = |settings: &mut Settings| {
        settings.accepted = kept
            .iter()
            .map(|change| match change {
                TokenChange::Accepted(acceptance) => acceptance.clone(),
                TokenChange::Rejected { .. } => panic!("none was rejected"),
            })
            .collect();
    };
    let mut house = House::with(2, restore);
    let client = come_in(&mut house, 1, "y");
    let peer = house.say_hello(1, super::super::super::testing::PEERS, "one", "");
    house.settle();
    assert_eq!(house.told(peer), ["welcome", "token up b"]);
    assert_eq!(accept(&mut house, peer, "a", ""), ["done 1 x"]);
    assert_eq!(changes(&mut house), [""; 0], "it is there already");
    assert_eq!(reject(&mut house, peer, "b").len(), 3);
    assert_eq!(house.read(client), TERMINATED);
}

#[test]
fn the_list_is_bounded_and_waits_for_the_disk() {
    let mut tokens = Tokens::default();
    let key = [7; 32];
    let number = |count: usize| Bytes::from(count.to_string());
    let one = Bytes::from_static(b"one");
    for count in 0..ACCEPTED_PER_PEER_MAX {
        tokens.insert(one.clone(), number(count), number(count));
    }
    let full = tokens.accept(&one, &bytes("more"), None, &key);
    assert_eq!(full.unwrap_err().0, Code::Limit);
    assert!(tokens.accept(&one, &number(7), None, &key).is_ok());
    assert!(
        tokens
            .accept(&bytes("two"), &bytes("more"), None, &key)
            .is_ok()
    );

    let mut house = House::new(2);
    let peer = house.connect_peer(1, "one");
    accept(&mut house, peer, "a", "x");
    house.shards[0].hold_tokens(true);
    assert_eq!(accept(&mut house, peer, "b", ""), ["failed 1 busy"]);
    assert_eq!(reject(&mut house, peer, "a"), ["failed 2 busy"]);
    house.shards[0].hold_tokens(false);
    assert_eq!(accept(&mut house, peer, "b", "y"), ["done 1 y"]);
    assert_eq!(changes(&mut house), ["+one/a x", "+one/b y"]);
}

#[test]
fn where_only_links_can_come_an_id_means_nothing_before_a_token_is_accepted() {
    let mut house = House::with(3, |settings| {
        settings.listeners[4] = settings.listeners[5].clone()
    });
    let client = come_in(&mut house, 1, "x");
    assert_eq!(house.ask(client, r#"{"type":"ping"}"#).len(), 1);
    let link = house.connect_link(1, "one");
    // The answer waits until every shard knows.
    house.fill(0, 2);
    house.turn(0);
    assert_eq!(accept(&mut house, link, "a", "x"), [""; 0]);
    house.unfill(0, 2);
    house.settle();
    assert_eq!(house.told(link), ["done 1 x"]);
    for shard in 0..3 {
        let stranger = come_in(&mut house, shard, "y");
        assert_eq!(house.read(stranger), TERMINATED);
        come_in(&mut house, shard, "x");
        assert_eq!(house.told(link).last().unwrap(), "token up a");
    }
    // And it stays so.
    reject(&mut house, link, "a");
    let late = come_in(&mut house, 2, "x");
    assert_eq!(house.read(late), TERMINATED);
    assert!(house.session(client).is_open());
}

#[test]
fn an_id_does_not_tell_the_next() {
    let mut tokens = Tokens::default();
    let key = [7; 32];
    let ids: Vec<_> = (0..3).map(|_| tokens.make_id(&key)).collect();
    for id in &ids {
        assert!(
            id.len() == 40 && id.iter().all(u8::is_ascii_hexdigit),
            "{id:?}"
        );
    }
    assert!(ids[0] != ids[1] && ids[1] != ids[2]);
    assert_ne!(
        Tokens::default().make_id(&[8; 32]),
        ids[0],
        "another broker's"
    );
}
