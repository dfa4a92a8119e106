//! Connecting a lane to its other side, again and again until it succeeds.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::keeper::Event;
use super::lane::{Connection, Lane, OUT_OF_STEP};
use super::link::Link;
use super::stream::{read_exact, write_all};
use super::{socket, sys};
use crate::limits::HELLO_TIMEOUT;
use crate::wire::data::{Answer, LaneHello, LaneWelcome, WELCOME_BYTES};

/// Wait after the first attempt that failed; doubled with each that follows.
const BACKOFF_MIN: Duration = Duration::from_millis(10);
/// Longest wait between attempts.
const BACKOFF_MAX: Duration = Duration::from_millis(640);
/// Bounds of the time that one address may take to answer: a lost first packet is sent again after
/// a second.
const CONNECT_TIMEOUT_MIN: Duration = Duration::from_millis(250);
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(2);

/// Why an attempt failed.
#[derive(Debug)]
enum Failure {
    /// Every address refused the connection.
    Refused,
    /// The other side does not know this link any more, or knows another.
    Stale,
    /// The other side's numbers cannot be.
    OutOfStep,
    /// Something else, which may pass.
    Passing(io::Error),
}

/// Connects a lane.
///
/// # Errors
/// The link cannot be taken up again.
pub(super) async fn connect(link: &Link, lane: &Arc<Lane>) -> Result<Connection, &'static str> {
    let mut backoff = BACKOFF_MIN;
    loop {
        match attempt(link, lane).await {
            Ok(connection) => return Ok(connection),
            Err(Failure::Refused) => link.tell(Event::Refused).await,
            Err(Failure::Stale) => {
                link.tell(Event::Stale).await;
                // The link is about to be replaced, and this task with it.
                std::future::pending::<()>().await;
            }
            Err(Failure::OutOfStep) => return Err(OUT_OF_STEP),
            Err(Failure::Passing(error)) => {
                tracing::debug!(peer = %link.peer, lane = lane.index, %error, "no connection yet");
            }
        }
        sleep(backoff).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

/// Tries all addresses, the one that worked last first.
async fn attempt(link: &Link, lane: &Arc<Lane>) -> Result<Connection, Failure> {
    let addresses = link.addresses();
    let mut failure = None;
    let mut is_refused = !addresses.is_empty();
    for address in addresses {
        match attempt_at(link, lane, address).await {
            Ok(connection) => {
                link.prefer(address);
                return Ok(connection);
            }
            Err(Failure::Passing(error)) => {
                is_refused &= error.kind() == io::ErrorKind::ConnectionRefused;
                failure = Some(error);
            }
            Err(other) => return Err(other),
        }
    }
    if is_refused {
        return Err(Failure::Refused);
    }
    Err(Failure::Passing(
        failure.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()),
    ))
}

async fn attempt_at(
    link: &Link,
    lane: &Arc<Lane>,
    address: SocketAddr,
) -> Result<Connection, Failure> {
    let connect_timeout =
        (link.identity.link_timeout / 2).clamp(CONNECT_TIMEOUT_MIN, CONNECT_TIMEOUT_MAX);
    let stream = timeout(
        connect_timeout,
        socket::connect(&link.settings.sockets, address),
    )
    .await
    .map_err(|_elapsed| Failure::Passing(io::ErrorKind::TimedOut.into()))?
    .map_err(Failure::Passing)?;
    link.tune(&stream);
    let hello = link.hello(lane);
    let welcome = timeout(HELLO_TIMEOUT, greet(&stream, &hello))
        .await
        .map_err(|_elapsed| Failure::Passing(io::ErrorKind::TimedOut.into()))?
        .map_err(Failure::Passing)?;
    check(link, lane, &hello, &welcome)?;
    Connection::begin(
        lane,
        (stream, address),
        welcome.next_expected,
        welcome.checksum,
    )
    .map_err(|_out_of_step| Failure::OutOfStep)
}

async fn greet(stream: &TcpStream, hello: &LaneHello) -> io::Result<LaneWelcome> {
    write_all(stream, &hello.encode()).await?;
    let mut bytes = [0; WELCOME_BYTES];
    read_exact(stream, &mut bytes).await?;
    LaneWelcome::decode(&bytes).map_err(io::Error::other)
}

/// Whether the welcome answers this hello, and for the same link as those before.
fn check(
    link: &Link,
    lane: &Lane,
    hello: &LaneHello,
    welcome: &LaneWelcome,
) -> Result<(), Failure> {
    let is_answer = welcome.run == hello.run
        && welcome.from == hello.to
        && welcome.to == hello.from
        && welcome.attempt == hello.attempt
        && welcome.lane == lane.index
        && welcome.lanes == hello.lanes;
    if !is_answer {
        let error = io::Error::other("the welcome answers another hello");
        return Err(Failure::Passing(error));
    }
    if welcome.answer == Answer::Stale || !link.is_remote(welcome.incarnation) {
        return Err(Failure::Stale);
    }
    Ok(())
}

impl Link {
    /// The hello of the next attempt for a lane.
    fn hello(&self, lane: &Lane) -> LaneHello {
        let (key, known, lanes) = self.hello_facts();
        LaneHello {
            run: self.identity.run,
            from: self.identity.peer,
            to: self.peer,
            from_key: self.identity.key,
            to_key: key,
            incarnation: self.incarnation,
            known,
            attempt: lane.attempts.fetch_add(1, Ordering::Relaxed) + 1,
            next_expected: lane.next_expected(),
            lane: lane.index,
            lanes,
            checksum: self.settings.checksum,
        }
    }

    /// Sets the options of a connection of this link.
    pub(super) fn tune(&self, stream: &TcpStream) {
        let is_same_host = match (stream.local_addr(), stream.peer_addr()) {
            (Ok(local), Ok(remote)) => sys::is_same_host(local, remote),
            _ => false,
        };
        let tuned = sys::tune(stream.as_fd(), &self.settings.tuning, is_same_host);
        self.note_tuned(tuned);
    }
}
