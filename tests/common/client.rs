//! A client of native JSON on tungstenite: somebody else's WebSocket, so that both sides are not wrong alike.

use std::collections::VecDeque;
use std::io;
use std::net::TcpStream;

use serde_json::{Value, json};
use tungstenite::client::{IntoClientRequest, client_with_config};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Error, Message, WebSocket};

use super::{Broker, DEADLINE};

/// How a connection ended, as its client sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// A close frame with this code.
    Code(u16),
    /// A close frame without a code (1005).
    NoCode,
    /// No close frame (1006).
    Lost,
}

/// A connected client. Deliveries and gaps that come while an answer is waited for are kept for
/// [`Client::delivery`].
pub struct Client {
    socket: WebSocket<TcpStream>,
    kept: VecDeque<String>,
    commands: u64,
}

impl Client {
    /// To the first listener.
    pub fn connect(broker: &Broker) -> Client {
        Client::connect_to(broker.listen(), "/")
    }

    /// To an address and path.
    pub fn connect_to(address: &str, path: &str) -> Client {
        let stream = TcpStream::connect(address)
            .unwrap_or_else(|error| panic!("connect {address}: {error}"));
        Client::over(stream, address, path)
    }

    /// A client whose socket takes little before its sender has to wait: for those that will not read.
    pub fn connect_narrow(broker: &Broker) -> Client {
        let address = broker.listen();
        Client::over(super::raw::connect_narrow(address), address, "/")
    }

    /// Over a connection that is already there.
    pub fn over(stream: TcpStream, address: &str, path: &str) -> Client {
        Client::try_over(stream, address, path)
            .unwrap_or_else(|error| panic!("handshake with {address}{path}: {error}"))
    }

    /// Over a connection that is already there, which may be refused.
    pub fn try_over(stream: TcpStream, address: &str, path: &str) -> Result<Client, String> {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        let request = format!("ws://{address}{path}")
            .into_client_request()
            .map_err(|error| error.to_string())?;
        let config = WebSocketConfig::default()
            .max_message_size(None)
            .max_frame_size(None);
        let (socket, _) =
            client_with_config(request, stream, Some(config)).map_err(|error| error.to_string())?;
        Ok(Client {
            socket,
            kept: VecDeque::new(),
            commands: 0,
        })
    }

    /// The socket below.
    pub fn stream(&self) -> &TcpStream {
        self.socket.get_ref()
    }

    /// Sends a text as it is.
    pub fn send(&mut self, text: impl Into<String>) {
        let text = text.into();
        if let Err(end) = self.try_send(text.clone()) {
            panic!("cannot send {text:.200}: {end:?}");
        }
    }

    /// Sends a text as it is, if the connection is still there.
    pub fn try_send(&mut self, text: impl Into<String>) -> Result<(), End> {
        match self.socket.send(Message::text(text.into())) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.ended(error, "to send")),
        }
    }

    /// Sends a JSON value.
    pub fn send_json(&mut self, value: &Value) {
        self.send(value.to_string());
    }

    /// Sends a binary message.
    pub fn send_binary(&mut self, bytes: &[u8]) {
        self.socket
            .send(Message::binary(bytes.to_vec()))
            .expect("a binary message can be sent");
    }

    /// Starts the closing handshake.
    pub fn close(&mut self) {
        let _ = self.socket.close(None);
        let _ = self.socket.flush();
    }

    /// The next text as it came, past what is kept.
    pub fn next_text(&mut self) -> String {
        match self.try_next_text() {
            Ok(text) => text,
            Err(end) => panic!("the connection ended ({end:?}) where a text was waited for"),
        }
    }

    /// The next text as it came, or the end of the connection.
    pub fn try_next_text(&mut self) -> Result<String, End> {
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => return Ok(text.as_str().to_owned()),
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                Ok(Message::Close(frame)) => {
                    // tungstenite has queued the echo; it goes out with the next write.
                    let _ = self.socket.flush();
                    return Err(match frame.map(|frame| frame.code) {
                        None | Some(CloseCode::Status) => End::NoCode,
                        Some(code) => End::Code(code.into()),
                    });
                }
                Ok(other) => panic!("neither text nor control: {other:?}"),
                Err(error) => return Err(self.ended(error, "a text")),
            }
        }
    }

    /// A timeout fails the test; every other error is an end.
    fn ended(&self, error: Error, what: &str) -> End {
        match error {
            Error::Io(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ) =>
            {
                panic!(
                    "waited {DEADLINE:?} for {what}; kept so far: {:?}",
                    self.kept
                )
            }
            _ => End::Lost,
        }
    }

    /// The next text as JSON, past what is kept.
    pub fn next_json(&mut self) -> Value {
        parse(&self.next_text())
    }

    /// The next answer; deliveries and gaps before it are kept.
    pub fn answer_text(&mut self) -> String {
        loop {
            let text = self.next_text();
            match parse(&text)["type"].as_str() {
                Some("publish" | "gap") => self.kept.push_back(text),
                _ => return text,
            }
        }
    }

    /// The next answer as JSON; deliveries and gaps before it are kept.
    pub fn answer(&mut self) -> Value {
        parse(&self.answer_text())
    }

    /// The next delivery (or gap) as it came.
    pub fn delivery_text(&mut self) -> String {
        if let Some(text) = self.kept.pop_front() {
            return text;
        }
        let text = self.next_text();
        let kind = parse(&text);
        assert!(
            matches!(kind["type"].as_str(), Some("publish" | "gap")),
            "waited for a delivery, got {text}"
        );
        text
    }

    /// The next delivery (or gap).
    pub fn delivery(&mut self) -> Value {
        parse(&self.delivery_text())
    }

    /// Takes what has been kept.
    pub fn take_kept(&mut self) -> Vec<Value> {
        self.kept.drain(..).map(|text| parse(&text)).collect()
    }

    /// Subscribes and waits for the ack.
    pub fn subscribe(&mut self, filter: &str) {
        self.command(json!({"type": "subscribe", "topic": filter}));
    }

    /// Unsubscribes and waits for the ack.
    pub fn unsubscribe(&mut self, filter: &str) {
        self.command(json!({"type": "unsubscribe", "topic": filter}));
    }

    /// Publishes and waits for the ack.
    pub fn publish(&mut self, topic: &str, message: Value) {
        self.command(json!({"type": "publish", "topic": topic, "message": message}));
    }

    /// Handles a service and waits for the ack.
    pub fn handle(&mut self, event: &str) {
        self.command(json!({"type": "handle", "event": event}));
    }

    /// Sends a command with an id of its own and waits for its ack.
    pub fn command(&mut self, command: Value) -> Value {
        let action = command["type"].clone();
        let (id, answer) = self.ask(command);
        assert_eq!(
            (&answer["type"], &answer["action"], &answer["id"]),
            (&json!("ack"), &action, &id),
            "{answer}"
        );
        answer
    }

    /// Sends a command with an id of its own and waits for its refusal; gives the code.
    pub fn refused(&mut self, command: Value) -> String {
        let (id, answer) = self.ask(command);
        assert_eq!(
            (&answer["type"], &answer["id"]),
            (&json!("error"), &id),
            "{answer}"
        );
        assert!(
            answer["reason"]
                .as_str()
                .is_some_and(|reason| !reason.is_empty()),
            "{answer}"
        );
        answer["code"].as_str().expect("a code").to_owned()
    }

    /// Requests and waits for the reply; gives it without its id.
    pub fn request(&mut self, mut request: Value) -> Value {
        request["type"] = json!("request");
        let (id, mut answer) = self.ask(request);
        assert_eq!(
            (&answer["type"], &answer["id"]),
            (&json!("reply"), &id),
            "{answer}"
        );
        answer.as_object_mut().expect("an object").remove("id");
        answer
    }

    fn ask(&mut self, mut command: Value) -> (Value, Value) {
        self.commands += 1;
        let id = json!(format!("c{}", self.commands));
        command["id"] = id.clone();
        self.send_json(&command);
        (id, self.answer())
    }

    /// The id of this session.
    pub fn whoami(&mut self) -> String {
        self.send(r#"{"type":"whoami"}"#);
        let answer = self.answer();
        assert_eq!(answer["type"], "session", "{answer}");
        answer["session"].as_str().expect("a session id").to_owned()
    }

    /// After this, whatever was published and acked before is kept: the ack of an `unsubscribe` is a barrier,
    /// also for a filter that was never subscribed to.
    pub fn settle(&mut self) {
        self.unsubscribe("barrier.of.this.test");
    }

    /// Everything that was published and acked before has been taken: nothing else is due.
    pub fn expect_nothing(&mut self) {
        self.settle();
        assert_eq!(self.take_kept(), Vec::<Value>::new(), "nothing was due");
    }

    /// Reads to the end of the connection; gives the texts on the way and how it ended.
    pub fn read_to_end(&mut self) -> (Vec<String>, End) {
        let mut texts: Vec<String> = self.kept.drain(..).collect();
        loop {
            match self.try_next_text() {
                Ok(text) => texts.push(text),
                Err(end) => return (texts, end),
            }
        }
    }

    /// The connection ends with this code, after any texts.
    pub fn expect_close(&mut self, code: u16) {
        let (texts, end) = self.read_to_end();
        assert_eq!(end, End::Code(code), "after {texts:?}");
    }
}

/// A text of the broker is one JSON object.
pub fn parse(text: &str) -> Value {
    let value: Value =
        serde_json::from_str(text).unwrap_or_else(|error| panic!("not JSON ({error}): {text}"));
    assert!(value.is_object(), "not an object: {text}");
    value
}

/// Clients by the shard that they live on, `count` on each of `shards`. The kernel spreads connections by a
/// hash, so this connects until every shard has its share, and lets go of what is over.
pub fn clients_by_shard(broker: &Broker, shards: usize, count: usize) -> Vec<Vec<Client>> {
    let mut groups: Vec<Vec<Client>> = (0..shards).map(|_| Vec::new()).collect();
    // Those that are over stay connected until all is found, or they would be drawn again and again.
    let mut spare = Vec::new();
    for _ in 0..64 * shards * count {
        let mut client = Client::connect(broker);
        let shard = broker.shard_of(&client.whoami());
        assert!(shard < shards, "shard {shard} of {shards}");
        if groups[shard].len() < count {
            groups[shard].push(client);
        } else {
            spare.push(client);
        }
        if groups.iter().all(|group| group.len() == count) {
            return groups;
        }
    }
    let sizes: Vec<usize> = groups.iter().map(Vec::len).collect();
    panic!(
        "{} connections, but only {sizes:?} on the shards",
        64 * shards * count
    );
}

/// Two clients that live on different shards.
pub fn pair_on_two_shards(broker: &Broker) -> (Client, Client) {
    let mut clients = clients_by_shard(broker, 2, 1).into_iter().flatten();
    (
        clients.next().expect("shard 0"),
        clients.next().expect("shard 1"),
    )
}
