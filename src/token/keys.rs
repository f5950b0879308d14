//! Keys: what tokens are checked with. Secrets for HS256, public keys for RS256 and EdDSA, several at once, so that an
//! old and a new one are good side by side while they are changed.

use std::fmt;

use jsonwebtoken::crypto;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};

use crate::limits::TOKEN_KEYS_MAX;

/// The RSA keys that are taken, in bytes of the modulus: 2048 bits at least (RFC 7518, 3.3), and 4096 at most, which
/// is where the crate ends.
const MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=512;
/// The shortest secret that can't be found by trying: as long as the hash (RFC 7518, 3.2).
const SECRET_BYTES_GOOD: usize = 32;

/// The keys that are believed, and what else a token has to say.
#[derive(Clone, Default)]
pub struct Keys {
    keys: Vec<Key>,
    issuer: Option<String>,
    audience: Option<String>,
    pub(super) is_expiry_required: bool,
}

/// A key, for one algorithm.
#[derive(Clone)]
pub(super) struct Key {
    algorithm: Algorithm,
    id: Option<String>,
    pub key: DecodingKey,
    pub validation: Validation,
}

/// Why something is no key. Never quotes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyError(&'static str);

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for KeyError {}

impl Keys {
    /// No key yet; a token has to be of this issuer and for this audience, if they are given, and has to end, if that
    /// is required. Without an audience a token must not name one: it would be meant for others (RFC 7519, 4.1.3).
    pub fn new(issuer: Option<&str>, audience: Option<&str>, is_expiry_required: bool) -> Keys {
        Keys {
            keys: Vec::new(),
            issuer: issuer.map(str::to_owned),
            audience: audience.map(str::to_owned),
            is_expiry_required,
        }
    }

    /// A secret for HS256.
    ///
    /// # Errors
    /// if there are too many keys.
    pub fn add_secret(&mut self, secret: &[u8]) -> Result<(), KeyError> {
        self.add(Algorithm::HS256, None, DecodingKey::from_secret(secret))
    }

    /// The keys of a file: public keys in PEM, one or several, or a JWK set (RFC 7517, 5). Of a set, keys for other
    /// uses and other algorithms are left out.
    ///
    /// # Errors
    /// if there is none in it, or one that is not good, or too many.
    pub fn add_file(&mut self, text: &str) -> Result<(), KeyError> {
        let before = self.keys.len();
        if text.contains("-----BEGIN ") {
            for block in pem_blocks(text) {
                self.add_pem(block)?;
            }
        } else {
            let set: JwkSet =
                serde_json::from_str(text).map_err(|_| KeyError("is neither PEM nor a JWK set"))?;
            for jwk in &set.keys {
                self.add_jwk(jwk)?;
            }
        }
        if self.keys.len() == before {
            return Err(KeyError("has no key for HS256, RS256 or EdDSA"));
        }
        Ok(())
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Is there a secret that is short enough to be found by trying all?
    pub fn has_short_secret(&self) -> bool {
        self.keys.iter().any(|key| {
            key.algorithm == Algorithm::HS256
                && key
                    .key
                    .try_get_as_bytes()
                    .is_ok_and(|secret| secret.len() < SECRET_BYTES_GOOD)
        })
    }

    /// Those that a token with this header may have been signed with.
    pub(super) fn fitting(
        &self,
        algorithm: Algorithm,
        id: Option<&str>,
    ) -> impl Iterator<Item = &Key> {
        self.keys.iter().filter(move |key| {
            let is_named = match (&key.id, id) {
                (Some(own), Some(id)) => own == id,
                (None, _) | (_, None) => true,
            };
            key.algorithm == algorithm && is_named
        })
    }

    fn add_pem(&mut self, block: &str) -> Result<(), KeyError> {
        let label = block.lines().next().unwrap_or_default();
        if label.contains("PRIVATE KEY") {
            return Err(KeyError(
                "is a private key: to check tokens the public one is enough, and nobody else should have that",
            ));
        }
        if let Ok(key) = DecodingKey::from_rsa_pem(block.as_bytes()) {
            self.add(Algorithm::RS256, None, key)
        } else if let Ok(key) = DecodingKey::from_ed_pem(block.as_bytes()) {
            self.add(Algorithm::EdDSA, None, key)
        } else {
            Err(KeyError("is no public key of RSA or Ed25519"))
        }
    }

    fn add_jwk(&mut self, jwk: &Jwk) -> Result<(), KeyError> {
        let is_for = |algorithm| {
            let named = jwk.common.key_algorithm;
            let is_to_sign = jwk
                .common
                .public_key_use
                .as_ref()
                .is_none_or(|usage| *usage == jsonwebtoken::jwk::PublicKeyUse::Signature);
            is_to_sign && named.is_none_or(|named| named == algorithm)
        };
        let algorithm = match &jwk.algorithm {
            AlgorithmParameters::OctetKey(_) if is_for(KeyAlgorithm::HS256) => Algorithm::HS256,
            AlgorithmParameters::RSA(_) if is_for(KeyAlgorithm::RS256) => Algorithm::RS256,
            AlgorithmParameters::OctetKeyPair(pair)
                if pair.curve == EllipticCurve::Ed25519 && is_for(KeyAlgorithm::EdDSA) =>
            {
                Algorithm::EdDSA
            }
            _ => return Ok(()),
        };
        let key = DecodingKey::from_jwk(jwk).map_err(|_| KeyError("has a key that is broken"))?;
        self.add(algorithm, jwk.common.key_id.clone(), key)
    }

    fn add(
        &mut self,
        algorithm: Algorithm,
        id: Option<String>,
        key: DecodingKey,
    ) -> Result<(), KeyError> {
        const { assert!(TOKEN_KEYS_MAX == 16, "the sentence below names it") };
        if self.keys.len() == TOKEN_KEYS_MAX {
            return Err(KeyError("makes more than 16 keys"));
        }
        check(algorithm, &key)?;
        let mut validation = Validation::new(algorithm);
        // The time is ours to say.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        let mut required = vec!["sub"];
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        if let Some(audience) = &self.audience {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        self.keys.push(Key {
            algorithm,
            id,
            key,
            validation,
        });
        Ok(())
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.keys.len())
    }
}

/// Could this key ever have made a signature that we take? The crate finds out as late as with the first token.
fn check(algorithm: Algorithm, key: &DecodingKey) -> Result<(), KeyError> {
    match algorithm {
        Algorithm::RS256 => {
            let broken = KeyError("has an RSA key that is broken");
            let parts = Jwk::from_decoding_key(key, None).map_err(|_| broken)?;
            let AlgorithmParameters::RSA(parts) = parts.algorithm else {
                return Err(broken);
            };
            // Base64 without padding: three bytes are four characters.
            if !MODULUS_BYTES.contains(&(parts.n.len() * 3 / 4)) {
                return Err(KeyError("has an RSA key that is not of 2048 to 4096 bits"));
            }
        }
        Algorithm::EdDSA => {
            let broken = KeyError("has an Ed25519 key that is broken");
            // Before it is used: the crate would slice a shorter one.
            if !key.try_get_as_bytes().is_ok_and(|bytes| bytes.len() == 32) {
                return Err(broken);
            }
            crypto::verify("", b"", key, algorithm).map_err(|_| broken)?;
        }
        // A secret is any bytes.
        _ => {}
    }
    Ok(())
}

/// From each `-----BEGIN` to the end of its `-----END` line, or of the text.
fn pem_blocks(text: &str) -> impl Iterator<Item = &str> {
    let starts: Vec<usize> = text
        .match_indices("-----BEGIN ")
        .map(|(at, _)| at)
        .collect();
    let mut ends: Vec<usize> = starts.iter().skip(1).copied().collect();
    ends.push(text.len());
    starts
        .into_iter()
        .zip(ends)
        .map(|(start, end)| &text[start..end])
}
