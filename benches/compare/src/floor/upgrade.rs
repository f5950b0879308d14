//! The upgrade to WebSocket (RFC 6455, 4.2.2), once for each connection.

use tungstenite::handshake::derive_accept_key;

/// A request longer than this is none.
pub const REQUEST_SIZE_MAX: usize = 16 * 1024;

/// The answer to the request at the beginning of `bytes`, and the size of the request.
///
/// None if it is not all there yet.
///
/// # Errors
/// It asks for no upgrade.
pub fn answer(bytes: &[u8]) -> Result<Option<(String, usize)>, ()> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return match bytes.len() {
            0..=REQUEST_SIZE_MAX => Ok(None),
            _ => Err(()),
        };
    };
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| ())?;
    let key = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key")
            .then(|| value.trim())
    });
    let accept = derive_accept_key(key.ok_or(())?.as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    Ok(Some((answer, end + 4)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_answered() {
        // RFC 6455, 1.3.
        let request =
            "GET / HTTP/1.1\r\nHost: a\r\nsec-websocket-KEY: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let (text, size) = answer(format!("{request}more").as_bytes())
            .unwrap()
            .unwrap();
        assert!(text.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"));
        assert_eq!(size, request.len());
        for cut in 0..request.len() {
            assert_eq!(answer(&request.as_bytes()[..cut]), Ok(None));
        }
        assert_eq!(answer(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), Err(()));
        assert_eq!(answer(&[b'x'; REQUEST_SIZE_MAX + 1]), Err(()));
    }
}
