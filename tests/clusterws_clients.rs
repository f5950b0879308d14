//! ClusterWS clients find the server that they were written for: the one that npm has, in both of its modes, and those
//! of the generations before. The cases are in `clients/node`.

mod common;

use common::cases::{node, run_cases};
use common::{Broker, option, skip};

#[test]
fn clusterws_3_is_at_home() {
    match node("clusterws.mjs", &["clusterws-client-js", "ws"]) {
        Ok(mut program) => {
            // A client leaves after two intervals without a ping, so they are not shorter.
            let interval = [option::CLUSTERWS_PING_INTERVAL_MS, "500"];
            let broker = Broker::start(&[&interval[..], &["--client-services"]].concat());
            let listen = broker.listen();
            program.args([
                format!("ws://{listen}/clusterws"),
                format!("ws://{listen}/clusterws?binary=1"),
                format!("ws://{listen}/"),
            ]);
            run_cases(&mut program, 28);
        }
        Err(why) => skip("clusterws_3_is_at_home", &why),
    }
}

#[test]
fn older_clusterws_clients_are_at_home() {
    match node("clusterws_old.mjs", &["ws"]) {
        Ok(mut program) => {
            let broker = Broker::start(&[
                option::CLUSTERWS_PING_INTERVAL_MS,
                "100",
                // Who is silent for so long altogether is closed.
                option::PING_INTERVAL_MS,
                "200",
                option::PING_TIMEOUT_MS,
                "800",
            ]);
            run_cases(
                program.arg(format!("ws://{}/clusterws", broker.listen())),
                16,
            );
        }
        Err(why) => skip("older_clusterws_clients_are_at_home", &why),
    }
}
