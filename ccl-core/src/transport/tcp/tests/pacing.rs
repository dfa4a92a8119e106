//! Which lanes count as sending.

use super::raw::{Raw, stranger};
use super::*;
use crate::net::Condition;
use crate::transport::tcp::pacer::Pacer;
use crate::transport::tcp::tuner::LaneSample;
use crate::wire::data::{Content, Header};

/// Goal: a lane that only receives is silent. Its acknowledgements are under way now and then, but
/// say nothing of the path, and must not change its congestion control. 1. The system knows of
/// bytes in flight, but no segment was sent. 2. One is. 3. The other side has it.
#[tokio::test]
async fn a_lane_that_only_acknowledges_is_silent() {
    let mut node = Node::new(1, 1, PATIENCE);
    let (id, neighbour) = stranger(5);
    node.want(&[(id, neighbour)]);
    let (_signal, mut bulk) = Raw::link(&mut node, id).await;
    let link = node.links.0.link(id).expect("the link is wanted");
    let pacer = Pacer::new(Arc::clone(&link));
    let in_flight = [LaneSample {
        lane: 1,
        connection: 1,
        condition: Condition {
            in_flight_bytes: 1448,
            ..Condition::default()
        },
    }];
    assert!(!pacer.is_active(&in_flight), "acknowledgements alone");
    Segments::patterned(1, 1000).send(&node.links, id, 0);
    let (_, encoded) = bulk.read_header().await;
    bulk.read_payload(&encoded, 1000).await;
    assert!(pacer.is_active(&in_flight));
    let ack = Header {
        content: Content::Ack,
        sequence: 0,
        ack: 1,
    };
    bulk.write(&ack.encode()).await;
    let mut ticks = tokio::time::interval(Duration::from_millis(1));
    let settled = async {
        while link.has_unsettled() {
            ticks.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, settled).await.unwrap();
    assert!(!pacer.is_active(&in_flight));
}
