//! A session that never gets an answer: which connections it accepts messages from, and how its
//! calls end.

mod reports;

use std::net::TcpListener;

use super::*;
use crate::collective::Brought;
use crate::error::Eviction;
use crate::ids::{RunId, SessionId, Tag, Term, Vid};
use crate::timers::Timers;
use crate::wire::control::{Called, EvictReason, Fingerprint, MasterToPeer};

/// Returns a session and its master's port, which accepts connections and sends nothing.
pub(in crate::driver::peer) fn session() -> (Arc<Session>, TcpListener) {
    let master = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = CommunicatorConfig {
        master: master.local_addr().unwrap().to_string(),
        // A report that stands still holds one of them up.
        io_threads: Some(2),
        ..CommunicatorConfig::default()
    };
    (Session::start(config).unwrap(), master)
}

pub(in crate::driver::peer) fn barrier() -> Operation {
    Operation {
        fingerprint: Fingerprint::new(Called::Barrier),
        brought: Brought::NOTHING,
        tag: Tag(0),
        deadline: None,
        holding: None,
        world_size: None,
    }
}

pub(in crate::driver::peer) fn welcome(peer: PeerId) -> MasterToPeer {
    MasterToPeer::Welcome {
        run_id: RunId(1),
        session: SessionId(1),
        peer,
        term: Term(1),
        timers: Timers {
            peer_timeout: Duration::from_secs(60),
            link_timeout: Duration::from_secs(60),
            ..Timers::default()
        },
        others: OtherGroups::default(),
        waits: None,
    }
}

/// Goal: messages of an abandoned connection are ignored, and so is its end.
///
/// 1. The session dials a second time, and abandons the first connection.
/// 2. Messages of the first connection, and its end, change nothing.
/// 3. Messages of the second connection are processed.
#[test]
fn what_an_earlier_connection_says_is_not_heard() {
    let (session, _master) = session();
    let generation = session.core.lock().generation();
    session.control_said(generation - 1, welcome(PeerId(7)));
    session.drive();
    assert_eq!(session.public.lock().peer, None);
    session.control_ended(generation - 1, Some("an old story".into()));
    assert_eq!(
        session.core.lock().generation(),
        generation,
        "it dials anew"
    );
    let fault = session.public.lock().fault(session.clock.now());
    assert_ne!(fault.as_deref(), Some("an old story"));
    session.control_said(generation, welcome(PeerId(8)));
    session.drive();
    assert_eq!(session.public.lock().peer, Some(PeerId(8)));
    session.close();
}

#[test]
fn every_end_of_a_session_is_told_to_open_calls_and_to_later_ones() {
    let eviction = Eviction {
        peer: PeerId(3),
        vid: Vid::default(),
        reason: EvictReason::Left,
        names: Default::default(),
    };
    let ends = [
        (SessionEnd::Evicted(eviction), ["evicted", "evicted"]),
        (
            SessionEnd::Refused("no place".into()),
            ["no place", "no place"],
        ),
        (
            SessionEnd::Detached,
            ["unknown: no master", "over: no master"],
        ),
        (
            SessionEnd::NoVerdict,
            ["unknown: no verdict", "over: no verdict"],
        ),
        (
            SessionEnd::Protocol("nonsense".into()),
            ["nonsense", "nonsense"],
        ),
        (
            SessionEnd::Internal,
            ["unknown: internal", "over: internal"],
        ),
        (SessionEnd::Left, ["left", "left"]),
    ];
    for (end, words) in ends {
        let (session, _master) = session();
        let open = session.post(barrier()).unwrap();
        session.end_calls(&end);
        let errors = [
            open.completion().wait().unwrap_err(),
            session.post(barrier()).unwrap_err(),
        ];
        for (error, words) in errors.iter().zip(words) {
            let text = error.to_string();
            assert!(error.is_fatal() && text.contains(words), "{end:?}: {text}");
        }
        assert!(session.safe_point().is_err());
        session.close();
    }
}
