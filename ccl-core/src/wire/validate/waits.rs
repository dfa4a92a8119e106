//! Checks the texts of a wait, since the receiver prints them unchanged.

use super::{Checked, check_name, length, over};
use crate::limits::{
    LABEL_BYTES_MAX, PEERS_MAX, TEXT_BYTES_MAX, TIMER_MAX, WAIT_NAMES_MAX, WORLD_SIZE_MAX,
};
use crate::wire::control::{NamedPeer, Wait};

pub(super) fn check_waits(waits: Option<&Wait>) -> Checked {
    match waits {
        None => Ok(()),
        Some(Wait::Unit(unit)) => {
            length("peers of a unit", unit.size as usize, PEERS_MAX)?;
            let registered = unit.registered as usize;
            length("registered peers of a unit", registered, PEERS_MAX)
        }
        Some(Wait::EarlierRun { seconds } | Wait::Backoff { seconds, .. }) => {
            over("seconds of a wait", (*seconds).into(), TIMER_MAX.as_secs())
        }
        Some(Wait::Full { members }) => length("members", *members as usize, WORLD_SIZE_MAX),
        Some(
            Wait::Rebuild { missing: some, .. }
            | Wait::FirstView { here: some, .. }
            | Wait::SafePoint { missing: some, .. }
            | Wait::Change { missing: some },
        ) => {
            length("named peers", some.first.len(), WAIT_NAMES_MAX)?;
            some.first.iter().try_for_each(check_called)
        }
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

fn check_called(called: &NamedPeer) -> Checked {
    check_name("name", &called.name, LABEL_BYTES_MAX)
}
