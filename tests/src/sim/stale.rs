//! Frames of an earlier life: the same names under an older view.

use ccl_core::ids::{Epoch, OpName, PeerId, Vid};
use ccl_core::transport::FrameKind;

use super::checkers::open_operations;
use super::cluster::{HostId, World};
use super::plane::{Arrival, Content};

impl World {
    /// What last reached a host comes again as if it were of an older view, with other bytes.
    pub fn inject_stale_frames(&mut self, host: HostId) {
        let open: Vec<OpName> = open_operations(&self.hosts[host.0])
            .filter_map(|operation| operation.started)
            .collect();
        let recent: Vec<(PeerId, Content)> = self.hosts[host.0].recent.clone();
        for (from, mut content) in recent {
            if !open.contains(&content.header().op) {
                continue;
            }
            age(&mut content);
            let arrival = Arrival {
                from,
                content,
                placed_twice: false,
            };
            let arrived = self.hosts[host.0].plane.arrives(arrival);
            self.check(arrived.map_err(|why| format!("a stale frame is a fault: {why}")));
        }
        self.host_pump(host);
    }
}

fn age(content: &mut Content) {
    match content {
        Content::Signal { header, payload } => {
            header.op.birth = older(header.op.birth);
            let mut bytes = payload.to_vec();
            // A post that ends with its fingerprint ends with an empty offer, and its caller's name
            // or none; before that is its `min_world`. So it stays a fingerprint.
            let is_post = header.kind == FrameKind::Post && header.extra as usize == bytes.len();
            let back = if is_post { 3 } else { 1 };
            if let Some(at) = bytes.len().checked_sub(back) {
                bytes[at] ^= 0x55;
            }
            *payload = bytes.into();
        }
        Content::Bulk { header, bytes, .. } => {
            header.op.birth = older(header.op.birth);
            if let Some(bytes) = bytes {
                bytes.iter_mut().for_each(|byte| *byte ^= 0x55);
            }
        }
    }
}

fn older(vid: Vid) -> Vid {
    Vid {
        term: vid.term,
        epoch: Epoch(vid.epoch.0.saturating_sub(1)),
    }
}
