//! What an application asks for beside its calls: to cancel one, or to leave.

use super::*;

impl World {
    /// Cancels a call, if it is still open.
    pub fn app_cancel_call(&mut self, host: HostId, call: CallId) {
        let Some(open) = self.hosts[host.0].app.calls.get_mut(&call) else {
            return;
        };
        if let CallKind::Operation(operation) = &mut open.kind {
            operation.cancelled = true;
            self.checkers.asked(host, operation.logical.meeting());
            let now = self.now;
            self.promise_end(host, call, now);
        }
        let reason = CancelReason::User;
        self.host_input(host, Input::Cancel { call, reason });
    }

    /// Cancels the oldest open collective of a host.
    pub fn app_cancel(&mut self, host: HostId) {
        let oldest = self.hosts[host.0]
            .app
            .calls
            .iter()
            .find(|(_, open)| matches!(open.kind, CallKind::Operation(_)))
            .map(|(call, _)| *call);
        if let Some(call) = oldest {
            self.app_cancel_call(host, call);
        }
    }

    /// The application leaves.
    pub fn app_leave(&mut self, host: HostId) {
        let now = self.now;
        let call = self.hosts[host.0].app.open(CallKind::Leave, now, None);
        let app = &mut self.hosts[host.0].app;
        app.hung = true;
        for open in app.calls.values() {
            if let CallKind::Operation(operation) = &open.kind {
                self.checkers.asked(host, operation.logical.meeting());
            }
        }
        self.host_input(host, Input::Leave { call });
    }
}
