//! Tokens for the unit tests, signed as their issuers would.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::Value;

use super::Keys;

pub const SECRET: &str = "a secret of the tests, long enough for its hash";
pub const RSA: &str = include_str!("../../tests/keys/rsa.key.pem");
pub const RSA_PUBLIC: &str = include_str!("../../tests/keys/rsa.pub.pem");
pub const ED25519: &str = include_str!("../../tests/keys/ed25519.key.pem");
pub const ED25519_PUBLIC: &str = include_str!("../../tests/keys/ed25519.pub.pem");

/// The secret and nothing else.
pub fn keys() -> Keys {
    let mut keys = Keys::default();
    keys.add_secret(SECRET.as_bytes()).unwrap();
    keys
}

/// A token of these claims, signed with the secret.
pub fn token(claims: &Value) -> String {
    signed(&Header::new(Algorithm::HS256), claims)
}

/// A token of this header and these claims, signed with the key of the header's algorithm.
pub fn signed(header: &Header, claims: &Value) -> String {
    let key = match header.alg {
        Algorithm::RS256 => EncodingKey::from_rsa_pem(RSA.as_bytes()).unwrap(),
        Algorithm::EdDSA => EncodingKey::from_ed_pem(ED25519.as_bytes()).unwrap(),
        _ => EncodingKey::from_secret(SECRET.as_bytes()),
    };
    encode(header, claims, &key).unwrap()
}
