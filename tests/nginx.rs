//! The broker behind a real nginx, configured by the block of `docs/proxies.md`: over TCP and over a Unix socket.
//!
//! `stream` of nginx sends PROXY headers of version 1 only, which are refused; so `haproxy` has those of version 2.

mod common;

use std::net::TcpStream;
use std::path::Path;

use common::server::{blocks, replaced};
use common::visitor::{Entered, connect_from, enter, whoami};
use common::{Broker, Client, End, Server, option, wait_for};
use serde_json::json;
use tungstenite::Message;

/// An address of this machine that no proxy has.
const CLIENT: &str = "127.0.0.9";

/// The page's block for a broker at `upstream`, whose connections nginx gives up after `read_timeout` of silence.
fn nginx(upstream: &str, read_timeout: &str) -> Option<Server> {
    let configure = |port: u16, folder: &Path| {
        let block = blocks("proxies.md", "nginx").remove(0);
        let block = replaced(
            block,
            &[
                ("server 127.0.0.1:8000;", &format!("server {upstream};")),
                ("listen 443 ssl;", &format!("listen 127.0.0.1:{port};")),
                ("ssl_certificate ", "# "),
                ("ssl_certificate_key ", "# "),
                (
                    "proxy_read_timeout 60s;",
                    &format!("proxy_read_timeout {read_timeout};"),
                ),
            ],
        );
        let folder = folder.display().to_string();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("    {name}_temp_path {folder}/{name};\n"))
            .concat();
        let whole = format!(
            "daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log stderr;\nevents {{}}\n\
             http {{\n    access_log off;\n{temporary}{block}}}\n"
        );
        let path = format!("{folder}/nginx.conf");
        std::fs::write(&path, whole).expect("it can be written");
        ["-p", &folder, "-c", &path, "-e", "stderr"]
            .map(str::to_owned)
            .to_vec()
    };
    let nginx = Server::start("nginx", configure);
    if nginx.is_none() {
        common::skip(
            "nginx",
            "there is no nginx: run cargo xtask test --only setup",
        );
    }
    nginx
}

/// Through the proxy, for the public name.
fn visit(nginx: &Server, headers: &[(&str, &str)]) -> Entered<TcpStream> {
    let headers = [&[("host", "app.example")], headers].concat();
    enter(connect_from(CLIENT, &nginx.address), b"", &headers)
}

/// Those that were here before may not have gone yet.
fn client(nginx: &Server) -> Client {
    wait_for("a seat", || {
        let stream = connect_from(CLIENT, &nginx.address);
        Client::try_over(stream, "app.example", "/").ok()
    })
}

/// Everything that a client does, in small, and what the broker knows of it.
fn check_through(broker: &Broker, nginx: &Server) {
    let (mut one, mut other) = (client(nginx), client(nginx));
    other.subscribe("news");
    for (number, size) in [0, 1, 300, 5_000, 60_000].into_iter().enumerate() {
        one.publish("news", json!({"n": number, "fill": "x".repeat(size)}));
        let message = &other.delivery()["message"];
        assert_eq!(message["n"], number);
        assert_eq!(message["fill"].as_str().map(str::len), Some(size));
    }
    assert_eq!(broker.address_of(&one.whoami()), CLIENT);

    // What the client writes of itself stands before what nginx says of it.
    let lies = [
        ("X-Forwarded-For", "203.0.113.5"),
        ("X-Forwarded-Host", "other.example"),
        ("X-Forwarded-Proto", "gopher"),
    ];
    let own_page = ("Origin", "http://app.example");
    let headers = [&lies[..], &[own_page]].concat();
    let mut liar = visit(nginx, &headers).expect("its page is of the host");
    assert_eq!(broker.address_of(&whoami(&mut liar)), CLIENT);
    for page in [
        "http://other.example",
        "https://app.example",
        "http://app.example:8000",
        "null",
    ] {
        let headers = [&lies[..], &[("Origin", page)]].concat();
        let refused = visit(nginx, &headers);
        assert_eq!(refused.err(), Some((403, None)), "{page}");
    }

    // One more than there may be.
    let refused = visit(nginx, &[]).expect_err("one too many");
    assert_eq!(refused, (429, Some("5".to_owned())));
    drop(liar);
    wait_for("a seat", || visit(nginx, &[]).ok());
    let other_client = connect_from("127.0.0.8", &nginx.address);
    enter(other_client, b"", &[("host", "app.example")]).expect("another address");
}

/// A drain of the broker, as a client of the proxy sees it.
fn check_drain(mut broker: Broker, nginx: &Server) {
    let mut client = client(nginx);
    client.subscribe("news");
    client.publish("news", json!("last"));
    broker.terminate();
    assert_eq!(client.delivery()["message"], "last");
    let (_, end) = client.read_to_end();
    assert_eq!(end, End::Code(1001));
    drop(client);
    assert_eq!(broker.wait_exit().code(), Some(0));
    let refused = visit(nginx, &[]).expect_err("nobody is behind it");
    assert_eq!(refused.0, 502);
}

#[test]
fn over_tcp() {
    let broker = Broker::start(&[option::TRUST_PROXY, "127.0.0.1", option::MAX_PER_IP, "3"]);
    let Some(nginx) = nginx(broker.listen(), "60s") else {
        return;
    };
    check_through(&broker, &nginx);
    check_drain(broker, &nginx);
}

#[test]
fn over_a_unix_socket() {
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
    let Some(nginx) = nginx(&listen, "60s") else {
        return;
    };
    check_through(&broker, &nginx);
    check_drain(broker, &nginx);
}

#[test]
fn one_that_is_not_trusted_stands_for_all_its_clients() {
    let broker = Broker::start(&[option::MAX_PER_IP, "2"]);
    let Some(nginx) = nginx(broker.listen(), "60s") else {
        return;
    };
    // Its name is not this machine's, and might have been rebound.
    assert_eq!(visit(&nginx, &[]).err(), Some((403, None)));
    let local = |source: &str| {
        let stream = connect_from(source, &nginx.address);
        enter(stream, b"", &[("host", "localhost")])
    };
    // Who was refused counts until it has gone.
    let local_when_free = |source| wait_for("a seat", || local(source).ok());
    let mut one = local_when_free(CLIENT);
    assert!(
        broker
            .address_of(&whoami(&mut one))
            .starts_with("127.0.0.1:")
    );
    let _other = local_when_free("127.0.0.8");
    let refused = local("127.0.0.7").err();
    assert_eq!(refused.map(|(status, _)| status), Some(429));
}

#[test]
fn pings_keep_an_idle_client() {
    let broker = Broker::start(&[
        option::TRUST_PROXY,
        "127.0.0.1",
        option::PING_INTERVAL_MS,
        "500",
    ]);
    let Some(nginx) = nginx(broker.listen(), "1s") else {
        return;
    };
    let mut client = visit(&nginx, &[]).expect("it may come in");
    // Five of them take longer than nginx bears silence.
    for _ in 0..5 {
        let message = client.read().expect("a ping, not the end");
        assert!(matches!(message, Message::Ping(_)), "{message:?}");
    }
    whoami(&mut client);
}
