//! Who is spoken to in RESP: a broker of the test's own, or the server that `E2E_RESP` names, such as a real Redis.
//! What the tests ask of the one holds for the other as well.

use std::process::Command;

use super::Broker;

/// A server that speaks RESP.
pub struct RespServer {
    /// Ends with this.
    _broker: Option<Broker>,
    address: String,
}

impl RespServer {
    /// A broker with these further arguments, or the server that is named.
    pub fn start(arguments: &[&str]) -> RespServer {
        match std::env::var("E2E_RESP") {
            Ok(address) => RespServer {
                _broker: None,
                address,
            },
            Err(_) => RespServer::of(start_broker("127.0.0.1:0", arguments)),
        }
    }

    /// What this broker speaks.
    pub fn of(broker: Broker) -> RespServer {
        RespServer {
            address: broker.resp().to_owned(),
            _broker: Some(broker),
        }
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A program of `redis-tools`, told where the server is.
    pub fn tool(&self, program: &str) -> Command {
        let (host, port) = self.address.rsplit_once(':').expect("HOST:PORT");
        let mut command = Command::new(program);
        let host = host.trim_matches(['[', ']']);
        command.args(["-h", host, "-p", port]);
        command
    }
}

/// A broker that speaks RESP at this address.
pub fn start_broker(resp: &str, arguments: &[&str]) -> Broker {
    let resp = ["--resp", resp];
    Broker::start(&[&resp, arguments].concat())
}
