//! Traffic between hosts: datagrams one by one, and checked transfers.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use ccl_stress::wan::Network;

use crate::HANG;

/// A datagram socket of a host.
pub fn datagrams(network: &Network, host: usize) -> UdpSocket {
    let address = SocketAddr::from((network.address(host), 0));
    let bind = move || UdpSocket::bind(address).unwrap();
    let socket = network.spawn(host, bind).unwrap().join().unwrap();
    socket.set_read_timeout(Some(HANG)).unwrap();
    socket
}

/// A transfer over one connection, in progress.
pub struct Transfer {
    sender: thread::JoinHandle<blake3::Hash>,
    receiver: thread::JoinHandle<(blake3::Hash, Instant)>,
    start: Instant,
}

impl Transfer {
    /// Starts to send so many bytes.
    pub fn start(network: &Network, source: usize, target: usize, bytes: usize) -> Self {
        let address = network.address(target).into();
        Self::start_to(network, source, (target, address), bytes)
    }

    /// Starts to send so many bytes over IPv6.
    pub fn start_v6(network: &Network, source: usize, target: usize, bytes: usize) -> Self {
        let address = network.address_v6(target).into();
        Self::start_to(network, source, (target, address), bytes)
    }

    fn start_to(network: &Network, source: usize, to: (usize, IpAddr), bytes: usize) -> Self {
        let listen = move || TcpListener::bind((to.1, 0)).unwrap();
        let listener = network.spawn(to.0, listen).unwrap().join().unwrap();
        let address = listener.local_addr().unwrap();
        let receiver = thread::spawn(move || receive(listener.accept().unwrap().0));
        let connect = move || TcpStream::connect(address).unwrap();
        let connection = network.spawn(source, connect).unwrap().join().unwrap();
        let start = Instant::now();
        let sender = thread::spawn(move || send(connection, bytes));
        Self {
            sender,
            receiver,
            start,
        }
    }

    /// Waits for the last byte; how long it took. All bytes must be right.
    pub fn finish(self) -> Duration {
        let sent = self.sender.join().unwrap();
        let (received, end) = self.receiver.join().unwrap();
        assert_eq!(sent, received, "the bytes have changed");
        end - self.start
    }
}

fn send(mut connection: TcpStream, bytes: usize) -> blake3::Hash {
    let mut random = fastrand::Rng::with_seed(5);
    let mut hasher = blake3::Hasher::new();
    let mut block = vec![0; 1 << 20];
    let mut left = bytes;
    while left > 0 {
        let length = left.min(block.len());
        random.fill(&mut block[..length]);
        hasher.update(&block[..length]);
        connection.write_all(&block[..length]).unwrap();
        left -= length;
    }
    hasher.finalize()
}

fn receive(mut connection: TcpStream) -> (blake3::Hash, Instant) {
    connection.set_read_timeout(Some(HANG)).unwrap();
    let mut hasher = blake3::Hasher::new();
    let mut block = vec![0; 1 << 18];
    loop {
        match connection.read(&mut block).unwrap() {
            0 => return (hasher.finalize(), Instant::now()),
            length => hasher.update(&block[..length]),
        };
    }
}
