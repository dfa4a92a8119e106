//! What opens a connection of a session that exists: `Here`, or `Attach`.

use std::borrow::Cow;

use crate::ids::{RunId, SessionId, Vid};
use crate::master::ConnectionId;
use crate::wire::control::{Claim, PeerToMaster, Report};

/// An `Attach` or a `Here`, and the connection that carried it.
pub struct Attach {
    pub connection: ConnectionId,
    pub run_id: RunId,
    pub session: SessionId,
    pub attach: u64,
    pub claim: Claim,
    pub said: Said,
}

/// What a session says of itself.
pub enum Said {
    /// `Here`: its view; the rest follows when it is asked for.
    View(Vid),
    /// `Attach`: everything.
    Report(Report),
}

impl Attach {
    /// The message, if it is an `Attach` or a `Here`.
    pub fn of(connection: ConnectionId, message: PeerToMaster) -> Option<Self> {
        let (run_id, session, attach, claim, said) = match message {
            PeerToMaster::Here {
                run_id,
                session,
                attach,
                vid,
                claim,
            } => (run_id, session, attach, claim, Said::View(vid)),
            PeerToMaster::Attach {
                run_id,
                session,
                attach,
                claim,
                report,
            } => (run_id, session, attach, claim, Said::Report(report)),
            _ => return None,
        };
        Some(Self {
            connection,
            run_id,
            session,
            attach,
            claim,
            said,
        })
    }
}

impl Said {
    /// The session's newest view.
    pub fn vid(&self) -> Vid {
        match self {
            Self::View(vid) => *vid,
            Self::Report(report) => report.vid,
        }
    }

    /// As much of its report as is known.
    pub fn report(&self) -> Cow<'_, Report> {
        match self {
            Self::View(vid) => Cow::Owned(Report {
                vid: *vid,
                ..Report::default()
            }),
            Self::Report(report) => Cow::Borrowed(report),
        }
    }
}
