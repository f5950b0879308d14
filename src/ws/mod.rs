//! The server side of WebSocket (RFC 6455) and the little HTTP that opens it, as pure functions over bytes.
//!
//! In the order in which a connection meets them: [`proxy`] reads the header of a proxy before it, [`http`] the request
//! head, [`forwarded`] what proxies say in that, [`origin`] decides whether a browser page may speak to this broker,
//! [`handshake`] checks the upgrade and writes the 101, [`fragment`] turns the bytes that follow into messages with the
//! help of [`frame`] (headers) and [`mask`], and [`close`] ends it.
//!
//! Nothing here knows a socket, a clock, or what a message means. Invariants: no input panics, no allocation
//! follows a declared size instead of bytes that came, and the result never depends on how the bytes were cut.

pub mod close;
pub mod forwarded;
pub mod fragment;
pub mod frame;
pub mod handshake;
pub mod http;
pub mod mask;
pub mod origin;
pub mod proxy;
