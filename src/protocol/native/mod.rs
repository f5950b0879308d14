//! Native JSON (DESIGN 5.3): one JSON object per WebSocket text message, a superset of what dwsps speaks.
//!
//! Knows no session, no right and no frame. The payload of a message is checked and passed on as the bytes that
//! came; only the members of the outermost object have a meaning here.
//!
//! Invariant: a text is either a [`Command`](super::Command) that follows every rule of its kind, or a
//! [`Refusal`](super::Refusal); nothing that a client writes panics, recurses or is rebuilt, the few publishes
//! apart whose object has members to take out.

mod decode;
mod delivery;
mod encode;
mod envelope;
mod fields;
pub(super) mod payload;
mod stamp;

pub use decode::decode;
pub use delivery::{delivery_size, encode_delivery};
pub use encode::encode;
pub use stamp::Stamp;

/// The largest `id`, in bytes as written: it comes back in an answer that nobody may make large for free.
pub const ID_BYTES_MAX: usize = 1024;
