//! Which connections the port accepts.

use std::collections::BTreeSet;

use tokio::task::JoinSet;

use super::raw::{Raw, frame, hello, stranger};
use super::*;
use crate::wire::data::LaneHello;

#[tokio::test]
async fn whoever_does_not_show_the_keys_gets_no_answer() {
    let node = Node::new(1, 1, PATIENCE);
    let (id, neighbour) = stranger(5);
    node.want(&[(id, neighbour)]);
    let good = hello(&node, id, 0);
    let wrong = [
        LaneHello {
            to_key: LinkKey(1),
            ..good
        },
        LaneHello {
            from_key: LinkKey(1),
            ..good
        },
        LaneHello {
            run: RunId(1),
            ..good
        },
        LaneHello {
            to: PeerId(3),
            ..good
        },
    ];
    for hello in wrong {
        let mut raw = Raw::connect(&node).await;
        raw.write(&hello.encode()).await;
        let mut byte = [0];
        let read = tokio::io::AsyncReadExt::read(&mut raw.stream, &mut byte);
        let read = tokio::time::timeout(PATIENCE, read).await.unwrap();
        assert!(matches!(read, Ok(0) | Err(_)), "closed without a word");
    }
    Raw::greet(&node, &good).await;
}

#[tokio::test]
async fn a_connection_may_come_before_the_masters_word_on_it() {
    let mut node = Node::unidentified(1, config(1));
    let (id, neighbour) = stranger(5);
    let mut early = [Raw::connect(&node).await, Raw::connect(&node).await];
    for (lane, raw) in (0..).zip(&mut early) {
        raw.write(&hello(&node, id, lane).encode()).await;
    }
    node.identify(PATIENCE);
    node.want(&[(id, neighbour)]);
    node.next_is(Seen::Up).await;
}

#[tokio::test]
async fn a_late_connection_does_not_replace_a_newer_one() {
    let mut node = Node::new(1, 1, PATIENCE);
    let (id, neighbour) = stranger(5);
    node.want(&[(id, neighbour)]);
    let newer = LaneHello {
        attempt: 2,
        ..hello(&node, id, 0)
    };
    let (mut raw, _) = Raw::greet(&node, &newer).await;
    let mut late = Raw::connect(&node).await;
    late.write(&hello(&node, id, 0).encode()).await;
    assert!(late.is_closed().await);
    let payload = Bytes::from_static(b"still here");
    let header = signal_header(0, &payload);
    raw.write(&frame(0, header, &payload)).await;
    node.next_is(Seen::Signal(header, payload)).await;
}

/// A thousand unwanted connections of four kinds, while a link on the same port carries segments.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn junk_on_the_port_disturbs_nobody() {
    let (first, mut second) = pair(2, PATIENCE).await;
    let sent = Segments::patterned(100, 64 << 10);
    let received = Segments::new(100, 64 << 10);
    received.place_into(&second.recorder);
    let address = second.links.address();
    let half_hello = hello(&second, first.id, 0).encode()[..60].to_vec();
    let announcement = {
        let mut header = frame(0, bulk_header(0, 0), b"");
        header[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        header
    };
    let mut attackers = JoinSet::new();
    for index in 0..1000_u32 {
        let bytes = match index % 4 {
            0 => pattern(index, 1 << 20),
            1 => announcement.clone(),
            2 => half_hello.clone(),
            _ => vec![],
        };
        while attackers.len() >= 200 {
            attackers.join_next().await.unwrap().unwrap();
        }
        attackers.spawn(async move {
            let Ok(mut stream) = tokio::net::TcpStream::connect(address).await else {
                return;
            };
            let _cut_off = tokio::io::AsyncWriteExt::write_all(&mut stream, &bytes).await;
            // Held open until the port ends it.
            let mut end = [0; 16];
            let _closed = tokio::io::AsyncReadExt::read(&mut stream, &mut end).await;
        });
        if index % 10 == 0 {
            sent.send(&first.links, second.id, index / 10);
        }
    }
    let mut missing: BTreeSet<u32> = (0..100).collect();
    while !missing.is_empty() {
        let arrived = |seen: &Seen| match seen {
            Seen::Arrived(segment) => Some(*segment),
            Seen::Down(fault, gave_up) => panic!("link down: {fault:?} {gave_up}"),
            _ => None,
        };
        let segment = second.next(arrived).await;
        assert!(missing.remove(&segment), "segment {segment} came twice");
    }
    (0..100).for_each(|segment| received.assert_patterned(segment));
    while attackers.join_next().await.is_some() {}
    assert_eq!(second.links.counters()[&first.id].repairs, 0);
    assert_eq!(second.drain(), [], "nothing was reported");
    let mut third = Node::new(3, 2, PATIENCE);
    second.want(&[
        (first.id, first.as_neighbour(true)),
        (third.id, third.as_neighbour(false)),
    ]);
    third.want(&[(second.id, second.as_neighbour(true))]);
    third.next_is(Seen::Up).await;
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let node = Node::new(1, 1, PATIENCE);
    let taken = TcpConfig {
        listen: Some(node.links.address()),
        ..config(1)
    };
    let error = TcpLinks::bind(taken, &Handle::current()).unwrap_err();
    let words = error.to_string();
    assert!(words.contains(&node.links.address().to_string()), "{words}");
}

#[tokio::test]
async fn a_dialler_tries_all_addresses() {
    let mut first = Node::unidentified(
        1,
        TcpConfig {
            listen: None,
            ..config(1)
        },
    );
    first.identify(PATIENCE);
    let mut second = Node::new(2, 1, PATIENCE);
    let port = first.links.address().port();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let unused = closed.local_addr().unwrap();
    drop(closed);
    first.want(&[(second.id, second.as_neighbour(false))]);
    let neighbour = Neighbour {
        addresses: vec![unused, ([127, 0, 0, 1], port).into()],
        ..first.as_neighbour(true)
    };
    second.want(&[(first.id, neighbour)]);
    first.next_is(Seen::Up).await;
    second.next_is(Seen::Up).await;
}

#[tokio::test]
async fn a_peer_that_becomes_another_links_anew() {
    let (mut node, mut other) = pair(2, PATIENCE).await;
    let neighbour = other.as_neighbour(false);
    // Its port and its key stay.
    let identity = Identity {
        run: RUN,
        peer: PeerId(7),
        key: key_of(node.id),
        link_timeout: PATIENCE,
    };
    node.links.identify(identity, node.recorder.clone());
    assert!(node.links.counters().is_empty());
    other.want(&[(PeerId(7), node.as_neighbour(true))]);
    node.want(&[(other.id, neighbour)]);
    node.next_is(Seen::Up).await;
    other.next_is(Seen::Up).await;
}
