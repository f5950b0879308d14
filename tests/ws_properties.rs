//! Properties of `pubsub::ws` over random input, with tungstenite as the other opinion.
//!
//! What a client can send is drawn as messages with a way to cut them into frames; the reader has to see the
//! same messages however the bytes are then cut into reads. Random bytes and broken frames may end in a
//! violation, never in a panic, and never hold more than the limit.

use std::io::{self, Cursor, Read, Write};
use std::net::SocketAddr;

use proptest::collection::vec;
use proptest::prelude::*;
use pubsub::address::RemoteAddress;
use pubsub::address::proxies::TrustedProxies;
use pubsub::ws::forwarded::Forwarded;
use pubsub::ws::fragment::{Incoming, Reader, ReaderLimits, Violation};
use pubsub::ws::frame::{Opcode, encode_header, header_size};
use pubsub::ws::handshake::{switching, upgrade};
use pubsub::ws::http::parse_head;
use pubsub::ws::origin::{self, OriginRules};
use pubsub::ws::{close, mask, proxy};
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame, FrameHeader};
use tungstenite::protocol::{Message, Role, WebSocket, WebSocketConfig};

const LIMITS: ReaderLimits = ReaderLimits {
    message_bytes_max: 4096,
};
const CONTROL_BYTES_MAX: usize = 125;
/// The ends of the ranges that RFC 3629 tells apart.
const TELLING_BYTES: &[u8] =
    b"\x00aZ\x7F\x80\x8F\x90\x9F\xA0\xBF\xC0\xC2\xDF\xE0\xED\xEF\xF0\xF4\xF5";

/// What a reader saw, owned.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Seen {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, Vec<u8>),
    Violation(Violation),
}

impl From<Incoming<'_>> for Seen {
    fn from(incoming: Incoming<'_>) -> Seen {
        match incoming {
            Incoming::Text(payload) => Seen::Text(payload.into()),
            Incoming::Binary(payload) => Seen::Binary(payload.into()),
            Incoming::Ping(payload) => Seen::Ping(payload.into()),
            Incoming::Pong(payload) => Seen::Pong(payload.into()),
            Incoming::Close(code, text) => Seen::Close(code, text.into()),
        }
    }
}

/// Reads `bytes` in pieces that end at these positions, up to a close or a violation.
fn read(bytes: &[u8], cuts: &[usize]) -> Vec<Seen> {
    let mut cuts: Vec<usize> = cuts.iter().map(|&cut| cut.min(bytes.len())).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    let mut reader = Reader::default();
    let mut seen = Vec::new();
    for range in cuts.windows(2) {
        let mut piece = bytes[range[0]..range[1]].to_vec();
        let mut rest = &mut piece[..];
        loop {
            let size = rest.len();
            match reader.next(LIMITS, rest) {
                Ok((taken, None)) => {
                    assert_eq!(taken, size);
                    break;
                }
                Ok((taken, Some(incoming))) => {
                    seen.push(Seen::from(incoming));
                    rest = &mut rest[taken..];
                    if let Some(Seen::Close(..)) = seen.last() {
                        return seen;
                    }
                }
                Err(violation) => {
                    seen.push(Seen::Violation(violation));
                    return seen;
                }
            }
        }
        assert!(reader.buffered_bytes() <= LIMITS.message_bytes_max + CONTROL_BYTES_MAX);
    }
    seen
}

fn client_frame(fin: bool, opcode: OpCode, payload: &[u8], key: [u8; 4], out: &mut Vec<u8>) {
    let header = FrameHeader {
        is_final: fin,
        opcode,
        mask: Some(key),
        ..FrameHeader::default()
    };
    let frame = Frame::from_payload(header, payload.to_vec().into());
    frame.format(out).expect("a Vec takes all");
}

/// A data message in fragments, each with a mask of its own and perhaps a ping before it.
#[derive(Clone, Debug)]
struct Sent {
    text: Option<String>,
    binary: Vec<u8>,
    cuts: Vec<prop::sample::Index>,
    keys: Vec<[u8; 4]>,
    ping: Option<Vec<u8>>,
}

impl Sent {
    fn payload(&self) -> &[u8] {
        self.text
            .as_ref()
            .map_or(&self.binary, |text| text.as_bytes())
    }

    fn encode(&self, out: &mut Vec<u8>, expected: &mut Vec<Seen>) {
        let payload = self.payload();
        let mut cuts: Vec<usize> = self
            .cuts
            .iter()
            .map(|cut| cut.index(payload.len() + 1))
            .collect();
        cuts.extend([0, payload.len()]);
        cuts.sort_unstable();
        let count = cuts.len() - 1;
        for (i, range) in cuts.windows(2).enumerate() {
            let key = self.keys[i % self.keys.len()];
            let opcode = match (i, &self.text) {
                (0, Some(_)) => OpCode::Data(Data::Text),
                (0, None) => OpCode::Data(Data::Binary),
                _ => OpCode::Data(Data::Continue),
            };
            client_frame(
                i + 1 == count,
                opcode,
                &payload[range[0]..range[1]],
                key,
                out,
            );
            if let Some(ping) = &self.ping
                && i == 0
            {
                client_frame(true, OpCode::Control(Control::Ping), ping, key, out);
                if count > 1 {
                    expected.push(Seen::Ping(ping.clone()));
                }
            }
        }
        expected.push(match &self.text {
            Some(text) => Seen::Text(text.clone().into_bytes()),
            None => Seen::Binary(self.binary.clone()),
        });
        if let Some(ping) = &self.ping
            && count == 1
        {
            expected.push(Seen::Ping(ping.clone()));
        }
    }
}

fn sent() -> impl Strategy<Value = Sent> {
    let text = prop_oneof![
        4 => "\\PC{0,40}".prop_map(Some),
        1 => "[a€😀é]{200,300}".prop_map(Some),
        3 => Just(None),
    ];
    let binary = prop_oneof![4 => vec(any::<u8>(), 0..40), 1 => vec(any::<u8>(), 100..1500)];
    let cuts = prop_oneof![2 => Just(vec![]), 1 => vec(any::<prop::sample::Index>(), 1..8)];
    let ping = prop::option::weighted(0.3, vec(any::<u8>(), 0..=CONTROL_BYTES_MAX));
    (text, binary, cuts, vec(any::<[u8; 4]>(), 1..4), ping).prop_map(
        |(text, binary, cuts, keys, ping)| Sent {
            text,
            binary,
            cuts,
            keys,
            ping,
        },
    )
}

/// A stream that gives what it was made of and keeps what it is told.
struct Memory {
    input: Cursor<Vec<u8>>,
    output: Vec<u8>,
}

impl Read for Memory {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.input.read(buffer)
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn tungstenite_with(role: Role, input: Vec<u8>) -> WebSocket<Memory> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(LIMITS.message_bytes_max))
        .max_frame_size(Some(LIMITS.message_bytes_max));
    let memory = Memory {
        input: Cursor::new(input),
        output: Vec::new(),
    };
    WebSocket::from_raw_socket(memory, role, Some(config))
}

/// What tungstenite, as a server, sees of these bytes: messages up to its first error, and whether that was the
/// end of the input.
fn tungstenite_reads(bytes: &[u8]) -> (Vec<Seen>, bool) {
    let mut server = tungstenite_with(Role::Server, bytes.to_vec());
    let mut seen = Vec::new();
    loop {
        seen.push(match server.read() {
            Ok(Message::Text(text)) => Seen::Text(text.as_bytes().into()),
            Ok(Message::Binary(payload)) => Seen::Binary(payload.into()),
            Ok(Message::Ping(payload)) => Seen::Ping(payload.into()),
            Ok(Message::Pong(payload)) => Seen::Pong(payload.into()),
            Ok(Message::Close(None)) => Seen::Close(None, vec![]),
            Ok(Message::Close(Some(frame))) => {
                Seen::Close(Some(frame.code.into()), frame.reason.as_bytes().into())
            }
            Ok(Message::Frame(_)) => unreachable!("tungstenite never reads raw frames"),
            Err(error) => {
                use tungstenite::error::ProtocolError::ResetWithoutClosingHandshake;
                let is_end = matches!(
                    error,
                    tungstenite::Error::Protocol(ResetWithoutClosingHandshake)
                        | tungstenite::Error::ConnectionClosed
                        | tungstenite::Error::Io(_)
                );
                return (seen, is_end);
            }
        });
        if let Some(Seen::Close(..)) = seen.last() {
            return (seen, true);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn messages_are_the_same_however_they_are_cut(
        messages in vec(sent(), 0..6),
        close in prop::option::of((3000..5000_u16, "\\PC{0,20}")),
        cuts in vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        for message in &messages {
            message.encode(&mut bytes, &mut expected);
        }
        if let Some((code, reason)) = &close {
            let payload = [&code.to_be_bytes()[..], reason.as_bytes()].concat();
            client_frame(true, OpCode::Control(Control::Close), &payload, [1, 2, 3, 4], &mut bytes);
            expected.push(Seen::Close(Some(*code), reason.clone().into_bytes()));
        }
        prop_assert_eq!(&read(&bytes, &[]), &expected);
        let cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        prop_assert_eq!(&read(&bytes, &cuts), &expected);
        let single: Vec<usize> = (0..bytes.len()).collect();
        prop_assert_eq!(&read(&bytes, &single), &expected);
        prop_assert_eq!(tungstenite_reads(&bytes), (expected, true));
    }

    #[test]
    fn damaged_messages_are_the_same_however_they_are_cut(
        messages in vec(sent(), 1..4),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cuts in vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let mut bytes = Vec::new();
        for message in &messages {
            message.encode(&mut bytes, &mut Vec::new());
        }
        for (place, value) in &damage {
            let place = place.index(bytes.len());
            bytes[place] = *value;
        }
        let whole = read(&bytes, &[]);
        let cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        prop_assert_eq!(&read(&bytes, &cuts), &whole);
        let single: Vec<usize> = (0..bytes.len()).collect();
        prop_assert_eq!(&read(&bytes, &single), &whole);

        // tungstenite is laxer (sizes not in their shortest form, text only checked at its end) and sees, at
        // least, what came before the violation.
        let (other, is_end) = tungstenite_reads(&bytes);
        match whole.split_last() {
            Some((Seen::Violation(_), before)) => prop_assert!(other.starts_with(before)),
            _ => {
                prop_assert_eq!(other, whole);
                prop_assert!(is_end);
            }
        }
    }

    #[test]
    fn garbage_neither_panics_nor_grows(
        pieces in vec(vec(any::<u8>(), 0..300), 0..8),
        plausible in any::<bool>(),
    ) {
        let mut reader = Reader::default();
        for (i, piece) in pieces.into_iter().enumerate() {
            let mut piece = piece;
            if plausible && piece.len() > 1 {
                // A first byte without reserved bits, and a mask: the first two hurdles of random bytes.
                piece[0] &= 0x8A;
                piece[1] |= 0x80;
            }
            let mut rest = &mut piece[..];
            // A violation should end the connection; going on shows that nothing else depends on that.
            while let Ok((taken, Some(_))) = reader.next(LIMITS, rest) {
                rest = &mut rest[taken..];
            }
            let held_max = LIMITS.message_bytes_max + CONTROL_BYTES_MAX;
            prop_assert!(reader.buffered_bytes() <= held_max, "after piece {}", i);
        }
    }

    #[test]
    fn the_join_of_fragments_is_checked_like_the_whole(
        text in prop_oneof![
            vec(any::<u8>(), 0..12),
            vec(prop::sample::select(TELLING_BYTES), 0..8),
        ],
        cuts in vec(any::<prop::sample::Index>(), 0..6),
        reads in vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let sent = Sent { text: None, binary: text.clone(), cuts, keys: vec![[9, 8, 7, 6]], ping: None };
        let mut bytes = Vec::new();
        sent.encode(&mut bytes, &mut Vec::new());
        bytes[0] = bytes[0] & 0x80 | 1;
        let reads: Vec<usize> = reads.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        let seen = read(&bytes, &reads);
        match std::str::from_utf8(&text) {
            Ok(_) => prop_assert_eq!(seen, [Seen::Text(text)]),
            Err(_) => match &seen[..] {
                [Seen::Violation(violation)] => prop_assert_eq!(violation.reason.code(), Some(1007)),
                other => prop_assert!(false, "{other:?}"),
            },
        }
    }

    #[test]
    fn tungstenite_reads_what_the_server_writes(
        payloads in vec((vec(any::<u8>(), 0..300), any::<bool>()), 0..6),
        code in 3000..5000_u16,
        reason in "\\PC{0,80}",
    ) {
        let mut bytes = Vec::new();
        for (payload, is_ping) in &payloads {
            let is_ping = *is_ping && payload.len() <= CONTROL_BYTES_MAX;
            let opcode = if is_ping { Opcode::Ping } else { Opcode::Binary };
            let before = bytes.len();
            encode_header(opcode, payload.len(), &mut bytes);
            prop_assert_eq!(bytes.len() - before, header_size(payload.len()));
            bytes.extend_from_slice(payload);
        }
        close::encode(Some(code), reason.as_bytes(), &mut bytes);

        let mut client = tungstenite_with(Role::Client, bytes);
        for (payload, is_ping) in payloads {
            let is_ping = is_ping && payload.len() <= CONTROL_BYTES_MAX;
            let expected =
                if is_ping { Message::Ping(payload.into()) } else { Message::Binary(payload.into()) };
            prop_assert_eq!(client.read().expect("a message"), expected);
        }
        match client.read() {
            Ok(Message::Close(Some(CloseFrame { code: seen, reason: text }))) => {
                prop_assert_eq!(u16::from(seen), code);
                prop_assert!(reason.starts_with(&text[..]));
                prop_assert!(text.len() + 4 > reason.len().min(close::TEXT_BYTES_MAX));
            }
            other => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn the_reader_reads_what_tungstenite_writes(
        messages in vec(prop_oneof![
            "\\PC{0,100}".prop_map(Message::text),
            vec(any::<u8>(), 0..2000).prop_map(Message::binary),
            vec(any::<u8>(), 0..=CONTROL_BYTES_MAX).prop_map(|p| Message::Ping(p.into())),
            vec(any::<u8>(), 0..=CONTROL_BYTES_MAX).prop_map(|p| Message::Pong(p.into())),
        ], 0..6),
        cuts in vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let mut client = tungstenite_with(Role::Client, vec![]);
        for message in &messages {
            client.send(message.clone()).expect("memory takes all");
        }
        client.close(None).expect("memory takes all");
        let expected: Vec<Seen> = messages
            .into_iter()
            .map(|message| match message {
                Message::Text(text) => Seen::Text(text.as_bytes().into()),
                Message::Binary(payload) => Seen::Binary(payload.into()),
                Message::Ping(payload) => Seen::Ping(payload.into()),
                Message::Pong(payload) => Seen::Pong(payload.into()),
                Message::Close(_) | Message::Frame(_) => unreachable!("none was drawn"),
            })
            .chain([Seen::Close(None, vec![])])
            .collect();
        let bytes = &client.get_ref().output;
        let cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        prop_assert_eq!(read(bytes, &cuts), expected);
    }

    #[test]
    fn unmasking_is_its_own_inverse(
        mut payload in vec(any::<u8>(), 0..200),
        key in any::<[u8; 4]>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let original = payload.clone();
        let cut = cut.index(payload.len() + 1);
        mask::unmask(&mut payload, key, 0);
        for (i, byte) in payload.iter().enumerate() {
            prop_assert_eq!(*byte, original[i] ^ key[i % 4]);
        }
        let (left, right) = payload.split_at_mut(cut);
        mask::unmask(left, key, 0);
        mask::unmask(right, key, cut);
        prop_assert_eq!(payload, original);
    }

    #[test]
    fn a_head_never_panics_and_only_gets_worse_or_done(
        lines in vec(prop_oneof![
            "\\PC{0,30}".boxed(),
            "(Host|Origin|Upgrade|Connection|Sec-WebSocket-(Key|Version|Protocol)): [ -~]{0,30}".boxed(),
            "Origin: [a-z]{0,5}://[\\[\\]a-z:.@0-9/]{0,12}".boxed(),
            Just("Upgrade: websocket".to_owned()).boxed(),
        ], 0..8),
        end in prop_oneof![3 => Just("\r\n"), 1 => Just("\n")],
        target in "/[!-~]{0,20}",
    ) {
        let mut bytes = format!("GET {target} HTTP/1.1\r\n").into_bytes();
        for line in &lines {
            bytes.extend_from_slice(line.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(end.as_bytes());
        let whole = parse_head(&bytes, 8192, 64);
        if let Ok(Some(request)) = &whole {
            prop_assert!(request.head_size <= bytes.len());
            let rules = OriginRules::new(&["https://a.example".to_owned()], true).expect("an origin");
            if let Err(sentence) = origin::check(&rules, request, &Forwarded::default()) {
                prop_assert!(sentence.len() < 1000 && !sentence.contains(['\r', '\n']));
            }
            if let Ok(Some(upgrade)) = upgrade(request) {
                let mut out = Vec::new();
                let chosen = upgrade.subprotocols.first().map(|name| &name[..]);
                switching(&upgrade, chosen, &mut out);
                prop_assert!(out.ends_with(b"\r\n\r\n"));
            }
        }
        for size in 0..bytes.len() {
            match parse_head(&bytes[..size], 8192, 64) {
                Ok(None) => {}
                Ok(Some(request)) => prop_assert!(request.head_size <= size),
                Err(_) => prop_assert!(whole.is_err(), "refused at {size}, passed whole"),
            }
        }
    }

    #[test]
    fn random_bytes_are_no_head(bytes in vec(any::<u8>(), 0..200)) {
        if let Ok(Some(request)) = parse_head(&bytes, 100, 4) {
            prop_assert!(request.head_size <= 100 && request.headers.len() <= 4);
        }
    }
}

/// An entry of X-Forwarded-For: of a proxy (10.0.0.0/8), of somebody else, or no address.
fn entry() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => any::<[u8; 3]>().prop_map(|[a, b, c]| format!("10.{a}.{b}.{c}")),
        2 => any::<[u8; 3]>().prop_map(|[a, b, c]| format!("192.{a}.{b}.{c}")),
        1 => any::<u16>().prop_map(|host| format!("[2001:db8::{host:x}]:{host}")),
        1 => Just("unknown".to_owned()),
        1 => Just(String::new()),
    ]
}

proptest! {
    #[test]
    fn the_client_is_who_a_naive_walk_finds(
        lines in vec(vec(entry(), 0..6), 0..4),
        is_trusted in any::<bool>(),
    ) {
        let peer = if is_trusted { "10.0.0.1:1" } else { "192.0.2.1:1" };
        let peer = RemoteAddress::at(peer.parse().expect("an address"));
        let mut head = "GET / HTTP/1.1\r\n".to_owned();
        for line in &lines {
            head += &format!("X-Forwarded-For: {}\r\n", line.join(", "));
        }
        head += "\r\n";
        let request = parse_head(head.as_bytes(), 8192, 64).expect("good").expect("complete");
        let trusted = TrustedProxies::read(["10.0.0.0/8"]).expect("a network");
        let found = Forwarded::read(&trusted, &peer, &request).client;
        // From the last entry back: proxies, then the first other one, or the last proxy before a word.
        let mut expected = None;
        for entry in lines.iter().flatten().rev().filter(|entry| !entry.is_empty()) {
            if entry == "unknown" {
                break;
            }
            expected = Some(entry);
            if !entry.starts_with("10.") {
                break;
            }
        }
        let expected = expected.filter(|_| is_trusted).map(|entry| {
            let with_port = if entry.contains(':') { entry.clone() } else { format!("{entry}:0") };
            with_port.parse::<SocketAddr>().expect("an address")
        });
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn a_proxy_header_is_the_same_however_it_is_cut(
        fixed in prop_oneof![
            Just([0x21, 0x11]), Just([0x21, 0x21]), Just([0x21, 0x31]), Just([0x20, 0x00]), any::<[u8; 2]>(),
        ],
        declared in prop_oneof![0..300_u16, any::<u16>()],
        rest in vec(any::<u8>(), 0..600),
    ) {
        let size = declared.to_be_bytes();
        let bytes = [&proxy::SIGNATURE[..], &fixed, &size, &rest].concat();
        let whole = proxy::parse(&bytes);
        for cut in 0..bytes.len() {
            match proxy::parse(&bytes[..cut]) {
                Ok(None) => {}
                part => prop_assert_eq!(part, whole, "cut at {}", cut),
            }
        }
        if let Ok(Some((size, _))) = whole {
            prop_assert_eq!(size, 16 + usize::from(declared));
            prop_assert!(size <= bytes.len().min(proxy::HEADER_BYTES_MAX));
            prop_assert_eq!(proxy::parse(&bytes[..size - 1]), Ok(None));
        }
    }
}

#[test]
fn tungstenite_as_a_client_accepts_the_handshake() {
    use tungstenite::client::IntoClientRequest;
    use tungstenite::handshake::client::generate_request;

    let mut request = "ws://localhost:8000/chat?x=1"
        .into_client_request()
        .expect("a request");
    let offer = "mqtt, rp.v1.json".parse().expect("a header value");
    request
        .headers_mut()
        .insert("Sec-WebSocket-Protocol", offer);
    let (head, key) = generate_request(request).expect("a head");
    let request = parse_head(&head, 8192, 64)
        .expect("good")
        .expect("complete");
    assert_eq!((request.path, request.query), ("/chat", Some("x=1")));
    let rules = OriginRules::new(&[], true).expect("no origins");
    assert_eq!(
        origin::check(&rules, &request, &Forwarded::default()),
        Ok(())
    );
    let upgrade = upgrade(&request).expect("well asked").expect("an upgrade");
    assert_eq!(
        upgrade.accept,
        tungstenite::handshake::derive_accept_key(key.as_bytes())
    );
    assert_eq!(upgrade.subprotocols, ["mqtt", "rp.v1.json"]);
}
