//! Three real Socket.IO servers reach each other through the broker, which their Redis adapters take for a Redis. The
//! cases are in `clients/node/socketio_adapters.mjs`.
//!
//! `E2E_RESP=HOST:PORT` names another server, as in `redis_clients`; the tests then have to run one after the other.

mod common;

use common::cases::{node, run_cases};
use common::{RespServer, skip};

#[test]
fn the_adapter_is_at_home() {
    for package in ["redis3", "redis4", "redis6", "ioredis5", "ioredis6"] {
        meet("the_adapter_is_at_home", "plain", package, 15);
    }
}

#[test]
fn the_sharded_adapter_is_at_home() {
    let name = "the_sharded_adapter_is_at_home";
    meet(name, "static", "redis6", 12);
    meet(name, "dynamic", "redis5", 12);
    meet(name, "dynamic", "ioredis6", 12);
    meet(name, "dynamic-private", "redis6", 12);
}

fn meet(test: &str, adapter: &str, package: &str, at_least: usize) {
    let packages = [package, "socket.io", "@socket.io/redis-adapter"];
    match node("socketio_adapters.mjs", &packages) {
        Ok(mut program) => {
            let server = RespServer::start(&[]);
            run_cases(program.args([adapter, package, server.address()]), at_least);
        }
        Err(why) => skip(test, &why),
    }
}
