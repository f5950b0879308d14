//! The page that `GET /` on a client port answers (DESIGN 5.2): a console that speaks to this broker. One
//! self-contained file; it needs no other machine and nothing from this crate.

/// The page, UTF-8.
pub const CONSOLE: &str = include_str!("console.html");

/// The headers that belong to it, `Content-Type` included. The page may run its own script and style, speak to
/// WebSockets, and nothing else: no other resource, no frame around it, no form that leads away.
pub const CONSOLE_HEADERS: &[(&str, &str)] = &[
    ("Content-Type", "text/html; charset=utf-8"),
    (
        "Content-Security-Policy",
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; \
         connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("Referrer-Policy", "no-referrer"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_small_and_needs_nobody() {
        assert!(CONSOLE.len() < 12 * 1024, "{} bytes", CONSOLE.len());
        assert!(CONSOLE.starts_with("<!doctype html>"));
        for outside in ["http://", "https://", "src=", "@import", "url("] {
            assert!(!CONSOLE.contains(outside), "{outside}");
        }
        for injection in [
            "innerHTML",
            "outerHTML",
            "insertAdjacent",
            "document.write",
            "eval(",
        ] {
            assert!(!CONSOLE.contains(injection), "{injection}");
        }
    }

    #[test]
    fn the_headers_are_lines() {
        for (name, value) in CONSOLE_HEADERS {
            assert!(!format!("{name}{value}").contains(['\r', '\n']));
        }
    }
}
