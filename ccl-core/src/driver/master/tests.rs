//! Goal: a master over real sockets serves peers, survives whatever reaches its port, and stops
//! rather than promise what is not on its disk.
//!
//! A raw client sends frames over loopback.
//!
//! 1. Sessions, restarts.
//! 2. Junk, silence, crowds, clients that do not read.
//! 3. Disks that fail.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::*;
use crate::communicator::Communicator;
use crate::config::CommunicatorConfig;
use crate::driver::clock::Clock;
use crate::ids::{GroupId, LinkKey, Term};
use crate::limits::{CONTROL_QUEUE_BYTES_MAX, UNIDENTIFIED_MAX};
use crate::time::Instant;
use crate::timers::Timers;
use crate::wire::control::{MasterToPeer, PROTOCOL_VERSION, PeerToMaster};
use crate::wire::frame::{Deframer, FRAME_VERSION, encode};

/// Longest any step of a test may take; on an idle machine all take milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);

mod journal;

/// A unique key for each newcomer, by which the master distinguishes them.
static KEYS: AtomicU64 = AtomicU64::new(1);

struct Client {
    stream: TcpStream,
    deframer: Deframer,
}

impl Client {
    fn connect(master: &MasterServer) -> Self {
        let stream = TcpStream::connect(master.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            deframer: Deframer::new(u32::MAX),
        }
    }

    fn send(&mut self, message: &PeerToMaster) {
        let mut frame = Vec::new();
        encode(message, &mut frame).unwrap();
        self.stream.write_all(&frame).unwrap();
    }

    /// The next message; `None` once the master has closed the connection.
    fn receive(&mut self) -> Option<MasterToPeer> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(message) = self.deframer.pop().unwrap() {
                return Some(message);
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => self.deframer.push(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no answer: {error}"),
            }
        }
    }

    fn is_closed_by_the_master(&mut self) -> bool {
        self.receive().is_none()
    }
}

fn hello(run: &str) -> PeerToMaster {
    PeerToMaster::Hello {
        protocol: PROTOCOL_VERSION,
        library: "test".into(),
        run: run.into(),
        group: GroupId(0),
        unit: None,
        unit_size: None,
        place: None,
        addresses: vec![([0, 0, 0, 0], 4000).into()],
        key: LinkKey(KEYS.fetch_add(1, Ordering::SeqCst).into()),
        min_world: 2,
        attach: 1,
        name: "client".into(),
    }
}

fn config() -> MasterConfig {
    MasterConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        new_run: true,
        ..MasterConfig::default()
    }
}

fn start(config: MasterConfig) -> MasterServer {
    MasterServer::start(config, None).unwrap()
}

fn greet(master: &MasterServer) -> (Client, Term) {
    let mut client = Client::connect(master);
    client.send(&hello("default"));
    match client.receive() {
        Some(MasterToPeer::Welcome { term, .. }) => (client, term),
        other => panic!("no welcome but {other:?}"),
    }
}

/// The term in the answer to a heartbeat.
fn ping(client: &mut Client) -> Term {
    client.send(&PeerToMaster::Ping);
    loop {
        match client.receive() {
            Some(MasterToPeer::Pong { term, .. }) => return term,
            Some(_) => {}
            None => panic!("the master closed the connection"),
        }
    }
}

fn journal_file(name: &str) -> std::path::PathBuf {
    let file = format!("ccl-master-{}-{name}.journal", std::process::id());
    let path = std::env::temp_dir().join(file);
    let _not_there = std::fs::remove_file(&path);
    let _not_there = std::fs::remove_file(path.with_extension("journal.marker"));
    path
}

/// Version 1 had other fields: a reader of version 2 must not decode them.
#[test]
fn a_status_is_told_while_the_master_serves_and_refused_after() {
    let master = start(config());
    assert_eq!(master.status().unwrap().groups, []);
    let (_client, term) = greet(&master);
    let status = master.status().unwrap();
    assert_eq!((status.term, status.groups.len()), (term, 1));
    assert_eq!(status.groups[0].newcomers.len(), 1);
    master.stop();
    master.wait().unwrap();
    assert!(matches!(master.status(), Err(Error::Ended(_))));
}

#[test]
fn a_peer_of_another_version_is_told_both() {
    let master = start(config());
    let mut client = Client::connect(&master);
    let first = postcard::to_allocvec(&(0_u32, PROTOCOL_VERSION - 1, "an older library")).unwrap();
    let mut frame = u32::try_from(first.len()).unwrap().to_le_bytes().to_vec();
    frame.push(FRAME_VERSION);
    frame.extend(crc32fast::hash(&first).to_le_bytes());
    frame.extend(first);
    client.stream.write_all(&frame).unwrap();
    let answer = client.receive();
    let Some(MasterToPeer::Refused { reason }) = answer else {
        panic!("{answer:?}");
    };
    let (ours, theirs) = (PROTOCOL_VERSION, PROTOCOL_VERSION - 1);
    let words = format!("the master speaks protocol {ours}, this peer {theirs}");
    assert!(reason.contains(&words), "{reason}");
    assert!(client.is_closed_by_the_master());
}

#[test]
fn a_newcomer_is_welcomed_and_its_signs_of_life_are_answered() {
    let registered = Arc::new(AtomicUsize::new(0));
    let counter = registered.clone();
    let sink: EventSink = Arc::new(move |event| {
        if matches!(event, Event::Registered { .. }) {
            counter.fetch_add(1, Ordering::SeqCst);
        }
    });
    let master = MasterServer::start(config(), Some(sink)).unwrap();
    let (mut client, term) = greet(&master);
    assert_eq!(ping(&mut client), term);
    assert_eq!(registered.load(Ordering::SeqCst), 1);
    assert!(master.ended().is_none());
    master.stop();
    master.wait().unwrap();
    master.shutdown();
    assert!(client.is_closed_by_the_master());
}

#[test]
fn a_port_that_nobody_knew_before_needs_no_wait_for_an_earlier_run() {
    let mut config = config();
    config.new_run = false;
    config.timers.rebuild_window = 100 * PATIENCE;
    greet(&start(config));
}

#[test]
fn a_refused_newcomer_reads_the_reason_before_the_end() {
    let master = start(config());
    let mut client = Client::connect(&master);
    // More than the master reads: closing over unread bytes must not lose the last words.
    client.send(&hello("another"));
    client.send(&PeerToMaster::Ping);
    let Some(MasterToPeer::Refused { reason }) = client.receive() else {
        panic!("not refused");
    };
    assert!(reason.contains("another"), "{reason}");
    assert!(client.is_closed_by_the_master());
}

#[test]
fn junk_costs_its_sender_the_connection_and_nobody_else() {
    let master = start(config());
    let (mut good, _) = greet(&master);
    let mut too_long = u32::MAX.to_le_bytes().to_vec();
    too_long.push(1);
    let mut damaged = Vec::new();
    encode(&PeerToMaster::Ping, &mut damaged).unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    for junk in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        too_long,
        damaged,
        vec![0xff; 100_000],
    ] {
        let mut client = Client::connect(&master);
        // The master may have closed it half-way.
        let _broken_pipe = client.stream.write_all(&junk);
        assert!(client.is_closed_by_the_master());
        ping(&mut good);
    }
    let mut after_hello = greet(&master).0;
    after_hello.stream.write_all(&[0xff; 64]).unwrap();
    while after_hello.receive().is_some() {}
    ping(&mut good);
}

#[test]
fn whoever_says_nothing_is_turned_away_and_whoever_spoke_is_not() {
    let mut parts = Parts::new(config(), None).unwrap();
    parts.hello_timeout = Duration::from_millis(50);
    let master = MasterServer::start_from(parts).unwrap();
    let (mut good, _) = greet(&master);
    let mut silent = Client::connect(&master);
    let mut half = Client::connect(&master);
    half.stream.write_all(&[9, 0, 0]).unwrap();
    assert!(silent.is_closed_by_the_master());
    assert!(half.is_closed_by_the_master());
    ping(&mut good);
}

#[test]
fn in_a_crowd_the_oldest_gives_way_and_newcomers_get_through() {
    let master = start(config());
    let mut crowd: Vec<_> = (0..UNIDENTIFIED_MAX)
        .map(|_| Client::connect(&master))
        .collect();
    let (mut good, _) = greet(&master);
    assert!(crowd[0].is_closed_by_the_master());
    // The newest of the crowd is still there and may say who it is.
    let newest = crowd.last_mut().unwrap();
    newest.send(&hello("default"));
    assert!(matches!(
        newest.receive(),
        Some(MasterToPeer::Welcome { .. })
    ));
    ping(&mut good);
}

#[test]
fn unfinished_messages_of_strangers_share_a_budget() {
    let master = start(config());
    let mut frame = (1_900_000_u32).to_le_bytes().to_vec();
    frame.push(1);
    frame.resize(1_800_000, 0);
    let mut hoarders: Vec<_> = (0..4).map(|_| Client::connect(&master)).collect();
    for hoarder in &mut hoarders {
        let _broken_pipe = hoarder.stream.write_all(&frame);
    }
    assert!(hoarders[0].is_closed_by_the_master());
    assert!(hoarders[1].is_closed_by_the_master());
    greet(&master);
}

#[test]
fn a_client_that_does_not_read_is_cut_off() {
    let master = start(config());
    let (mut deaf, _) = greet(&master);
    let mut pings = Vec::new();
    for _ in 0..4096 {
        encode(&PeerToMaster::Ping, &mut pings).unwrap();
    }
    // Each is answered by as many bytes at least. The system's buffers take some mebibytes more.
    let socket = socket2::SockRef::from(&deaf.stream);
    socket.set_recv_buffer_size(16 << 10).unwrap();
    let most = (CONTROL_QUEUE_BYTES_MAX + (64 << 20)) / pings.len();
    deaf.stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let cut = (0..most).find_map(|_| deaf.stream.write_all(&pings).err());
    let kind = cut.expect("it was never cut off").kind();
    assert!(
        matches!(
            kind,
            std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset
        ),
        "{kind}"
    );
    let (mut good, _) = greet(&master);
    ping(&mut good);
}

#[test]
fn a_connection_that_ends_half_way_through_a_message_is_just_ended() {
    let master = start(config());
    let mut frame = Vec::new();
    encode(&hello("default"), &mut frame).unwrap();
    for cut in 0..frame.len() {
        let mut client = Client::connect(&master);
        client.stream.write_all(&frame[..cut]).unwrap();
        client.stream.shutdown(Shutdown::Write).unwrap();
        assert!(client.is_closed_by_the_master(), "cut at {cut}");
    }
    greet(&master);
}

#[test]
fn a_master_whose_disk_is_full_ends_and_promises_nothing() {
    let path = journal_file("full");
    let mut config = MasterConfig {
        journal: Some(path.clone()),
        ..config()
    };
    start(config.clone()).shutdown();
    config.new_run = false;
    let mut parts = Parts::new(config, None).unwrap();
    parts.journal.as_mut().unwrap().fill_disk();
    let master = MasterServer::start_from(parts).unwrap();
    let mut client = Client::connect(&master);
    // The thread may be gone already.
    let mut frame = Vec::new();
    encode(&hello("default"), &mut frame).unwrap();
    let _broken_pipe = client.stream.write_all(&frame);
    let error = master.wait().unwrap_err().to_string();
    assert!(
        error.contains("cannot be written; the master stops"),
        "{error}"
    );
    assert!(client.is_closed_by_the_master());
    std::fs::remove_file(path).unwrap();
}

/// Timers of a master whose disk may take 8 s for a record.
fn short_timers() -> Timers {
    let peer_timeout = Duration::from_secs(1);
    Timers {
        heartbeat_interval: peer_timeout / 10,
        peer_timeout,
        reattach_grace: peer_timeout / 2,
        link_timeout: peer_timeout,
        ..Timers::default()
    }
}

/// The disk of a master that stalls once.
#[derive(Default)]
struct Stall {
    begins: AtomicBool,
    ended: Mutex<Option<Instant>>,
}

/// Runs one of three peers: while the disk stalls, and for longer than an eviction takes after
/// that, its calls have all three contributors. Returns the time of the first commit.
fn call_over_a_stall(master: SocketAddr, stall: &Stall, all: &Barrier, clock: Clock) -> Instant {
    let config = CommunicatorConfig {
        master: master.to_string(),
        initial_world_size: Some(3),
        ..CommunicatorConfig::default()
    };
    let communicator = Communicator::connect(config).unwrap();
    // Whether all go on is the first one's word.
    let reduce = |goes_on: bool| {
        let mut buffer = vec![u64::from(goes_on && communicator.rank().0 == 0); 1000];
        let options = crate::Options::default();
        let outcome = communicator.all_reduce(&mut buffer, crate::ReduceOp::Sum, &options);
        assert_eq!(outcome.unwrap().contributors.len(), 3);
        buffer == vec![1; 1000]
    };
    assert!(reduce(true));
    if all.wait().is_leader() {
        stall.begins.store(true, Ordering::SeqCst);
    }
    all.wait();
    // The master seals that nobody is to be let in here; the members agree on it before.
    assert_eq!(communicator.update_topology().unwrap().members.len(), 3);
    assert!(reduce(true));
    let awake = clock.now();
    loop {
        let ended = *stall.ended.lock();
        let is_over = |ended| clock.now() > ended + short_timers().peer_timeout * 2;
        if !reduce(!ended.is_some_and(is_over)) {
            return awake;
        }
    }
}

#[test]
fn a_disk_that_stalls_for_8_s_delays_no_call_and_evicts_nobody() {
    let path = journal_file("stall");
    let config = MasterConfig {
        journal: Some(path.clone()),
        timers: short_timers(),
        ..config()
    };
    let clock = Clock::start();
    let mut parts = Parts::new(config, None).unwrap();
    let stall = Arc::new(Stall::default());
    let of_disk = Arc::clone(&stall);
    parts.before_sync = Some(Box::new(move || {
        if of_disk.begins.swap(false, Ordering::SeqCst) {
            let (_keep, never) = std::sync::mpsc::channel::<()>();
            let _nobody_says_anything = never.recv_timeout(Duration::from_secs(8));
            *of_disk.ended.lock() = Some(clock.now());
        }
    }));
    let master = MasterServer::start_from(parts).unwrap();
    let (address, all) = (master.address(), Barrier::new(3));
    let awake: Vec<Instant> = std::thread::scope(|scope| {
        let peers: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| call_over_a_stall(address, &stall, &all, clock)))
            .collect();
        peers.into_iter().map(|peer| peer.join().unwrap()).collect()
    });
    let ended = stall.ended.lock().expect("it stalled");
    let first = awake.into_iter().max().unwrap();
    assert!(
        first < ended,
        "the first call took {:?} longer",
        first - ended
    );
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_panic_ends_the_master_instead_of_leaving_half_of_it_running() {
    let sink: EventSink = Arc::new(|event| {
        assert!(
            !matches!(event, Event::Registered { .. }),
            "made up by this test"
        );
    });
    let master = MasterServer::start(config(), Some(sink)).unwrap();
    let mut client = Client::connect(&master);
    client.send(&hello("default"));
    let error = master.wait().unwrap_err().to_string();
    assert!(error.contains("panicked"), "{error}");
    assert!(client.is_closed_by_the_master());
}

#[test]
fn a_port_in_use_and_contradicting_times_are_refused() {
    let master = start(config());
    let taken = MasterConfig {
        listen: master.address(),
        ..config()
    };
    let error = MasterServer::start(taken, None).unwrap_err().to_string();
    assert!(error.contains("cannot listen on 127.0.0.1"), "{error}");
    let mut contradicting = config();
    contradicting.timers.peer_timeout = Duration::from_millis(1);
    assert!(MasterServer::start(contradicting, None).is_err());
}
