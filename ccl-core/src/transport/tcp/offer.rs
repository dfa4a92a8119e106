//! Connections that the non-dialling side of a link opens and offers to the dialling side.
//!
//! One side dials a link; it decides how many lanes there are, which attempt is the newest, and
//! when to start over. But its dials may not get through: a firewall, a port mapping, a wrong
//! address. So the other side connects too, says what the connection is for, and waits; the
//! dialling side then greets over it as if it had dialled. One side still decides everything, so
//! nothing needs to be settled where both directions work.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::lock::Mutex;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::Inner;
use super::dial;
use super::keeper::Event;
use super::link::Link;
use super::listener::{self, Caller};
use crate::limits::{HELLO_TIMEOUT, LANES_MAX};
use crate::net::{Stream, plain};
use crate::wire::data::{HELLO_BYTES, LaneOffer, Opening};

/// A connection, and its remote address.
#[derive(Debug)]
pub(super) struct Offered {
    pub(super) stream: Stream,
    pub(super) remote: SocketAddr,
}

/// On the dialling side: connections that no lane has taken yet.
#[derive(Debug, Default)]
pub(super) struct Offers {
    waiting: Mutex<VecDeque<Offered>>,
    bell: Notify,
}

impl Offers {
    /// Keeps a connection; the oldest gives way.
    pub(super) fn put(&self, offered: Offered) {
        let mut waiting = self.waiting.lock();
        if waiting.len() >= OFFERS_MAX {
            waiting.pop_front();
        }
        waiting.push_back(offered);
        self.bell.notify_one();
    }

    /// The next connection.
    pub(super) async fn next(&self) -> Offered {
        loop {
            if let Some(offered) = self.waiting.lock().pop_front() {
                return offered;
            }
            self.bell.notified().await;
        }
    }
}

/// On the other side: offers connections while lanes have none, until it is aborted.
pub(super) async fn run(link: Arc<Link>, links: Weak<Inner>) {
    let mut pause = OFFER_AFTER;
    loop {
        if !link.is_lacking() {
            link.lacks.notified().await;
            // Where only this works, no time is lost on what does not.
            let is_usual = link.is_offered.load(Ordering::Relaxed);
            pause = if is_usual {
                Duration::ZERO
            } else {
                OFFER_AFTER
            };
        }
        sleep(pause).await;
        if !link.is_lacking() {
            continue;
        }
        let Some(inner) = links.upgrade() else {
            return;
        };
        pause = match offer(&link).await {
            Ok(caller) => {
                link.is_offered.store(true, Ordering::Relaxed);
                listener::let_in(&inner, caller).await;
                Duration::ZERO
            }
            Err(error) => {
                tracing::debug!(peer = %link.peer, %error, "it accepted no connection from here");
                link.tell(Event::NoLink(plain(&error))).await;
                (pause * 2).clamp(OFFER_AFTER, OFFER_PAUSE_MAX)
            }
        };
    }
}

/// Makes a connection and waits until the dialling side greets over it.
async fn offer(link: &Link) -> io::Result<Caller> {
    let Offered { stream, remote } = dial::connect_any(link).await?;
    let no_answer = |error: io::Error| {
        let words = format!("{remote}: no answer from this peer: {}", plain(&error));
        io::Error::new(error.kind(), words)
    };
    let identity = link.identity;
    let offer = LaneOffer {
        run: identity.run,
        from: identity.peer,
        to: link.peer,
        from_key: identity.key,
        to_key: link.key(),
    };
    stream.write_all(&offer.encode()).await.map_err(no_answer)?;
    let mut bytes = [0; HELLO_BYTES];
    timeout(HELLO_TIMEOUT, stream.read_exact(&mut bytes))
        .await
        .unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))
        .map_err(no_answer)?;
    let opening = Opening::decode(&bytes)
        .map_err(io::Error::other)
        .map_err(no_answer)?;
    match opening {
        Opening::Hello(hello) if hello.from == link.peer => Ok(Caller {
            stream,
            remote,
            opening,
        }),
        _ => Err(io::Error::other("it sent no hello over the connection")),
    }
}

/// How long the dialling side may take before the other connects too: several round trips of the
/// longest path, so that nothing is offered where dialling works.
const OFFER_AFTER: Duration = Duration::from_secs(1);
/// Longest pause between two offers.
const OFFER_PAUSE_MAX: Duration = Duration::from_secs(2);
/// Offered connections that wait for a lane.
const OFFERS_MAX: usize = LANES_MAX as usize + 1;
