//! Connects to the master: resolves its name, tries each address, and describes what failed.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::descriptors::Owner;
use crate::limits::HELLO_TIMEOUT;
use crate::net::{self, Stream, plain};

/// Resolves the name afresh and tries each address.
///
/// # Errors
/// What is wrong with each, and what to do about it.
pub(super) async fn dial(
    sockets: &Arc<Owner>,
    master: &str,
) -> Result<(Stream, SocketAddr), String> {
    let addresses = tokio::net::lookup_host(master)
        .await
        .map_err(|error| unresolved(master, &error))?;
    let mut faults: Vec<String> = Vec::new();
    for address in addresses {
        let connected = timeout(HELLO_TIMEOUT, net::connect(sockets, address)).await;
        let error = match connected {
            Ok(Ok(stream)) => return Ok((stream, address)),
            Ok(Err(error)) => error,
            Err(_elapsed) => ErrorKind::TimedOut.into(),
        };
        let fault = unreachable(sockets, address, &error).await;
        if !faults.contains(&fault) {
            faults.push(fault);
        }
    }
    if faults.is_empty() {
        faults.push("the name has no address".into());
    }
    Err(faults.join("; "))
}

fn unresolved(master: &str, error: &io::Error) -> String {
    let host = master.rsplit_once(':').map_or(master, |(host, _)| host);
    let words = plain(error);
    let cause = words
        .strip_prefix("failed to lookup address information: ")
        .unwrap_or(&words);
    format!("the host name {host:?} does not resolve ({cause}); check its spelling")
}

async fn unreachable(sockets: &Arc<Owner>, address: SocketAddr, error: &io::Error) -> String {
    let port = address.port();
    match error.kind() {
        ErrorKind::ConnectionRefused if address.ip().to_canonical().is_loopback() => format!(
            "{address} refused the connection: nothing listens on port {port} of this host; start \
             a master with `ccl master`, or correct the port"
        ),
        ErrorKind::ConnectionRefused if is_on_loopback(sockets, address).await => format!(
            "{address} refused the connection, but port {port} is open on loopback: the master \
             listens on loopback only; start it with `ccl master --listen 0.0.0.0:{port}`"
        ),
        ErrorKind::ConnectionRefused => format!(
            "{address} refused the connection: nothing listens there, or only a master on \
             loopback, which is its default; start it with `ccl master --listen 0.0.0.0:{port}`"
        ),
        ErrorKind::TimedOut => format!(
            "{address} does not answer: the host is down, the address is wrong, or a firewall \
             drops packets to port {port}"
        ),
        _ => format!("{address} cannot be reached: {}", plain(error)),
    }
}

/// Whether something listens at this port of this host, if it is the address of this host.
async fn is_on_loopback(sockets: &Arc<Owner>, address: SocketAddr) -> bool {
    if !net::is_of_this_host(address) {
        return false;
    }
    let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    for ip in loopback {
        let probe = net::connect(sockets, (ip, address.port()).into());
        if matches!(timeout(PROBE_TIMEOUT, probe).await, Ok(Ok(_))) {
            return true;
        }
    }
    false
}

/// Describes a connection on which no master answered: it ended with `error` after these first
/// bytes.
pub(super) fn no_master(address: SocketAddr, first: &[u8], error: &io::Error) -> String {
    if first.is_empty() {
        return match error.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                format!(
                    "{address} closed the connection without an answer: another service may be \
                     listening on that port"
                )
            }
            _ => format!("the connection to {address} ended: {}", plain(error)),
        };
    }
    let end = first.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
    let line = String::from_utf8_lossy(&first[..end.unwrap_or(first.len())]);
    let is_text = !line.is_empty() && line.chars().all(|c| !c.is_control() && c != '\u{fffd}');
    match is_text {
        true => format!("the service at {address} is not a ccl master: it sent {line:?}"),
        false => format!(
            "the service at {address} is not a ccl master, or has another version: {}",
            plain(error)
        ),
    }
}

/// What is known of a connection whose other side has not had the time to answer.
pub(super) fn unanswered(address: SocketAddr) -> String {
    format!("{address} accepted the connection but has not answered yet")
}

/// Describes a connection whose other side has been silent for longer than a master takes.
pub(super) fn silent(address: SocketAddr) -> String {
    format!(
        "{address} accepts the connection but does not answer: it is another service, or the \
         master hangs"
    )
}

/// Longest that a look at the own host's loopback takes.
const PROBE_TIMEOUT: Duration = Duration::from_millis(200);
