//! A master process, for tests that kill it: `keeper LISTEN JOURNAL DETACH_MS [gone]` prints
//! `listening ADDRESS` and serves until its standard input ends. `gone` asserts that no member is
//! alive.

use std::io::Read;
use std::time::Duration;

use ccl_core::{MasterConfig, MasterServer, Timers};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, journal, detach_ms, word @ ..] = arguments.as_slice() else {
        panic!("LISTEN JOURNAL DETACH_MS");
    };
    let config = MasterConfig {
        listen: listen.parse().expect("an address"),
        journal: Some(journal.into()),
        members_gone: word.iter().any(|word| word == "gone"),
        timers: Timers {
            heartbeat_interval: Duration::from_millis(100),
            peer_timeout: Duration::from_millis(1000),
            rebuild_window: Duration::from_millis(1000),
            detach_timeout: Duration::from_millis(detach_ms.parse().expect("a number")),
            ..Timers::default()
        },
        ..MasterConfig::default()
    };
    let server = MasterServer::start(config, None).expect("the port and the journal are free");
    println!("listening {}", server.address());
    let mut rest = Vec::new();
    let _until_it_ends = std::io::stdin().read_to_end(&mut rest);
}
