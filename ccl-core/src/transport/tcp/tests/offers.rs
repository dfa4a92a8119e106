//! Links between two peers of which only one can reach the other.
//!
//! The second peer dials. Its addresses of the first are wrong: refused, silent, or none.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::raw::{Raw, hello, stranger};
use super::*;
use crate::wire::data::LaneOffer;

/// A port that refuses connections, as far as one can know.
async fn closed_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// A port that does not answer, as behind a firewall: its accept queue is full, so packets are
/// dropped. The returned sockets keep it full.
async fn silent_port() -> (SocketAddr, TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queue = Vec::new();
    let brief = Duration::from_millis(100);
    while let Ok(Ok(stream)) = tokio::time::timeout(brief, TcpStream::connect(address)).await {
        queue.push(stream);
    }
    (address, listener, queue)
}

/// Two peers; the second dials these addresses, and the first can reach the second.
async fn one_way(addresses: Vec<SocketAddr>, lanes: u16) -> (Node, Node) {
    let link_timeout = Duration::from_secs(3);
    let first = Node::new(1, lanes, link_timeout);
    let second = Node::new(2, lanes, link_timeout);
    first.want(&[(second.id, second.as_neighbour(false))]);
    let neighbour = Neighbour {
        addresses,
        ..first.as_neighbour(true)
    };
    second.want(&[(first.id, neighbour)]);
    (first, second)
}

/// Before the link came up, only the reasons for the delay were reported.
async fn comes_up(node: &mut Node) {
    let is_why = |seen: &Seen| matches!(seen, Seen::NoLink(_));
    let seen = node
        .next(|seen| (!is_why(seen)).then(|| seen.clone()))
        .await;
    assert_eq!(seen, Seen::Up, "peer {}", node.id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_is_made_from_the_side_that_gets_through() {
    let (silent, _listener, _queue) = silent_port().await;
    for addresses in [vec![closed_port().await], vec![silent], vec![]] {
        let (mut first, mut second) = one_way(addresses, 4).await;
        comes_up(&mut first).await;
        comes_up(&mut second).await;
        assert_eq!(second.links.counters()[&first.id].lane_sent_bytes.len(), 5);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_made_from_the_other_side_is_repaired_from_there() {
    let (mut first, mut second) = one_way(vec![closed_port().await], 2).await;
    comes_up(&mut first).await;
    comes_up(&mut second).await;
    for lane in [0, 2] {
        second.links.reset_lane(first.id, lane);
        first.next_is(Seen::Repaired(lane)).await;
        second.next_is(Seen::Repaired(lane)).await;
    }
    let downs = |seen: Vec<Seen>| seen.iter().any(|seen| matches!(seen, Seen::Down(..)));
    assert!(!downs(first.drain()) && !downs(second.drain()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_addresses_hold_nobody_up() {
    let (silent, _listener, _queue) = silent_port().await;
    let link_timeout = Duration::from_secs(30);
    let mut first = Node::new(1, 1, link_timeout);
    let mut second = Node::new(2, 1, link_timeout);
    let began = tokio::time::Instant::now();
    let mut nobody = second.as_neighbour(false);
    // Else it would connect from its side.
    nobody.addresses.clear();
    first.want(&[(second.id, nobody)]);
    let mut neighbour = first.as_neighbour(true);
    let real = std::mem::replace(&mut neighbour.addresses, vec![silent; 7]);
    neighbour.addresses.extend(real);
    second.want(&[(first.id, neighbour)]);
    comes_up(&mut first).await;
    comes_up(&mut second).await;
    // One after the other, they would take 14 seconds for each lane.
    let took = began.elapsed();
    assert!(took < Duration::from_secs(14), "{took:?}");
}

/// Both report once why there is no link, with the addresses that they tried.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_cannot_be_made_says_why() {
    let (closed, silent) = (closed_port().await, silent_port().await);
    let mut addresses = vec![closed, silent.0];
    addresses.sort_unstable();
    let (mut first, mut second) = one_way(addresses.clone(), 1).await;
    // It has no address of the other either.
    let mut nobody = second.as_neighbour(false);
    nobody.addresses.clear();
    first.want(&[(second.id, nobody)]);
    let why = |seen: &Seen| match seen {
        Seen::NoLink(why) => Some(why.clone()),
        _ => None,
    };
    let told = second.next(why).await;
    for (address, words) in [
        (closed, "Connection refused"),
        (silent.0, "no answer within"),
    ] {
        let words = format!("{address}: {words}");
        assert!(told.contains(&words), "{words} is missing in: {told}");
    }
    assert!(!told.contains("os error"), "{told}");
    let told = first.next(|seen| why(seen).filter(|why| !why.contains("127.")));
    assert_eq!(told.await, "it has advertised no address");
    second.next_is(Seen::Down(LinkFault::TimedOut, true)).await;
    let again = second.drain().iter().filter_map(why).count();
    assert_eq!(again, 0, "the same words are told once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offer_is_taken_from_an_expected_peer_with_its_keys_only() {
    let node = Node::new(2, 1, Duration::from_secs(3));
    let (from, mut neighbour) = stranger(1);
    neighbour.dial = true;
    node.want(&[(from, neighbour)]);
    let ends = hello(&node, from, 0);
    let good = LaneOffer {
        run: ends.run,
        from,
        to: node.id,
        from_key: ends.from_key,
        to_key: ends.to_key,
    };
    let other = crate::ids::LinkKey(9);
    for wrong in [
        LaneOffer {
            to_key: other,
            ..good
        },
        LaneOffer {
            from_key: other,
            ..good
        },
    ] {
        let mut raw = Raw::connect(&node).await;
        raw.write(&wrong.encode()).await;
        assert!(raw.is_closed().await);
    }
    let mut raw = Raw::connect(&node).await;
    raw.write(&good.encode()).await;
    let greeted = raw.read::<{ crate::wire::data::HELLO_BYTES }>().await;
    let greeted = crate::wire::data::LaneHello::decode(&greeted).unwrap();
    assert_eq!((greeted.from, greeted.to), (node.id, from));
}
