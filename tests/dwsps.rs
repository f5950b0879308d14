//! A dwsps client on somebody else's WebSocket library finds the server that it was written for, without its bugs.
//! The cases are in `clients/node/dwsps.mjs`.

mod common;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::broker::run_command_within;
use common::{Broker, missing_node, option, skip};

#[test]
fn a_dwsps_client_is_at_home() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/node");
    if let Some(why) = missing_node(&folder) {
        return skip("a_dwsps_client_is_at_home", &why);
    }
    let broker = Broker::start(&[
        option::PING_INTERVAL_MS,
        "100",
        option::PING_TIMEOUT_MS,
        "10000",
    ]);
    let mut node = Command::new("node");
    node.arg("dwsps.mjs")
        .arg(format!("ws://{}/", broker.listen()))
        .current_dir(&folder);
    let finished = run_command_within(&mut node, Duration::from_secs(120));
    println!("{}", finished.stdout);
    assert_eq!(
        finished.code,
        Some(0),
        "{}\n{}",
        finished.stdout,
        finished.stderr
    );
    let cases = finished
        .stdout
        .lines()
        .filter(|line| line.starts_with("ok "))
        .count();
    assert!(cases >= 18, "only {cases} cases ran");
}
