//! A request's body, bounded in bytes and time.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use tokio::time::timeout;

/// From the head to the end of the body.
pub const BODY_TIME: Duration = Duration::from_secs(10);
/// What is read and thrown away past the limit. An answer before the client has sent everything ends in a reset,
/// and the client may lose the answer with it; so small excess is taken, and only a flood is cut off.
pub const DISCARD_BYTES_MAX: usize = 1 << 20;

/// Why there is no body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyError {
    /// More bytes than allowed.
    TooLarge,
    /// It did not come in time.
    Late,
    /// It broke HTTP, or its connection broke.
    Broken,
}

/// Reads a body of at most `bytes_max` bytes. With `discard`, what is above is read too before it is refused.
///
/// # Errors
/// [`BodyError`]; more than `bytes_max` is never kept.
pub async fn read(body: Body, bytes_max: usize, discard: bool) -> Result<Bytes, BodyError> {
    let read_max = bytes_max.saturating_add(if discard { DISCARD_BYTES_MAX } else { 0 });
    if body.size_hint().lower() > read_max as u64 {
        return Err(BodyError::TooLarge);
    }
    timeout(BODY_TIME, collect(body, bytes_max, read_max))
        .await
        .unwrap_or(Err(BodyError::Late))
}

async fn collect(mut body: Body, bytes_max: usize, read_max: usize) -> Result<Bytes, BodyError> {
    let mut kept = Vec::new();
    let mut size = 0usize;
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        // Trailers say nothing to us.
        let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else {
            continue;
        };
        size = size.saturating_add(data.len());
        if size > read_max {
            break;
        }
        if size <= bytes_max {
            kept.extend_from_slice(&data);
        } else {
            kept = Vec::new();
        }
    }
    if size > bytes_max {
        return Err(BodyError::TooLarge);
    }
    Ok(Bytes::from(kept))
}
