//! A secret: a value that never appears in logs, dumps or messages.
//!
//! Invariant: only [`Secret::reveal`] and [`Secret::matches`] look at the text; both formatters hide it.

use std::fmt;

/// A key or password.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// A key that can travel in an `Authorization` header: printable ASCII without spaces.
    ///
    /// # Errors
    /// What is wrong with the text, which is not quoted.
    pub fn new(text: &str) -> Result<Secret, String> {
        if text.is_empty() {
            return Err("is empty".to_owned());
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("wants printable ASCII without spaces".to_owned());
        }
        Ok(Secret(text.to_owned()))
    }

    /// A secret that does not travel: any text of one line.
    ///
    /// # Errors
    /// What is wrong with the text, which is not quoted.
    pub fn text(text: &str) -> Result<Secret, String> {
        if text.is_empty() {
            return Err("is empty".to_owned());
        }
        if text.chars().any(char::is_control) {
            return Err("has a control character".to_owned());
        }
        Ok(Secret(text.to_owned()))
    }

    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Is this the key? Takes as long for a near miss as for a far one, so that nobody can guess it byte by byte
    /// (promise 24); only the length shows.
    pub fn matches(&self, offered: &[u8]) -> bool {
        let own = self.0.as_bytes();
        let mut difference = u8::from(own.len() != offered.len());
        for (own, offered) in own.iter().zip(offered) {
            // Opaque to the optimizer, which might leave the loop early else.
            difference = std::hint::black_box(difference | (own ^ offered));
        }
        difference == 0
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        self.matches(other.0.as_bytes())
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_bytes_match() {
        let secret = Secret::new("s3cret").unwrap();
        assert!(secret.matches(b"s3cret"));
        for offered in ["", "s", "s3cre", "s3creT", "s3cret1", "S3cret"] {
            assert!(!secret.matches(offered.as_bytes()), "{offered}");
        }
    }

    #[test]
    fn it_does_not_show() {
        let secret = Secret::new("s3cret").unwrap();
        assert_eq!(format!("{secret} {secret:?}"), "(hidden) (hidden)");
        assert_eq!(secret.reveal(), "s3cret");
    }

    #[test]
    fn it_fits_a_header() {
        for refused in ["", "a b", "a\n", "schlüssel"] {
            assert!(Secret::new(refused).is_err());
        }
        for (text, good) in [
            ("", false),
            ("a b", true),
            ("a\n", false),
            ("schlüssel", true),
        ] {
            assert_eq!(Secret::text(text).is_ok(), good, "{text}");
        }
    }
}
