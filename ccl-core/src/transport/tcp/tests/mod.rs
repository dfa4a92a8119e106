//! Links over real loopback sockets: what arrives, what is repaired, what is reported.
//!
//! A [`Node`] is one peer's links with a handler that records everything; a [`raw::Raw`] simulates
//! the other end of a link, byte by byte.

mod faults;
mod growth;
mod offers;
mod pacing;
mod padding;
mod port;
mod raw;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::{Identity, TcpConfig, TcpLinks};
use crate::ids::{LinkKey, PeerId, RunId};
use crate::peer::Neighbour;
use crate::transport::conformance::recorder::{
    Recorder, Seen, Segments, bulk_header, key_of, op, pattern, signal_header,
};
use crate::transport::{FrameHeader, LinkSender, Links, Payload, Placement};
use crate::wire::control::LinkFault;

/// Longest time that anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);
const RUN: RunId = RunId(77);

/// One peer.
struct Node {
    id: PeerId,
    links: TcpLinks,
    recorder: Arc<Recorder>,
    seen: mpsc::UnboundedReceiver<Seen>,
}

fn config(lanes: u16) -> TcpConfig {
    TcpConfig {
        listen: Some("127.0.0.1:0".parse().unwrap()),
        lanes: Some(lanes),
        checksum: true,
        congestion_control: None,
        pacing_bytes_per_second: None,
    }
}

impl Node {
    fn new(id: u64, lanes: u16, link_timeout: Duration) -> Self {
        let node = Self::unidentified(id, config(lanes));
        node.identify(link_timeout);
        node
    }

    fn unidentified(id: u64, config: TcpConfig) -> Self {
        let (sender, seen) = mpsc::unbounded_channel();
        let recorder = Recorder::new(move |seen| {
            // The node that asks may be gone.
            let _ = sender.send(seen);
        });
        Self {
            id: PeerId(id),
            links: TcpLinks::bind(config, &Handle::current()).unwrap(),
            recorder,
            seen,
        }
    }

    fn identify(&self, link_timeout: Duration) {
        let identity = Identity {
            run: RUN,
            peer: self.id,
            key: key_of(self.id),
            link_timeout,
        };
        self.links.identify(identity, self.recorder.clone());
    }

    fn as_neighbour(&self, dial: bool) -> Neighbour {
        Neighbour {
            addresses: vec![self.links.address()],
            key: key_of(self.id),
            dial,
        }
    }

    fn want(&self, peers: &[(PeerId, Neighbour)]) {
        let wanted: BTreeMap<PeerId, Neighbour> = peers.iter().cloned().collect();
        self.links.set_wanted(&wanted);
    }

    /// The next event that `pick` accepts; others are dropped.
    async fn next<R>(&mut self, mut pick: impl FnMut(&Seen) -> Option<R>) -> R {
        let wait = async {
            loop {
                let seen = self.seen.recv().await.expect("the recorder lives");
                if let Some(picked) = pick(&seen) {
                    return picked;
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .unwrap_or_else(|_| panic!("peer {} waits in vain", self.id))
    }

    async fn next_is(&mut self, wanted: Seen) {
        self.next(|seen| (*seen == wanted).then_some(())).await;
    }

    /// All events that were not taken yet.
    fn drain(&mut self) -> Vec<Seen> {
        std::iter::from_fn(|| self.seen.try_recv().ok()).collect()
    }
}

/// Two peers with a link between them; the second dials.
async fn pair(lanes: u16, link_timeout: Duration) -> (Node, Node) {
    let mut first = Node::new(1, lanes, link_timeout);
    let mut second = Node::new(2, lanes, link_timeout);
    first.want(&[(second.id, second.as_neighbour(false))]);
    second.want(&[(first.id, first.as_neighbour(true))]);
    first.next_is(Seen::Up).await;
    second.next_is(Seen::Up).await;
    (first, second)
}
