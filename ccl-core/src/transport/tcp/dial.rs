//! Dials a lane's connection until it succeeds.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::keeper::Event;
use super::lane::{Connection, Lane, OUT_OF_STEP};
use super::link::Link;
use super::offer::Offered;
use crate::limits::HELLO_TIMEOUT;
use crate::net::{self, Backoff, Stream, plain};
use crate::wire::data::{Answer, LaneHello, LaneWelcome, WELCOME_BYTES};

/// Pause after the first failed attempt; doubled after each further one.
const BACKOFF_MIN: Duration = Duration::from_millis(10);
/// Longest pause between attempts.
const BACKOFF_MAX: Duration = Duration::from_millis(640);
/// Bounds of the time that one address may take to answer: a lost first packet is sent again after
/// a second.
const CONNECT_TIMEOUT_MIN: Duration = Duration::from_millis(250);
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(2);

/// Head start of each address over the next: two round trips of a usual path.
const HEAD_START: Duration = Duration::from_millis(200);
/// How long the other side may take to connect, if only it can reach this one.
const OFFERED_WITHIN: Duration = Duration::from_secs(2);

/// Why an attempt failed.
#[derive(Debug)]
enum Failure {
    /// Every address refused the connection.
    Refused(io::Error),
    /// The other side no longer knows this link, or knows another.
    Stale,
    /// The other side's sequence numbers are impossible.
    OutOfStep,
    /// Another error, which may be temporary.
    Passing(io::Error),
}

/// Connects a lane, at an address of the other side or over a connection that it offers.
///
/// # Errors
/// The link cannot be taken up again.
pub(super) async fn connect(link: &Link, lane: &Arc<Lane>) -> Result<Connection, &'static str> {
    let began = Instant::now();
    let mut backoff = Backoff::new(BACKOFF_MIN, BACKOFF_MAX);
    let mut pause = Duration::ZERO;
    loop {
        let attempt = async {
            sleep(pause).await;
            attempt(link, lane).await
        };
        let attempted = tokio::select! {
            biased;
            attempted = attempt => attempted,
            offered = link.offers.next() => begin(link, lane, offered).await,
        };
        match attempted {
            Ok(connection) => return Ok(connection),
            // A refusal by an address that never worked is no evidence about the process, until the
            // other side had time to connect.
            Err(Failure::Refused(error)) => {
                tell_why(link, lane, &error).await;
                if link.is_reached.load(Ordering::Relaxed) || began.elapsed() > OFFERED_WITHIN {
                    link.tell(Event::Refused).await;
                }
            }
            Err(Failure::Stale) => {
                link.tell(Event::Stale).await;
                // The link is about to be replaced, and this task with it.
                std::future::pending::<()>().await;
            }
            Err(Failure::OutOfStep) => return Err(OUT_OF_STEP),
            Err(Failure::Passing(error)) => {
                tracing::debug!(peer = %link.peer, lane = lane.index, %error, "no connection yet");
                tell_why(link, lane, &error).await;
            }
        }
        pause = backoff.pause();
    }
}

/// One lane reports for all of them.
async fn tell_why(link: &Link, lane: &Lane, error: &io::Error) {
    if lane.index == 0 {
        link.tell(Event::NoLink(plain(error))).await;
    }
}

/// Tries all addresses, starting with the one that worked last.
async fn attempt(link: &Link, lane: &Arc<Lane>) -> Result<Connection, Failure> {
    let connected = connect_any(link)
        .await
        .map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => Failure::Refused(error),
            _ => Failure::Passing(error),
        })?;
    let address = connected.remote;
    let connection = begin(link, lane, connected)
        .await
        .map_err(|failure| match failure {
            Failure::Passing(error) => {
                // Possibly the fault of another source: the next attempt tries the others first.
                link.demote(address);
                let words = format!("{address}: no answer from this peer: {}", plain(&error));
                Failure::Passing(io::Error::new(error.kind(), words))
            }
            other => other,
        })?;
    link.prefer(address);
    link.is_reached.store(true, Ordering::Relaxed);
    Ok(connection)
}

/// Connects to whichever address answers first. Each has a head start over the next, so that the
/// one that worked last is preferred if it still works, and a silent one causes little delay.
///
/// # Errors The error of each address; of kind `ConnectionRefused` if all refuse.
pub(super) async fn connect_any(link: &Link) -> io::Result<Offered> {
    let connect_timeout =
        (link.identity.link_timeout / 2).clamp(CONNECT_TIMEOUT_MIN, CONNECT_TIMEOUT_MAX);
    let mut dials = JoinSet::new();
    for (index, address) in (0..).zip(link.addresses()) {
        let sockets = Arc::clone(&link.settings.sockets);
        dials.spawn(async move {
            sleep(HEAD_START * index).await;
            let connected = timeout(connect_timeout, net::connect(&sockets, address))
                .await
                .unwrap_or_else(|_elapsed| {
                    let words = format!("no answer within {} ms", connect_timeout.as_millis());
                    Err(io::Error::new(io::ErrorKind::TimedOut, words))
                });
            (address, connected)
        });
    }
    let mut kind = None;
    let mut troubles = Vec::new();
    while let Some(Ok((address, connected))) = dials.join_next().await {
        match connected {
            Ok(stream) => {
                link.tune(&stream);
                return Ok(Offered {
                    stream,
                    remote: address,
                });
            }
            Err(error) => {
                troubles.push(format!("{address}: {}", plain(&error)));
                let other = *kind.get_or_insert(error.kind());
                if other != error.kind() {
                    kind = Some(io::ErrorKind::Other);
                }
            }
        }
    }
    let Some(kind) = kind else {
        let words = "it has advertised no address";
        return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, words));
    };
    // In a fixed order, so that the same failure gives the same text.
    troubles.sort_unstable();
    Err(io::Error::new(kind, troubles.join("; ")))
}

/// Greets the other side over a connection that either side made.
async fn begin(link: &Link, lane: &Arc<Lane>, connected: Offered) -> Result<Connection, Failure> {
    let hello = link.hello(lane);
    let welcome = timeout(HELLO_TIMEOUT, greet(&connected.stream, &hello))
        .await
        .map_err(|_elapsed| Failure::Passing(io::ErrorKind::TimedOut.into()))?
        .map_err(Failure::Passing)?;
    check(link, lane, &hello, &welcome)?;
    Connection::begin(lane, connected, welcome.next_expected, welcome.checksum)
        .map_err(|_out_of_step| Failure::OutOfStep)
}

async fn greet(stream: &Stream, hello: &LaneHello) -> io::Result<LaneWelcome> {
    stream.write_all(&hello.encode()).await?;
    let mut bytes = [0; WELCOME_BYTES];
    stream.read_exact(&mut bytes).await?;
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
    pub(super) fn tune(&self, stream: &Stream) {
        self.note_tuned(net::tune(stream, &self.settings.tuning));
    }
}
