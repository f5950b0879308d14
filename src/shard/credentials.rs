//! Credentials: what a shard believes, and who a session is once it was believed (promise 24).
//!
//! A session says who it is by a token: in its request head, where nobody is let in otherwise unless the access rules
//! know things for everybody, or by a command of its protocol. What was believed stays believed until the token ends,
//! whatever becomes of the keys; and that is an end of its own, with its own close code.
//!
//! Who could be guessing is counted by address, and the shards tell each other: the count is the broker's, since the
//! kernel deals connections to any of them. That is best effort: a word for which a ring has no room is not kept, and then
//! an address may guess ten times on that shard as well.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::address::{SessionId, ShardSet};
use crate::secret::Secret;
use crate::token::{Claims, Keys, TokenError};
use crate::topic::{Filter, Topic};
use crate::ws::http::{self, Request};

use super::fault;
use super::parcel::Parcel;
use super::{Now, Shard};

/// What is asked of those who want to come in. The one thing that a shard is told anew while it runs.
#[derive(Clone, Default, Debug)]
pub struct Credentials {
    /// The keys of tokens; without any, tokens are not looked at.
    pub keys: Keys,
    /// The password of RESP's default user, if it has one.
    pub resp_password: Option<Secret>,
    /// The key of peers, if they have to show one.
    pub peer_key: Option<Secret>,
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
    /// Nobody at its address is heard for so long.
    Blocked { rest_ms: u64 },
    /// A bug of ours.
    Internal,
}

impl Unauthenticated {
    /// The response to a request head.
    pub fn response(self) -> Vec<u8> {
        let challenge = |challenge: &str| Some(("WWW-Authenticate", challenge.to_owned()));
        let (status, header) = match self {
            // RFC 6750, 3: who showed nothing is told no more than how.
            Unauthenticated::Silent => (401, challenge("Bearer")),
            Unauthenticated::Refused(_) => (401, challenge(r#"Bearer error="invalid_token""#)),
            Unauthenticated::Blocked { rest_ms } => {
                let seconds = rest_ms.div_ceil(1000);
                (429, Some(("Retry-After", seconds.to_string())))
            }
            Unauthenticated::Internal => (500, None),
        };
        let header = header.as_ref().map(|(name, value)| (*name, value.as_str()));
        let mut answer = Vec::new();
        http::response(
            status,
            "text/plain; charset=utf-8",
            header.as_slice(),
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
            Unauthenticated::Blocked { .. } => {
                f.write_str("too many wrong tokens from this address")
            }
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
        let Some(token) = token else {
            self.check_address(id)?;
            // The host may know better.
            let may_be_silent = self.must_ask() || self.settings.access.admits_anyone();
            return may_be_silent.then_some(()).ok_or(Unauthenticated::Silent);
        };
        let identity = self.authenticate(id, token)?;
        self.identify(id, identity);
        Ok(())
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
        self.check_address(id)?;
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
        if refused.is_guess() {
            self.count_failure(id);
        }
        Err(Unauthenticated::Refused(refused))
    }

    /// Is the address of a session one that is heard?
    ///
    /// # Errors
    /// [`Unauthenticated::Blocked`].
    pub(super) fn check_address(&mut self, id: SessionId) -> Result<(), Unauthenticated> {
        let address = self.sessions.find(id).and_then(|one| one.address.ip());
        let rest_ms = address.and_then(|address| self.failures.blocked_ms(address, self.now.ms));
        match rest_ms {
            Some(rest_ms) => Err(Unauthenticated::Blocked { rest_ms }),
            None => Ok(()),
        }
    }

    /// Counts that somebody at the address of a session may be guessing, here and on the other shards. A Unix socket
    /// has no address, and whoever may open it is known already.
    pub(super) fn count_failure(&mut self, id: SessionId) {
        let address = self.sessions.find(id).and_then(|one| one.address.ip());
        let Some(address) = address else {
            return;
        };
        if self.failures.add(address, self.now.ms) {
            tracing::warn!(%address, "too many wrong tokens: not heard for five minutes");
        }
        let mut peers = ShardSet::first(self.settings.shards);
        peers.remove(self.id);
        for peer in peers.iter() {
            let (lane, parcel) = (self.lanes.to(peer), Parcel::Failure { address });
            if lane.has_room(parcel.size()) {
                lane.push(parcel);
            }
        }
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
mod tests;
