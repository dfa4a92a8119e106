//! What opens a connection of a session that exists: `Here`, or `Attach`.

use crate::ids::{RunId, SessionId};
use crate::master::ConnectionId;
use crate::wire::control::{Claim, PeerToMaster, Report};

/// An `Attach` or a `Here`, and the connection that carried it.
pub struct Attach {
    pub connection: ConnectionId,
    pub run_id: RunId,
    pub session: SessionId,
    pub attach: u64,
    pub claim: Claim,
    /// That of a `Here` names only the view.
    pub report: Report,
    pub is_here: bool,
}

impl Attach {
    /// The message, if it is an `Attach` or a `Here`.
    pub fn of(connection: ConnectionId, message: PeerToMaster) -> Option<Self> {
        match message {
            PeerToMaster::Here {
                run_id,
                session,
                attach,
                vid,
                claim,
            } => Some(Self {
                connection,
                run_id,
                session,
                attach,
                claim,
                report: Report {
                    vid,
                    ..Report::default()
                },
                is_here: true,
            }),
            PeerToMaster::Attach {
                run_id,
                session,
                attach,
                claim,
                report,
            } => Some(Self {
                connection,
                run_id,
                session,
                attach,
                claim,
                report,
                is_here: false,
            }),
            _ => None,
        }
    }
}
