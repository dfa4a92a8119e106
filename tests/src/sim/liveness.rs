//! What must happen in time: silent members are evicted, evicted peers learn it, calls end (I9,
//! P3).
//!
//! A promise is made when something begins and checked when its time is up. It is void if its basis
//! (a running master, a whole network) did not last.

use std::time::Duration;

use ccl_core::ids::{CallId, GroupId, PeerId};
use ccl_core::time::Instant;
use ccl_core::wire::control::OtherGroups;

use super::checkers::{ensure, open_operations};
use super::cluster::{Event, HostId, World};
use super::peer_host::{Host, Process};
use super::workload::App;

/// Something that must be true at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Promise {
    /// A silent member is no longer one.
    Evicted {
        /// The host.
        host: HostId,
        /// The number of its silence.
        freeze: u64,
        /// The master that must notice.
        master: (u32, u64),
        /// Since when it was silent, and whether it must be gone even if no other was heard.
        since: (Instant, bool),
    },
    /// An evicted peer knows it.
    Learned {
        /// Who.
        host: HostId,
        /// Its session, since the next one was not evicted.
        peer: PeerId,
        /// The number of its last silence.
        freeze: u64,
        /// The master that must send it.
        master: (u32, u64),
        /// Whether it knew when the time began.
        known: bool,
    },
    /// Newcomers that could found their group have done so.
    Founded,
    /// No call of the healthy group is older than its bound.
    Healthy,
    /// A call that was asked to end has ended.
    CallEnded {
        /// Whose.
        host: HostId,
        /// Which.
        call: CallId,
        /// When it was asked.
        asked: Instant,
        /// In which of its host's silences.
        freeze: u64,
        /// The master that must have decided it, if all are well; `None`: whatever happened.
        master: Option<(u32, u64)>,
    },
    /// Sessions of which one of the same unit has ended are over.
    UnitGone {
        /// Whose.
        peers: Vec<PeerId>,
        /// Since when.
        since: Instant,
        /// The master that must evict them.
        master: (u32, u64),
    },
}

impl World {
    /// The longest that a message takes, with a margin.
    pub(super) fn slack(&self, host: HostId) -> Duration {
        let slowest = if self.swarm.tail_permille > 0 { 10 } else { 1 };
        self.swarm.delay.1 * slowest * self.hosts[host.0].slowness * 4
            + self.swarm.fsync * 4
            + Duration::from_millis(200)
    }

    /// A member fell silent and must be evicted in time.
    pub fn promise_eviction(&mut self, host: HostId) {
        let state = &self.hosts[host.0];
        if state.view.is_none() || state.ended.is_some() || !self.master.is_awake() {
            return;
        }
        let timers = self.swarm.timers;
        // A restarted master that hears no member waits until none can be alive any more.
        let settles = self.master.started + timers.rebuild_window.max(timers.detach_timeout);
        let settles = if self.master.incarnation > 1 {
            settles
        } else {
            self.now
        };
        let from = self.last_word(host).max(settles).max(self.now);
        let bound = self.eviction_bound(host);
        let promise = Promise::Evicted {
            host,
            freeze: self.hosts[host.0].freezes,
            master: (self.master.incarnation, self.master.freezes),
            since: (self.now, false),
        };
        self.schedule_at(from + bound, Event::Check(promise));
    }

    /// Longest time from the last message of a silent member to its eviction.
    fn eviction_bound(&self, host: HostId) -> Duration {
        let timers = self.swarm.timers;
        timers.peer_timeout.max(timers.reattach_grace)
            + timers.heartbeat_interval * 2
            + self.slack(host)
    }

    /// Whether some peer has been a member, and well, ever since, so that the master heard it and
    /// did not doubt itself.
    pub fn is_somebody_heard(&self, since: Instant) -> bool {
        self.hosts.iter().any(|host| {
            let member = host.member_since.is_some_and(|at| at <= since);
            let member = member && host.run == Some(self.checkers.run);
            member && host.connection.is_some() && self.is_well(host) && host.is_calm_since(since)
        })
    }

    /// Whether a host runs and can reach the master.
    #[must_use]
    pub fn is_well(&self, host: &Host) -> bool {
        let reachable = !host.up_blocked && !host.down_blocked && host.slowness == 1;
        reachable && host.is_live() && host.is_running()
    }

    /// A process resumes: if it was evicted meanwhile, it must learn it in time.
    pub fn promise_news(&mut self, host: HostId) {
        let timers = self.swarm.timers;
        let bound = self.news_bound(host);
        let state = &self.hosts[host.0];
        let Some(peer) = state.peer.peer() else {
            return;
        };
        let evicted = self.checkers.is_evicted(state.run, peer);
        if !evicted || bound + Duration::from_secs(2) > timers.detach_timeout {
            return;
        }
        let promise = Promise::Learned {
            host,
            peer,
            freeze: self.hosts[host.0].freezes,
            master: (self.master.incarnation, self.master.freezes),
            known: self.knows_members(state.group),
        };
        self.schedule(bound, Event::Check(promise));
    }

    /// By when an evicted peer knows it.
    fn news_bound(&self, host: HostId) -> Duration {
        let timers = self.swarm.timers;
        timers.peer_timeout + timers.heartbeat_interval * 2 + self.slack(host) * 4
    }

    /// Whether the master knows the members of a group. One that has lost its journal learns them
    /// from a majority, and answers no peer before that it is not a member (R11).
    fn knows_members(&self, group: GroupId) -> bool {
        self.master.covered.contains(&group) || self.phase_of(group) != Some("Rebuild")
    }

    /// A peer that was evicted, and could be reached all the time, knows it.
    fn check_learned(&mut self, (host, freeze): (HostId, u64), peer: PeerId) {
        let state = &self.hosts[host.0];
        let since = Instant(
            self.now
                .0
                .saturating_sub(self.news_bound(host).as_nanos() as u64),
        );
        let is_heard = !state.up_blocked && !state.down_blocked && state.slowness == 1;
        let reachable = is_heard && state.is_calm_since(since);
        let same = state.freezes == freeze && state.peer.peer() == Some(peer);
        // A master that lost its memory may not know that the one before evicted it.
        let newest = self.checkers.newest_view(state.group);
        let member = newest.is_some_and(|view| view.members.contains(&peer));
        if reachable && same && !member && state.is_live() && state.is_running() {
            self.fail(format!(
                "{host:?} was evicted long ago and does not know it"
            ));
        }
    }

    /// Checks that an evicted peer knows it, or when it must.
    fn check_news(&mut self, mut news: Promise) {
        let awake = (self.master.incarnation, self.master.freezes);
        let Promise::Learned {
            host,
            peer,
            freeze,
            master,
            known,
        } = &mut news
        else {
            return;
        };
        if *master != awake || !self.master.is_awake() {
            return;
        }
        let knows = self.knows_members(self.hosts[host.0].group);
        if *known && knows {
            return self.check_learned((*host, *freeze), *peer);
        }
        *known = knows;
        let bound = self.news_bound(*host);
        self.schedule(bound, Event::Check(news));
    }

    /// Checks a promise.
    pub fn check_promise(&mut self, promise: Promise) {
        let awake = (self.master.incarnation, self.master.freezes);
        match promise {
            Promise::Evicted {
                host,
                freeze,
                master,
                since,
            } => {
                let state = &self.hosts[host.0];
                let silent = state.freezes == freeze && !state.is_running();
                if master != awake || !self.master.is_awake() || !silent || self.is_rebuilding() {
                    return;
                }
                // A partition may have held back its last messages.
                let due = state.connection.map(|_| self.last_word(host));
                let due = due.map(|word| word + self.eviction_bound(host));
                if let Some(due) = due.filter(|due| *due > self.now) {
                    return self.schedule_at(due, Event::Check(promise));
                }
                if since.1 || self.is_somebody_heard(since.0) {
                    return self.check_gone(host);
                }
                let timers = &self.swarm.timers;
                // A master that hears no member doubts itself, and one that is rebuilding then
                // waits as long as a member may live that has heard it.
                let at = since.0 + timers.detach_timeout * 2 + timers.peer_timeout * 5;
                let since = (since.0, true);
                let promise = Promise::Evicted {
                    host,
                    freeze,
                    master,
                    since,
                };
                self.schedule_at(at.max(self.now), Event::Check(promise));
            }
            news @ Promise::Learned { .. } => self.check_news(news),
            Promise::Founded => self.check_founded(),
            Promise::Healthy => self.check_healthy(),
            Promise::CallEnded {
                host,
                call,
                asked,
                freeze,
                master,
            } => {
                let checked = self.check_call_ended((host, call), (asked, freeze), master);
                self.check(checked);
            }
            Promise::UnitGone {
                peers,
                since,
                master,
            } => {
                let awake = master == awake && self.master.is_awake();
                if awake && self.is_somebody_heard(since) {
                    self.check_unit_gone(&peers);
                }
            }
        }
    }

    fn is_rebuilding(&self) -> bool {
        !self.keeps_all() && self.master.incarnation > 1
    }

    fn check_gone(&mut self, host: HostId) {
        let state = &self.hosts[host.0];
        let Some(peer) = state.peer.peer() else {
            return;
        };
        let member = state.run == Some(self.checkers.run)
            && self
                .checkers
                .newest_view(state.group)
                .is_some_and(|sealed| sealed.members.contains(&peer));
        if member && !self.checkers.is_evicted(state.run, peer) {
            self.fail(format!(
                "silent {host:?} (peer {peer}) was not evicted in time (P3)"
            ));
        }
    }

    /// The healthy group never waits for another: its calls end soon.
    fn check_healthy(&mut self) {
        let Some(group) = self.swarm.healthy_group else {
            return;
        };
        let bound = self.swarm.think * 6 + Duration::from_millis(800);
        let late = self.live_hosts(GroupId(group)).find(|host| {
            self.oldest_call(*host)
                .is_some_and(|at| at + bound < self.now)
        });
        if let Some(host) = late {
            let open: Vec<_> = open_operations(&self.hosts[host.0])
                .map(|operation| (operation.logical.tag, operation.started))
                .collect();
            self.fail(format!(
                "{host:?} of the healthy group waits for more than {bound:?}: {open:?}"
            ));
        }
        if !self.plan.calm {
            let again = Event::Check(Promise::Healthy);
            self.schedule(Duration::from_millis(300), again);
        }
    }

    fn oldest_call(&self, host: HostId) -> Option<Instant> {
        self.hosts[host.0]
            .app
            .calls
            .values()
            .map(|open| open.since)
            .min()
    }

    /// A host was welcomed to another run than the first, which must not happen as long as the
    /// journal is kept.
    ///
    /// # Errors
    /// It is.
    pub fn check_new_run(&self, host: HostId) -> Result<(), String> {
        // An older copy may be from before the run. It is lost if it had no member yet.
        let mut first = self.hosts.iter().filter(|host| host.run == Some(0));
        let is_lost = !self.keeps_all() || first.all(|host| host.member_since.is_none());
        ensure(is_lost, || {
            format!("{host:?} was welcomed to a new run despite the journal")
        })
    }

    /// A master founds a run, which is right only if the one before is lost for good. Members that
    /// come back later are too late.
    ///
    /// # Errors A majority could have continued.
    pub fn check_founding(&self) -> Result<(), String> {
        let settled = self.now.saturating_since(self.master.started)
            > self.swarm.timers.rebuild_window + Duration::from_secs(60);
        if settled {
            return Ok(());
        }
        let run = self.checkers.run;
        for group in self.groups() {
            let sealed = self.checkers.sealed.get(&(run, group));
            if let Some(newest) = sealed.and_then(|list| list.last()) {
                self.nobody_is_left(run, &newest.members)?;
            }
        }
        Ok(())
    }

    /// Checks that a restarted master could not hear a majority of these members.
    ///
    /// # Errors It could.
    pub fn nobody_is_left(&self, run: usize, members: &[PeerId]) -> Result<(), String> {
        let calm = Instant(self.master.started.0.saturating_sub(3_000_000_000));
        let is_member = |peer: PeerId| members.contains(&peer);
        let present = self
            .hosts
            .iter()
            .filter(|host| host.run == Some(run) && host.is_live() && host.is_running())
            .filter(|host| !host.up_blocked && !host.down_blocked && host.slowness == 1)
            .filter(|host| host.is_calm_since(calm))
            .filter(|host| host.peer.peer().is_some_and(is_member))
            .count();
        ensure(present * 2 <= members.len(), || {
            format!(
                "the history was begun anew although {present} of {} members were there (H6)",
                members.len()
            )
        })
    }

    /// Whether every live session of every group is a member and all views agree. With `settled`,
    /// newcomers may still wait, since no safe point is called any more.
    #[must_use]
    pub fn everybody_is_in(&self, settled: bool) -> bool {
        self.master.is_awake()
            && self.are_closed_groups_over()
            && self.groups().all(|group| {
                let views: Vec<_> = self
                    .live_hosts(group)
                    .filter(|host| !settled || self.hosts[host.0].view.is_some())
                    .map(|host| self.hosts[host.0].vid())
                    .collect();
                let newest = self.checkers.newest_view(group);
                !views.is_empty()
                    && newest.is_some_and(|sealed| {
                        sealed.members.len() == views.len()
                            && views.iter().all(|vid| *vid == sealed.vid)
                    })
            })
    }

    /// Whether a group has no members: its next view is founded when enough are there.
    #[must_use]
    pub fn lacks_members(&self) -> bool {
        let mut groups = self.groups();
        groups.any(|group| {
            let newest = self.checkers.newest_view(group);
            newest.is_none_or(|view| view.members.is_empty())
        })
    }

    /// Checks that every live session has been welcomed.
    ///
    /// # Errors The session that has not.
    pub fn everybody_is_welcomed(&self) -> Result<(), String> {
        let mut live = self.groups().flat_map(|group| self.live_hosts(group));
        let waiting = live.find(|host| self.hosts[host.0].peer.peer().is_none());
        ensure(waiting.is_none(), || {
            format!("{waiting:?} waits for its welcome at rest")
        })
    }

    /// Checks that every live session knows the numbers of the other groups.
    ///
    /// # Errors The numbers of one session, and the true ones.
    pub fn census_is_true(&self) -> Result<(), String> {
        let sizes: Vec<(GroupId, u32)> = self
            .groups()
            .filter_map(|group| Some((group, self.checkers.newest_view(group)?)))
            .map(|(group, view)| (group, view.members.len() as u32))
            .filter(|(_, size)| *size > 0)
            .collect();
        for group in self.groups() {
            let others = sizes.iter().filter(|(other, _)| *other != group);
            let others = others.map(|(_, size)| *size);
            let truth = OtherGroups {
                members: others.clone().sum(),
                groups: others.clone().count() as u32,
                largest: others.max().unwrap_or(0),
            };
            for host in self.live_hosts(group) {
                let told = self.hosts[host.0].peer.other_groups();
                ensure(told == truth, || {
                    format!("{host:?} was told of {told:?}, there are {truth:?}")
                })?;
            }
        }
        Ok(())
    }

    /// What a host waits for, for the text of a failure.
    #[must_use]
    pub fn who_waits(&self) -> String {
        let mut words = String::new();
        for (index, host) in self.hosts.iter().enumerate() {
            if host.ended.is_some() || matches!(host.process, Process::Dead { .. }) {
                continue;
            }
            let App {
                calls,
                round,
                hung,
                finished,
                ..
            } = &host.app;
            let open: Vec<String> = calls
                .iter()
                .map(|(call, open)| format!("{call}@{}", describe(&open.kind)))
                .collect();
            words += &format!(
                "\n  host {index} group {} peer {:?} view {} round {round:?} open {open:?} hung \
                 {hung} finished {finished}",
                host.group,
                host.peer.peer(),
                host.vid(),
            );
        }
        words
    }
}

fn describe(kind: &super::workload::CallKind) -> String {
    use super::workload::CallKind;
    match kind {
        CallKind::Operation(operation) => match operation.started {
            Some(op) => op.to_string(),
            None => format!("tag {} waiting", operation.logical.tag),
        },
        CallKind::SafePoint => "safe point".into(),
        CallKind::Record(stream) => format!("stream {stream}"),
        CallKind::Leave => "leave".into(),
        CallKind::Invalid => "invalid".into(),
    }
}
