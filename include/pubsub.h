/*
 * libpubsub: a realtime publish/subscribe broker inside your program, and links to one elsewhere.
 *
 * Written from ffi/src; docs/embedding-c.md is the guide, examples/c has whole programs.
 *
 * How every function works:
 *
 * - Handles (`pubsub_options *`, `pubsub_broker *`, `pubsub_link *`) are opaque. Who gets one owns it, and frees it once, by the
 *   function that ends in `_free`. A handle that is NULL, was freed, or is of another kind is recognised: `PUBSUB_EINVAL`.
 * - A function answers with a `pubsub_status`, 0 for success; one that answers with a number (a count, a descriptor) with a
 *   negative one (`-PUBSUB_EINVAL`). `pubsub_last_error` has a sentence for the last failure of the thread.
 * - Outputs are written on success only.
 * - Names and data have a size, and need no NUL; a NULL of size 0 is empty. Where there is no size, a text ends with NUL and is
 *   UTF-8. All is copied before a function returns, and may then be changed or freed.
 * - Any thread may call any function. Only draining a link is for one thread at a time.
 * - Calls of one link take effect in the order made, on every shard. They never wait for the broker. A call with a ticket is
 *   answered by one PUBSUB_EV_DONE, when it has taken effect everywhere.
 * - Nothing of yours is called back, on any thread. No signal handler is installed, no signal taken, no SIGPIPE raised, nothing
 *   printed, no allocator chosen. A bug of the library is `PUBSUB_EPANIC`, never an unwinding into your code.
 * - In a child process after `fork` every function does nothing and answers `PUBSUB_EFORK`. (A program that the child executes
 *   is free to use the library.)
 * - Times are in milliseconds, sizes in bytes.
 */

#ifndef PUBSUB_H
#define PUBSUB_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define PUBSUB_VERSION "0.1.0"

/**
 * How a call ended. The numbers never change, and none is used a second time.
 *
 * `pubsub_last_error` says more, in a sentence.
 */
typedef enum pubsub_status {
  /** It was done, or is under way. */
  PUBSUB_OK = 0,
  /**
   * An argument is wrong: a handle that is NULL, freed or of another kind, a pointer that is NULL, a name or number out
   * of its range, a buffer that is too short. Nothing was done.
   */
  PUBSUB_EINVAL = 1,
  /** A queue is full: what was said before waits to be taken. Nothing was done; the same call may be made later. */
  PUBSUB_EFULL = 2,
  /** Another thread is draining this link; or, of a request: whoever handles it is behind. */
  PUBSUB_EBUSY = 3,
  /** The broker has stopped, or has let this link go. No call will be made any more. */
  PUBSUB_ESTOPPED = 4,
  /** A bug of the library was met, and contained. */
  PUBSUB_EPANIC = 5,
  /** This process is a child (fork) of the one that called the library first. Nothing works here, and nothing was done. */
  PUBSUB_EFORK = 6,
  /** The call does not fit what is: it was made twice, or too late. */
  PUBSUB_ESTATE = 7,
  /** What was named is not there: an option, a listener, a request that waits, somebody who handles an event. */
  PUBSUB_ENOTFOUND = 8,
  /** The time is over. */
  PUBSUB_ETIMEOUT = 9,
  /** The broker does not let this link in: its name is taken, its key is wrong. */
  PUBSUB_EREFUSED = 10,
  /** The configuration is none, or can't be had here: an address is in use, a file is not there. */
  PUBSUB_ECONFIG = 11,
  /** The system had no descriptor, thread or memory left. */
  PUBSUB_ESYSTEM = 12,
  /** The library failed. */
  PUBSUB_EINTERNAL = 13,
  /**
   * A call was refused, or a request was answered by an error, for a reason that is not one of these: see `error` and
   * `reason` of the event.
   */
  PUBSUB_EFAILED = 14,
  /** The rights do not cover this. */
  PUBSUB_ENOTALLOWED = 15,
  /** It is larger than the limit, or one more than the limit. */
  PUBSUB_ELIMIT = 16,
} pubsub_status;

/**
 * What a link can be told, a bit each. Those up to `PUBSUB_EV_PEER_DOWN` come to links that ask for them
 * (`pubsub_link_events`); who asks for one of a pair gets both. The others come unasked.
 *
 * Which fields of `pubsub_event` are set, beside `type`; all others are 0 or NULL:
 *
 * | type            | what has happened                                        | fields |
 * |-----------------|----------------------------------------------------------|--------|
 * | `CONNECT`       | a client has come in, and this link hosts it             | client, arrival |
 * | `ADMIT`         | a client wants to come in: `pubsub_admit` within 10 s    | client, arrival |
 * | `DISCONNECT`    | a client that this link hosts has gone                   | client, code (of the close frame; 1006: none), reason |
 * | `EVENT`         | an event for a handler (not to be answered)              | client or name (the sender), event, data, kind |
 * | `SUBSCRIBE`     | a client that this link hosts has subscribed             | client, topic (the filter) |
 * | `UNSUBSCRIBE`   | it has unsubscribed                                      | client, topic (the filter) |
 * | `PUBLISH`       | a client that this link hosts has published              | client, topic, data, kind |
 * | `OCCUPIED`      | a filter has got its first subscriber in the broker      | topic (the filter) |
 * | `VACATED`       | it has lost its last                                     | topic (the filter) |
 * | `PEER_UP`       | another peer has come in                                 | name |
 * | `PEER_DOWN`     | it has gone                                              | name |
 * | `LOG`           | a line of the broker's log (in this process)             | code (1: error, 2: warning, 3: info), data |
 * | `HTTP`          | a plain HTTP connection that is yours from now on        | fd (to be closed by you, or for `pubsub_link_adopt`), data (read so far), name (where it comes from), listener |
 * | `MESSAGE`       | a message to a topic that this link subscribes to        | topic, context (the subscription), filter, data, kind |
 * | `GAP`           | messages were dropped, since this link was behind        | topic, count |
 * | `REQUEST`       | a request: `pubsub_reply` or `pubsub_reply_error`, once  | request, timeout_ms, client, name (a peer), event, data, kind |
 * | `DONE`          | the answer to a call with this ticket                    | ticket, status; if that is `PUBSUB_OK`: data, kind (of a request, an accept); else error, reason |
 * | `TOKEN_UP`      | a client that this link accepted has come in             | client, name (the token) |
 * | `TOKEN_DOWN`    | it has gone                                              | client, name (the token) |
 * | `TOKEN_REJECTED`| this link has rejected this token                        | name (the token) |
 * | `UP`            | a link to a broker elsewhere is connected                | client (this link's own id) |
 * | `DOWN`          | it has lost its connection, and tries again              | reason |
 * | `CLOSED`        | the broker has let this link go; the last event          | error, reason |
 * | `STOPPED`       | the broker has stopped, or failed; the last event        | |
 */
typedef enum pubsub_event_type {
  PUBSUB_EV_CONNECT = 1,
  PUBSUB_EV_ADMIT = 2,
  PUBSUB_EV_DISCONNECT = 4,
  PUBSUB_EV_EVENT = 8,
  PUBSUB_EV_SUBSCRIBE = 16,
  PUBSUB_EV_PUBLISH = 32,
  PUBSUB_EV_OCCUPIED = 64,
  PUBSUB_EV_PEER_UP = 128,
  PUBSUB_EV_LOG = 256,
  PUBSUB_EV_HTTP = 512,
  PUBSUB_EV_UNSUBSCRIBE = 1024,
  PUBSUB_EV_VACATED = 2048,
  PUBSUB_EV_PEER_DOWN = 4096,
  PUBSUB_EV_MESSAGE = 8192,
  PUBSUB_EV_GAP = 16384,
  PUBSUB_EV_REQUEST = 32768,
  PUBSUB_EV_DONE = 65536,
  PUBSUB_EV_TOKEN_UP = 131072,
  PUBSUB_EV_TOKEN_DOWN = 262144,
  PUBSUB_EV_TOKEN_REJECTED = 524288,
  PUBSUB_EV_UP = 1048576,
  PUBSUB_EV_DOWN = 2097152,
  PUBSUB_EV_CLOSED = 4194304,
  PUBSUB_EV_STOPPED = 8388608,
} pubsub_event_type;

/** How a call is meant, with `|` between. At most one of the first three. */
typedef enum pubsub_flag {
  /** The data is JSON text. (Without one of these three, the broker finds out what it is.) */
  PUBSUB_JSON = 1,
  /** The data is UTF-8. */
  PUBSUB_TEXT = 2,
  /** The data is bytes, whatever they look like. */
  PUBSUB_BINARY = 3,
  /** It may be dropped for who is not ready to take it. */
  PUBSUB_VOLATILE = 4,
  /** A publish comes to this link too, if it subscribes to the topic. */
  PUBSUB_ECHO = 8,
  /** The topic is a channel: any bytes, up to 1024 of them. */
  PUBSUB_CHANNEL = 16,
} pubsub_flag;

/** What a filter is. */
typedef enum pubsub_filter {
  /** `a.b` is `a.b` and everything below it, `*` stands for one level, and a leading `=` means exactly this depth. */
  PUBSUB_DOTTED = 1,
  /** The topic of this name, any bytes up to 1024. */
  PUBSUB_EXACT = 2,
  /** Topics whose names have this shape, as in Redis: `*`, `?`, `[a-z]`, `\x`; up to 255 bytes. */
  PUBSUB_GLOB = 3,
  /** The shard channel of this name: a space of its own, of Redis clients (SPUBLISH). */
  PUBSUB_SHARD = 4,
} pubsub_filter;

/** Whom an event or a request is for. */
typedef enum pubsub_to_type {
  /** One that handles the event: a client, a peer, a link of the broker's process. */
  PUBSUB_TO_SERVICE = 0,
  /** One that handles it among the links of the broker's process. */
  PUBSUB_TO_MASTER = 1,
  /** One that handles it among the peers from elsewhere, but not the sender. */
  PUBSUB_TO_ANY_PEER = 2,
  /** The peer of this name. */
  PUBSUB_TO_PEER = 3,
  /** This client. */
  PUBSUB_TO_CLIENT = 4,
  /** The client that this link has accepted by this token. */
  PUBSUB_TO_TOKEN = 5,
} pubsub_to_type;

/** Which peers, by their names. */
typedef enum pubsub_match {
  /** Every one. */
  PUBSUB_ALL = 0,
  /** The one of this name. */
  PUBSUB_NAME = 1,
  /** Those whose names a regular expression matches, anywhere unless it says otherwise (`^calc-`). */
  PUBSUB_REGEX = 2,
} pubsub_match;

/** A broker in this process. */
typedef struct pubsub_broker pubsub_broker;

/** A program's part in a broker: calls go in, events come out. */
typedef struct pubsub_link pubsub_link;

/** What a broker is told before it starts. */
typedef struct pubsub_options pubsub_options;

/**
 * A client of the broker. Two are the same if both halves are; all zero is none. Good as a key; never used again for another
 * client as long as the broker runs.
 */
typedef struct pubsub_client {
  uint64_t high;
  uint64_t low;
} pubsub_client;

/** A name or value of any bytes; not ended by NUL. */
typedef struct pubsub_text {
  const char *bytes;
  size_t size;
} pubsub_text;

/** A field of a request's header. */
typedef struct pubsub_header {
  /** As it came, in any case. */
  struct pubsub_text name;
  struct pubsub_text value;
} pubsub_header;

/** How a client has come, or wants to. */
typedef struct pubsub_arrival {
  /** What it speaks: `native`, `clusterws`. */
  struct pubsub_text protocol;
  struct pubsub_text path;
  /** Undecoded, without the question mark. */
  struct pubsub_text query;
  /** Where it comes from, as `host:port`. */
  struct pubsub_text address;
  /** Who it is by its token; empty if it showed none. */
  struct pubsub_text user;
  /** Fields of its request's header, in order. */
  const struct pubsub_header *headers;
  size_t header_count;
} pubsub_arrival;

/**
 * Something that a link is told. `pubsub_event_type` says what is set.
 *
 * What it points to holds until the next `pubsub_link_drain` of the link, or `pubsub_link_free`. Texts and data are not ended
 * by NUL.
 */
typedef struct pubsub_event {
  /** A `pubsub_event_type`. */
  uint32_t type;
  /** A `pubsub_status`. */
  int32_t status;
  /** Which call this answers. */
  uint64_t ticket;
  /** For `pubsub_reply`. */
  uint64_t request;
  struct pubsub_client client;
  const char *topic;
  size_t topic_size;
  const char *context;
  size_t context_size;
  const char *event;
  size_t event_size;
  const char *data;
  size_t data_size;
  /** The name of a peer, or a token. */
  const char *name;
  size_t name_size;
  /** A word for programs. */
  const char *error;
  size_t error_size;
  /** A sentence for persons. */
  const char *reason;
  size_t reason_size;
  const struct pubsub_arrival *arrival;
  /** Of messages. */
  uint64_t count;
  /** What `data` is: `PUBSUB_JSON`, `PUBSUB_TEXT` or `PUBSUB_BINARY`. */
  uint32_t kind;
  /** What `context` is: a `pubsub_filter`. */
  uint32_t filter;
  uint32_t code;
  /** In milliseconds. */
  uint32_t timeout_ms;
  /** A descriptor, else -1. */
  int fd;
  /** The index of a listener. */
  uint32_t listener;
  /** Nothing yet. */
  uint32_t reserved[4];
} pubsub_event;

/** Whom an event or a request is for; made by `pubsub_to_client` and the other functions beside it. */
typedef struct pubsub_to {
  /** A `pubsub_to_type`. */
  uint32_t type;
  struct pubsub_client client;
  /** Of a peer, or a token. */
  const char *name;
  size_t name_size;
} pubsub_to;

/**
 * Clients in rooms: those in any of `rooms` (in all, if there is none), without those in any of `except_rooms`, and without
 * `except` (all zero: nobody). Each gets an event once.
 */
typedef struct pubsub_rooms {
  const struct pubsub_text *rooms;
  size_t room_count;
  const struct pubsub_text *except_rooms;
  size_t except_room_count;
  struct pubsub_client except;
} pubsub_rooms;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/** The version of the library that runs, such as `"0.1.0"`. (`PUBSUB_VERSION` is that of this header.) Never freed. */
const char *pubsub_version(void);

/**
 * Why the last call of this thread that failed did: a sentence in UTF-8, at most 511 bytes; empty if none did.
 *
 * The pointer holds for the life of the thread; the text, until the thread makes another call that fails. Any thread, of
 * its own calls only.
 */
const char *pubsub_last_error(void);

/** What a status means, in a few words. For a number that is none, those of `PUBSUB_EINTERNAL`. Never freed; any thread. */
const char *pubsub_status_text(int32_t status);

/**
 * New options: all defaults. NULL if there are 1024 already, or in a child process (see `pubsub_last_error`).
 *
 * Yours, until `pubsub_options_free`. Any thread.
 */
struct pubsub_options *pubsub_options_new(void);

/**
 * Sets an option, in place of what it was set to before.
 *
 * `name` is that of the command line without the dashes (`"listen"`, `"max-message"`), or with underscores; `value` what
 * would follow it there: `"128KiB"`, `"on"`; of an option that can be given several times, all of them, with commas between.
 * `docs/configuration.md` lists them. What is set here wins over the environment (`PUBSUB_MAX_MESSAGE`), and that over the
 * file that the option `config` names. A broker in another program has one shard, pinned to no CPU, and no listener for
 * operators, unless told. `log` and `log-format` mean nothing here.
 *
 * `PUBSUB_EINVAL`: there is no such option (`pubsub_last_error` has the nearest one), or the value does not fit it. Both
 * texts are copied. Any thread.
 *
 * `name` and `value` are texts that end with NUL.
 */
enum pubsub_status pubsub_options_set(struct pubsub_options *options,
                                      const char *name,
                                      const char *value);

/**
 * Adds one value to an option that can be given several times: one that has a comma in it, say.
 *
 * `PUBSUB_EINVAL` as `pubsub_options_set`, and if the option has one value only. Any thread.
 *
 * As for `pubsub_options_set`.
 */
enum pubsub_status pubsub_options_add(struct pubsub_options *options, const char *name, const char *value);

/** Frees options. Brokers that were started with them are not affected. Any thread. */
enum pubsub_status pubsub_options_free(struct pubsub_options *options);

/**
 * Starts a broker. When this returns, clients can connect.
 *
 * `options` may be NULL, for all defaults; it is read, and stays yours. `*broker` is written on success only, and yours
 * until `pubsub_broker_free`. Its threads block all signals and are named `shard-N`. Any thread; no other thread may change
 * the environment (`setenv`) meanwhile.
 *
 * `PUBSUB_ECONFIG`: the options are at odds, or an address is in use. `PUBSUB_ESYSTEM`: the system has no thread or
 * descriptor left. Nothing runs then, and no address is taken.
 *
 * `broker` points to room for a pointer.
 */
enum pubsub_status pubsub_broker_start(const struct pubsub_options *options,
                                       struct pubsub_broker **broker);

/**
 * Where a listener listens: the `index`-th of the option `listener` (`"listen"`, `"resp"`, `"peers"`, `"admin"`; NULL is
 * `"listen"`), as `host:port` with the real port where 0 was asked for, or `unix:/path`.
 *
 * Written to `text` with a NUL, if that fits into `size` bytes. `PUBSUB_EINVAL`: it does not; `pubsub_last_error` says how
 * many bytes it takes. `PUBSUB_ENOTFOUND`: there is no such listener. Also of a broker that was stopped. Any thread.
 *
 * `listener` is a text that ends with NUL, or NULL; `text` points to `size` bytes.
 */
enum pubsub_status pubsub_broker_address(const struct pubsub_broker *broker,
                                         const char *listener,
                                         size_t index,
                                         char *text,
                                         size_t size);

/**
 * Stops a broker in good order: what was taken is handed on, every client is told to go elsewhere (1001; with the option
 * `drain`, one after the other), every link gets `PUBSUB_EV_STOPPED` as its last event. Returns when its threads have
 * ended, after at most 10 s and the `drain`.
 *
 * The handle stays yours. `PUBSUB_ESTOPPED`: it was stopped before, or has stopped by itself since a shard failed
 * (`pubsub_last_error` says how). Any thread.
 */
enum pubsub_status pubsub_broker_stop(struct pubsub_broker *broker);

/**
 * Frees a broker, and stops it if it runs: at once, so that its clients see their connections break. (Call
 * `pubsub_broker_stop` before, where that is not wanted.) Its links stay yours; they get `PUBSUB_EV_STOPPED`. Any thread.
 */
enum pubsub_status pubsub_broker_free(struct pubsub_broker *broker);

/**
 * Opens a link to a broker of this process, under a name that no other peer of the broker has: 1 to 255 bytes without
 * control characters.
 *
 * Waits until every shard knows the name: some microseconds, or up to 2 s if another peer has it, which is asked whether it
 * is still there. `*link` is written on success only, and yours until `pubsub_link_free`; it may live longer than the broker.
 * Any thread.
 *
 * `PUBSUB_EREFUSED`: the name is taken. `PUBSUB_ESTOPPED`, `PUBSUB_ETIMEOUT`, `PUBSUB_ESYSTEM`; `PUBSUB_EFULL`: there are 1024
 * links.
 *
 * `name` is a text that ends with NUL, `link` points to room for a pointer.
 */
enum pubsub_status pubsub_link_open(struct pubsub_broker *broker,
                                    const char *name,
                                    struct pubsub_link **link);

/**
 * Opens a link to a broker elsewhere, by its listener for peers (option `peers`): `unix:/path` or `tcp://host:port`. `key` is
 * the one that it asks for (option `peer-key`), or NULL.
 *
 * Returns at once; `PUBSUB_EV_UP` tells when it is in, `PUBSUB_EV_DOWN` when the connection has broken or could not be had.
 * Meanwhile calls wait (8 MiB of them at most, requests for as long as their timeout), and it connects again after 50 ms to
 * 5 s. What it subscribed to, handles and asked for holds again before the calls that waited. Otherwise as
 * `pubsub_link_open`.
 *
 * The texts end with NUL, `link` points to room for a pointer.
 */
enum pubsub_status pubsub_connect(const char *url,
                                  const char *name,
                                  const char *key,
                                  struct pubsub_link **link);

/**
 * The descriptor to watch: readable, level-triggered, while there are events. Not to be read, written or closed; it is gone
 * with `pubsub_link_free`. Negative: a status (`-PUBSUB_EINVAL`). Any thread.
 */
int pubsub_link_fd(const struct pubsub_link *link);

/**
 * Asks for events: `PUBSUB_EV_...` with `|` between, in place of what was asked for before.
 *
 * A link that asks for CONNECT, ADMIT, EVENT or DISCONNECT *hosts* clients: each client that comes in from then on belongs to
 * one such link, for life. As soon as any link asks for ADMIT, no client comes in unasked, even if that link goes away: the
 * broker fails closed. `PUBSUB_EINVAL`: a bit means nothing. Any thread.
 */
enum pubsub_status pubsub_link_events(struct pubsub_link *link,
                                      uint32_t mask);

/**
 * The same with a ticket: once its `PUBSUB_EV_DONE` has come, every client that comes in is told of, or asked about.
 *
 * `ticket` is where the call's number goes, or NULL.
 */
enum pubsub_status pubsub_link_events_with(struct pubsub_link *link, uint32_t mask, uint64_t *ticket);

/**
 * Takes the events that have come, at most `capacity`, into your array; how many. Never waits; 0 if there is none.
 *
 * What the events of the call before point to is gone with this one. One thread at a time: another gets `-PUBSUB_EBUSY`.
 * Negative is a status: `-PUBSUB_ESTOPPED` after the last event (`PUBSUB_EV_STOPPED` or `PUBSUB_EV_CLOSED`);
 * `-PUBSUB_EINVAL`.
 *
 * `events` points to room for `capacity` events.
 */
int pubsub_link_drain(struct pubsub_link *link,
                      struct pubsub_event *events,
                      size_t capacity);

/**
 * Waits until there is an event, for at most `timeout_ms` milliseconds; negative: for ever.
 *
 * `PUBSUB_OK`: there is, so drain. `PUBSUB_ETIMEOUT`: there was none in time. `PUBSUB_ESTOPPED`: there will be none any more.
 * Any thread, also while another one makes calls or closes the link.
 */
enum pubsub_status pubsub_link_wait(struct pubsub_link *link,
                                    int32_t timeout_ms);

/**
 * Ends a link after the calls made so far: its clients are told to come back (1012), what it subscribed to, handles and
 * joined is gone. The events that are left can still be drained, `PUBSUB_EV_CLOSED` is the last. The handle stays yours.
 *
 * `PUBSUB_ESTOPPED`: it had ended. Any thread, also while another one drains.
 */
enum pubsub_status pubsub_link_close(struct pubsub_link *link);

/**
 * Frees a link, and ends it as `pubsub_link_close` does. Its events and its descriptor are gone: take the descriptor out of
 * your loop before. Of a link to a broker elsewhere it waits until the calls made so far are on their way, for some seconds at
 * most. Any thread; calls of other threads that have begun are finished.
 */
enum pubsub_status pubsub_link_free(struct pubsub_link *link);

/**
 * Gives a connection to the broker: one that came with `PUBSUB_EV_HTTP`, or any stream socket that the host has accepted
 * itself. It is served as one that has just come to this listener (the event's `listener`; 0 for the first of the option
 * `listen`), the `size` bytes at `data` first: all that has been read and not answered, from the beginning of a request on.
 * What it asks for that is not the broker's comes back as an event.
 *
 * On success the descriptor is the broker's, and nobody else may use or close it; on an error it is still yours. Only links
 * of the broker's own process: `PUBSUB_EINVAL`. `PUBSUB_EFULL`: try again. Any thread.
 *
 * `data` points to `size` bytes. `fd` is a descriptor of the caller's that nothing else in the process owns.
 */
enum pubsub_status pubsub_link_adopt(struct pubsub_link *link,
                                     uint32_t listener,
                                     int fd,
                                     const void *data,
                                     size_t size);

/**
 * Publishes data under a topic, to everybody whose filter matches: clients of every protocol, other peers and links, but not
 * this link. `PUBSUB_OK` means that the broker will.
 *
 * `topic` is 1 to 255 bytes of UTF-8, in levels with dots between; the broker finds out whether the data, up to 1 MiB, is
 * JSON, text or bytes. Both are copied. Any thread; calls of one thread take effect in their order.
 *
 * `PUBSUB_EFULL`: too many calls wait already. `PUBSUB_EINVAL`, `PUBSUB_ESTOPPED`.
 *
 * `topic` and `data` point to as many bytes as their sizes say.
 */
enum pubsub_status pubsub_publish(struct pubsub_link *link,
                                  const char *topic,
                                  size_t topic_size,
                                  const void *data,
                                  size_t data_size);

/**
 * The same with flags: what the data is, `PUBSUB_ECHO`, `PUBSUB_CHANNEL`. Answered when every shard with subscribers has it.
 *
 * As for `pubsub_publish`; `ticket` is NULL or points to room.
 */
enum pubsub_status pubsub_publish_with(struct pubsub_link *link,
                                       const char *topic,
                                       size_t topic_size,
                                       const void *data,
                                       size_t data_size,
                                       uint32_t flags,
                                       uint64_t *ticket);

/**
 * Subscribes to a dotted filter: from the answer on, messages that match come as `PUBSUB_EV_MESSAGE`.
 *
 * `ticket` is where the call's number goes, or NULL: with a number one `PUBSUB_EV_DONE` comes that has it. That may be before
 * the number is written, if another thread drains. Any thread.
 *
 * `filter` points to `filter_size` bytes, `ticket` is NULL or points to room.
 */
enum pubsub_status pubsub_subscribe(struct pubsub_link *link,
                                    const char *filter,
                                    size_t filter_size,
                                    uint64_t *ticket);

/**
 * The same with a filter of any kind (`pubsub_filter`).
 *
 * As for `pubsub_subscribe`.
 */
enum pubsub_status pubsub_subscribe_with(struct pubsub_link *link,
                                         uint32_t kind,
                                         const char *filter,
                                         size_t filter_size,
                                         uint64_t *ticket);

/**
 * Ends a subscription to a dotted filter: after the answer, no message comes because of it. Answered also if there was none.
 *
 * As for `pubsub_subscribe`.
 */
enum pubsub_status pubsub_unsubscribe(struct pubsub_link *link,
                                      const char *filter,
                                      size_t filter_size,
                                      uint64_t *ticket);

/**
 * The same with a filter of any kind (`pubsub_filter`).
 *
 * As for `pubsub_subscribe`.
 */
enum pubsub_status pubsub_unsubscribe_with(struct pubsub_link *link,
                                           uint32_t kind,
                                           const char *filter,
                                           size_t filter_size,
                                           uint64_t *ticket);

/**
 * Subscribes to a channel, counted: the first call of a channel subscribes to it (as `PUBSUB_EXACT`), later ones count up. One
 * `PUBSUB_EV_DONE` comes for each, when the subscription holds. Any thread.
 *
 * `channel` points to `channel_size` bytes, `ticket` to room.
 */
enum pubsub_status pubsub_maybe_subscribe(struct pubsub_link *link,
                                          const char *channel,
                                          size_t channel_size,
                                          uint64_t *ticket);

/**
 * Counts a channel down; the last unsubscribes. One that was not counted up is left alone. One `PUBSUB_EV_DONE` comes for each.
 *
 * As for `pubsub_maybe_subscribe`.
 */
enum pubsub_status pubsub_maybe_unsubscribe(struct pubsub_link *link,
                                            const char *channel,
                                            size_t channel_size,
                                            uint64_t *ticket);

/**
 * An event for one: `pubsub_to_client(event.client)`, `pubsub_to_peer("calc-1")`, `pubsub_to_service()` ... Flags: what the
 * data is, `PUBSUB_VOLATILE`. Answered when it is on its way, or by `PUBSUB_ENOTFOUND`. Any thread.
 *
 * `event` is 1 to 255 bytes, the data up to 1 MiB; all is copied.
 *
 * Each pointer is to as many bytes as its size says; `ticket` is NULL or points to room.
 */
enum pubsub_status pubsub_emit(struct pubsub_link *link,
                               struct pubsub_to to,
                               const char *event,
                               size_t event_size,
                               const void *data,
                               size_t data_size,
                               uint32_t flags,
                               uint64_t *ticket);

/**
 * Asks one, as `pubsub_emit` says whom. The answer is the `PUBSUB_EV_DONE` with this ticket: `PUBSUB_OK` and data, or an error:
 * `PUBSUB_ENOTFOUND` (nobody handles it), `PUBSUB_ETIMEOUT`, `PUBSUB_EFAILED` (what the handler says is in `error` and `reason`).
 * `timeout_ms` 0 is the broker's default, a minute, which is also the most. Any thread.
 *
 * As for `pubsub_emit`; `ticket` points to room.
 */
enum pubsub_status pubsub_request(struct pubsub_link *link,
                                  struct pubsub_to to,
                                  const char *event,
                                  size_t event_size,
                                  const void *data,
                                  size_t data_size,
                                  uint32_t flags,
                                  uint32_t timeout_ms,
                                  uint64_t *ticket);

/**
 * Answers a request, once. The broker finds out what the data is. `PUBSUB_ENOTFOUND`: it was answered, or its time is over.
 * Any thread.
 *
 * `data` points to `data_size` bytes.
 */
enum pubsub_status pubsub_reply(struct pubsub_link *link,
                                uint64_t request,
                                const void *data,
                                size_t data_size);

/**
 * The same with a flag: what the data is.
 *
 * As for `pubsub_reply`.
 */
enum pubsub_status pubsub_reply_with(struct pubsub_link *link,
                                     uint64_t request,
                                     const void *data,
                                     size_t data_size,
                                     uint32_t flags);

/**
 * Answers a request by an error: a code for programs (1 to 255 bytes), a reason for persons (up to 1024). Any thread.
 *
 * Both texts end with NUL.
 */
enum pubsub_status pubsub_reply_error(struct pubsub_link *link, uint64_t request, const char *code, const char *reason);

/**
 * From the answer on, requests and events of this name may come to this link, as to others that handle it. Any thread.
 *
 * `event` points to `event_size` bytes, `ticket` is NULL or points to room.
 */
enum pubsub_status pubsub_handle(struct pubsub_link *link, const char *event, size_t event_size, uint64_t *ticket);

/**
 * After the answer, none will.
 *
 * As for `pubsub_handle`.
 */
enum pubsub_status pubsub_unhandle(struct pubsub_link *link, const char *event, size_t event_size, uint64_t *ticket);

/**
 * Answers `PUBSUB_EV_ADMIT`. With `PUBSUB_OK` the client comes in; with any other status it is refused (401), for this reason
 * (up to 1024 bytes; NULL: none is told). Who is not answered for within 10 s is refused. Any thread.
 *
 * `reason` is a text that ends with NUL, or NULL.
 */
enum pubsub_status pubsub_admit(struct pubsub_link *link,
                                struct pubsub_client client,
                                int status,
                                const char *reason);

/**
 * Lets a client in as this user (up to 1024 bytes), whatever its token says. Any thread.
 *
 * `user` is a text that ends with NUL.
 */
enum pubsub_status pubsub_admit_as(struct pubsub_link *link, struct pubsub_client client, const char *user);

/**
 * This client is in this room (up to 1024 bytes, any) from now on: what is emitted to the room after this call reaches it.
 * Any thread.
 *
 * `room` points to `room_size` bytes, `ticket` is NULL or points to room.
 */
enum pubsub_status pubsub_join(struct pubsub_link *link,
                               struct pubsub_client client,
                               const char *room,
                               size_t room_size,
                               uint64_t *ticket);

/**
 * It is in the room no more.
 *
 * As for `pubsub_join`.
 */
enum pubsub_status pubsub_leave(struct pubsub_link *link,
                                struct pubsub_client client,
                                const char *room,
                                size_t room_size,
                                uint64_t *ticket);

/**
 * Closes a client's connection, after what was said to it so far: with a WebSocket close code, 1000 or 3000 to 4999, and a
 * reason of up to 123 bytes, or NULL. Any thread.
 *
 * `reason` is a text that ends with NUL, or NULL; `ticket` is NULL or points to room.
 */
enum pubsub_status pubsub_disconnect(struct pubsub_link *link,
                                     struct pubsub_client client,
                                     uint32_t code,
                                     const char *reason,
                                     uint64_t *ticket);

/**
 * An event for the clients in a room. Flags: what the data is, `PUBSUB_VOLATILE`. Any thread.
 *
 * As for `pubsub_emit`.
 */
enum pubsub_status pubsub_emit_room(struct pubsub_link *link,
                                    const char *room,
                                    size_t room_size,
                                    const char *event,
                                    size_t event_size,
                                    const void *data,
                                    size_t data_size,
                                    uint32_t flags,
                                    uint64_t *ticket);

/**
 * An event for the clients in several rooms, or outside some; each gets it once. Otherwise as `pubsub_emit_room`.
 *
 * As for `pubsub_emit`, and for the texts that `to` points to.
 */
enum pubsub_status pubsub_emit_rooms(struct pubsub_link *link,
                                     const struct pubsub_rooms *to,
                                     const char *event,
                                     size_t event_size,
                                     const void *data,
                                     size_t data_size,
                                     uint32_t flags,
                                     uint64_t *ticket);

/**
 * An event for every client of the broker. Otherwise as `pubsub_emit_room`.
 *
 * As for `pubsub_emit`.
 */
enum pubsub_status pubsub_emit_all(struct pubsub_link *link,
                                   const char *event,
                                   size_t event_size,
                                   const void *data,
                                   size_t data_size,
                                   uint32_t flags,
                                   uint64_t *ticket);

/**
 * An event for other peers: all, one by its name, or those whose names match (`pubsub_match`); never for this link itself.
 * A pattern that is none is answered by `PUBSUB_EINVAL`. Otherwise as `pubsub_emit_room`.
 *
 * As for `pubsub_emit`; `pattern` points to `pattern_size` bytes.
 */
enum pubsub_status pubsub_emit_peers(struct pubsub_link *link,
                                     uint32_t matching,
                                     const char *pattern,
                                     size_t pattern_size,
                                     const char *event,
                                     size_t event_size,
                                     const void *data,
                                     size_t data_size,
                                     uint32_t flags,
                                     uint64_t *ticket);

/**
 * Lets a client in that shows an id (`?id=` in its URL): this one, or a random one if `id` is NULL. The `PUBSUB_EV_DONE` with this
 * ticket has the id as its data. From then on the client may be spoken to as `pubsub_to_token`. Said again, it is answered with
 * the same id. Any thread.
 *
 * `token` points to `token_size` bytes (1 to 255), `id` is a text that ends with NUL, or NULL; `ticket` points to room.
 */
enum pubsub_status pubsub_accept(struct pubsub_link *link,
                                 const char *token,
                                 size_t token_size,
                                 const char *id,
                                 uint64_t *ticket);

/**
 * Lets the client of this token in no more, and cuts it if it is in. `PUBSUB_EV_TOKEN_REJECTED` tells that it was done. Any thread.
 *
 * `token` points to `token_size` bytes, `ticket` is NULL or points to room.
 */
enum pubsub_status pubsub_reject(struct pubsub_link *link,
                                 const char *token,
                                 size_t token_size,
                                 uint64_t *ticket);

/**
 * Lets a peer of this name in. From the first such call on, only peers that were let in may come. Only for links of the
 * broker's own process. Any thread.
 *
 * `name` is a text that ends with NUL, `ticket` is NULL or points to room.
 */
enum pubsub_status pubsub_admit_peer(struct pubsub_link *link, const char *name, uint64_t *ticket);

/**
 * A peer of this name comes in no more; if it is in, it stays. Otherwise as `pubsub_admit_peer`.
 *
 * As for `pubsub_admit_peer`.
 */
enum pubsub_status pubsub_reject_peer(struct pubsub_link *link, const char *name, uint64_t *ticket);

/**
 * Cuts the connection of the peer of this name. Otherwise as `pubsub_admit_peer`.
 *
 * As for `pubsub_admit_peer`.
 */
enum pubsub_status pubsub_cut_peer(struct pubsub_link *link, const char *name, uint64_t *ticket);

/**
 * Writes the id of a client, 20 characters and a NUL: what `whoami` answers in native JSON, for logs and for other programs. Any
 * thread.
 *
 * `text` points to 21 bytes.
 */
enum pubsub_status pubsub_client_text(struct pubsub_client client,
                                      char *text);

/**
 * Reads such an id. Any thread.
 *
 * `text` is a text that ends with NUL, `client` points to room.
 */
enum pubsub_status pubsub_client_parse(const char *text, struct pubsub_client *client);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

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

#endif  /* PUBSUB_H */
