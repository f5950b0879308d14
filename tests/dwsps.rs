//! A dwsps client on somebody else's WebSocket library finds the server that it was written for, without its bugs.
//! The cases are in `clients/node/dwsps.mjs`.

mod common;

use common::{Broker, cases, option, skip};

#[test]
fn a_dwsps_client_is_at_home() {
    let mut program = match cases::node("dwsps.mjs", &["ws"]) {
        Ok(program) => program,
        Err(why) => return skip("a_dwsps_client_is_at_home", &why),
    };
    let broker = Broker::start(&[
        option::PING_INTERVAL_MS,
        "100",
        option::PING_TIMEOUT_MS,
        "10000",
    ]);
    program.arg(format!("ws://{}/", broker.listen()));
    cases::run_cases(&mut program, 18);
}
