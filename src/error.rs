//! Why something was refused or ended: one table each, with numbers and words that never change meaning.

use std::fmt;

/// The code of an error object or of a refused acknowledgement (`protocol::native`, section "errors").
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Code {
    /// Nobody handles this event, or the named peer or client is not here.
    NoHandler,
    /// The answer did not come in time.
    Timeout,
    /// The text is not a JSON object, or too deep.
    BadJson,
    /// No such command, or a field of the wrong type.
    BadType,
    /// Not a valid topic or filter.
    BadTopic,
    /// Larger than the limit.
    TooLarge,
    /// One more than a connection may have.
    Limit,
    /// The rights do not cover this.
    NotAllowed,
    /// A queue on the way is full.
    Busy,
}

impl Code {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::NoHandler => "no_handler",
            Code::Timeout => "timeout",
            Code::BadJson => "bad_json",
            Code::BadType => "bad_type",
            Code::BadTopic => "bad_topic",
            Code::TooLarge => "too_large",
            Code::Limit => "limit",
            Code::NotAllowed => "not_allowed",
            Code::Busy => "busy",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why the broker ended a session. The number is the WebSocket close code (RFC 6455, 7.4); 4000 and above are
/// ours. Numbers retire; they are never used again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CloseReason {
    /// The client closed, orderly.
    ClientClosed,
    /// The connection was gone without a close frame.
    ConnectionLost,
    /// The broker is going away (drain).
    GoingAway,
    /// The bytes broke RFC 6455.
    ProtocolError,
    /// A binary message where only text is spoken.
    Unsupported,
    /// Text that is not UTF-8, or too many bad texts.
    BadPayload,
    /// The handshake was refused with an HTTP status.
    HandshakeRefused,
    /// The handshake, or a fragmented message, took too long.
    TooLate,
    /// A message above the size limit.
    TooBig,
    /// A bug of ours, met while serving this connection.
    Internal,
    /// The reader was slower than its publishers for too long.
    TooSlow,
    /// No sign of life.
    PingTimeout,
    /// The token that the client came in with has expired.
    TokenExpired,
    /// The application server that the client was given to has gone.
    HostGone,
    /// An application server closed it, with a code of its own.
    Disconnected,
    /// Somebody who may has ended it: the peer that had accepted it, or a newer connection took its place.
    Terminated,
}

impl CloseReason {
    /// Every reason, for tables and metrics.
    pub const ALL: [CloseReason; 16] = [
        CloseReason::ClientClosed,
        CloseReason::ConnectionLost,
        CloseReason::GoingAway,
        CloseReason::ProtocolError,
        CloseReason::Unsupported,
        CloseReason::BadPayload,
        CloseReason::HandshakeRefused,
        CloseReason::TooLate,
        CloseReason::TooBig,
        CloseReason::Internal,
        CloseReason::TooSlow,
        CloseReason::PingTimeout,
        CloseReason::TokenExpired,
        CloseReason::HostGone,
        CloseReason::Disconnected,
        CloseReason::Terminated,
    ];

    /// The WebSocket close code, where one is sent.
    pub fn code(self) -> Option<u16> {
        match self {
            CloseReason::ClientClosed
            | CloseReason::ConnectionLost
            | CloseReason::HandshakeRefused
            | CloseReason::Disconnected => None,
            CloseReason::GoingAway => Some(1001),
            CloseReason::ProtocolError => Some(1002),
            CloseReason::Unsupported => Some(1003),
            CloseReason::BadPayload => Some(1007),
            CloseReason::TooLate => Some(1008),
            CloseReason::TooBig => Some(1009),
            CloseReason::Internal => Some(1011),
            CloseReason::HostGone => Some(1012),
            CloseReason::TooSlow => Some(4008),
            CloseReason::PingTimeout => Some(4009),
            CloseReason::TokenExpired => Some(4010),
            CloseReason::Terminated => Some(4001),
        }
    }

    /// The label in `/metrics`, and the text in the close frame.
    pub fn as_str(self) -> &'static str {
        match self {
            CloseReason::ClientClosed => "client closed",
            CloseReason::ConnectionLost => "connection lost",
            CloseReason::GoingAway => "going away",
            CloseReason::ProtocolError => "protocol error",
            CloseReason::Unsupported => "unsupported data",
            CloseReason::BadPayload => "bad payload",
            CloseReason::HandshakeRefused => "handshake refused",
            CloseReason::TooLate => "too late",
            CloseReason::TooBig => "message too big",
            CloseReason::Internal => "internal error",
            CloseReason::TooSlow => "too slow",
            CloseReason::PingTimeout => "ping timeout",
            CloseReason::TokenExpired => "token expired",
            CloseReason::HostGone => "service restart",
            CloseReason::Disconnected => "disconnected",
            CloseReason::Terminated => "forced disconnection",
        }
    }

    /// Should a client that lost its session for this reason come back by itself?
    pub fn reconnect(self) -> bool {
        match self {
            CloseReason::ConnectionLost
            | CloseReason::GoingAway
            | CloseReason::TooLate
            | CloseReason::Internal
            | CloseReason::TooSlow
            | CloseReason::PingTimeout
            | CloseReason::HostGone
            // With a new token.
            | CloseReason::TokenExpired => true,
            CloseReason::ClientClosed
            | CloseReason::ProtocolError
            | CloseReason::Unsupported
            | CloseReason::BadPayload
            | CloseReason::HandshakeRefused
            | CloseReason::Disconnected
            | CloseReason::TooBig
            | CloseReason::Terminated => false,
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
