//! A request that is not done, and the answer that says so: `{"error":{"code":..,"reason":..}}`.

use std::borrow::Cow;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::ask::NoAnswer;
use super::body::BodyError;
use crate::error::Code;

/// Why a request is refused. The codes are those of the error objects where one fits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    status: StatusCode,
    code: &'static str,
    reason: Cow<'static, str>,
    retry_after_s: Option<u64>,
}

impl Refusal {
    /// A refusal for reasons of HTTP.
    pub fn new(
        status: StatusCode,
        code: &'static str,
        reason: impl Into<Cow<'static, str>>,
    ) -> Refusal {
        Refusal {
            status,
            code,
            reason: reason.into(),
            retry_after_s: None,
        }
    }

    /// Not a topic.
    pub fn bad_topic(reason: &'static str) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, Code::BadTopic.as_str(), reason)
    }

    /// Whoever asks, this may not be done.
    pub fn forbidden(reason: &'static str) -> Refusal {
        Refusal::new(StatusCode::FORBIDDEN, Code::NotAllowed.as_str(), reason)
    }

    /// With the right key it might.
    pub fn unauthorized(reason: &'static str) -> Refusal {
        Refusal::new(StatusCode::UNAUTHORIZED, Code::NotAllowed.as_str(), reason)
    }

    /// The address guesses keys.
    pub fn guessing(retry_after_s: u64) -> Refusal {
        Refusal {
            retry_after_s: Some(retry_after_s),
            ..Refusal::new(
                StatusCode::TOO_MANY_REQUESTS,
                Code::NotAllowed.as_str(),
                "too many wrong keys from this address",
            )
        }
    }

    /// What was wrong with a body of which `bytes_max` bytes were allowed.
    pub fn body(error: BodyError, bytes_max: usize) -> Refusal {
        match error {
            BodyError::TooLarge => Refusal::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                Code::TooLarge.as_str(),
                format!("a message has at most {bytes_max} bytes"),
            ),
            BodyError::Late => Refusal::new(
                StatusCode::REQUEST_TIMEOUT,
                Code::Timeout.as_str(),
                "the body did not come in time",
            ),
            BodyError::Broken => {
                Refusal::new(StatusCode::BAD_REQUEST, "bad_body", "the body broke off")
            }
        }
    }

    /// What a shard said to a publish.
    pub fn publish(code: Code) -> Refusal {
        let (status, reason) = match code {
            Code::Busy => (
                StatusCode::SERVICE_UNAVAILABLE,
                "a queue on the way is full; try again",
            ),
            Code::Timeout => (
                StatusCode::SERVICE_UNAVAILABLE,
                "no confirmation in time; the message may have been published",
            ),
            Code::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "the message is too large"),
            Code::NotAllowed => (StatusCode::FORBIDDEN, "the rights do not cover this"),
            Code::BadTopic => (StatusCode::BAD_REQUEST, "not a topic"),
            Code::NoHandler | Code::BadJson | Code::BadType | Code::Limit => {
                (StatusCode::BAD_REQUEST, "the broker refused the message")
            }
        };
        Refusal {
            retry_after_s: (code == Code::Busy).then_some(1),
            ..Refusal::new(status, code.as_str(), reason)
        }
    }
}

impl From<NoAnswer> for Refusal {
    fn from(silent: NoAnswer) -> Refusal {
        let reason = match silent {
            NoAnswer::Unreachable { shard } => format!("shard {shard} cannot be reached"),
            NoAnswer::Silent { shard } => format!("shard {shard} does not answer"),
        };
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "no_answer", reason)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let object = json!({"error": {"code": self.code, "reason": self.reason}});
        let json = [(header::CONTENT_TYPE, "application/json")];
        let mut response = (self.status, json, format!("{object}\n")).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            // RFC 9110, 15.5.2: a 401 names the scheme.
            let scheme = HeaderValue::from_static("Bearer realm=\"pubsub admin\"");
            headers.insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}
