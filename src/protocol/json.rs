//! JSON, checked without building it. (stub)

/// Not JSON.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JsonError {
    pub at: usize,
    pub reason: &'static str,
}

/// One whole JSON text of depth <= JSON_DEPTH_MAX (RFC 8259), UTF-8 included.
pub fn validate(_text: &[u8]) -> Result<(), JsonError> {
    todo!()
}

/// Appends `text` (UTF-8; invalid parts become U+FFFD) as a JSON string with quotes.
pub fn write_string(_text: &[u8], _out: &mut Vec<u8>) {
    todo!()
}
