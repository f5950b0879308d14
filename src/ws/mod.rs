//! RFC 6455. (stub: signatures to keep)
pub mod close;
pub mod fragment;
pub mod frame;
pub mod handshake;
pub mod http;
pub mod mask;
pub mod origin;
