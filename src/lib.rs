//! A realtime publish/subscribe broker: as a program (`pubsub`), or inside yours.
//!
//! # Inside a program
//!
//! A [`Broker`] is started from a [`Config`]; the program takes part by a [`Link`]: it makes calls from any thread, none
//! of which waits, and is told [events](Event) in batches, on a thread of its own. No code of the program runs on a
//! thread of the broker.
//!
//! ```
//! use pubsub::config::Listener;
//! use pubsub::message::Payload;
//! use pubsub::topic::{Filter, Topic};
//! use pubsub::{Answer, Broker, Config, Event, Link};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config {
//!     listeners: vec![Listener::new("127.0.0.1:0".parse()?)], // where clients connect
//!     ..Config::embedded()
//! };
//! let broker = Broker::start(&config)?;
//! let link = Link::open(&broker, "app")?;
//!
//! let subscribed = link.subscribe(&Filter::dotted("news".into())?, Answer::Wanted)?;
//! assert!(matches!(link.next(None), Some(Event::Done { ticket, .. }) if ticket == subscribed));
//!
//! // Whoever publishes below `news` from now on is heard, whatever it speaks.
//! let topic = Topic::dotted("news.uk".into())?;
//! link.publish(&topic, &Payload::json(r#"{"x":1}"#.into()), true, Answer::Unwanted)?;
//! match link.next(None) {
//!     Some(Event::Message { topic, payload, .. }) => {
//!         assert_eq!(topic, "news.uk");
//!         assert_eq!(payload.bytes(), r#"{"x":1}"#);
//!     }
//!     other => panic!("{other:?}"),
//! }
//!
//! broker.stop(); // the link may live longer: its last event is `Stopped`
//! assert!(matches!(link.next(None), Some(Event::Stopped)));
//! # Ok(())
//! # }
//! ```
//!
//! Embedded, a broker has one shard that is pinned to no CPU, and no admin listener, unless told otherwise
//! ([`Config::embedded`]). It handles no signal, reads no file or environment but what the configuration names, and
//! prints nothing: its log goes to the subscriber for `tracing` that the program had when the broker started, and to
//! Links that watch it ([`Watch::LOG`]). A bug that panics in a shard ends the broker, not the program: every Link gets
//! [`Event::Stopped`]. `docs/embedding.md` has the rest: threads, order, bounds, errors.
//!
//! # Names to count on
//!
//! What this page names, and what [`link`], [`config`], [`topic`], [`message`] and [`address`] show: they change with a
//! line in the changelog. The other modules are public for tests and tools, and change as they need to.
//!
//! # The modules
//!
//! In reading order, each knowing only those above it:
//! nouns ([`address`], [`topic`], [`message`], [`limits`], [`error`], [`secret`], [`failures`]), formats ([`ws`],
//! [`protocol`], [`token`]), logic ([`shard`]), carriage ([`mesh`]), edge ([`net`], [`admin`]), assembly
//! ([`config`], [`broker`], [`link`], [`serve`]).
//! `ARCHITECTURE.md` follows a publish through them.

pub mod accepted;
pub mod address;
pub mod admin;
pub mod broker;
pub mod client;
pub mod config;
pub mod console;
pub mod error;
pub mod failures;
pub mod limits;
pub mod link;
pub mod mesh;
pub mod message;
pub mod net;
pub mod protocol;
pub mod secret;
pub mod serve;
pub mod shard;
pub mod token;
pub mod topic;
pub mod ws;

pub use broker::Broker;
pub use config::Config;
pub use link::{Answer, Audience, Event, Link, LinkError, PeerPattern, RequestId, Ticket, Watch};
