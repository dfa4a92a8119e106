//! Carries out the outputs of a peer's machine in the simulated world.

use bytes::Bytes;
use ccl_core::peer::PeerToPeer;

use super::*;

impl World {
    pub(super) fn host_output(&mut self, host: HostId, output: Output) {
        let now = self.now;
        match output {
            Output::Connect => self.host_connect(host),
            Output::Disconnect => {
                self.hosts[host.0].attempt += 1;
                if let Some(connection) = self.hosts[host.0].connection.take() {
                    self.close_from_host(connection);
                }
            }
            Output::Send(message) => self.host_send(host, message),
            Output::Links(neighbours) => self.host_links(host, neighbours),
            Output::StartOp { call, start } => self.host_start(host, call, start),
            Output::Elected {
                op,
                content,
                sources,
            } => self.sync_elected(host, op, (content, sources)),
            Output::Say { message, to } => self.host_says(host, message, &to),
            Output::StopOp(op) => {
                self.trace.line(now, format_args!("{host:?} stops {op}"));
                self.hosts[host.0].plane.stop(op);
                self.sync_stops(host, op);
            }
            Output::Finish { call, end } => self.host_finish(host, call, end),
            Output::Rejected { call, error } => self.host_rejected(host, call, error),
            Output::Forget { before, carried } => {
                self.hosts[host.0].plane.forget(before, carried);
            }
            Output::View(view) => self.host_view(host, view),
            Output::Ended(end) => self.host_ended(host, end),
            Output::Event(event) => {
                self.trace
                    .line(now, format_args!("{host:?} event {event:?}"));
            }
        }
    }

    fn host_says(&mut self, host: HostId, message: PeerToPeer, to: &[PeerId]) {
        let header = message.header();
        for &peer in to {
            let payload = Bytes::new();
            self.send_frame(host, peer, Content::Signal { header, payload });
        }
    }

    pub(super) fn host_connect(&mut self, host: HostId) {
        if let Some(connection) = self.hosts[host.0].connection.take() {
            self.close_from_host(connection);
        }
        self.hosts[host.0].attempt += 1;
        let attempt = self.hosts[host.0].attempt;
        let state = &self.hosts[host.0];
        let delay = if state.up_blocked || state.down_blocked {
            Duration::from_secs(1)
        } else {
            self.control_delay(Some(host))
        };
        self.schedule(delay, Event::Connected { host, attempt });
    }

    pub(super) fn host_send(&mut self, host: HostId, message: PeerToMaster) {
        let (now, kind) = (self.now, up_code(&message));
        self.trace.fold(now, &[14, host.0 as u64, kind]);
        if kind != PING {
            self.trace
                .line(now, format_args!("{host:?} -> {message:?}"));
        }
        if matches!(
            message,
            PeerToMaster::Hello { .. } | PeerToMaster::Here { .. } | PeerToMaster::Attach { .. }
        ) {
            let opening = (self.master.incarnation, message.clone());
            if matches!(message, PeerToMaster::Hello { .. }) {
                self.hosts[host.0].hellos.push(opening.clone());
            }
            self.hosts[host.0].last_opening = Some(opening);
        }
        self.hosts[host.0].told.says(&message);
        if let Some(connection) = self.hosts[host.0].connection {
            if matches!(message, PeerToMaster::Hello { .. }) {
                self.delay_hello(host, connection);
            }
            self.send_up(connection, message);
        }
        self.run_hooks(Point::HostSends, kind, Some(host));
    }

    pub(super) fn host_view(&mut self, host: HostId, view: Arc<View>) {
        let now = self.now;
        self.trace.line(
            now,
            format_args!("{host:?} is in view {} of {}", view.vid, view.members.len()),
        );
        self.trace
            .fold(now, &[15, host.0 as u64, view.members.len() as u64]);
        let first = self.hosts[host.0].view.is_none();
        let checked = self.checkers.host_learns_view(&self.hosts[host.0], &view);
        self.check(checked);
        self.hosts[host.0].view = Some(view);
        if first {
            self.hosts[host.0].member_since = Some(now);
            self.app_admitted(host);
        }
    }

    pub(super) fn host_ended(&mut self, host: HostId, end: SessionEnd) {
        let now = self.now;
        self.trace
            .line(now, format_args!("{host:?} ended: {end:?}"));
        self.trace.fold(now, &[16, host.0 as u64]);
        let checked = self.checkers.session_ended(&self.hosts[host.0], &end);
        self.check(checked);
        if let SessionEnd::Refused(why) = &end {
            let checked = self.check_refusal(host, why);
            self.check(checked);
        }
        self.stats.session_ended(&end);
        self.hosts[host.0].ended = Some(end);
        self.app_ended(host);
    }

    pub(super) fn host_arm(&mut self, host: HostId) {
        let Some(at) = self.hosts[host.0].peer.poll_timeout() else {
            return;
        };
        let at = at.max(self.now);
        let state = &mut self.hosts[host.0];
        if state.wake.is_none_or(|wake| at < wake) {
            state.wake = Some(at);
            self.schedule_at(at, Event::HostTimer { host });
        }
    }
}
