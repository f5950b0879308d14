//! Close codes and close frames (RFC 6455, 7.4). (stub)

/// May this code be on the wire from a client?
pub fn is_valid_code(_code: u16) -> bool {
    todo!()
}

/// A whole unmasked close frame. None: empty payload. The text is cut at 123 bytes on a char boundary.
pub fn encode(_code: Option<u16>, _text: &[u8], _out: &mut Vec<u8>) {
    todo!()
}
