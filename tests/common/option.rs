//! The names of the options that these tests shorten limits and timings with, in one place.

pub const MAX_CONNECTIONS: &str = "--max-connections";
pub const MAX_SUBSCRIPTIONS: &str = "--max-subscriptions";
pub const MAX_HANDLERS: &str = "--max-handlers";
pub const MAX_REQUESTS: &str = "--max-requests";
pub const MAX_MESSAGE: &str = "--max-message";
pub const MAX_OUTBOX: &str = "--max-outbox";
pub const SOFT_OUTBOX: &str = "--soft-outbox";
pub const SOFT_OUTBOX_MS: &str = "--soft-outbox-ms";
pub const MESSAGE_TIMEOUT_MS: &str = "--message-timeout-ms";
pub const CONNECT_TIMEOUT_MS: &str = "--connect-timeout-ms";
pub const PING_INTERVAL_MS: &str = "--ping-interval-ms";
pub const PING_TIMEOUT_MS: &str = "--ping-timeout-ms";
pub const CLUSTERWS_PING_INTERVAL_MS: &str = "--clusterws-ping-interval-ms";
pub const REQUEST_TIMEOUT_MS: &str = "--request-timeout-ms";
pub const LINGER_MS: &str = "--linger-ms";
pub const SLOW: &str = "--slow";
pub const MAX_PUBLISH_RATE: &str = "--max-publish-rate";
pub const MAX_PUBLISH_BURST: &str = "--max-publish-burst";
pub const MAX_SUBSCRIBE_RATE: &str = "--max-subscribe-rate";
pub const SERVER_MAX_OUTBOX: &str = "--server-max-outbox";
pub const ADMIN_KEY: &str = "--admin-key";
pub const TRUST_PROXY: &str = "--trust-proxy";
pub const MAX_PER_IP: &str = "--max-per-ip";
