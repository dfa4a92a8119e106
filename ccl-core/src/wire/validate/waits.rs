//! Checks the texts of a wait, since the receiver prints them unchanged.

use super::{Checked, check_name, length, number, over};
use crate::limits::{
    LABEL_BYTES_MAX, PEERS_MAX, TEXT_BYTES_MAX, TIMER_MAX, WAIT_NAMES_MAX, WORLD_SIZE_MAX,
};
use crate::wire::control::{Crossed, Late, NamedPeer, SomePeers, Wait, WaitPoint};

pub(super) fn check_waits(waits: Option<&Wait>) -> Checked {
    match waits {
        None => Ok(()),
        Some(Wait::Unit(unit)) => {
            length("peers of a unit", unit.size as usize, PEERS_MAX)?;
            let registered = unit.registered as usize;
            length("registered peers of a unit", registered, PEERS_MAX)
        }
        Some(
            Wait::EarlierRun { seconds }
            | Wait::LostView { seconds }
            | Wait::Backoff { seconds, .. },
        ) => over("seconds of a wait", (*seconds).into(), TIMER_MAX.as_secs()),
        Some(Wait::Full { members }) => length("members", *members as usize, WORLD_SIZE_MAX),
        Some(Wait::FirstView { here, absent, .. }) => {
            length("absent ranks", absent.len(), WAIT_NAMES_MAX)?;
            check_some(here)
        }
        Some(
            Wait::Rebuild { missing: some, .. }
            | Wait::SafePoint { missing: some, .. }
            | Wait::Change { missing: some },
        ) => check_some(some),
        Some(Wait::Links(links)) => {
            length("missing links", links.len(), WAIT_NAMES_MAX)?;
            links.iter().try_for_each(|link| {
                check_called(&link.from)?;
                check_called(&link.to)?;
                check_name("link error", &link.error, TEXT_BYTES_MAX)
            })
        }
    }
}

fn check_some(some: &SomePeers) -> Checked {
    length("named peers", some.first.len(), WAIT_NAMES_MAX)?;
    some.first.iter().try_for_each(check_called)
}

fn check_called(called: &NamedPeer) -> Checked {
    check_name("name", &called.name, LABEL_BYTES_MAX)
}

pub(super) fn check_late(late: &Late) -> Checked {
    let peers = match late {
        Late::Uncalled { peers, elsewhere } => {
            length("other calls", elsewhere.len(), WAIT_NAMES_MAX)?;
            elsewhere
                .iter()
                .try_for_each(|one| number("operation number", one.call.op().n.0))?;
            peers
        }
        Late::Unfinished(peers) => peers,
    };
    length("late peers", peers.first.len(), WAIT_NAMES_MAX)
}

pub(super) fn check_crossed(crossed: &Crossed) -> Checked {
    let (here, there) = (&crossed.here.first, &crossed.there.first);
    length("peers here", here.len(), WAIT_NAMES_MAX)?;
    length("peers elsewhere", there.len(), WAIT_NAMES_MAX)?;
    check_wait_point(crossed.other)
}

pub(super) fn check_wait_point(point: WaitPoint) -> Checked {
    match point {
        WaitPoint::Call(call) => number("operation number", call.op().n.0),
        WaitPoint::SafePoint { k } => number("safe point", k),
    }
}
