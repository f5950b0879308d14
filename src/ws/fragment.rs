//! The reader of one connection: from bytes to messages. (stub)
use crate::error::CloseReason;

/// What came.
#[derive(PartialEq, Eq, Debug)]
pub enum Incoming<'a> {
    /// A whole text message, valid UTF-8.
    Text(&'a [u8]),
    Binary(&'a [u8]),
    Ping(&'a [u8]),
    Pong(&'a [u8]),
    /// code and reason text as received, both checked
    Close(Option<u16>, &'a [u8]),
}

/// Limits of a reader.
#[derive(Clone, Copy, Debug)]
pub struct ReaderLimits {
    pub message_bytes_max: usize,
}

/// Reads the frames of one client. Idle and between messages it holds no heap memory.
#[derive(Debug, Default)]
pub struct Reader {}

impl Reader {
    /// Takes from the front of `input` (unmasking in place) and says how many bytes it took and what they
    /// completed. `(n, None)`: all n = input.len() bytes were taken, more is needed. `(n, Some(..))`: call again with the rest.
    pub fn next<'a>(
        &'a mut self,
        _limits: ReaderLimits,
        _input: &'a mut [u8],
    ) -> Result<(usize, Option<Incoming<'a>>), Violation> {
        todo!()
    }
    /// Has a data message begun (first byte of its first frame seen) that is not complete?
    pub fn is_in_message(&self) -> bool {
        todo!()
    }
    /// Bytes held for an incomplete frame or message.
    pub fn buffered_bytes(&self) -> usize {
        todo!()
    }
}

/// Bytes against the RFC: the connection ends with this code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Violation {
    /// ProtocolError 1002, BadPayload 1007, TooBig 1009
    pub reason: CloseReason,
    pub detail: &'static str,
}
