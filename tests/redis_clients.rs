//! Redis clients of other people find a Redis in the broker: every generation of node-redis and ioredis that is in use,
//! redis-py, and what events-broadcaster does with one of them. The cases are in `clients/node` and `clients/python`.
//!
//! `E2E_RESP=HOST:PORT` names another server, such as a real Redis: it passes too, or a case is wrong.

mod common;

use std::net::TcpListener;
use std::process::Command;

use rustix::process::Signal;

use common::cases::{node, python, run_cases};
use common::resp::start_broker;
use common::{Broker, RespServer, Talker, skip};

/// Passwords of the tests are this one.
const PASSWORD: &str = "sesame";

#[test]
fn redis_3_is_at_home() {
    with_node("redis_3_is_at_home", "redis3.mjs", "redis3", &[], 13);
}

#[test]
fn redis_4_is_at_home() {
    with_node("redis_4_is_at_home", "redis.mjs", "redis4", &[], 18);
}

#[test]
fn redis_5_is_at_home() {
    for version in ["2", "3"] {
        let name = "redis_5_is_at_home";
        with_node(name, "redis.mjs", "redis5", &[version], 18);
    }
}

#[test]
fn redis_6_is_at_home() {
    for version in ["2", "3"] {
        let name = "redis_6_is_at_home";
        with_node(name, "redis.mjs", "redis6", &[version], 18);
    }
}

#[test]
fn ioredis_5_is_at_home() {
    with_node("ioredis_5_is_at_home", "ioredis.mjs", "ioredis5", &[], 14);
}

#[test]
fn ioredis_6_is_at_home() {
    for version in ["2", "3"] {
        let name = "ioredis_6_is_at_home";
        with_node(name, "ioredis.mjs", "ioredis6", &[version], 14);
    }
}

#[test]
fn redis_py_is_at_home() {
    match python("redis_py.py") {
        Ok(_) => {}
        Err(why) => return skip("redis_py_is_at_home", &why),
    }
    for version in ["2", "3"] {
        let server = RespServer::start(&[]);
        let mut program = python("redis_py.py").expect("as before");
        run_cases(program.args([server.address(), version]), 13);
    }
}

#[test]
fn events_broadcaster_is_at_home() {
    let name = "events_broadcaster_is_at_home";
    match node("events_broadcaster.mjs", &["redis3", "ioredis5"]) {
        Ok(mut program) => {
            let server = RespServer::start(&[]);
            run_cases(program.arg(server.address()), 10);
        }
        Err(why) => skip(name, &why),
    }
}

#[test]
fn a_password_keeps_clients_out_that_lack_it() {
    let name = "a_password_keeps_clients_out_that_lack_it";
    // A broker a client: too many wrong passwords keep out whoever comes from there.
    let broker = || {
        let server = start_broker("127.0.0.1:0", &["--resp-password", PASSWORD]);
        RespServer::of(server)
    };
    for package in [
        "redis3", "redis4", "redis5", "redis6", "ioredis5", "ioredis6",
    ] {
        match node("redis_auth.mjs", &[package]) {
            Ok(mut program) => {
                let server = broker();
                run_cases(program.args([package, server.address(), PASSWORD]), 3);
            }
            Err(why) => skip(name, &why),
        }
    }
    for version in ["2", "3"] {
        match python("redis_py.py") {
            Ok(mut program) => {
                let server = broker();
                run_cases(program.args([server.address(), version, PASSWORD]), 3);
            }
            Err(why) => skip(name, &why),
        }
    }
}

#[test]
fn clients_are_at_home_on_ipv6() {
    let name = "clients_are_at_home_on_ipv6";
    if let Err(error) = TcpListener::bind("[::1]:0") {
        return skip(name, &format!("there is no IPv6 ({error})"));
    }
    let here = |program: Result<Command, String>, words: &[&str], at_least: usize| match program {
        Ok(mut program) => {
            let server = RespServer::of(start_broker("[::1]:0", &[]));
            let (before, after) = words.split_at(words.len() - 1);
            program.args(before).arg(server.address()).args(after);
            run_cases(&mut program, at_least);
        }
        Err(why) => skip(name, &why),
    };
    here(node("redis.mjs", &["redis6"]), &["redis6", "3"], 18);
    here(node("ioredis.mjs", &["ioredis5"]), &["ioredis5", "2"], 14);
    here(python("redis_py.py"), &["3"], 13);
}

#[test]
fn clients_come_back_to_a_broker_that_was_restarted() {
    let name = "clients_come_back_to_a_broker_that_was_restarted";
    let packages = ["redis6", "ioredis6", "clusterws-client-js"];
    let mut program = match node("comes_back.mjs", &packages) {
        Ok(program) => program,
        Err(why) => return skip(name, &why),
    };
    // An address that no other test listens on, so that nobody takes the ports while they are free.
    let mut broker = Broker::start(&["--listen", "127.0.0.83:0", "--resp", "127.0.0.83:0"]);
    let (listen, resp) = (broker.listen().to_owned(), broker.resp().to_owned());
    let mut clients = Talker::start(program.args([&listen, &resp]));
    let mut all_hear = |word: &str| {
        clients.say(word);
        clients.expect_lines(&[word]);
    };
    all_hear("before");
    for (signal, word) in [
        (Signal::KILL, "after a crash"),
        (Signal::TERM, "after a drain"),
    ] {
        broker.signal(signal);
        broker.wait_exit();
        broker = Broker::start(&["--listen", &listen, "--resp", &resp]);
        all_hear(word);
    }
}

/// Runs a Node program of `PACKAGE HOST:PORT [VERSION]` with a server of its own.
fn with_node(test: &str, program: &str, package: &str, version: &[&str], at_least: usize) {
    match node(program, &[package]) {
        Ok(mut node) => {
            let server = RespServer::start(&[]);
            // The only one with a program of its own, which needs not be told.
            if package != "redis3" {
                node.arg(package);
            }
            run_cases(node.arg(server.address()).args(version), at_least);
        }
        Err(why) => skip(test, &why),
    }
}
