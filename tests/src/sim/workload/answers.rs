//! The machine's answers to an application's calls: operations start and calls end. Then the
//! application goes on, calls again, or starts anew.

use super::*;

impl World {
    /// An operation begins to move its bytes.
    pub fn host_start(&mut self, host: HostId, call: CallId, start: Start) {
        let op = start.birth.op;
        let now = self.now;
        self.trace.line(
            now,
            format_args!("{host:?} starts {op} as rank {}", start.rank),
        );
        self.trace.fold(now, &[32, host.0 as u64, op.n.0]);
        let (parts, memory) = self.shape(host, call, &start);
        let state = &mut self.hosts[host.0];
        let Some(OpenCall {
            kind: CallKind::Operation(operation),
            ..
        }) = state.app.calls.get_mut(&call)
        else {
            self.fail(format!("{host:?} starts a call that is not open"));
            return;
        };
        operation.started = Some(op);
        let operation = operation.clone();
        self.note_start(host, op);
        let checked = self.checkers.operation_starts(
            &self.hosts[host.0],
            host,
            (&start, self.now),
            &operation,
        );
        self.check(checked);
        if let Called::Sync(offer) = &start.fingerprint.called {
            return self.sync_starts(host, op, **offer);
        }
        self.dies_in(host, start.fingerprint.kind());
        let in_place = operation.logical.in_place;
        self.hosts[host.0]
            .plane
            .start(start, &parts, memory, in_place);
    }

    /// A call is over.
    pub fn host_finish(&mut self, host: HostId, call: CallId, end: End) {
        let now = self.now;
        self.trace
            .line(now, format_args!("{host:?} call {call} ends: {end:?}"));
        let Some(open) = self.hosts[host.0].app.calls.remove(&call) else {
            self.fail(format!(
                "{host:?} call {call} ended twice, or was never made"
            ));
            return;
        };
        self.trace.fold(now, &[33, host.0 as u64, end_code(&end)]);
        if self.hosts[host.0].app.scripted {
            let ending = (call, Ending::End(end.clone()));
            self.hosts[host.0].app.endings.push(ending);
        }
        match open.kind {
            CallKind::Operation(operation) => {
                let memory = operation
                    .started
                    .and_then(|op| self.hosts[host.0].plane.take(op));
                let checked = self.check_ending(host, &operation, &end, memory);
                self.check(checked);
                self.note_end(host, operation.logical.id, &end);
                self.app_operation_ended(host, operation, &end);
            }
            CallKind::SafePoint => self.app_safe_point_ended(host, &end),
            CallKind::Record(_) => {
                if let End::Recorded { record, hash, .. } = end {
                    self.app_recorded(host, (record, hash));
                }
            }
            CallKind::Leave => {}
            CallKind::Invalid => {
                self.fail(format!("{host:?}: an invalid call {call} was carried out"));
            }
        }
    }

    pub(super) fn app_operation_ended(&mut self, host: HostId, operation: Operation, end: &End) {
        let lost = matches!(
            end,
            End::Aborted {
                reason: AbortReason::Lost { .. },
                ..
            }
        );
        let repeats_cancel = is_active(Mutation::RetryAfterCancel)
            && !operation.cancelled
            && matches!(
                end,
                End::Aborted {
                    reason: AbortReason::Cancelled { .. },
                    ..
                }
            );
        match end {
            End::Committed { op, .. } if op.tag == Tag::SHARED_STATE => self.app_synced(host),
            End::Aborted {
                reason: AbortReason::State(fault),
                ..
            } => self.app_sync_refused(host, fault),
            _ => {}
        }
        let logical = operation.logical;
        let again = (lost || repeats_cancel) && operation.attempt < logical.fingerprint.attempts;
        let tag = logical.tag;
        let Some(stream) = self.hosts[host.0].app.streams.get_mut(&tag) else {
            return;
        };
        stream.current = None;
        if again {
            stream.queue.push_front((logical, operation.attempt + 1));
        }
        self.app_soon(host, AppStep::Post(tag));
        self.app_maybe_safe_point(host);
    }

    pub(super) fn app_safe_point_ended(&mut self, host: HostId, end: &End) {
        if let End::SafePoint { .. } = end {
            let checked = self.safe_point_ended(host);
            self.check(checked);
        }
        let app = &mut self.hosts[host.0].app;
        match end {
            End::SafePoint { .. } => {
                app.round = app.round.map(|round| round + 1);
                if !app.scripted {
                    self.app_soon(host, AppStep::Round);
                }
                self.wake_mates(host);
            }
            End::Withdrawn if !app.scripted => self.app_soon(host, AppStep::SafePoint),
            _ => {}
        }
    }

    /// A call was refused.
    pub fn host_rejected(&mut self, host: HostId, call: CallId, error: Error) {
        let now = self.now;
        self.trace
            .line(now, format_args!("{host:?} call {call} refused: {error}"));
        self.trace.fold(now, &[34, host.0 as u64]);
        let Some(open) = self.hosts[host.0].app.calls.remove(&call) else {
            self.fail(format!("{host:?} call {call} was refused twice"));
            return;
        };
        if self.hosts[host.0].app.scripted {
            let ending = (call, Ending::Rejected(error.to_string()));
            self.hosts[host.0].app.endings.push(ending);
        }
        match (open.kind, &error) {
            (CallKind::Operation(operation), Error::TooFewPeers { .. }) => {
                self.stats.refused += 1;
                self.app_skips(host, operation.logical.tag);
            }
            (CallKind::Invalid, Error::InvalidUsage(_)) => {}
            (_, error) if error.is_fatal() => {}
            (kind, error) => {
                if !self.hosts[host.0].app.scripted {
                    self.fail(format!("{host:?} {kind:?} was refused: {error}"));
                }
            }
        }
    }

    /// Too few members: the rest of the round is skipped, on all members alike.
    pub(super) fn app_skips(&mut self, host: HostId, tag: Tag) {
        if let Some(stream) = self.hosts[host.0].app.streams.get_mut(&tag) {
            stream.current = None;
            stream.queue.clear();
        }
        self.app_maybe_safe_point(host);
    }

    /// The session is over; most processes come back as newcomers.
    pub fn app_ended(&mut self, host: HostId) {
        let now = self.now;
        // A call that the machine was given together with the end is refused after it.
        let calls = self.hosts[host.0].app.calls.iter();
        let open = calls.filter(|(_, open)| open.since < now);
        let open: Vec<CallId> = open.map(|(call, _)| *call).collect();
        if !open.is_empty() {
            self.fail(format!("{host:?} ended with open calls {open:?}"));
        }
        let state = &mut self.hosts[host.0];
        state.app.streams.clear();
        state.app.records.end();
        if let Some(SessionEnd::Evicted(eviction)) = &state.ended {
            state.app.possession.evicted(&eviction.reason);
        }
        if self.network_rng.chance(200) {
            self.app_calls_after_the_end(host);
        }
        let app = &self.hosts[host.0].app;
        if app.comes_back && !app.scripted {
            let after = self.network_rng.millis(100, 3000);
            let step = AppStep::Respawn;
            self.schedule(after, Event::App { host, step });
        }
        self.trace.fold(now, &[35, host.0 as u64]);
    }

    /// All that a machine has said was carried out: no call is open after the end of its session.
    pub fn check_ended(&mut self, host: HostId) {
        let state = &self.hosts[host.0];
        let open = state.app.calls.len();
        if state.ended.is_some() && open > 0 {
            self.fail(format!("{host:?} keeps {open} calls after its end"));
        }
    }

    /// Every call is refused now, and leaving ends at once.
    fn app_calls_after_the_end(&mut self, host: HostId) {
        let group = self.hosts[host.0].group;
        if let Some(logical) = program::round(&self.swarm, group, 0).concat().pop() {
            self.app_post_twisted(host, logical, (1, None));
        }
        self.app_safe_point(host);
        self.app_enter(host, StreamId(0), (vec![1], RecordRule::default()));
        self.app_leave(host);
    }

    pub(super) fn app_respawn(&mut self, host: HostId) {
        let (group, address) = (self.hosts[host.0].group, self.hosts[host.0].address);
        let same = self.network_rng.chance(700);
        let mut app = App::program();
        if self.network_rng.chance(500) {
            // It had saved its state.
            app.possession = self.hosts[host.0].app.possession.clone();
        }
        if self.hosts[host.0].seat.is_some() {
            return self.sit_down_again(host, app);
        }
        self.spawn(group, same.then_some(address), app);
    }
}

fn end_code(end: &End) -> u64 {
    match end {
        End::Committed { .. } => 1,
        End::Aborted { .. } => 2,
        End::Unknown { .. } => 3,
        End::SafePoint { .. } => 4,
        End::Withdrawn => 5,
        End::Left => 6,
        End::Recorded { .. } => 7,
    }
}
