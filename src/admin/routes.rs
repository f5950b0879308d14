//! The routes of the admin listener: what each answers, and whom it refuses (DESIGN 5.1, promises 22 and 24).
//!
//! Reading needs no key. Publishing does wherever a key is set, and beyond loopback nobody publishes without
//! one. Refusals are JSON: `{"error":{"code":..,"reason":..}}`.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, Version, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use serde::Serialize;
use serde_json::json;
use tokio::sync::Semaphore;

use super::ask::{NoAnswer, ask, ask_all};
use super::body;
use super::guard::{is_loopback_host, is_loopback_origin};
use super::metrics::{self, Scrape};
use super::refusal::Refusal;
use super::views::{ConnectionsView, SLOWEST_COUNT, StatsView};
use super::{AdminState, Phase};
use crate::error::Code;
use crate::failures::Failures;
use crate::net::control::Control;
use crate::shard::metrics::{ConnectionView, ShardStats};
use crate::topic::Topic;
use crate::ws::http::percent_decode;

/// The most connections that one `/stats?connections` lists. The answer says how many there are.
pub const LISTED_MAX: usize = 100_000;

const INDEX: &str = "\
pubsub admin

GET  /healthz            200 while every shard answers
GET  /readyz             200 while new clients are welcome
GET  /metrics            OpenMetrics text
GET  /stats              counters of the broker and of each shard, JSON
GET  /stats?connections  each connection with its shard, JSON (?connections=N: the N with most bytes waiting)
POST /publish/TOPIC      publish the body
";

/// The remote address, put into each request by the listener.
#[derive(Clone, Copy, Debug)]
pub struct Remote(pub IpAddr);

type Shared = Arc<Admin>;

struct Admin {
    state: AdminState,
    started: Instant,
    /// The shard that publishes next.
    turn: AtomicUsize,
    failures: Mutex<Failures>,
    /// One list of connections at a time: it is the only answer that is large.
    listing: Semaphore,
}

/// Every route, with the checks in front.
pub fn router(state: AdminState) -> Router {
    let admin = Arc::new(Admin {
        state,
        started: Instant::now(),
        turn: AtomicUsize::new(0),
        failures: Mutex::default(),
        listing: Semaphore::new(1),
    });
    Router::new()
        .route("/", get(INDEX))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/stats", get(stats))
        .route("/publish", post(publish))
        .route("/publish/", post(publish))
        .route("/publish/{*topic}", post(publish))
        .fallback(async || Refusal::new(StatusCode::NOT_FOUND, "not_found", "no such route: see /"))
        .method_not_allowed_fallback(async || {
            let status = StatusCode::METHOD_NOT_ALLOWED;
            Refusal::new(status, "bad_method", "this route has another method: see /")
        })
        .layer(middleware::from_fn_with_state(admin.clone(), check_host))
        .with_state(admin)
}

/// On loopback only names of this machine are answered, so that a page that rebinds its name reads nothing.
async fn check_host(State(admin): State<Shared>, request: Request, next: Next) -> Response {
    let refused = match host(&request) {
        Err(reason) => Some(Refusal::new(StatusCode::BAD_REQUEST, "bad_host", reason)),
        Ok(Some(host)) if admin.state.loopback && !is_loopback_host(&host) => {
            Some(Refusal::forbidden(
                "Host must be localhost or a loopback address: this listener is for this machine",
            ))
        }
        Ok(_) => None,
    };
    let mut response = match refused {
        Some(refused) => refused.into_response(),
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// The host that the request is for (RFC 9112, 3.2): the target's if it is absolute, else the one header's.
/// HTTP/1.0 may come without; a browser never does.
fn host(request: &Request) -> Result<Option<String>, &'static str> {
    let mut fields = request.headers().get_all(header::HOST).iter();
    let field = fields.next();
    if fields.next().is_some() {
        return Err("more than one Host");
    }
    if field.is_none() && request.version() >= Version::HTTP_11 {
        return Err("Host is missing");
    }
    if let Some(authority) = request.uri().authority() {
        return Ok(Some(authority.as_str().to_owned()));
    }
    match field.map(HeaderValue::to_str) {
        None => Ok(None),
        Some(Ok(host)) => Ok(Some(host.to_owned())),
        Some(Err(_)) => Err("Host is no text"),
    }
}

async fn healthz(State(admin): State<Shared>) -> Result<&'static str, Refusal> {
    admin.shard_stats().await?;
    Ok("ok\n")
}

async fn readyz(State(admin): State<Shared>) -> Response {
    let phase = admin.state.ready.phase();
    let status = match phase {
        Phase::Ready => StatusCode::OK,
        Phase::Starting | Phase::Draining => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, format!("{}\n", phase.as_str())).into_response()
}

async fn metrics(State(admin): State<Shared>) -> Result<Response, Refusal> {
    let scrape = Scrape {
        shards: admin.shard_stats().await?,
        phase: admin.state.ready.phase(),
        info: admin.state.info.clone(),
    };
    Ok(match scrape.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => internal(&error),
    })
}

async fn stats(State(admin): State<Shared>, uri: Uri) -> Result<Response, Refusal> {
    Ok(match listed(uri.query().unwrap_or_default()) {
        Some(count) => json_response(&admin.connections_view(count).await?),
        None => json_response(&admin.stats_view().await?),
    })
}

/// How many connections a query asks for: `connections` or `connections=N`; none: not at all.
fn listed(query: &str) -> Option<usize> {
    query.split('&').find_map(|pair| {
        let count = pair.strip_prefix("connections")?;
        match count.strip_prefix('=') {
            None => count.is_empty().then_some(LISTED_MAX),
            Some(count) => Some(count.parse().unwrap_or(LISTED_MAX).min(LISTED_MAX)),
        }
    })
}

/// `POST /publish/TOPIC`: the body is the payload.
async fn publish(
    State(admin): State<Shared>,
    Extension(Remote(remote)): Extension<Remote>,
    request: Request,
) -> Result<Response, Refusal> {
    let (head, body) = request.into_parts();
    let allowed = admin.authorise(&head.headers, remote);
    let asked = allowed.and_then(|()| topic(head.uri.path()));
    // The body of a refused request is read all the same, and not kept: see `body`. A client that waits for
    // `100 Continue` sends none.
    let bytes_max = match &asked {
        Ok(_) => admin.state.message_bytes_max,
        Err(_) => 0,
    };
    let payload = body::read(body, bytes_max, !head.headers.contains_key(header::EXPECT)).await;
    let topic = asked?;
    let payload = payload.map_err(|error| Refusal::body(error, bytes_max))?;
    admin.publish(topic, payload).await?;
    Ok(json_response(&json!({"ok": true})))
}

/// The topic in the path, percent-decoded (RFC 3986, 2.1) and checked.
fn topic(path: &str) -> Result<Topic, Refusal> {
    let written = path.strip_prefix("/publish/").unwrap_or_default();
    let name = percent_decode(written).ok_or(Refusal::bad_topic(
        "a `%` in the path needs two hexadecimal digits behind it",
    ))?;
    if name.is_empty() {
        return Err(Refusal::bad_topic(
            "the topic is missing: POST /publish/TOPIC",
        ));
    }
    Topic::dotted(Bytes::from(name)).map_err(|error| Refusal::bad_topic(error.as_str()))
}

impl Admin {
    async fn shard_stats(&self) -> Result<Vec<ShardStats>, NoAnswer> {
        ask_all(&self.state.shards, |reply| Control::Stats { reply }).await
    }

    /// The `count` connections of each shard with most bytes waiting.
    async fn connections(&self, count: usize) -> Result<Vec<ConnectionView>, NoAnswer> {
        let lists = ask_all(&self.state.shards, |reply| Control::Connections {
            count,
            reply,
        });
        Ok(lists.await?.into_iter().flatten().collect())
    }

    async fn stats_view(&self) -> Result<StatsView, NoAnswer> {
        let shards = self.shard_stats().await?;
        let slowest = self.connections(SLOWEST_COUNT).await?;
        let uptime_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let phase = self.state.ready.phase();
        let info = self.state.info.clone();
        Ok(StatsView::new(phase, info, uptime_ms, &shards, slowest))
    }

    async fn connections_view(&self, count: usize) -> Result<ConnectionsView, NoAnswer> {
        // The semaphore is never closed; its queue is bounded by the connections of this listener.
        let _turn = self.listing.acquire().await;
        let shards = self.shard_stats().await?;
        let connections = self.connections(count).await?;
        Ok(ConnectionsView::new(&shards, connections, count))
    }

    /// May this request publish?
    fn authorise(&self, headers: &HeaderMap, remote: IpAddr) -> Result<(), Refusal> {
        let foreign = |origin: &HeaderValue| !origin.to_str().is_ok_and(is_loopback_origin);
        if headers.get_all(header::ORIGIN).iter().any(foreign) {
            return Err(Refusal::forbidden(
                "a web page of another machine may not publish here",
            ));
        }
        let Some(key) = &self.state.key else {
            return match self.state.loopback {
                true => Ok(()),
                false => Err(Refusal::forbidden(
                    "publishing from other machines needs a key, and this broker has none: set `admin_key`, \
                     or bind the admin listener to loopback",
                )),
            };
        };
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let now_ms = self.started.elapsed().as_millis() as u64;
        if let Some(rest_ms) = failures.blocked_ms(remote, now_ms) {
            return Err(Refusal::guessing(rest_ms / 1000 + 1));
        }
        match headers.get(header::AUTHORIZATION).map(bearer) {
            Some(Some(given)) if key.is(given) => Ok(()),
            Some(_) => {
                failures.add(remote, now_ms);
                tracing::warn!(%remote, "wrong admin key");
                Err(Refusal::unauthorized("the key is wrong"))
            }
            None => Err(Refusal::unauthorized(
                "publishing needs `Authorization: Bearer KEY`",
            )),
        }
    }

    /// Has the next shard publish.
    async fn publish(&self, topic: Topic, payload: Bytes) -> Result<(), Refusal> {
        let shards = &self.state.shards;
        let shard = self.turn.fetch_add(1, Ordering::Relaxed) % shards.len();
        let answer = ask(shards, shard, |reply| Control::Publish {
            topic,
            payload,
            reply,
        });
        answer
            .await
            .unwrap_or_else(|silent| {
                Err(match silent {
                    NoAnswer::Unreachable { .. } => Code::Busy,
                    NoAnswer::Silent { .. } => Code::Timeout,
                })
            })
            .map_err(Refusal::publish)
    }
}

/// The token of `Bearer TOKEN` (RFC 6750, 2.1; the scheme's case does not matter).
fn bearer(field: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = field.as_bytes().split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| token.trim_ascii())
}

fn json_response(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(mut text) => {
            text.push(b'\n');
            let json = [(header::CONTENT_TYPE, "application/json")];
            (json, Body::from(text)).into_response()
        }
        Err(error) => internal(&error),
    }
}

fn internal(error: &dyn std::error::Error) -> Response {
    tracing::error!(%error, "admin answer");
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bearer_tokens() {
        for (field, expected) in [
            ("Bearer k", Some("k")),
            ("bearer  k ", Some("k")),
            ("BEARER a b", Some("a b")),
            ("Bearer ", Some("")),
            ("Bearer", None),
            ("Basic azpr", None),
            ("", None),
        ] {
            let given = HeaderValue::from_static(field);
            assert_eq!(bearer(&given), expected.map(str::as_bytes), "{field}");
        }
    }

    #[test]
    fn listings() {
        for (query, expected) in [
            ("", None),
            ("connections", Some(LISTED_MAX)),
            ("connections=", Some(LISTED_MAX)),
            ("connections=5", Some(5)),
            ("connections=1000000000", Some(LISTED_MAX)),
            ("connections=-1", Some(LISTED_MAX)),
            ("pretty&connections=3", Some(3)),
            ("connectionsx", None),
            ("shards", None),
        ] {
            assert_eq!(listed(query), expected, "{query}");
        }
    }
}
