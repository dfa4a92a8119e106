//! Late and repeated messages: frames of an earlier link, and first messages of connections.

use ccl_core::ids::{Epoch, GroupId, OpName, PeerId, Vid};
use ccl_core::wire::control::PeerToMaster;

use super::checkers::open_operations;
use super::cluster::{Event, HostId, World};
use super::faults::Fault;
use super::network::{Break, Connection};
use super::plane::{Arrival, Content};
use super::workload::App;

impl World {
    /// The last frames of a host arrive again as if of an older view, with other bytes.
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
            self.frame_arrives(host, arrival);
        }
    }

    /// Any hello to this master arrives once more: of members, of peers that have left, and of dead
    /// ones.
    pub fn inject_hello_again(&mut self) {
        let spared = self.swarm.healthy_group;
        let hosts = self.hosts.iter().enumerate();
        let hosts = hosts.filter(|(_, host)| Some(host.group.0) != spared);
        let hellos: Vec<(usize, usize)> = hosts
            .flat_map(|(index, host)| (0..host.hellos.len()).map(move |hello| (index, hello)))
            .collect();
        if let Some((host, hello)) = self.fault_rng.pick(&hellos) {
            let hello = self.hosts[host].hellos[hello].clone();
            self.replay(HostId(host), hello);
        }
    }

    /// A process joins whose first hello arrives long after another one.
    pub fn inject_late_hello(&mut self) {
        self.plan.late_hellos += 1;
        if self.has_sites() {
            return self.open_sites(1);
        }
        let groups = self.groups();
        let groups = groups.filter(|group| Some(group.0) != self.swarm.healthy_group);
        let groups: Vec<GroupId> = groups.collect();
        let group = self.fault_rng.pick(&groups);
        if let Some(group) = group.filter(|group| self.live_hosts(*group).count() < 16) {
            self.spawn(group, None, App::program());
        }
    }

    /// The connection of a late hello breaks; the process says hello over another one.
    pub fn delay_hello(&mut self, host: HostId, connection: u64) {
        if !std::mem::replace(&mut self.hosts[host.0].is_hello_late, false) {
            return;
        }
        let Some((master, hello)) = self.hosts[host.0].last_opening.clone() else {
            return;
        };
        self.hosts[host.0].trouble_ended = Some(self.now);
        let how = Break {
            up_kept: 0,
            down_kept: 0,
            host_notices: Some(self.fault_rng.millis(0, 1000)),
            master_notices: None,
        };
        self.break_connection(connection, how);
        let after = self.fault_rng.millis(100, 20_000);
        let late = Fault::LateHello(host, master, Box::new(hello));
        self.schedule(after, Event::Fault(late));
    }

    /// The message that opened a host's connection arrives once more.
    pub fn inject_replay(&mut self, host: HostId) {
        let Some((master, mut message)) = self.hosts[host.0].last_opening.clone() else {
            return;
        };
        if let PeerToMaster::Here { attach, .. } | PeerToMaster::Attach { attach, .. } =
            &mut message
            && self.fault_rng.chance(500)
        {
            *attach = attach.saturating_sub(1);
        }
        self.replay(host, (master, message));
    }

    /// A message that opened a connection arrives once more, over a separate connection, at the
    /// same master: a restarted one cannot know that the session secret is used again.
    pub fn replay(&mut self, host: HostId, (master, message): (u32, PeerToMaster)) {
        if self.master.machine.is_none() || self.master.incarnation != master {
            return;
        }
        let now = self.now;
        self.trace
            .line(now, format_args!("{host:?} is heard again: {message:?}"));
        let connection = self.connections.len() as u64;
        let opened = Connection::new(None, self.master.incarnation);
        self.connections.push(opened);
        self.send_up(connection, message);
        let how = Break {
            up_kept: 1000,
            down_kept: 0,
            host_notices: None,
            master_notices: Some(self.fault_rng.millis(50, 2000)),
        };
        self.break_connection(connection, how);
    }
}

fn age(content: &mut Content) {
    match content {
        Content::Signal { header, payload } => {
            header.op.birth = older(header.op.birth);
            let mut bytes = payload.to_vec();
            // A post without data ends with its sender's weight, and stays a post.
            if let Some(last) = bytes.last_mut() {
                *last ^= 0x55;
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
