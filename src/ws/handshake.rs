//! The opening handshake (RFC 6455, 4.2). (stub)
use super::http::{Reject, Request};

/// A request that asks for WebSocket correctly.
#[derive(Clone, Debug)]
pub struct Upgrade {
    /// the value of Sec-WebSocket-Accept
    pub accept: String,
}

/// Ok(None): plain HTTP (no Upgrade: websocket asked). Err: asked wrongly: 400, 405, 426 with Sec-WebSocket-Version: 13.
pub fn upgrade(_request: &Request<'_>) -> Result<Option<Upgrade>, Reject> {
    todo!()
}

/// The 101 response.
pub fn switching(_upgrade: &Upgrade, _subprotocol: Option<&str>, _out: &mut Vec<u8>) {
    todo!()
}
