//! `libpubsub`: the C ABI. What it offers is documented in `include/pubsub.h`, which is written from this source.
//!
//! It is a layer of translation and knows nothing of brokers: a call becomes a call of [`broker::link::Link`], an event
//! a flat struct. Each file is about one noun: [`status`] and the last error, [`handle`], [`panic`], [`thread`], then what
//! the header has: [`version`], [`options`], [`broker`](mod@crate::broker), [`link`], [`call`], [`http`],
//! [`event`].
//!
//! Rules that every function keeps, so that each is predictable:
//!
//! - It runs inside [`panic::boundary`]: nothing unwinds into C, and in a child after `fork` it does nothing.
//! - A handle is a number that looks like a pointer ([`handle`]): none, freed or foreign, it is recognised without being
//!   followed.
//! - Outputs are written only on success. What a pointer of the caller points to is read or written only during the call.
//! - A host's thread is left as it was found: no destructor of ours waits for its end, so that the library can be unloaded.
//!
//! All of it is a home of `unsafe`: C promises by its documents what Rust promises by its types. Each block says which
//! sentence of the header it relies on.

#![allow(non_camel_case_types, reason = "names are those of the header")]

mod argument;
mod broker;
mod call;
mod event;
mod handle;
mod http;
mod link;
mod options;
mod panic;
mod status;
mod thread;
mod version;
