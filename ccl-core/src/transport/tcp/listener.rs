//! The data port of a peer: accepts connections with a valid hello, and no others.
//!
//! A connection without one costs one task and one read of fixed length, for a limited time, and
//! their number is limited. A peer that the master knows but this peer does not know yet (the
//! master's messages race with the connections) may wait for the same time until it is known.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::Inner;
use super::door::Visitor;
use super::link::{Admission, Link};
use super::offer::Offered;
use crate::limits::{HELLO_TIMEOUT, LANES_MAX, UNIDENTIFIED_MAX, WORLD_SIZE_MAX};
use crate::net::{Port, Stream};
use crate::wire::data::{Answer, HELLO_BYTES, Opening};

/// Connections that presented the port's key and wait until the master names their peer.
const UNEXPECTED_MAX: usize = WORLD_SIZE_MAX * (LANES_MAX as usize + 1) / 8;
/// Bytes that a connection must send to be worth a warning.
const FIRST_BYTES: usize = 8;
/// Pause when the system has no descriptor left for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A connection that has not entered a lane.
struct Guest {
    task: AbortHandle,
    remote: SocketAddr,
    has_key: Arc<AtomicBool>,
}

/// The connections that have not entered a lane, oldest first.
#[derive(Default)]
struct Guests {
    queue: VecDeque<Guest>,
    tasks: JoinSet<()>,
}

/// Accepts connections forever.
pub(super) async fn run(inner: Arc<Inner>, port: Port) {
    let mut guests = Guests::default();
    loop {
        tokio::select! {
            accepted = port.accept() => match accepted {
                Ok((stream, remote)) => guests.welcome(&inner, stream, remote),
                Err(error) => {
                    inner.warnings.warn(inner.address, format!("cannot accept: {error}"));
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = guests.tasks.join_next() => {}
        }
    }
}

impl Guests {
    fn welcome(&mut self, inner: &Arc<Inner>, stream: Stream, remote: SocketAddr) {
        let has_key = Arc::new(AtomicBool::new(false));
        let task = self.tasks.spawn(identify(
            Arc::clone(inner),
            stream,
            remote,
            Arc::clone(&has_key),
        ));
        self.queue.retain(|guest| !guest.task.is_finished());
        self.queue.push_back(Guest {
            task,
            remote,
            has_key,
        });
        self.make_room(inner, false, UNIDENTIFIED_MAX);
        self.make_room(inner, true, UNEXPECTED_MAX);
    }

    /// If there are too many of a kind, the oldest gives way.
    fn make_room(&mut self, inner: &Inner, has_key: bool, most: usize) {
        let is_kind = |guest: &Guest| guest.has_key.load(Ordering::Relaxed) == has_key;
        if self.queue.iter().filter(|guest| is_kind(guest)).count() <= most {
            return;
        }
        if let Some(oldest) = self.queue.iter().position(is_kind)
            && let Some(guest) = self.queue.remove(oldest)
        {
            guest.task.abort();
            inner
                .warnings
                .warn(guest.remote, "dropped in favour of newer connections");
        }
    }
}

/// Brings one connection to its lane, or closes it.
async fn identify(inner: Arc<Inner>, stream: Stream, remote: SocketAddr, has_key: Arc<AtomicBool>) {
    let deadline = timeout(HELLO_TIMEOUT, bring_in(&inner, stream, remote, &has_key));
    let reason = match deadline.await {
        Ok(Ok(())) => return,
        Ok(Err(reason)) => reason,
        Err(_elapsed) if has_key.load(Ordering::Relaxed) => "its peer is unknown here".into(),
        Err(_elapsed) => "no hello in time".into(),
    };
    inner.warnings.warn(remote, reason);
}

async fn bring_in(
    inner: &Arc<Inner>,
    stream: Stream,
    remote: SocketAddr,
    has_key: &AtomicBool,
) -> Result<(), String> {
    let mut bytes = [0; HELLO_BYTES];
    let (first, rest) = bytes.split_at_mut(FIRST_BYTES);
    if let Err(error) = stream.read_exact(first).await {
        // A probe for an open port is not worth a warning.
        tracing::debug!(%remote, %error, "a connection without a hello");
        return Ok(());
    }
    stream
        .read_exact(rest)
        .await
        .map_err(|error: io::Error| format!("incomplete hello: {error}"))?;
    let opening = Opening::decode(&bytes).map_err(|fault| fault.to_string())?;
    let caller = Caller {
        stream,
        remote,
        opening,
    };
    admit_once_known(inner, caller, has_key).await
}

/// Accepts a connection that this side made, over which the other side has greeted.
pub(super) async fn let_in(inner: &Arc<Inner>, caller: Caller) {
    let remote = caller.remote;
    let has_key = AtomicBool::new(true);
    let admitted = admit_once_known(inner, caller, &has_key);
    if let Ok(Err(reason)) = timeout(HELLO_TIMEOUT, admitted).await {
        inner.warnings.warn(remote, reason);
    }
}

async fn admit_once_known(
    inner: &Arc<Inner>,
    mut caller: Caller,
    has_key: &AtomicBool,
) -> Result<(), String> {
    let mut changes = inner.changes.subscribe();
    loop {
        changes.borrow_and_update();
        match inner.admit(caller)? {
            Entry::Done => return Ok(()),
            Entry::Stale(stale, welcome) => {
                return stale
                    .stream
                    .write_all(&welcome)
                    .await
                    .map_err(|error| error.to_string());
            }
            Entry::Wait(waiting, knows_key) => {
                has_key.store(knows_key, Ordering::Relaxed);
                caller = waiting;
            }
        }
        if changes.changed().await.is_err() {
            return Err("this peer is shutting down".into());
        }
    }
}

/// A connection that has stated its purpose.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) stream: Stream,
    pub(super) remote: SocketAddr,
    pub(super) opening: Opening,
}

impl From<Visitor> for Caller {
    fn from(visitor: Visitor) -> Self {
        Self {
            stream: visitor.stream,
            remote: visitor.remote,
            opening: Opening::Hello(visitor.hello),
        }
    }
}

/// What to do with a connection now.
enum Entry {
    Done,
    /// Tell it to restart the link.
    Stale(Visitor, Vec<u8>),
    /// It may be accepted later; true: it has presented the port's key.
    Wait(Caller, bool),
}

impl Inner {
    /// Accepts a connection if its opening fits a wanted peer.
    fn admit(self: &Arc<Self>, caller: Caller) -> Result<Entry, String> {
        let ends = caller.opening.ends();
        let Some(identity) = self.identity() else {
            return Ok(Entry::Wait(caller, false));
        };
        if ends.run != identity.run || ends.to != identity.peer {
            return Err("meant for another run or peer".into());
        }
        if ends.to_key != identity.key {
            return Err("wrong key".into());
        }
        let Some(link) = self.link(ends.from) else {
            return Ok(Entry::Wait(caller, true));
        };
        if ends.from_key != link.key() {
            return Err(format!("wrong key for peer {}", ends.from));
        }
        let hello = match caller.opening {
            Opening::Hello(hello) => hello,
            Opening::Offer(_) => return take_offer(&link, caller),
        };
        let visitor = Visitor {
            stream: caller.stream,
            remote: caller.remote,
            hello,
        };
        match link.admit(visitor) {
            Admission::Entered => Ok(Entry::Done),
            Admission::Closed(reason) => Err(reason.into()),
            Admission::Stale(visitor) => {
                let mut welcome = link.welcome(&hello, 0);
                welcome.answer = Answer::Stale;
                Ok(Entry::Stale(visitor, welcome.encode().to_vec()))
            }
            Admission::Renew(visitor) => {
                self.renew(&link);
                // A link that is no longer wanted is not renewed; then the connection waits.
                Ok(Entry::Wait(visitor.into(), true))
            }
        }
    }
}

/// Keeps a connection of the other side for the next lane that needs one.
fn take_offer(link: &Link, caller: Caller) -> Result<Entry, String> {
    if !link.dials {
        return Err("it offers a connection but must dial itself".into());
    }
    if link.is_failed.load(Ordering::Relaxed) {
        return Err("the link has failed".into());
    }
    link.tune(&caller.stream);
    link.offers.put(Offered {
        stream: caller.stream,
        remote: caller.remote,
    });
    Ok(Entry::Done)
}
