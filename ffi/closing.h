/* Whom an event or a request is for. A name must stay until the call that it is for. */

static inline pubsub_to pubsub_to_of(uint32_t type, const char *name, size_t name_size) {
  pubsub_to to;
  to.type = type;
  to.client.high = 0;
  to.client.low = 0;
  to.name = name;
  to.name_size = name_size;
  return to;
}

/** One that handles the event: a client, a peer, a link of the broker's process. */
static inline pubsub_to pubsub_to_service(void) {
  return pubsub_to_of(PUBSUB_TO_SERVICE, NULL, 0);
}

/** One that handles it among the links of the broker's process. */
static inline pubsub_to pubsub_to_master(void) {
  return pubsub_to_of(PUBSUB_TO_MASTER, NULL, 0);
}

/** One that handles it among the peers from elsewhere, but not the sender. */
static inline pubsub_to pubsub_to_any_peer(void) {
  return pubsub_to_of(PUBSUB_TO_ANY_PEER, NULL, 0);
}

/** The peer of this name. */
static inline pubsub_to pubsub_to_peer(const char *name) {
  return pubsub_to_of(PUBSUB_TO_PEER, name, name == NULL ? 0 : strlen(name));
}

/** This client. */
static inline pubsub_to pubsub_to_client(pubsub_client client) {
  pubsub_to to = pubsub_to_of(PUBSUB_TO_CLIENT, NULL, 0);
  to.client = client;
  return to;
}

/** The client that this link has accepted by this token. */
static inline pubsub_to pubsub_to_token(const char *token, size_t token_size) {
  return pubsub_to_of(PUBSUB_TO_TOKEN, token, token_size);
}
