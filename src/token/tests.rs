//! Tokens that are believed, and many that are not.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::testing::*;
use super::*;

const NOW_MS: u64 = 1_500_000_000_000;
const NOW: u64 = NOW_MS / 1000;

/// An RSA key of 1024 bits, and one of an elliptic curve: neither is taken.
const RSA_SHORT: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDLKUrlnkF8PBNp1/Ns/9IeO767
tCcorUbQouS7upf5NM8c1RYpwa35HJq9Uk9o2Xu9OXRyHzUC2I54OZuqcbBEbQhW
frwNWjNEW0ZaTZkQ9qkRR3pft4gAvl/JVcpWeoJj1pHNYc3nMW3BWshsb8M95+lZ
aBvnz98LB0+/saxEYQIDAQAB
-----END PUBLIC KEY-----
";
const P256: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAExeHuv+i9/biRXdV+zP8PTDF4fqZV
gE899lKMEmSYvR++KNKg/+ylB33ZKiwr7zCsizctQ8visxdUKRP7s478LQ==
-----END PUBLIC KEY-----
";

fn check(claims: Value, expected: Result<(), TokenError>) {
    let found = keys().verify(token(&claims).as_bytes(), NOW_MS);
    assert_eq!(found.map(|_| ()), expected, "{claims}");
}

fn encoded(part: &Value) -> String {
    URL_SAFE_NO_PAD.encode(part.to_string())
}

/// The keys of these texts, of files.
fn of_files(files: &[&str]) -> Result<Keys, KeyError> {
    let mut keys = Keys::default();
    files.iter().try_for_each(|text| keys.add_file(text))?;
    Ok(keys)
}

/// The set of all public keys, each with its kid.
fn jwks() -> Value {
    let jwk = |text: &str, algorithm, kid: &str| {
        let pem = text.as_bytes();
        let key = match algorithm {
            Algorithm::RS256 => jsonwebtoken::DecodingKey::from_rsa_pem(pem).unwrap(),
            _ => jsonwebtoken::DecodingKey::from_ed_pem(pem).unwrap(),
        };
        let mut jwk = jsonwebtoken::jwk::Jwk::from_decoding_key(&key, Some(algorithm)).unwrap();
        jwk.common.key_id = Some(kid.to_owned());
        serde_json::to_value(jwk).unwrap()
    };
    json!({"keys": [
        jwk(RSA_PUBLIC, Algorithm::RS256, "r"),
        jwk(ED25519_PUBLIC, Algorithm::EdDSA, "e"),
        {"kty": "oct", "kid": "o", "alg": "HS256", "k": URL_SAFE_NO_PAD.encode(SECRET)},
    ]})
}

#[test]
fn what_a_token_says_is_read() {
    let claims = json!({
        "sub": "ann", "exp": NOW + 60, "nbf": NOW, "iat": NOW, "name": {"any": ["thing"]},
        "subscribe": ["news", "=a.*", {"channel": "a..b"}, {"pattern": "user:*"}, {"filter": "x"}],
        "publish": [],
    });
    let filters: Vec<Filter> = vec![
        Filter::dotted("news".into()).unwrap(),
        Filter::dotted("=a.*".into()).unwrap(),
        Filter::exact("a..b".into()).unwrap(),
        Filter::glob("user:*".into()).unwrap(),
        Filter::dotted("x".into()).unwrap(),
    ];
    let expected = Claims {
        subject: "ann".into(),
        expires_unix_ms: Some(NOW_MS + 60_000),
        subscribe: Some(filters.into()),
        publish: Some([].into()),
    };
    let found = keys().verify(token(&claims).as_bytes(), NOW_MS);
    assert_eq!(found, Ok(expected));
    let bare = Claims {
        subject: "b".into(),
        expires_unix_ms: None,
        subscribe: None,
        publish: None,
    };
    let found = keys().verify(token(&json!({"sub": "b"})).as_bytes(), NOW_MS);
    assert_eq!(found, Ok(bare));
}

#[test]
fn time_is_what_the_caller_says() {
    for (claim, seconds, expected) in [
        ("exp", json!(NOW + 1), Ok(())),
        ("exp", json!(NOW as f64 + 0.001), Ok(())),
        ("exp", json!(1e300), Ok(())),
        ("exp", json!(NOW), Err(TokenError::Expired)),
        ("exp", json!(0), Err(TokenError::Expired)),
        ("exp", json!(-1), Err(TokenError::Claims)),
        ("exp", json!("soon"), Err(TokenError::Claims)),
        ("exp", Value::Null, Err(TokenError::Claims)),
        ("nbf", json!(NOW), Ok(())),
        // Clocks differ.
        ("nbf", json!(NOW + 10), Ok(())),
        ("nbf", json!(NOW + 11), Err(TokenError::NotYet)),
        ("nbf", json!(1e300), Err(TokenError::NotYet)),
    ] {
        check(json!({"sub": "a", claim: seconds}), expected);
    }
    let mut keys = Keys::new(None, None, true);
    keys.add_secret(SECRET.as_bytes()).unwrap();
    let found = keys.verify(token(&json!({"sub": "a"})).as_bytes(), NOW_MS);
    assert_eq!(found, Err(TokenError::NoExpiry));
    let found = keys.verify(
        token(&json!({"sub": "a", "exp": NOW + 1})).as_bytes(),
        NOW_MS,
    );
    assert!(found.is_ok());
}

#[test]
fn claims_have_their_types_and_bounds() {
    let many = |count: usize| vec!["a"; count];
    for (claims, expected) in [
        (json!({}), Err(TokenError::Claims)),
        (json!([]), Err(TokenError::Claims)),
        (json!({"sub": ""}), Err(TokenError::Claims)),
        (json!({"sub": 7}), Err(TokenError::Claims)),
        (json!({"sub": null}), Err(TokenError::Claims)),
        (json!({"sub": "x".repeat(255)}), Ok(())),
        (json!({"sub": "x".repeat(256)}), Err(TokenError::Claims)),
        (
            json!({"sub": "a", "subscribe": null}),
            Err(TokenError::Claims),
        ),
        (json!({"sub": "a", "publish": "b"}), Err(TokenError::Claims)),
        (json!({"sub": "a", "publish": [7]}), Err(TokenError::Claims)),
        (
            json!({"sub": "a", "publish": [{"room": "b"}]}),
            Err(TokenError::Claims),
        ),
        (
            json!({"sub": "a", "publish": [{"channel": "b", "pattern": "b"}]}),
            Err(TokenError::Claims),
        ),
        (json!({"sub": "a", "publish": many(100)}), Ok(())),
        (
            json!({"sub": "a", "subscribe": many(101)}),
            Err(TokenError::TooManyFilters),
        ),
    ] {
        check(claims, expected);
    }
    let refused = keys().verify(
        token(&json!({"sub": "a", "subscribe": ["a..b"]})).as_bytes(),
        NOW_MS,
    );
    assert_eq!(
        refused.unwrap_err().to_string(),
        "the topic has an empty level"
    );
    let refused = keys().verify(
        format!(
            "{}.{}.x",
            encoded(&json!({"alg": "HS256"})),
            "x".repeat(4096)
        )
        .as_bytes(),
        NOW_MS,
    );
    assert_eq!(refused, Err(TokenError::TooLong));
    // What comes twice could be read in two ways.
    let header = encoded(&json!({"alg": "HS256"}));
    let body = URL_SAFE_NO_PAD.encode(r#"{"sub":"a","sub":"b"}"#);
    let message = format!("{header}.{body}");
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature = sign(&message, &key);
    let refused = keys().verify(format!("{message}.{signature}").as_bytes(), NOW_MS);
    assert_eq!(refused, Err(TokenError::Claims));
}

fn sign(message: &str, key: &EncodingKey) -> String {
    jsonwebtoken::crypto::sign(message.as_bytes(), key, Algorithm::HS256).unwrap()
}

#[test]
fn each_algorithm_has_keys_of_its_own() {
    let mut all = of_files(&[RSA_PUBLIC, ED25519_PUBLIC]).unwrap();
    all.add_secret(SECRET.as_bytes()).unwrap();
    let set = of_files(&[&jwks().to_string()]).unwrap();
    assert_eq!((all.len(), set.len()), (3, 3));
    let claims = json!({"sub": "a"});
    for (algorithm, kid) in [
        (Algorithm::HS256, "o"),
        (Algorithm::RS256, "r"),
        (Algorithm::EdDSA, "e"),
    ] {
        let mut header = Header::new(algorithm);
        let token = signed(&header, &claims);
        for keys in [&all, &set] {
            assert!(
                keys.verify(token.as_bytes(), NOW_MS).is_ok(),
                "{algorithm:?}"
            );
        }
        header.kid = Some(kid.to_owned());
        let token = signed(&header, &claims);
        // Keys without a kid fit any.
        for keys in [&all, &set] {
            assert!(
                keys.verify(token.as_bytes(), NOW_MS).is_ok(),
                "{algorithm:?}"
            );
        }
        header.kid = Some("another".to_owned());
        let token = signed(&header, &claims);
        assert!(all.verify(token.as_bytes(), NOW_MS).is_ok());
        assert_eq!(set.verify(token.as_bytes(), NOW_MS), Err(TokenError::NoKey));
    }
    // The same keys, and algorithms that nobody asked for.
    for algorithm in [Algorithm::HS384, Algorithm::HS512] {
        let token = signed(&Header::new(algorithm), &claims);
        assert_eq!(all.verify(token.as_bytes(), NOW_MS), Err(TokenError::NoKey));
    }
    let key = EncodingKey::from_rsa_pem(RSA.as_bytes()).unwrap();
    for algorithm in [Algorithm::RS384, Algorithm::RS512, Algorithm::PS256] {
        let token = encode(&Header::new(algorithm), &claims, &key).unwrap();
        assert_eq!(all.verify(token.as_bytes(), NOW_MS), Err(TokenError::NoKey));
    }
}

#[test]
fn a_public_key_is_no_secret() {
    let keys = of_files(&[RSA_PUBLIC, ED25519_PUBLIC]).unwrap();
    for public in [RSA_PUBLIC, ED25519_PUBLIC] {
        for secret in [public.to_owned(), public.trim().to_owned()] {
            let key = EncodingKey::from_secret(secret.as_bytes());
            let token = encode(&Header::default(), &json!({"sub": "a"}), &key).unwrap();
            assert_eq!(
                keys.verify(token.as_bytes(), NOW_MS),
                Err(TokenError::NoKey)
            );
        }
    }
}

#[test]
fn what_is_not_signed_is_a_guess() {
    let good = token(&json!({"sub": "a"}));
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (header, body) = message.split_once('.').unwrap();
    let mut flipped = good.clone().into_bytes();
    let last = flipped.len() - 2;
    flipped[last] ^= 1;
    let key = EncodingKey::from_secret(b"another secret");
    let other = encode(&Header::default(), &json!({"sub": "a"}), &key).unwrap();
    let none = encoded(&json!({"alg": "none", "typ": "JWT"}));
    let mut texts: Vec<Vec<u8>> = [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        &format!("{good}."),
        &format!("{good}.x"),
        &format!(" {good}"),
        &format!("{good}="),
        &format!("{message}."),
        message,
        &format!("{header}..{signature}"),
        &format!("{header}.{}.{signature}", encoded(&json!({"sub": "b"}))),
        &format!("{none}.{body}."),
        &format!("{none}.{body}.{signature}"),
        &format!("{}.{body}.{signature}", encoded(&json!({"alg": "None"}))),
        &format!("{}.{body}.{signature}", encoded(&json!({"typ": "JWT"}))),
        &format!("{}.{body}.{signature}", encoded(&json!({"alg": "RS256"}))),
        &format!("{}.{body}.{signature}", encoded(&json!([[[[]]]]))),
        &other,
    ]
    .map(|text| text.as_bytes().to_vec())
    .into();
    texts.push(flipped);
    texts.push(vec![0xff; 100]);
    // Nothing that a token brings along is a key.
    let header = Header {
        jwk: Some(serde_json::from_value(jwks()["keys"][2].clone()).unwrap()),
        ..Header::default()
    };
    texts.push(encode(&header, &json!({"sub": "a"}), &key).unwrap().into());
    // Critical, even though signed.
    let header = Header {
        crit: Some(vec!["b64".to_owned()]),
        ..Header::default()
    };
    texts.push(signed(&header, &json!({"sub": "a"})).into());
    for text in texts {
        let refused = keys().verify(&text, NOW_MS).unwrap_err();
        assert!(refused.is_guess(), "{refused}: {}", text.escape_ascii());
    }
    // What is signed is none, whatever else it lacks.
    for claims in [
        json!({"sub": "a", "exp": 1}),
        json!({"sub": "a", "nbf": NOW + 1000}),
        json!({}),
        json!({"sub": "a", "aud": "others"}),
        json!({"sub": "a", "subscribe": [""]}),
    ] {
        let refused = keys().verify(token(&claims).as_bytes(), NOW_MS);
        assert!(!refused.unwrap_err().is_guess(), "{claims}");
    }
    assert_eq!(
        Keys::default().verify(good.as_bytes(), NOW_MS),
        Err(TokenError::NoKey)
    );
}

#[test]
fn issuer_and_audience_are_asked_for() {
    let check = |issuer, audience, claims: Value, expected| {
        let mut keys = Keys::new(issuer, audience, false);
        keys.add_secret(SECRET.as_bytes()).unwrap();
        let found = keys.verify(token(&claims).as_bytes(), NOW_MS).err();
        assert_eq!(found, expected, "{claims}");
    };
    let (us, me) = (Some("us"), Some("me"));
    let claims = |issuer: Value, audience: Value| {
        let mut claims = json!({"sub": "a"});
        for (name, value) in [("iss", issuer), ("aud", audience)] {
            if !value.is_null() {
                claims[name] = value;
            }
        }
        claims
    };
    let nothing = || Value::Null;
    check(us, None, claims(json!("us"), nothing()), None);
    for issuer in [json!("them"), json!(7), nothing()] {
        check(
            us,
            None,
            claims(issuer, nothing()),
            Some(TokenError::Issuer),
        );
    }
    check(None, None, claims(json!("them"), nothing()), None);
    for audience in [json!("me"), json!(["you", "me"])] {
        check(None, me, claims(nothing(), audience), None);
    }
    for audience in [json!("you"), json!(["you"]), json!([]), nothing()] {
        check(
            None,
            me,
            claims(nothing(), audience),
            Some(TokenError::Audience),
        );
    }
    for audience in [json!("me"), json!(["me"])] {
        check(
            None,
            None,
            claims(nothing(), audience),
            Some(TokenError::Audience),
        );
    }
}

#[test]
fn an_old_and_a_new_secret_are_good_side_by_side() {
    let mut keys = Keys::default();
    keys.add_secret(b"the new one").unwrap();
    keys.add_secret(SECRET.as_bytes()).unwrap();
    assert!(keys.has_short_secret());
    for secret in ["the new one", SECRET] {
        let key = EncodingKey::from_secret(secret.as_bytes());
        let token = encode(&Header::default(), &json!({"sub": "a"}), &key).unwrap();
        assert!(keys.verify(token.as_bytes(), NOW_MS).is_ok());
    }
    assert_eq!(format!("{keys:?}"), "Keys(2)");
    for _ in keys.len()..16 {
        keys.add_secret(b"x").unwrap();
    }
    let one_more = keys.add_secret(b"x").unwrap_err();
    assert_eq!(one_more.to_string(), "makes more than 16 keys");
    assert!(!super::testing::keys().has_short_secret());
}

#[test]
fn files_with_no_good_key_are_refused() {
    let both = format!("# ours\n{RSA_PUBLIC}\nand\n{ED25519_PUBLIC}");
    assert_eq!(of_files(&[&both]).unwrap().len(), 2);
    let mut others = jwks();
    others["keys"] = json!([
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "RSA", "use": "enc", "n": "AA", "e": "AQAB"},
        {"kty": "RSA", "alg": "RS512", "n": "AA", "e": "AQAB"},
        {"kty": "what", "x": 7},
    ]);
    let set = |keys: Value| json!({"keys": keys}).to_string();
    for (text, complaint) in [
        ("", "neither PEM nor a JWK set"),
        ("a text", "neither PEM nor a JWK set"),
        ("{}", "neither PEM nor a JWK set"),
        (&set(json!([])), "has no key for"),
        (&others.to_string(), "has no key for"),
        (RSA, "is a private key"),
        (ED25519, "is a private key"),
        (&format!("{RSA_PUBLIC}{ED25519}"), "is a private key"),
        (P256, "no public key of RSA or Ed25519"),
        (RSA_SHORT, "not of 2048 to 4096 bits"),
        (&RSA_PUBLIC[..200], "no public key of RSA or Ed25519"),
        ("-----BEGIN ", "no public key of RSA or Ed25519"),
        (
            &set(json!([{"kty": "RSA", "n": "AA", "e": "AQAB"}])),
            "not of 2048 to 4096 bits",
        ),
        (
            &set(json!([{"kty": "RSA", "n": "!", "e": "AQAB"}])),
            "a key that is broken",
        ),
        (
            &set(json!([{"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}])),
            "an Ed25519 key that is broken",
        ),
        // Of the right size, and no point of the curve.
        (
            &set(json!([{"kty": "OKP", "crv": "Ed25519", "x": format!("Ag{}", "A".repeat(41))}])),
            "an Ed25519 key that is broken",
        ),
    ] {
        let refused = of_files(&[text]).map(|_| ()).unwrap_err().to_string();
        assert!(refused.contains(complaint), "{text}: {refused}");
    }
}
