//! A master process with short timeouts, for tests that stop it.
//!
//! `master PEER_TIMEOUT_MS` prints its address, and ends with its standard input.

use std::io::{Read, Write};
use std::time::Duration;

use ccl_core::{MasterConfig, MasterServer, Timers};

fn main() {
    let millis = std::env::args().nth(1).and_then(|text| text.parse().ok());
    let peer_timeout = Duration::from_millis(millis.expect("first argument: peer_timeout in ms"));
    let config = MasterConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        new_run: true,
        timers: Timers {
            heartbeat_interval: peer_timeout / 10,
            peer_timeout,
            reattach_grace: peer_timeout / 2,
            link_timeout: peer_timeout,
            ..Timers::default()
        },
        ..MasterConfig::default()
    };
    let master = MasterServer::start(config, None).expect("a free port");
    println!("{}", master.address());
    std::io::stdout().flush().expect("the test reads it");
    // Ends with an error if the test was killed: the same.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}
