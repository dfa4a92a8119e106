//! Goal: no peer learns of a sealed record before it is on the disk.
//!
//! A fake disk records the order of its requests, and what clients have received by then. Clients
//! are real sockets. The server's tasks do not run; the test makes its steps.
//!
//! 1. Newcomers, a first view, its release, a safe point: appended, synced, sent, in this order.
//! 2. A commit: appended and sent, without a sync.
//! 3. What came in together shares a sync.
//! 4. A disk that fails: nothing is sent.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::*;
use crate::config::MasterConfig;
use crate::driver::clock::Moment;
use crate::driver::master::archive::Disk;
use crate::ids::{GroupId, LinkKey, OpName, OpNumber, PeerId, Tag, Vid};
use crate::limits::CONTROL_FRAME_BYTES_MAX;
use crate::master::Record;
use crate::wire::control::{Called, Fingerprint, OpNote, PROTOCOL_VERSION, Report};
use crate::wire::frame::Deframer;

/// What happened, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// A record was appended that must be on the disk before others learn of it.
    Durable,
    /// A record was appended that may reach the disk later.
    Lazy,
    /// All appended records are on the disk.
    Synced,
    /// A client received a message.
    Sent,
}

use Act::{Durable, Lazy, Sent, Synced};

type Log = Arc<Mutex<Vec<Act>>>;

/// A client's end of its connection, and what came of it.
#[derive(Debug)]
struct Client {
    stream: TcpStream,
    deframer: Deframer,
}

impl Client {
    /// Whether more has arrived.
    fn has_received(&mut self) -> bool {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(count) => self.deframer.push(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) => panic!("{error}"),
        }
        true
    }
}

/// Notes what it is asked for, and what clients have received by then.
#[derive(Debug)]
struct NotingDisk {
    log: Log,
    clients: Arc<Mutex<Vec<Client>>>,
    is_broken: Arc<AtomicBool>,
}

impl Disk for NotingDisk {
    fn append(&mut self, record: &Record) -> Result<()> {
        look(&self.log, &self.clients);
        let is_lazy = matches!(record, Record::Committed { .. });
        self.log
            .lock()
            .unwrap()
            .push(if is_lazy { Lazy } else { Durable });
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        look(&self.log, &self.clients);
        if self.is_broken() {
            return Err(Error::os("a disk", ErrorKind::StorageFull.into()));
        }
        self.log.lock().unwrap().push(Synced);
        Ok(())
    }

    fn stamp(&mut self, _: &Moment) -> Result<()> {
        Ok(())
    }

    fn replace(&mut self, _: &[Record]) -> Result<()> {
        unreachable!("so short a journal is not shortened")
    }

    fn bytes(&self) -> u64 {
        0
    }

    fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::SeqCst)
    }
}

/// Notes whether anybody has received anything.
fn look(log: &Log, clients: &Mutex<Vec<Client>>) {
    for client in &mut *clients.lock().unwrap() {
        if client.has_received() {
            log.lock().unwrap().push(Sent);
        }
    }
}

/// A server whose steps are taken by hand, its disk, and its clients.
struct Stage {
    server: Server,
    port: Port,
    address: SocketAddr,
    log: Log,
    clients: Arc<Mutex<Vec<Client>>>,
    connections: Vec<Rc<Connection>>,
    is_broken: Arc<AtomicBool>,
}

impl Stage {
    fn new() -> Self {
        let config = MasterConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            new_run: true,
            ..MasterConfig::default()
        };
        let parts = Parts::new(config, None).unwrap();
        let address = parts.port.local_addr().unwrap();
        let (server, port) = Server::new(parts).unwrap();
        let stage = Self {
            server,
            port,
            address,
            log: Log::default(),
            clients: Arc::default(),
            connections: Vec::new(),
            is_broken: Arc::default(),
        };
        let disk = NotingDisk {
            log: stage.log.clone(),
            clients: stage.clients.clone(),
            is_broken: stage.is_broken.clone(),
        };
        stage.server.state.borrow_mut().journal = Some(Archive::new(disk, &[]));
        stage.server.settle();
        stage.log.lock().unwrap().clear();
        stage
    }

    /// Connects a client, which sends a hello.
    async fn join(&mut self) {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nonblocking(true).unwrap();
        let deframer = Deframer::new(CONTROL_FRAME_BYTES_MAX);
        self.clients
            .lock()
            .unwrap()
            .push(Client { stream, deframer });
        self.connections.push(self.server.accept(&self.port).await);
        let client = self.connections.len() - 1;
        self.say(
            client,
            PeerToMaster::Hello {
                protocol: PROTOCOL_VERSION,
                library: "test".into(),
                run: "default".into(),
                group: GroupId(0),
                unit: None,
                unit_size: None,
                place: None,
                addresses: vec![([127, 0, 0, 1], 4000).into()],
                key: LinkKey(client as u128),
                min_world: 2,
                attach: 1,
                name: "client".into(),
            },
        );
    }

    fn say(&self, client: usize, message: PeerToMaster) {
        self.server.take(&self.connections[client], message);
    }

    /// Lets the server carry out what follows: that, in that order, and no more.
    fn settles(&self, expected: &[Act]) {
        self.server.settle();
        let now = || self.server.state.borrow().clock.now();
        let looks = |until: &dyn Fn() -> bool| {
            while !until() {
                look(&self.log, &self.clients);
                std::thread::yield_now();
            }
        };
        let acts = || {
            let mut acts = self.log.lock().unwrap().clone();
            acts.dedup();
            acts
        };
        // On a machine that is busy even loopback takes its time.
        let late = now() + Duration::from_secs(30);
        looks(&|| acts().len() >= expected.len() || now() > late);
        let more = now() + Duration::from_millis(50);
        looks(&|| now() > more);
        assert_eq!(acts(), expected);
        self.log.lock().unwrap().clear();
    }

    /// The newest view that a client has received.
    fn view(&self, client: usize) -> Option<Vid> {
        let deframer = &mut self.clients.lock().unwrap()[client].deframer;
        let messages = std::iter::from_fn(|| deframer.pop::<MasterToPeer>().unwrap());
        let views = messages.filter_map(|message| match message {
            MasterToPeer::Install(install) => Some(install.vid),
            _ => None,
        });
        views.last()
    }

    /// Two members whose first view is released.
    async fn founded() -> (Self, Vid) {
        let mut stage = Self::new();
        stage.join().await;
        stage.join().await;
        stage.settles(&[Durable, Synced, Sent]);
        for (client, other) in [(0, 1), (1, 0)] {
            let ready = PeerToMaster::Ready {
                vid: Vid::default(),
                linked: vec![PeerId(other)],
            };
            stage.say(client, ready);
        }
        stage.settles(&[Durable, Synced, Sent]); // a view
        let vid = stage.view(0).unwrap();
        for client in [0, 1] {
            let report = Report {
                vid,
                ..Report::default()
            };
            stage.say(client, PeerToMaster::Installed { vid, report });
        }
        stage.settles(&[Sent]); // nothing is sealed by a release
        (stage, vid)
    }
}

fn barrier() -> Fingerprint {
    Fingerprint::new(Called::Barrier)
}

fn run(body: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(body);
}

#[test]
fn what_is_sealed_is_on_the_disk_before_anybody_hears_of_it() {
    run(async {
        let (stage, _) = Stage::founded().await;
        stage.say(0, PeerToMaster::AtSafePoint { k: 0, ahead: 0 });
        stage.settles(&[Durable, Synced, Sent]);
    });
}

#[test]
fn what_came_in_together_shares_a_sync() {
    run(async {
        let mut stage = Stage::new();
        stage.join().await;
        stage.join().await;
        stage.settles(&[Durable, Synced, Sent]);
    });
}

#[test]
fn a_commit_waits_for_no_disk() {
    run(async {
        let (stage, birth) = Stage::founded().await;
        let op = OpName {
            tag: Tag(0),
            n: OpNumber(0),
            birth,
        };
        let fingerprint = barrier();
        for client in [0, 1] {
            let note = OpNote {
                op,
                fingerprint: fingerprint.clone(),
            };
            stage.say(client, PeerToMaster::Done(vec![note]));
        }
        stage.settles(&[Lazy, Sent]);
    });
}

#[test]
fn nothing_is_sent_that_a_failing_disk_may_not_have() {
    run(async {
        let (stage, _) = Stage::founded().await;
        stage.is_broken.store(true, Ordering::SeqCst);
        stage.say(0, PeerToMaster::AtSafePoint { k: 0, ahead: 0 });
        stage.settles(&[Durable]);
        assert!(stage.server.state.borrow().failure.is_some());
    });
}
