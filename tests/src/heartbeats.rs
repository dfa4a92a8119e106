//! The delay of peers' heartbeats under load.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

use ccl_core::limits::CONTROL_FRAME_BYTES_MAX;
use ccl_core::wire::control::PeerToMaster;
use ccl_core::wire::frame::Deframer;
use ccl_core::{
    Communicator, CommunicatorConfig, MasterConfig, MasterServer, Options, ReduceOp, Tag, Timers,
};

/// The load.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Peers, each a thread or several of this process.
    pub peers: u32,
    /// Operations at once, each with a tag of its own.
    pub tags: u64,
    /// Bytes of each, reduced in place.
    pub bytes: usize,
    /// Operations one after the other.
    pub rounds: u32,
    /// Time between two heartbeats.
    pub interval: Duration,
}

/// The result.
#[derive(Clone, Copy, Debug)]
pub struct Lateness {
    /// Longest time by which a heartbeat was overdue when it entered the network.
    pub most: Duration,
    /// Heartbeats that were received.
    pub count: usize,
    /// Time from the first call to the last return.
    pub total: Duration,
}

/// Runs a master and peers whose heartbeats are timed on their way to it.
///
/// # Panics
/// If the run fails.
#[must_use]
pub fn measure(load: Load) -> Lateness {
    let config = MasterConfig {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        new_run: true,
        timers: Timers {
            heartbeat_interval: load.interval,
            peer_timeout: Duration::from_secs(60),
            ..Timers::default()
        },
        ..MasterConfig::default()
    };
    let master = MasterServer::start(config, None).expect("a master starts on a free port");
    let (together, begun) = (Barrier::new(load.peers as usize), Instant::now());
    let (together, master_address) = (&together, master.address());
    let times: Vec<(Vec<Instant>, Instant)> = std::thread::scope(|scope| {
        let peer = |_| scope.spawn(move || peer(load, master_address, together));
        let peers: Vec<_> = (0..load.peers).map(peer).collect();
        let ended = peers.into_iter().map(|peer| peer.join());
        ended
            .map(|end| end.expect("a peer reaches its end"))
            .collect()
    });
    let late = |(heard, _): &(Vec<Instant>, Instant)| {
        let gaps = heard.windows(2).map(|pair| pair[1] - pair[0]);
        gaps.map(|gap| gap.saturating_sub(load.interval)).max()
    };
    let first = times.iter().map(|(_, first)| *first).min();
    Lateness {
        most: times.iter().filter_map(late).max().unwrap_or_default(),
        count: times.iter().map(|(heard, _)| heard.len()).sum(),
        total: first.unwrap_or(begun).elapsed(),
    }
}

/// One peer: when its heartbeats arrived after its first call, and when that call was.
fn peer(load: Load, master: SocketAddr, together: &Barrier) -> (Vec<Instant>, Instant) {
    let relay = Relay::start(master);
    let config = CommunicatorConfig {
        master: relay.address.to_string(),
        min_world_size: load.peers,
        ..CommunicatorConfig::default()
    };
    let mut buffers: Vec<Vec<f32>> = (0..load.tags).map(|_| vec![1.0; load.bytes / 4]).collect();
    let communicator = Communicator::connect(config).expect("the others come too");
    together.wait();
    let first = Instant::now();
    std::thread::scope(|scope| {
        for (tag, buffer) in (0..).zip(&mut buffers) {
            let communicator = &communicator;
            scope.spawn(move || {
                let options = Options {
                    tag: Tag(tag),
                    ..Options::default()
                };
                for _ in 0..load.rounds {
                    let end = communicator.all_reduce(buffer, ReduceOp::Avg, &options);
                    end.expect("nobody fails");
                }
            });
        }
    });
    together.wait();
    let mut heard = relay.heard.lock().expect("nobody panics").clone();
    heard.retain(|at| *at >= first);
    heard.insert(0, first);
    (heard, first)
}

/// Forwards the messages between a peer and the master, and notes when heartbeats arrive.
struct Relay {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<Instant>>>,
}

impl Relay {
    fn start(master: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("just bound");
        let heard = Arc::new(Mutex::default());
        let notes = Arc::clone(&heard);
        std::thread::spawn(move || {
            for dialled in listener.incoming().map_while(Result::ok) {
                let Ok(onward) = TcpStream::connect(master) else {
                    continue;
                };
                for stream in [&dialled, &onward] {
                    // Without it everything is a little later, equally for all.
                    let _ = stream.set_nodelay(true);
                }
                let (Ok(back), Ok(forth)) = (onward.try_clone(), dialled.try_clone()) else {
                    continue;
                };
                let notes = Arc::clone(&notes);
                std::thread::spawn(move || hand_on(dialled, onward, Some(&notes)));
                std::thread::spawn(move || hand_on(back, forth, None));
            }
        });
        Self { address, heard }
    }
}

fn hand_on(mut from: TcpStream, mut to: TcpStream, notes: Option<&Mutex<Vec<Instant>>>) {
    let mut deframer = Deframer::new(CONTROL_FRAME_BYTES_MAX);
    let mut buffer = [0_u8; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let now = Instant::now();
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
        let Some(notes) = notes else { continue };
        deframer.push(&buffer[..count]);
        while let Ok(Some(message)) = deframer.pop::<PeerToMaster>() {
            if matches!(message, PeerToMaster::Ping) {
                notes.lock().expect("nobody panics").push(now);
            }
        }
    }
    // An error means that it is closed already.
    let _ = to.shutdown(std::net::Shutdown::Both);
}
