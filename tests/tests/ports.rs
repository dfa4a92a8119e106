//! When a call that closes a port returns, the port can be reused at once.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

use std::net::{SocketAddr, TcpListener, TcpStream};

use ccl_core::{Communicator, CommunicatorConfig, MasterConfig, MasterServer, Options};

const LOOPBACK: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

fn master(listen: SocketAddr) -> MasterServer {
    let config = MasterConfig {
        listen,
        new_run: true,
        ..MasterConfig::default()
    };
    MasterServer::start(config, None).unwrap()
}

fn peer(master: &MasterServer, listen: SocketAddr) -> Communicator {
    let config = CommunicatorConfig {
        master: master.address().to_string(),
        listen: Some(listen),
        ..CommunicatorConfig::default()
    };
    Communicator::connect(config).unwrap()
}

#[test]
fn a_peers_port_is_free_when_it_has_closed() {
    let master = master(LOOPBACK);
    let mut listen = LOOPBACK;
    for round in 0..200 {
        let communicator = peer(&master, listen);
        listen = communicator.listen_address();
        communicator.barrier(&Options::default()).unwrap();
        if round % 2 == 0 {
            communicator.close();
        } else {
            drop(communicator);
        }
        let free = TcpListener::bind(listen);
        assert!(free.is_ok(), "round {round}: {free:?}");
    }
}

#[test]
fn a_masters_port_is_free_when_it_has_stopped() {
    let mut listen = LOOPBACK;
    for round in 0..50 {
        let master = master(listen);
        listen = master.address();
        let _connection = TcpStream::connect(listen).unwrap();
        master.stop();
        master.wait().unwrap();
        let free = TcpListener::bind(listen);
        assert!(free.is_ok(), "round {round}: {free:?}");
    }
}
