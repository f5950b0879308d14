//! Frames (RFC 6455, 5). (stub)

/// Opcodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

/// The longest header of an unmasked frame.
pub const SERVER_HEADER_BYTES_MAX: usize = 10;

/// The header of an unmasked, final frame.
pub fn encode_header(_opcode: Opcode, _payload_size: usize, _out: &mut Vec<u8>) {
    todo!()
}
pub fn header_size(_payload_size: usize) -> usize {
    todo!()
}
