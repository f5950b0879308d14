//! Tokens: who somebody is and what they may do, signed by somebody whose keys we have (RFC 7519).
//!
//! The one thing that is done here is [`Keys::verify`]: bytes and the time in, [`Claims`] or a [`TokenError`] out. It
//! knows no clock (the crate below has one, which is switched off), no connection, and not what a filter is asked for.
//!
//! What a token can't do: choose how it is checked. A key is good for one algorithm, and a token whose header names
//! another finds no key; so a public key is never taken for a shared secret, and `none` is no algorithm. Keys that a
//! token brings along (`jwk`, `jku`, `x5c`) are not looked at. What it costs to refuse one is bounded: by its size,
//! before anything is read of it, and by the number of keys.

mod keys;

use std::fmt;

use bytes::Bytes;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{decode, decode_header};
use serde::{Deserialize, Deserializer};

use crate::limits::{NAME_BYTES_MAX, TOKEN_BYTES_MAX, TOKEN_FILTERS_MAX};
use crate::topic::{Filter, TopicError};

pub use keys::{KeyError, Keys};

/// How far the clock of who signs may be ahead of ours: a token that is good from "now" on is used at once. There is
/// no such thing at its end, where it would only be a longer life.
const NOT_BEFORE_LEEWAY_MS: u64 = 10_000;

/// What a token says that was believed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claims {
    /// Who it is about (`sub`): 1 to 255 bytes.
    pub subject: Box<str>,
    /// When it ends (`exp`), in milliseconds since 1970.
    pub expires_unix_ms: Option<u64>,
    /// What may be subscribed to: what one of these filters covers; `None` for whatever the rules allow.
    pub subscribe: Option<Box<[Filter]>>,
    /// What may be published to: what one of these filters matches; `None` for whatever the rules allow.
    pub publish: Option<Box<[Filter]>>,
}

/// Why a token is not believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenError {
    /// Longer than [`TOKEN_BYTES_MAX`].
    TooLong,
    /// No JWT of a known algorithm.
    Malformed,
    /// Its header asks for something that must be understood (RFC 7515, 4.1.11), and nothing of it is here.
    Critical,
    /// There is no key for its algorithm and `kid`.
    NoKey,
    /// None of the keys made this signature.
    Signature,
    /// Signed, but `sub` is missing or a claim has the wrong type.
    Claims,
    /// Signed, but a filter in it is none.
    Filter(TopicError),
    /// Signed, but there are more filters than are taken.
    TooManyFilters,
    /// Signed, but another issuer's (`iss`).
    Issuer,
    /// Signed, but for another audience (`aud`).
    Audience,
    /// Signed, but for ever, which is not allowed here.
    NoExpiry,
    /// It was good before.
    Expired,
    /// It will be good later (`nbf`).
    NotYet,
}

impl TokenError {
    /// A short sentence, for the log and for whoever has the token.
    pub fn as_str(self) -> &'static str {
        match self {
            TokenError::TooLong => "the token is longer than 4 KiB",
            TokenError::Malformed => "this is no token signed with HS256, RS256 or EdDSA",
            TokenError::Critical => "the token's header has critical fields, and none is known",
            TokenError::NoKey => "there is no key for the token's algorithm and kid",
            TokenError::Signature => "the token's signature is wrong",
            TokenError::Claims => "a claim of the token is missing or of the wrong type",
            TokenError::Filter(reason) => reason.as_str(),
            TokenError::TooManyFilters => "the token has more than 100 filters",
            TokenError::Issuer => "the token is of another issuer",
            TokenError::Audience => "the token is for another audience",
            TokenError::NoExpiry => "the token never expires",
            TokenError::Expired => "the token has expired",
            TokenError::NotYet => "the token is not valid yet",
        }
    }

    /// Might somebody be guessing? What was signed with a key of ours is no guess, whatever else is wrong with it: a
    /// client that comes back with a token which ran out meanwhile attacks nobody.
    pub fn is_guess(self) -> bool {
        match self {
            TokenError::TooLong
            | TokenError::Malformed
            | TokenError::Critical
            | TokenError::NoKey
            | TokenError::Signature => true,
            TokenError::Claims
            | TokenError::Filter(_)
            | TokenError::TooManyFilters
            | TokenError::Issuer
            | TokenError::Audience
            | TokenError::NoExpiry
            | TokenError::Expired
            | TokenError::NotYet => false,
        }
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for TokenError {}

impl Keys {
    /// Believes a token, at this time, or says why not.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn verify(&self, token: &[u8], unix_ms: u64) -> Result<Claims, TokenError> {
        const {
            assert!(
                TOKEN_BYTES_MAX == 4096 && TOKEN_FILTERS_MAX == 100,
                "the sentences above name them"
            )
        };
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        let header = decode_header(token).map_err(|_| TokenError::Malformed)?;
        if header.crit.is_some() {
            return Err(TokenError::Critical);
        }
        let mut refused = TokenError::NoKey;
        for key in self.fitting(header.alg, header.kid.as_deref()) {
            match decode::<Written>(token, &key.key, &key.validation) {
                Ok(token) => return token.claims.read(unix_ms, self.is_expiry_required),
                // Perhaps it is another key's.
                Err(error) => match believed(error.kind()) {
                    TokenError::Signature => refused = TokenError::Signature,
                    error => return Err(error),
                },
            }
        }
        Err(refused)
    }
}

/// The crate checks the signature before anything that it guards.
fn believed(error: &ErrorKind) -> TokenError {
    match error {
        ErrorKind::Json(_) | ErrorKind::Utf8(_) | ErrorKind::InvalidClaimFormat(_) => {
            TokenError::Claims
        }
        ErrorKind::InvalidIssuer => TokenError::Issuer,
        ErrorKind::InvalidAudience => TokenError::Audience,
        ErrorKind::MissingRequiredClaim(claim) => match claim.as_str() {
            "iss" => TokenError::Issuer,
            "aud" => TokenError::Audience,
            _ => TokenError::Claims,
        },
        ErrorKind::InvalidToken | ErrorKind::Base64(_) => TokenError::Malformed,
        // Those of the keys and of signing among them: whatever it is, nothing was proved.
        _ => TokenError::Signature,
    }
}

/// The claims as they are written. Others are not looked at, and a name that comes twice is refused.
#[derive(Deserialize)]
struct Written {
    sub: String,
    #[serde(default, deserialize_with = "present")]
    exp: Option<f64>,
    #[serde(default, deserialize_with = "present")]
    nbf: Option<f64>,
    #[serde(default, deserialize_with = "present")]
    subscribe: Option<Vec<WrittenFilter>>,
    #[serde(default, deserialize_with = "present")]
    publish: Option<Vec<WrittenFilter>>,
}

/// A filter: dotted as a text, or an object with the one key that an `[[access]]` rule has for it.
#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenFilter {
    Dotted(String),
    Named(NamedFilter),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum NamedFilter {
    Filter(String),
    Channel(String),
    Pattern(String),
}

/// A claim that is there is of its type. `null` is not: who writes it where a list belongs may have meant nothing at
/// all, or everything.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    claim: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(claim).map(Some)
}

impl Written {
    fn read(self, unix_ms: u64, is_expiry_required: bool) -> Result<Claims, TokenError> {
        if !(1..=NAME_BYTES_MAX).contains(&self.sub.len()) {
            return Err(TokenError::Claims);
        }
        let expires_unix_ms = self.exp.map(milliseconds).transpose()?;
        if expires_unix_ms.is_none() && is_expiry_required {
            return Err(TokenError::NoExpiry);
        }
        // "On or after" its end it must not be accepted (RFC 7519, 4.1.4).
        if expires_unix_ms.is_some_and(|at_ms| at_ms <= unix_ms) {
            return Err(TokenError::Expired);
        }
        let from_unix_ms = self.nbf.map(milliseconds).transpose()?;
        if from_unix_ms.is_some_and(|at_ms| at_ms > unix_ms.saturating_add(NOT_BEFORE_LEEWAY_MS)) {
            return Err(TokenError::NotYet);
        }
        Ok(Claims {
            subject: self.sub.into(),
            expires_unix_ms,
            subscribe: self.subscribe.map(filters).transpose()?,
            publish: self.publish.map(filters).transpose()?,
        })
    }
}

/// A NumericDate: seconds since 1970, with decimals if need be (RFC 7519, 2).
fn milliseconds(seconds: f64) -> Result<u64, TokenError> {
    if seconds < 0.0 {
        return Err(TokenError::Claims);
    }
    // What is too large for the type is the type's largest.
    Ok((seconds * 1000.0) as u64)
}

fn filters(written: Vec<WrittenFilter>) -> Result<Box<[Filter]>, TokenError> {
    if written.len() > TOKEN_FILTERS_MAX {
        return Err(TokenError::TooManyFilters);
    }
    let read = written.into_iter().map(|filter| {
        match filter {
            WrittenFilter::Dotted(text) | WrittenFilter::Named(NamedFilter::Filter(text)) => {
                Filter::dotted(Bytes::from(text))
            }
            WrittenFilter::Named(NamedFilter::Channel(name)) => Filter::exact(Bytes::from(name)),
            WrittenFilter::Named(NamedFilter::Pattern(glob)) => Filter::glob(Bytes::from(glob)),
        }
        .map_err(TokenError::Filter)
    });
    read.collect()
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
