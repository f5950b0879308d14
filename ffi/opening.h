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
