//! Faults of links: ends that die or pause, resets, cuts and delays.

use super::*;

impl World {
    /// The links of a process that died: their other ends see them end, or nothing until they time
    /// out.
    pub fn links_of_the_dead(&mut self, host: HostId, power_loss: bool) {
        for key in self.links_of(host) {
            let other = if key.0 == host { key.1 } else { key.0 };
            let link = self.links.get_mut(&key).expect("it was just listed");
            link.clear(key.from(other));
            if !std::mem::replace(&mut link.up, false) {
                continue;
            }
            link.downs += 1;
            if !power_loss {
                self.report_down(other, host, false);
                self.report_refused(other, host);
            }
            self.want_link(key);
        }
    }

    /// The links of a paused process: its machine answers for it, so often no end notices;
    /// sometimes the other end loses patience.
    pub fn links_of_the_frozen(&mut self, host: HostId) {
        if self.network_rng.chance(500) {
            return;
        }
        for key in self.links_of(host) {
            let link = self.links.get_mut(&key).expect("it was just listed");
            if std::mem::replace(&mut link.up, false) {
                link.downs += 1;
                self.want_link(key);
            }
        }
    }

    /// All lanes of a link are reset and repaired; with `noticed`, both ends see it break and
    /// recover.
    pub fn reset_link(&mut self, key: LinkKey, length: Duration, noticed: bool) {
        let until = self.now + length;
        let Some(link) = self.links.get_mut(&key) else {
            return;
        };
        if !link.up {
            return;
        }
        link.paused = link.paused.max(until);
        if noticed {
            link.up = false;
            link.downs += 1;
            self.report_down(key.0, key.1, false);
            self.report_down(key.1, key.0, false);
            self.want_link(key);
        }
    }

    /// Stops or opens one direction of a link. While it is stopped, the link counts as broken for
    /// both.
    pub fn block_link(&mut self, key: LinkKey, direction: Direction, blocked: bool) {
        let lanes = self.swarm.lanes;
        let link = self.links.entry(key).or_insert_with(|| Link::new(lanes));
        link.ways[direction as usize].blocked = blocked;
        if blocked && std::mem::replace(&mut link.up, false) {
            link.downs += 1;
            self.want_link(key);
        }
    }

    /// Makes a link slower, or restores its speed.
    pub fn slow_link(&mut self, key: LinkKey, slowness: u32) {
        if let Some(link) = self.links.get_mut(&key) {
            link.slowness = slowness;
        }
    }

    /// Opens both directions of all links.
    pub fn unblock_links(&mut self) {
        for link in self.links.values_mut() {
            link.slowness = 1;
            for way in &mut link.ways {
                way.blocked = false;
            }
        }
    }

    /// The links of a host.
    #[must_use]
    pub fn links_of(&self, host: HostId) -> Vec<LinkKey> {
        self.links
            .keys()
            .filter(|key| key.0 == host || key.1 == host)
            .copied()
            .collect()
    }
}
