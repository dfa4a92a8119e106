//! Numbers for the kinds of control messages, for digests and for scripted reactions.

use ccl_core::wire::control::{MasterToPeer, PeerToMaster};

macro_rules! codes {
    ($($name:ident = $value:expr),* $(,)?) => {
        $(#[allow(missing_docs)] pub const $name: u64 = $value;)*
    };
}

codes! {
    HELLO = 1, ATTACH = 2, READY = 3, POSTED = 4, DONE = 5, CANCEL = 6, FLUSH = 7, INSTALLED = 8,
    AT_SAFE_POINT = 9, WITHDRAW = 10, LINK_DOWN = 11, LINK_UP = 12, LEAVE = 13, PING = 14,
    NO_LINK = 15, HERE = 16, ENTERED = 17, RECORDS_HELD = 18,
    WELCOME = 21, EXPECT = 22, INSTALL = 23, COMMIT = 24, SUSPEND = 25, RELEASE = 26,
    SAFE_RELEASED = 27, EVICTED = 28, REFUSED = 29, PONG = 30, ELECTED = 31, SUMMON = 32,
    RECORDED = 33, RECORDS_RELEASED = 34,
}

/// Number of a message to the master.
#[must_use]
pub fn up_code(message: &PeerToMaster) -> u64 {
    match message {
        PeerToMaster::Hello { .. } => HELLO,
        PeerToMaster::Here { .. } => HERE,
        PeerToMaster::Attach { .. } => ATTACH,
        PeerToMaster::Ready { .. } => READY,
        PeerToMaster::Posted(_) => POSTED,
        PeerToMaster::Done(_) => DONE,
        PeerToMaster::Cancel { .. } => CANCEL,
        PeerToMaster::Flush { .. } => FLUSH,
        PeerToMaster::Installed { .. } => INSTALLED,
        PeerToMaster::AtSafePoint { .. } => AT_SAFE_POINT,
        PeerToMaster::Withdraw { .. } => WITHDRAW,
        PeerToMaster::LinkDown { .. } => LINK_DOWN,
        PeerToMaster::LinkUp { .. } => LINK_UP,
        PeerToMaster::Leave => LEAVE,
        PeerToMaster::Ping => PING,
        PeerToMaster::NoLink { .. } => NO_LINK,
        PeerToMaster::Entered(_) => ENTERED,
        PeerToMaster::RecordsHeld { .. } => RECORDS_HELD,
    }
}

/// Number of a message to a peer.
#[must_use]
pub fn down_code(message: &MasterToPeer) -> u64 {
    match message {
        MasterToPeer::Welcome { .. } => WELCOME,
        MasterToPeer::Expect { .. } => EXPECT,
        MasterToPeer::Install(_) => INSTALL,
        MasterToPeer::Commit(_) => COMMIT,
        MasterToPeer::Elected { .. } => ELECTED,
        MasterToPeer::Summon => SUMMON,
        MasterToPeer::Suspend { .. } => SUSPEND,
        MasterToPeer::Release { .. } => RELEASE,
        MasterToPeer::SafeReleased { .. } => SAFE_RELEASED,
        MasterToPeer::Evicted { .. } => EVICTED,
        MasterToPeer::Refused { .. } => REFUSED,
        MasterToPeer::Pong { .. } => PONG,
        MasterToPeer::Recorded(_) => RECORDED,
        MasterToPeer::RecordsReleased { .. } => RECORDS_RELEASED,
    }
}
