//! The links of one peer in memory, as the layer above calls them. The network decides what happens
//! to the frames.

use super::*;

impl MemLinks {
    /// Breaks one connection of a link as a reset by the network would.
    pub(crate) fn reset_lane(&self, peer: PeerId, lane: u16) {
        let mut world = self.network.0.lock();
        let address = self.address;
        if let Some(link) = world.link(address, peer)
            && let Some(begun) = link.lanes.get(usize::from(lane)).map(|lane| lane.begun)
        {
            let life = link.life;
            world.break_lane(At {
                from: address,
                to: peer,
                life,
                lane: lane.into(),
                begun,
            });
        }
    }

    fn send(&self, to: PeerId, is_signal: bool, frame: Frame) {
        let mut world = self.network.0.lock();
        if let Some(link) = world.link(self.address, to) {
            let queue = if is_signal {
                &mut link.signals
            } else {
                &mut link.bulk
            };
            queue.push_back(frame);
            world.fill(self.address, to);
        }
    }
}

impl LinkSender for MemLinks {
    fn signal(&self, to: PeerId, header: FrameHeader, payload: Bytes) {
        let payload = Payload::Small(payload);
        self.send(to, true, Frame { header, payload });
    }

    fn bulk(&self, to: PeerId, header: FrameHeader, payload: Payload) {
        self.send(to, false, Frame { header, payload });
    }

    fn forget(&self, op: OpName) {
        let mut world = self.network.0.lock();
        let end = world.ends.get_mut(&self.address).expect("it was made");
        for link in end.links.values_mut() {
            link.bulk.retain(|frame| frame.header.op != op);
        }
    }
}

impl Links for MemLinks {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn identify(&self, identity: Identity, handler: Handler) {
        let mut world = self.network.0.lock();
        let end = world.ends.get_mut(&self.address).expect("it was made");
        end.role = Some((identity, handler));
    }

    fn set_wanted(&self, wanted: &BTreeMap<PeerId, Neighbour>) {
        let mut world = self.network.0.lock();
        let links = &world.ends[&self.address].links;
        let gone = links.keys().filter(|peer| !wanted.contains_key(peer));
        for peer in gone.copied().collect::<Vec<_>>() {
            world.end_other(self.address, peer);
            world
                .ends
                .get_mut(&self.address)
                .expect("it was made")
                .links
                .remove(&peer);
        }
        for (peer, neighbour) in wanted {
            world.lives += 1;
            let life = world.lives;
            let end = world.ends.get_mut(&self.address).expect("it was made");
            let lanes = end.lanes;
            end.links.entry(*peer).or_insert_with(|| Link {
                life,
                neighbour: neighbour.clone(),
                other: None,
                is_failed: false,
                lanes: (0..=lanes).map(|_| Lane::default()).collect(),
                signals: VecDeque::new(),
                bulk: VecDeque::new(),
                received_bytes: 0,
                repairs: 0,
            });
            world.plan(Event::Meet(self.address, *peer));
        }
    }

    fn is_current(&self, link: LinkName) -> bool {
        let mut world = self.network.0.lock();
        let current = world.link(self.address, link.peer);
        current.is_some_and(|current| current.life == link.incarnation)
    }

    fn counters(&self) -> BTreeMap<PeerId, LinkCounters> {
        let world = self.network.0.lock();
        let counters = |link: &Link| LinkCounters {
            sent_bytes: link.lanes.iter().map(|lane| lane.sent_bytes).sum(),
            received_bytes: link.received_bytes,
            lane_sent_bytes: link.lanes.iter().map(|lane| lane.sent_bytes).collect(),
            lanes: u16::try_from(link.lanes.len()).unwrap_or(u16::MAX),
            repairs: link.repairs,
            tuned: None,
            rates: Rates::default(),
        };
        let links = world.ends[&self.address].links.iter();
        links.map(|(peer, link)| (*peer, counters(link))).collect()
    }

    fn shutdown(&self) {
        let mut world = self.network.0.lock();
        let peers: Vec<PeerId> = world.ends[&self.address].links.keys().copied().collect();
        for peer in peers {
            let other = world.other_end(self.address, peer);
            world.end_other(self.address, peer);
            if let Some((address, there)) = other
                && let Some(link) = world.link(address, there.peer)
            {
                // No connections are accepted there any more.
                let name = LinkName {
                    peer: there.peer,
                    incarnation: link.life,
                };
                world.tell(address, name, Report::Down(LinkFault::Refused, true));
            }
        }
        let end = world.ends.get_mut(&self.address).expect("it was made");
        end.role = None;
        end.links.clear();
    }

    fn wait_closed(&self, _timeout: Duration) -> bool {
        true
    }
}
