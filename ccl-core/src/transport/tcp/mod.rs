//! Links over TCP: a port, and several connections to each wanted peer.
//!
//! A link has 1 signal connection (lane 0: posts, credits, eager data; small, and never behind
//! bulk) and `lanes` bulk connections (lanes 1 …). Frames of a lane are numbered and acknowledged.
//! When a connection breaks it is dialled again, both sides state what they have received, and the
//! rest is sent again. Bulk frames belong to the link, not to a lane: an idle lane takes the next.

mod bulk;
mod control;
mod dial;
mod door;
mod health;
mod keeper;
mod lane;
mod link;
mod listener;
mod offer;
mod pacer;
mod patience;
mod probe;
mod reader;
mod rescue;
mod signal;
mod spread;
mod tuner;
mod window;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::lock::{Mutex, RwLock};
use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use link::{Link, LinkSeed, Settings};
use probe::Probes;

use super::{
    FrameHeader, Handler, Identity, LinkCounters, LinkName, LinkSender, Links, Payload, Placement,
    Rates,
};
use crate::config::CommunicatorConfig;
use crate::descriptors::Owner;
use crate::error::{Error, Result};
use crate::ids::{OpName, PeerId};
use crate::limits::{SEGMENT_BYTES_MAX, SIGNAL_PAYLOAD_BYTES_MAX};
use crate::net::{Bound, Tuning, Warnings};
use crate::peer::Neighbour;

/// What the links of one peer over TCP are made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpConfig {
    /// Address to listen on; `None`: every address of this host, IPv6 and IPv4, on a port that the
    /// system chooses.
    pub listen: Option<SocketAddr>,
    /// Bulk lanes of the links that this side dials; see [`CommunicatorConfig::lanes`].
    pub lanes: Option<u16>,
    /// Whether payloads carry a CRC-32; they do if either side wants it.
    pub checksum: bool,
    /// TCP congestion control; see [`CommunicatorConfig::congestion_control`].
    pub congestion_control: Option<String>,
    /// Most bytes per second that a lane may send.
    pub pacing_bytes_per_second: Option<u64>,
}

impl From<&CommunicatorConfig> for TcpConfig {
    fn from(config: &CommunicatorConfig) -> Self {
        Self {
            listen: config.listen,
            lanes: config.lanes,
            checksum: config.checksum,
            congestion_control: config.congestion_control.clone(),
            pacing_bytes_per_second: config.pacing_bytes_per_second,
        }
    }
}

/// All links of one peer over TCP. Clones refer to the same links; [`Links::shutdown`] ends them.
#[derive(Clone)]
pub struct TcpLinks(Arc<Inner>);

impl fmt::Debug for TcpLinks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpLinks")
            .field("address", &self.0.address)
            .finish_non_exhaustive()
    }
}

struct Inner {
    config: TcpConfig,
    address: SocketAddr,
    sockets: Arc<Owner>,
    runtime: Handle,
    /// This peer's identity and handler, until it is shut down.
    role: RwLock<Option<Role>>,
    links: RwLock<BTreeMap<PeerId, Arc<Link>>>,
    /// Counts the changes of `role` and `links`, for connections that wait to be accepted.
    changes: watch::Sender<u64>,
    /// The incarnation of the newest link.
    incarnations: Mutex<u64>,
    listener: Mutex<Option<AbortHandle>>,
    warnings: Warnings,
    probes: Probes,
}

#[derive(Clone)]
struct Role {
    identity: Identity,
    handler: Handler,
    settings: Arc<Settings>,
}

impl TcpLinks {
    /// Binds the port. No connection is accepted before [`Links::identify`]. Tasks run on
    /// `runtime`, whose I/O and time drivers must be on; nothing here blocks.
    ///
    /// # Errors
    /// [`Error::Os`] names the address that cannot be listened on.
    pub fn bind(config: TcpConfig, runtime: &Handle) -> Result<Self> {
        let words = match config.listen {
            Some(address) => format!("cannot listen on {address} for other peers"),
            None => "cannot listen on any address for other peers".into(),
        };
        let _context = runtime.enter();
        let sockets = Arc::default();
        let bound = Bound::open(&sockets, config.listen);
        let opened = bound.and_then(|port| Ok((port.local_addr()?, port.serve()?)));
        let (address, port) = opened.map_err(|error| Error::os(words.as_str(), error))?;
        let inner = Arc::new(Inner {
            config,
            address,
            sockets,
            runtime: runtime.clone(),
            role: RwLock::new(None),
            links: RwLock::default(),
            changes: watch::Sender::new(0),
            incarnations: Mutex::new(0),
            listener: Mutex::new(None),
            warnings: Warnings::new(CONNECTION_ENDED),
            probes: Probes::default(),
        });
        let task = runtime.spawn(listener::run(Arc::clone(&inner), port));
        *inner.listener.lock() = Some(task.abort_handle());
        Ok(Self(inner))
    }

    /// Adds lanes to a link that this side dials; false if it has as many.
    #[cfg(test)]
    pub async fn add_lanes(&self, peer: PeerId, lanes: u16) -> bool {
        match self.0.link(peer) {
            Some(link) => link.grow(lanes).await,
            None => false,
        }
    }

    /// Breaks one connection of a link as a reset by the network would.
    #[cfg(test)]
    pub fn reset_lane(&self, peer: PeerId, lane: u16) {
        if let Some(link) = self.0.link(peer) {
            link.reset_lane(lane);
        }
    }
}

impl Links for TcpLinks {
    fn address(&self) -> SocketAddr {
        self.0.address
    }

    fn identify(&self, identity: Identity, handler: Handler) {
        let config = &self.0.config;
        let settings = Settings {
            lanes: config.lanes,
            checksum: config.checksum,
            tuning: Tuning {
                congestion_control: config.congestion_control.clone(),
                pacing_bytes_per_second: config.pacing_bytes_per_second,
                user_timeout: identity.link_timeout,
            },
            warnings: Arc::new(Warnings::new(CONNECTION_ENDED)),
            sockets: Arc::clone(&self.0.sockets),
            probes: self.0.probes.clone(),
        };
        let role = Role {
            identity,
            handler,
            settings: Arc::new(settings),
        };
        let before = self.0.role.write().replace(role);
        if before.is_some_and(|before| before.identity != identity) {
            let links = std::mem::take(&mut *self.0.links.write());
            links.values().for_each(|link| link.stop());
        }
        self.0.note_change();
    }

    fn set_wanted(&self, wanted: &BTreeMap<PeerId, Neighbour>) {
        let inner = &self.0;
        let Some(role) = inner.role.read().clone() else {
            return;
        };
        let mut links = inner.links.write();
        links.retain(|peer, link| {
            let is_kept = wanted
                .get(peer)
                .is_some_and(|neighbour| link.refresh(neighbour));
            if !is_kept {
                link.stop();
            }
            is_kept
        });
        for (peer, neighbour) in wanted {
            links
                .entry(*peer)
                .or_insert_with(|| inner.make(&role, *peer, neighbour.clone(), false));
        }
        drop(links);
        inner.note_change();
    }

    fn is_current(&self, link: LinkName) -> bool {
        let current = self.0.link(link.peer);
        current.is_some_and(|current| current.name() == link)
    }

    fn counters(&self) -> BTreeMap<PeerId, LinkCounters> {
        let links = self.0.links.read();
        links
            .iter()
            .map(|(peer, link)| (*peer, link.counters()))
            .collect()
    }

    fn wait_closed(&self, timeout: Duration) -> bool {
        self.0.sockets.wait_closed(timeout)
    }

    fn shutdown(&self) {
        *self.0.role.write() = None;
        if let Some(task) = self.0.listener.lock().take() {
            task.abort();
        }
        let links = std::mem::take(&mut *self.0.links.write());
        links.values().for_each(|link| link.stop());
    }
}

impl LinkSender for TcpLinks {
    fn signal(&self, to: PeerId, header: FrameHeader, payload: Bytes) {
        check_length(&header, payload.len(), SIGNAL_PAYLOAD_BYTES_MAX);
        if let Some(link) = self.0.link(to) {
            link.send_signal(header, payload);
        }
    }

    fn bulk(&self, to: PeerId, header: FrameHeader, payload: Payload) {
        assert!(!header.frame.is_signal(), "signals never wait behind bulk");
        check_length(&header, payload.bytes(), SEGMENT_BYTES_MAX);
        if let Some(link) = self.0.link(to) {
            link.send_bulk(header, payload);
        }
    }

    fn forget(&self, op: OpName) {
        let links: Vec<Arc<Link>> = self.0.links.read().values().cloned().collect();
        links.iter().for_each(|link| link.forget(op));
    }
}

/// How the end of a connection is reported, depending on what arrived over it.
const CONNECTION_ENDED: &str = "data connection ended";

fn check_length(header: &FrameHeader, payload_bytes: usize, most: usize) {
    assert_eq!(
        header.payload_bytes as usize, payload_bytes,
        "the header tells the length of the payload"
    );
    assert!(
        payload_bytes <= most,
        "the payload is one that the other side lets in"
    );
}

impl Inner {
    /// This peer's identity, once known.
    fn identity(&self) -> Option<Identity> {
        self.role.read().as_ref().map(|role| role.identity)
    }

    fn link(&self, peer: PeerId) -> Option<Arc<Link>> {
        self.links.read().get(&peer).cloned()
    }

    /// Restarts a link whose other side has forgotten it. If frames were lost that the other side
    /// may not have received, the new link first of all reports that the old one broke for good.
    fn renew(self: &Arc<Self>, old: &Arc<Link>) {
        let Some(role) = self.role.read().clone() else {
            return;
        };
        let mut links = self.links.write();
        let has_unsettled = old.has_unsettled();
        match links.get_mut(&old.peer) {
            Some(link) if Arc::ptr_eq(link, old) => {
                *link = self.make(&role, old.peer, old.neighbour(), has_unsettled);
            }
            _ => return,
        }
        drop(links);
        old.stop();
        self.note_change();
        tracing::debug!(peer = %old.peer, has_unsettled, "link restarted");
    }

    fn make(
        self: &Arc<Self>,
        role: &Role,
        peer: PeerId,
        neighbour: Neighbour,
        follows_loss: bool,
    ) -> Arc<Link> {
        let incarnation = {
            let mut newest = self.incarnations.lock();
            *newest += 1;
            *newest
        };
        let seed = LinkSeed {
            peer,
            incarnation,
            follows_loss,
            neighbour,
            identity: role.identity,
            handler: Arc::clone(&role.handler),
            settings: Arc::clone(&role.settings),
        };
        Link::start(self, &self.runtime, seed)
    }

    fn note_change(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}

#[cfg(test)]
mod tests;
