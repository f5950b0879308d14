//! The broker behind a real HAProxy, configured by the blocks of `docs/proxies.md`: one that speaks HTTP, and one that
//! sends PROXY headers of version 2.

mod common;

use std::net::TcpStream;
use std::path::Path;

use common::server::{blocks, replaced};
use common::visitor::{Entered, connect_from, enter, whoami};
use common::{Broker, Client, End, Server, option, wait_for};
use serde_json::json;

/// An address of this machine that no proxy has.
const CLIENT: &str = "127.0.0.9";
const HTTP: usize = 0;
const TCP: usize = 1;

/// A block of the page, for a broker at `upstream`.
fn haproxy(block: usize, upstream: &str) -> Option<Server> {
    let configure = |port: u16, folder: &Path| {
        let text = blocks("proxies.md", "haproxy").remove(block);
        let upstream = upstream.replace("unix:", "unix@");
        let bind = match block {
            HTTP => "bind :443 ssl crt /etc/ssl/app.example.pem alpn http/1.1",
            _ => "bind :8000",
        };
        let text = replaced(
            text,
            &[
                (
                    "server broker 127.0.0.1:8000",
                    &format!("server broker {upstream}"),
                ),
                (bind, &format!("bind 127.0.0.1:{port}")),
            ],
        );
        let path = folder.join("haproxy.cfg").display().to_string();
        std::fs::write(&path, text).expect("it can be written");
        ["-db", "-f", &path].map(str::to_owned).to_vec()
    };
    let haproxy = Server::start("haproxy", configure);
    if haproxy.is_none() {
        common::skip(
            "haproxy",
            "there is no HAProxy: run cargo xtask test --only setup",
        );
    }
    haproxy
}

fn visit(haproxy: &Server, source: &str, headers: &[(&str, &str)]) -> Entered<TcpStream> {
    let headers = [&[("host", "app.example")], headers].concat();
    enter(connect_from(source, &haproxy.address), b"", &headers)
}

/// Messages of all sizes, the client's address, its page, its limit; then a drain.
fn check(mut broker: Broker, haproxy: &Server) {
    let client = || Client::over(connect_from(CLIENT, &haproxy.address), "app.example", "/");
    let (mut one, mut other) = (client(), client());
    other.subscribe("news");
    for (number, size) in [0, 1, 300, 5_000, 60_000].into_iter().enumerate() {
        one.publish("news", json!({"n": number, "fill": "x".repeat(size)}));
        assert_eq!(other.delivery()["message"]["n"], number);
    }
    let address = broker.address_of(&one.whoami());
    assert_eq!(address.split(':').next(), Some(CLIENT), "{address}");

    // What the client writes of itself is not believed.
    let headers = [
        ("X-Forwarded-For", "203.0.113.5"),
        ("Origin", "http://app.example"),
    ];
    let mut liar = visit(haproxy, CLIENT, &headers).expect("its page is of the host");
    let address = broker.address_of(&whoami(&mut liar));
    assert_eq!(address.split(':').next(), Some(CLIENT), "{address}");
    let refused = visit(haproxy, "127.0.0.8", &[("Origin", "http://other.example")]);
    assert_eq!(refused.err(), Some((403, None)));

    let refused = visit(haproxy, CLIENT, &[]).err();
    assert_eq!(refused, Some((429, Some("5".to_owned()))));
    visit(haproxy, "127.0.0.8", &[]).expect("another address");
    drop(liar);
    wait_for("a seat", || visit(haproxy, CLIENT, &[]).ok());

    broker.terminate();
    let (_, end) = other.read_to_end();
    assert_eq!(end, End::Code(1001));
    drop((one, other));
    assert_eq!(broker.wait_exit().code(), Some(0));
}

fn over_tcp(block: usize) {
    let broker = Broker::start(&[option::TRUST_PROXY, "127.0.0.1", option::MAX_PER_IP, "3"]);
    if let Some(haproxy) = haproxy(block, broker.listen()) {
        check(broker, &haproxy);
    }
}

fn over_a_unix_socket(block: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let listen = format!("unix:{}/broker.sock", folder.path().display());
    let broker = Broker::start(&[
        "--listen",
        &listen,
        option::TRUST_PROXY,
        "unix",
        option::MAX_PER_IP,
        "3",
    ]);
    if let Some(haproxy) = haproxy(block, &listen) {
        check(broker, &haproxy);
    }
}

#[test]
fn headers_over_tcp() {
    over_tcp(HTTP);
}

#[test]
fn headers_over_a_unix_socket() {
    over_a_unix_socket(HTTP);
}

#[test]
fn proxy_headers_over_tcp() {
    over_tcp(TCP);
}

#[test]
fn proxy_headers_over_a_unix_socket() {
    over_a_unix_socket(TCP);
}
