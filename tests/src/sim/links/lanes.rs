//! Frames on the lanes of a link: queued, delivered in order, sent again after a break.

use ccl_core::peer::PeerToPeer;

use super::*;

impl World {
    /// A frame from one host to a peer.
    pub fn send_frame(&mut self, host: HostId, to: PeerId, content: Content) {
        let Some(neighbour) = self.hosts[host.0].neighbours.get(&to).cloned() else {
            return;
        };
        let (Some(other), Some(from)) = (
            self.resolve_exactly(to, &neighbour),
            self.hosts[host.0].peer.peer(),
        ) else {
            return;
        };
        let key = LinkKey::new(host, other);
        let direction = key.from(host);
        let lanes = self.swarm.lanes;
        let is_signal = content.is_signal();
        let link = self.links.entry(key).or_insert_with(|| Link::new(lanes));
        let frame = Frame {
            from,
            content,
            session: 0,
            route: (key, direction, 0),
        };
        if is_signal {
            self.put_on_lane(key, direction, 0, frame);
        } else {
            link.ways[direction as usize].bulk.push_back(frame);
            self.feed_lanes(key, direction);
        }
    }

    /// Bulk lanes with room take the next frames.
    pub(super) fn feed_lanes(&mut self, key: LinkKey, direction: Direction) {
        let lanes = usize::from(self.swarm.lanes);
        let first = self.network_rng.index(lanes);
        for offset in 0..lanes * LANE_FRAMES_MAX {
            let lane = 1 + (first + offset) % lanes;
            let link = self.links.get_mut(&key).expect("frames were given to it");
            let way = &mut link.ways[direction as usize];
            if way.lanes[lane].frames.len() >= LANE_FRAMES_MAX {
                continue;
            }
            let Some(frame) = way.bulk.pop_front() else {
                return;
            };
            self.put_on_lane(key, direction, lane, frame);
        }
    }

    pub(super) fn put_on_lane(
        &mut self,
        key: LinkKey,
        direction: Direction,
        lane: usize,
        mut frame: Frame,
    ) {
        let at = self.now + self.link_delay(key);
        let (from, _) = key.ends(direction);
        self.hosts[from.0].plane.leaves(&mut frame.content);
        frame.route = (key, direction, lane);
        let link = self.links.get_mut(&key).expect("frames were given to it");
        let lane = &mut link.ways[direction as usize].lanes[lane];
        let at = lane.frames.back().map_or(at, |(last, _)| at.max(*last));
        lane.frames.push_back((at, frame));
        self.arm_lane(key, direction);
    }

    pub(super) fn arm_lane(&mut self, key: LinkKey, direction: Direction) {
        let link = self.links.get_mut(&key).expect("it was just used");
        if !link.up {
            return;
        }
        let paused = link.paused;
        let mut due = Vec::new();
        for (index, lane) in link.ways[direction as usize].lanes.iter_mut().enumerate() {
            if let (false, Some((at, _))) = (lane.armed, lane.frames.front()) {
                lane.armed = true;
                due.push(((*at).max(paused), index));
            }
        }
        for (at, lane) in due {
            let event = Event::LaneReady {
                link: key,
                direction,
                lane,
            };
            self.schedule_at(at, event);
        }
    }

    pub(super) fn kick_link(&mut self, key: LinkKey) {
        for direction in [Direction::Up, Direction::Down] {
            self.arm_lane(key, direction);
        }
    }

    /// The first frame of a lane arrives, unless the lane is broken just now.
    pub fn lane_ready(&mut self, key: LinkKey, direction: Direction, lane: usize) {
        let now = self.now;
        let (from, to) = key.ends(direction);
        let Some(link) = self.links.get_mut(&key) else {
            return;
        };
        let (up, paused, session) = (link.up, link.paused, link.session);
        let state = &mut link.ways[direction as usize].lanes[lane];
        state.armed = false;
        if !up {
            return;
        }
        if paused > now {
            self.resend(key, direction, lane, from);
            self.arm_lane(key, direction);
            return;
        }
        if state.frames.front().is_some_and(|(at, _)| *at > now) {
            self.arm_lane(key, direction);
            return;
        }
        let Some((_, mut frame)) = state.frames.pop_front() else {
            return;
        };
        frame.session = session;
        if self.network_rng.chance(100) {
            self.hosts[from.0].plane.sent_again(&mut frame.content);
        }
        self.trace
            .fold(now, &[21, to.0 as u64, frame.content.code()]);
        self.host_event(to, HostEvent::Frame(frame));
        if lane > 0 {
            self.feed_lanes(key, direction);
        }
        self.arm_lane(key, direction);
    }

    /// The first frame of a broken lane is read again from the sender's memory.
    pub(super) fn resend(&mut self, key: LinkKey, direction: Direction, lane: usize, from: HostId) {
        let link = self.links.get_mut(&key).expect("it was just used");
        let lane = &mut link.ways[direction as usize].lanes[lane];
        if let Some((_, frame)) = lane.frames.front_mut() {
            self.hosts[from.0].plane.sent_again(&mut frame.content);
        }
    }

    /// A frame reaches a process, unless its link has ended meanwhile.
    pub fn host_frame(&mut self, host: HostId, frame: Frame) {
        let (key, ..) = frame.route;
        let current = self
            .links
            .get(&key)
            .is_some_and(|link| link.session == frame.session);
        if !current || !self.hosts[host.0].neighbours.contains_key(&frame.from) {
            return;
        }
        let recent = &mut self.hosts[host.0].recent;
        if recent.len() == RECENT_MAX {
            recent.remove(0);
        }
        recent.push((frame.from, frame.content.clone()));
        let again = self.network_rng.chance(50);
        let arrival = Arrival {
            from: frame.from,
            content: frame.content,
            placed_twice: again,
        };
        self.frame_arrives(host, arrival);
    }

    /// A frame is handed to the layer above.
    pub fn frame_arrives(&mut self, host: HostId, arrival: Arrival) {
        if let Some(message) = PeerToPeer::of(arrival.content.header()) {
            let peer = arrival.from;
            return self.host_input(host, Input::Said { peer, message });
        }
        let arrived = self.hosts[host.0].plane.arrives(arrival);
        self.check(arrived.map_err(|what| format!("{host:?} refuses a frame: {what}")));
        self.host_pump(host);
    }

    /// How long the next frame of a link takes.
    pub(super) fn link_delay(&mut self, key: LinkKey) -> Duration {
        let (low, high) = self.swarm.delay;
        let slowness = self.links.get(&key).map_or(1, |link| link.slowness);
        self.network_rng.duration(low, high) * slowness
    }
}
