//! Credentials in the configuration: where the keys of tokens come from, and reading them, at the start and again when
//! the process is told to.
//!
//! The configuration keeps the paths, not what is in the files, so that a file that has changed is read anew by the
//! same configuration.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::load::ConfigError;
use super::options::KeySource;
use super::{Config, Secret};
use crate::limits::PEER_KEY_BYTES_MAX;
use crate::shard::Credentials;
use crate::token::{KeyError, Keys};

/// Whose tokens are believed.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct TokenSources {
    /// The secret of HS256; of a file each line is one.
    pub secret: Option<KeySource>,
    /// Files of public keys for RS256 and EdDSA (PEM), or JWK sets.
    pub key_files: Vec<PathBuf>,
    /// What `iss` has to be.
    pub issuer: Option<String>,
    /// What `aud` has to name.
    pub audience: Option<String>,
    /// Has a token to end?
    pub expiry_required: bool,
}

impl TokenSources {
    /// Are there no keys, so that tokens are not looked at?
    pub fn is_empty(&self) -> bool {
        self.secret.is_none() && self.key_files.is_empty()
    }

    fn keys(&self, read_file: &dyn Fn(&Path) -> io::Result<String>) -> Result<Keys, ConfigError> {
        let (issuer, audience) = (self.issuer.as_deref(), self.audience.as_deref());
        let mut keys = Keys::new(issuer, audience, self.expiry_required);
        match &self.secret {
            None => {}
            Some(KeySource::Given(secret)) => {
                let added = keys.add_secret(secret.reveal().as_bytes());
                added.map_err(|reason| ConfigError::new(format!("jwt-secret: {reason}")))?;
            }
            Some(KeySource::File(path)) => {
                let wrong = wrong("jwt-secret-file", path);
                let text = read_file(path).map_err(|error| wrong(&error))?;
                add_secrets(&mut keys, &text).map_err(|reason| wrong(&reason))?;
            }
        }
        for path in &self.key_files {
            let wrong = wrong("jwt-key-file", path);
            let text = read_file(path).map_err(|error| wrong(&error))?;
            keys.add_file(&text)
                .map_err(|reason: KeyError| wrong(&reason))?;
        }
        Ok(keys)
    }
}

impl KeySource {
    /// The secret: what was said outright, or the first line of the file, for the option of this name.
    ///
    /// # Errors
    /// A file that cannot be read, or begins with no secret.
    pub fn secret(
        self,
        option: &'static str,
        read_file: &dyn Fn(&Path) -> io::Result<String>,
    ) -> Result<Secret, ConfigError> {
        let path = match self {
            KeySource::Given(secret) => return Ok(secret),
            KeySource::File(path) => path,
        };
        let wrong = wrong(option, &path);
        let text = read_file(&path).map_err(|error| wrong(&error))?;
        let first = text.lines().next().unwrap_or("").trim();
        Secret::new(first).map_err(|reason| wrong(&format!("its first line {reason}")))
    }
}

impl Config {
    /// Is anybody asked who it is, by a token?
    pub fn has_authentication(&self) -> bool {
        !self.tokens.is_empty()
    }

    /// What the shards are to believe; `read_file` opens the files that the configuration names.
    ///
    /// # Errors
    /// A file that cannot be read, or has no good key in it.
    pub fn credentials(
        &self,
        read_file: &dyn Fn(&Path) -> io::Result<String>,
    ) -> Result<Credentials, ConfigError> {
        Ok(Credentials {
            keys: self.tokens.keys(read_file)?,
            resp_password: self
                .resp_password
                .clone()
                .map(|source| source.secret("resp-password-file", read_file))
                .transpose()?,
            peer_key: self.peer_key(read_file)?,
        })
    }
}

impl Config {
    /// The key of peers. One that no HELLO has room for would let nobody in.
    fn peer_key(
        &self,
        read_file: &dyn Fn(&Path) -> io::Result<String>,
    ) -> Result<Option<Secret>, ConfigError> {
        let Some(source) = self.peer_key.clone() else {
            return Ok(None);
        };
        let key = source.secret("peer-key-file", read_file)?;
        if key.reveal().len() > PEER_KEY_BYTES_MAX {
            let reason = format!("peer-key: is longer than {PEER_KEY_BYTES_MAX} bytes");
            return Err(ConfigError::new(reason));
        }
        Ok(Some(key))
    }
}

/// Each line is a secret: the old and the new one stand side by side while they are changed.
fn add_secrets(keys: &mut Keys, text: &str) -> Result<(), String> {
    let lines = text.lines().map(str::trim);
    for line in lines.filter(|line| !line.is_empty()) {
        let secret = Secret::text(line).map_err(|reason| format!("a line {reason}"))?;
        keys.add_secret(secret.reveal().as_bytes())
            .map_err(|reason| reason.to_string())?;
    }
    if keys.is_empty() {
        return Err("has no secret".to_owned());
    }
    Ok(())
}

/// A complaint about a file of an option.
fn wrong(option: &'static str, path: &Path) -> impl Fn(&dyn fmt::Display) -> ConfigError {
    move |reason| ConfigError::new(format!("{option} {}: {reason}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::testing::{ED25519_PUBLIC, RSA, RSA_PUBLIC};

    fn read(path: &Path) -> io::Result<String> {
        Ok(match path.to_str().unwrap() {
            "rsa" => RSA_PUBLIC.to_owned(),
            "ed" => ED25519_PUBLIC.to_owned(),
            "private" => RSA.to_owned(),
            "one" => " a secret with spaces\n".to_owned(),
            "two" => "first\n\n second \n".to_owned(),
            "seventeen" => "x\n".repeat(17),
            "blank" => "\n \n".to_owned(),
            "bell" => "a\u{7}".to_owned(),
            _ => return Err(io::ErrorKind::NotFound.into()),
        })
    }

    fn check(secret: Option<&str>, files: &[&str], expected: Result<usize, &str>) {
        let tokens = TokenSources {
            secret: secret.map(|path| KeySource::File(path.into())),
            key_files: files.iter().map(PathBuf::from).collect(),
            ..TokenSources::default()
        };
        let config = Config {
            tokens,
            ..Config::default()
        };
        let found = config.credentials(&read).map(|found| found.keys.len());
        let found = found.map_err(|error| error.to_string());
        assert_eq!(found, expected.map_err(str::to_owned));
    }

    #[test]
    fn keys_come_from_several_files() {
        check(None, &[], Ok(0));
        check(Some("one"), &[], Ok(1));
        check(Some("two"), &["rsa", "ed"], Ok(4));
        check(None, &["rsa", "rsa"], Ok(2));
    }

    #[test]
    fn each_file_has_to_be_good() {
        check(
            Some("blank"),
            &[],
            Err("jwt-secret-file blank: has no secret"),
        );
        check(
            Some("bell"),
            &[],
            Err("jwt-secret-file bell: a line has a control character"),
        );
        check(
            Some("seventeen"),
            &[],
            Err("jwt-secret-file seventeen: makes more than 16 keys"),
        );
        check(
            Some("nowhere"),
            &["rsa"],
            Err("jwt-secret-file nowhere: entity not found"),
        );
        check(
            Some("one"),
            &["rsa", "nowhere"],
            Err("jwt-key-file nowhere: entity not found"),
        );
        check(
            None,
            &["one"],
            Err("jwt-key-file one: is neither PEM nor a JWK set"),
        );
        check(
            None,
            &["private"],
            Err(
                "jwt-key-file private: is a private key: to check tokens the public one is enough, and nobody else \
                 should have that",
            ),
        );
    }
}
