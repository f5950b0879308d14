//! Credentials: what a shard believes, and who a session is once it was believed (promise 24).
//!
//! A session says who it is by a token: in its request head, where nobody is let in otherwise unless the access rules
//! know things for everybody, or by a command of its protocol. What was believed stays believed until the token ends,
//! whatever becomes of the keys; and that is an end of its own, with its own close code.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::address::SessionId;
use crate::secret::Secret;
use crate::token::{Claims, Keys, TokenError};
use crate::topic::{Filter, Topic};
use crate::ws::http::{self, Request};

use super::fault;
use super::settings::Admission;
use super::{Now, Shard};

/// What is asked of those who want to come in. The one thing that a shard is told anew while it runs.
#[derive(Clone, Default, Debug)]
pub struct Credentials {
    /// The keys of tokens; without any, tokens are not looked at.
    pub keys: Keys,
    /// The password of RESP's default user, if it has one.
    pub resp_password: Option<Secret>,
}

/// Who a session is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// As whoever let it in calls it.
    pub name: Box<str>,
    /// When it ends, and the session with it, on the shard's clock.
    pub expires_ms: Option<u64>,
    /// What it may subscribe to, if not all that the rules allow.
    pub subscribe: Option<Box<[Filter]>>,
    /// What it may publish to, if not all that the rules allow.
    pub publish: Option<Box<[Filter]>>,
}

/// The latest end of an identity: a hundred years from now are for ever, and every sum with them fits.
const LIFE_MS_MAX: u64 = 100 * 365 * 86_400_000;

impl Identity {
    /// Somebody of this name, who may do all that the rules allow.
    pub fn named(name: &str) -> Identity {
        Identity {
            name: name.into(),
            expires_ms: None,
            subscribe: None,
            publish: None,
        }
    }

    fn of(claims: Claims, now: Now) -> Identity {
        let left_ms = |at_ms: u64| at_ms.saturating_sub(now.unix_ms).min(LIFE_MS_MAX);
        Identity {
            name: claims.subject,
            expires_ms: claims.expires_unix_ms.map(|at_ms| now.ms + left_ms(at_ms)),
            subscribe: claims.subscribe,
            publish: claims.publish,
        }
    }

    /// Does its own list let it subscribe to this? One filter of it has to cover all of it.
    pub fn may_subscribe(&self, filter: &Filter) -> bool {
        let covers = |list: &[Filter]| list.iter().any(|own| own.covers(filter));
        self.subscribe.as_deref().is_none_or(covers)
    }

    /// Does its own list let it publish to this?
    pub fn may_publish(&self, topic: &Topic) -> bool {
        let matches = |list: &[Filter]| list.iter().any(|own| own.speaks_of(topic));
        self.publish.as_deref().is_none_or(matches)
    }
}

/// Why somebody is not let in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unauthenticated {
    /// It said nothing, and has to.
    Silent,
    /// It is not believed.
    Refused(TokenError),
    /// A bug of ours.
    Internal,
}

impl Unauthenticated {
    /// The response to a request head.
    pub fn response(self) -> Vec<u8> {
        // RFC 6750, 3: who showed nothing is told no more than how.
        let (status, challenge) = match self {
            Unauthenticated::Silent => (401, "Bearer"),
            Unauthenticated::Refused(_) => (401, r#"Bearer error="invalid_token""#),
            Unauthenticated::Internal => (500, ""),
        };
        let mut answer = Vec::new();
        let headers = [("WWW-Authenticate", challenge)];
        http::response(
            status,
            "text/plain; charset=utf-8",
            if status == 401 { &headers } else { &[] },
            format!("{self}\n").as_bytes(),
            &mut answer,
        );
        answer
    }
}

impl fmt::Display for Unauthenticated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unauthenticated::Silent => f.write_str("a token is needed"),
            Unauthenticated::Refused(reason) => reason.fmt(f),
            Unauthenticated::Internal => f.write_str("internal error"),
        }
    }
}

/// The token in a request head: `Authorization: Bearer`, or else `?token=`, which is all that a browser can do.
pub(super) fn token_in<'a>(request: &Request<'a>) -> Option<Cow<'a, [u8]>> {
    let bearer = request.values("authorization").find_map(|value| {
        let (scheme, token) = value.split_at_checked(7)?;
        scheme
            .eq_ignore_ascii_case(b"bearer ")
            .then(|| Cow::Borrowed(token.trim_ascii()))
    });
    // A page that has none may well write `?token=`.
    bearer
        .or_else(|| request.query_value("token"))
        .filter(|token| !token.is_empty())
}

impl Shard {
    /// What is believed from now on. Who is in stays in.
    pub fn set_credentials(&mut self, credentials: Arc<Credentials>) {
        self.credentials = credentials;
    }

    /// Finds out who a request with this token is from, and whether it may come in.
    ///
    /// # Errors
    /// [`Unauthenticated`].
    pub(super) fn let_in(
        &mut self,
        id: SessionId,
        token: Option<&[u8]>,
    ) -> Result<(), Unauthenticated> {
        if self.credentials.keys.is_empty() {
            return Ok(());
        }
        match token {
            Some(token) => {
                let identity = self.authenticate(id, token)?;
                self.identify(id, identity);
                Ok(())
            }
            // The host may know better.
            None if self.settings.admission == Admission::Host => Ok(()),
            None if self.settings.access.admits_anyone() => Ok(()),
            None => Err(Unauthenticated::Silent),
        }
    }

    /// Who a session says that it is by this token.
    ///
    /// # Errors
    /// [`Unauthenticated`]; it has been logged.
    pub(super) fn authenticate(
        &mut self,
        id: SessionId,
        token: &[u8],
    ) -> Result<Box<Identity>, Unauthenticated> {
        let (keys, unix_ms) = (&self.credentials.keys, self.now.unix_ms);
        let refused = match fault::contain(|| keys.verify(token, unix_ms)) {
            Some(Ok(claims)) => return Ok(Box::new(Identity::of(claims, self.now))),
            Some(Err(error)) => error,
            None => return Err(Unauthenticated::Internal),
        };
        self.stats.unauthenticated += 1;
        if let Some(session) = self.sessions.find(id) {
            tracing::warn!(address = %session.address, "{refused}");
        }
        Err(Unauthenticated::Refused(refused))
    }

    /// A session is this somebody from now on, until the identity ends.
    pub(super) fn identify(&mut self, id: SessionId, identity: Box<Identity>) {
        if let Some(session) = self.sessions.find(id) {
            session.identity = Some(identity);
            self.set_timer(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::Verdict;
    use super::super::auth::{Access, AccessRule, Who as Whom};
    use super::super::settings::Settings;
    use super::super::testing::{HEAD, House, Who, brief, publish};
    use super::*;
    use crate::token::testing::{self, keys};

    const NOW: u64 = 1_500_000_000;

    /// A house where tokens are asked for.
    fn house_with(change: impl FnOnce(&mut Settings)) -> House {
        let mut house = House::with(2, |settings| {
            settings.access = Access::default().for_authenticated();
            change(settings);
        });
        for shard in &mut house.shards {
            shard.set_credentials(Arc::new(Credentials {
                keys: keys(),
                ..Credentials::default()
            }));
        }
        house
    }

    fn house() -> House {
        house_with(|_| {})
    }

    fn token(claims: Value) -> String {
        testing::token(&claims)
    }

    /// A connection with this query and this header line; what it got, up to the end of the first line.
    fn knock(house: &mut House, query: &str, line: &str) -> (Who, String) {
        let client = house.accept(0, 0, false);
        let head = HEAD
            .replace("GET / ", &format!("GET /{query} "))
            .replace("Host: h\r\n", &format!("Host: h\r\n{line}"));
        house.bytes(client, head.as_bytes());
        house.turn(0);
        (client, house.head(client))
    }

    /// Somebody with these claims who is in.
    fn enter(house: &mut House, claims: Value) -> Who {
        let (client, head) = knock(house, &format!("?token={}", token(claims)), "");
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        client
    }

    fn name(house: &mut House, client: Who) -> Option<String> {
        let identity = house.session(client).identity.as_ref();
        identity.map(|identity| identity.name.to_string())
    }

    #[test]
    fn a_token_comes_in_the_query_or_in_the_header() {
        let (ann, bob) = (token(json!({"sub": "ann"})), token(json!({"sub": "bob"})));
        let mut house = house();
        for (query, line, expected) in [
            (format!("?token={ann}"), String::new(), Some("ann")),
            (
                format!("?a=b&token={ann}&token=x"),
                String::new(),
                Some("ann"),
            ),
            (
                format!("?token={}", ann.replace('.', "%2E")),
                String::new(),
                Some("ann"),
            ),
            (
                String::new(),
                format!("Authorization: Bearer {bob}\r\n"),
                Some("bob"),
            ),
            (
                String::new(),
                format!("AUTHORIZATION:bearer   {bob} \r\n"),
                Some("bob"),
            ),
            // The header is what a program sends on purpose; what another scheme says is for a proxy.
            (
                format!("?token={ann}"),
                format!("Authorization: Bearer {bob}\r\n"),
                Some("bob"),
            ),
            (
                format!("?token={ann}"),
                "Authorization: Basic eDp5\r\n".to_owned(),
                Some("ann"),
            ),
            (String::new(), format!("Authorization: {bob}\r\n"), None),
            ("?token=".to_owned(), String::new(), None),
            (format!("?Token={ann}"), String::new(), None),
            (String::new(), String::new(), None),
        ] {
            let (client, head) = knock(&mut house, &query, &line);
            if expected.is_some() {
                assert!(head.starts_with("HTTP/1.1 101 "), "{query} {line} {head}");
                assert_eq!(name(&mut house, client).as_deref(), expected);
            } else {
                assert!(head.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{head}");
                assert!(head.contains("WWW-Authenticate: Bearer\r\n"), "{head}");
                assert!(head.ends_with("\r\n\r\na token is needed\n"), "{head}");
                assert!(house.is_shut(client));
            }
        }
        let stats = house.shards[0].stats();
        assert_eq!((stats.handshakes_refused, stats.unauthenticated), (4, 0));
    }

    #[test]
    fn what_is_shown_must_be_good_even_where_nothing_need_be_shown() {
        let open = |settings: &mut Settings| {
            let rule = AccessRule {
                filter: Filter::dotted("news".into()).unwrap(),
                who: Whom::Anyone,
                subscribe: true,
                publish: false,
            };
            settings.access = Access::new(vec![rule]).for_authenticated();
        };
        for (mut house, is_open) in [(house(), false), (house_with(open), true)] {
            let (client, head) = knock(&mut house, "", "");
            assert_eq!(head.starts_with("HTTP/1.1 101 "), is_open, "{head}");
            if is_open {
                assert_eq!(name(&mut house, client), None);
                let told = house.ask(client, r#"{"type":"subscribe","topic":"news"}"#);
                assert_eq!(brief(&told), ["ack subscribe"]);
                let told = house.ask(client, &publish("news", 1));
                assert_eq!(brief(&told), ["error publish not_allowed"]);
            }
            let expired = token(json!({"sub": "ann", "exp": NOW}));
            let (message, signature) = expired.rsplit_once('.').unwrap();
            let forged = format!("{message}.{}", "A".repeat(signature.len()));
            for (shown, reason) in [
                (expired.as_str(), "the token has expired"),
                (
                    &expired[1..],
                    "this is no token signed with HS256, RS256 or EdDSA",
                ),
                (&forged, "the token's signature is wrong"),
            ] {
                let (client, head) = knock(&mut house, &format!("?token={shown}"), "");
                assert!(head.starts_with("HTTP/1.1 401 "), "{head}");
                let challenge = "WWW-Authenticate: Bearer error=\"invalid_token\"\r\n";
                assert!(head.contains(challenge), "{head}");
                assert!(head.ends_with(&format!("\r\n\r\n{reason}\n")), "{head}");
                assert!(house.is_shut(client));
            }
            assert_eq!(house.shards[0].stats().unauthenticated, 3);
        }
        // Where nobody asks for tokens, one is whatever the application makes of it.
        let mut house = House::new(1);
        let (client, head) = knock(&mut house, "?token=x", "Authorization: Bearer y\r\n");
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert_eq!(name(&mut house, client), None);
    }

    #[test]
    fn its_lists_are_what_it_may_do() {
        let mut house = house();
        let claims = json!({"sub": "ann", "subscribe": ["a", "=b"], "publish": ["a.x"]});
        let client = enter(&mut house, claims);
        for (kind, topic, expected) in [
            ("subscribe", "a.b", "ack subscribe"),
            ("subscribe", "a", "ack subscribe"),
            ("subscribe", "b", "error subscribe not_allowed"),
            ("subscribe", "=b", "ack subscribe"),
            ("subscribe", "*", "error subscribe not_allowed"),
            ("publish", "a", "error publish not_allowed"),
            ("publish", "a.x.y", "ack publish"),
        ] {
            let text = format!(r#"{{"type":"{kind}","topic":"{topic}","message":1}}"#);
            let told = brief(&house.ask(client, &text));
            assert_eq!(told.last().unwrap(), expected, "{topic}");
        }
    }

    #[test]
    fn a_session_ends_with_its_token() {
        let mut house = house();
        let short = enter(&mut house, json!({"sub": "ann", "exp": NOW + 5}));
        let stuck = enter(&mut house, json!({"sub": "bob", "exp": NOW + 5}));
        let long = enter(&mut house, json!({"sub": "cyd", "exp": 1e300}));
        for client in [short, stuck, long] {
            house.subscribe(client, "a");
        }
        house.stop_reading(stuck);
        house.pass(4_999);
        house.turn(0);
        house.ask(long, &publish("a", 1));
        assert_eq!(brief(&house.read(short)), ["publish a"]);
        house.pass(1);
        house.turn(0);
        assert_eq!(house.read(short), ["close 4010 token expired"]);
        assert!(house.is_shut(short));
        house.ask(long, &publish("a", 1));
        assert_eq!(house.read(short), [""; 0]);
        // Its last words wait behind what it does not read.
        assert!(house.session(stuck).is_ending());
        house.read_on(stuck);
        house.settle();
        let told = house.read(stuck);
        assert_eq!(brief(&told), ["publish a", "close 4010 token expired"]);
        assert!(house.session(long).is_open());
        let closed = house.shards[0].stats().closed;
        let index = crate::error::CloseReason::ALL
            .iter()
            .position(|reason| *reason == crate::error::CloseReason::TokenExpired);
        assert_eq!(closed[index.unwrap()], 2);
    }

    #[test]
    fn new_keys_are_for_those_who_come() {
        let mut house = house();
        let old = enter(&mut house, json!({"sub": "ann"}));
        let mut changed = Keys::default();
        changed.add_secret(b"another secret").unwrap();
        house.shards[0].set_credentials(Arc::new(Credentials {
            keys: changed,
            ..Credentials::default()
        }));
        let query = format!("?token={}", token(json!({"sub": "bob"})));
        let (_, head) = knock(&mut house, &query, "");
        assert!(head.starts_with("HTTP/1.1 401 "), "{head}");
        house.subscribe(old, "a");
        assert_eq!(name(&mut house, old).as_deref(), Some("ann"));
    }

    #[test]
    fn the_host_is_asked_as_well_and_may_say_who_it_is() {
        for (query, given, expected) in [
            ("", None, None),
            ("", Some("host's"), Some("host's")),
            ("token", None, Some("ann")),
            ("token", Some("host's"), Some("host's")),
        ] {
            let mut house = house_with(|settings| settings.admission = Admission::Host);
            let query = match query {
                "token" => format!("?token={}", token(json!({"sub": "ann"}))),
                _ => String::new(),
            };
            let (client, head) = knock(&mut house, &query, "");
            assert_eq!((head.as_str(), house.asked.len()), ("", 1));
            let identity = given.map(|name| Box::new(Identity::named(name)));
            house.verdict(client, Verdict::Admitted { identity });
            house.turn(0);
            assert!(house.head(client).starts_with("HTTP/1.1 101 "));
            assert_eq!(name(&mut house, client).as_deref(), expected);
        }
        let mut house = house_with(|settings| settings.admission = Admission::Host);
        let (_, head) = knock(&mut house, "?token=x", "");
        assert!(head.starts_with("HTTP/1.1 401 ") && house.asked.is_empty());
    }
}
