//! Reports of a link that arrive after the first reports of its successor.
//!
//! A newcomer that believed them would consider its link down, never report otherwise, and never be
//! admitted. The session, its links and their other end are real, over loopback. The master is
//! simulated: its messages are passed to the session, and the session's are read from its socket.

use std::io::Read;
use std::net::TcpStream;

use bytes::Bytes;
use tokio::runtime::Runtime;

use super::*;
use crate::ids::{Epoch, MemberNumber, OpName, UnitId};
use crate::limits::CONTROL_FRAME_BYTES_MAX;
use crate::peer::Neighbour;
use crate::transport::{Frame, FrameHeader, Handler, Identity, LinkHandler, LinkName, Placement};
use crate::wire::control::{LinkFault, Member, PeerToMaster};
use crate::wire::frame::Deframer;

/// Longest time that anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);
const ME: PeerId = PeerId(2);
const OTHER: PeerId = PeerId(1);
const KEY: LinkKey = LinkKey(1);

/// The session's handler, with a gate that delays some reports.
struct Narrow {
    inner: Handler,
    links: Arc<dyn Links>,
    /// Whether the report that a link broke waits for the gate.
    is_held: fn(&dyn Links, LinkName) -> bool,
    is_open: Mutex<bool>,
    opened: Condvar,
    /// Notified when a report waits at the gate.
    held: mpsc::Sender<()>,
    /// Each delivered report of a broken link: whether repair was given up.
    passed: mpsc::Sender<bool>,
}

impl Narrow {
    fn open(&self) {
        *self.is_open.lock() = true;
        self.opened.notify_all();
    }
}

impl LinkHandler for Narrow {
    fn signal(&self, from: PeerId, head: &FrameHeader, body: Bytes) -> Result<(), &'static str> {
        self.inner.signal(from, head, body)
    }
    fn place(&self, from: PeerId, header: &FrameHeader) -> Placement {
        self.inner.place(from, header)
    }
    fn arrived(&self, from: PeerId, header: &FrameHeader) {
        self.inner.arrived(from, header);
    }
    fn link_up(&self, link: LinkName) {
        self.inner.link_up(link);
    }
    fn link_down(&self, link: LinkName, fault: LinkFault, gave_up: bool) {
        if (self.is_held)(&*self.links, link) {
            let _gone = self.held.send(());
            tokio::task::block_in_place(|| {
                let mut is_open = self.is_open.lock();
                while !*is_open {
                    is_open = self.opened.wait(is_open);
                }
            });
        }
        self.inner.link_down(link, fault, gave_up);
        let _gone = self.passed.send(gave_up);
    }
    fn no_link(&self, link: LinkName, why: String) {
        self.inner.no_link(link, why);
    }
    fn lane_repaired(&self, peer: PeerId, lane: u16) {
        self.inner.lane_repaired(peer, lane);
    }
}

/// The other end accepts connections and does nothing else.
struct Deaf;

impl LinkHandler for Deaf {
    fn signal(&self, _: PeerId, _: &FrameHeader, _: Bytes) -> Result<(), &'static str> {
        Ok(())
    }
    fn place(&self, _: PeerId, _: &FrameHeader) -> Placement {
        Placement::Discard
    }
    fn arrived(&self, _: PeerId, _: &FrameHeader) {}
    fn link_up(&self, _: LinkName) {}
    fn link_down(&self, _: LinkName, _: LinkFault, _: bool) {}
    fn no_link(&self, _: LinkName, _: String) {}
    fn lane_repaired(&self, _: PeerId, _: u16) {}
}

/// A newcomer with a link to the only member.
struct Stage {
    session: Arc<Session>,
    narrow: Arc<Narrow>,
    held: mpsc::Receiver<()>,
    passed: mpsc::Receiver<bool>,
    other: Arc<dyn Links>,
    /// The master's end of the session's connection.
    heard: TcpStream,
    deframer: Deframer,
    _runtime: Runtime,
}

impl Stage {
    fn new(is_held: fn(&dyn Links, LinkName) -> bool) -> Self {
        let (session, master) = session();
        let (heard, _) = master.accept().unwrap();
        heard.set_read_timeout(Some(PATIENCE)).unwrap();
        let runtime = Runtime::new().unwrap();
        let identity = |peer, key| Identity {
            run: RunId(1),
            peer,
            key,
            link_timeout: PATIENCE,
        };
        let listen = Some("127.0.0.1:0".parse().unwrap());
        let other = transport::bind(&session.config, listen, runtime.handle()).unwrap();
        other.identify(identity(OTHER, KEY), Arc::new(Deaf));
        let (for_held, held) = mpsc::channel();
        let (for_passed, passed) = mpsc::channel();
        let narrow = Arc::new(Narrow {
            inner: session.router(),
            links: session.links.clone(),
            is_held,
            is_open: Mutex::new(false),
            opened: Condvar::new(),
            held: for_held,
            passed: for_passed,
        });
        let mut stage = Self {
            session,
            narrow,
            held,
            passed,
            other,
            heard,
            deframer: Deframer::new(CONTROL_FRAME_BYTES_MAX),
            _runtime: runtime,
        };
        while !matches!(stage.next(), PeerToMaster::Hello { .. }) {}
        stage.say(welcome(ME));
        let me = identity(ME, stage.session.core.lock().key());
        stage.session.links.identify(me, stage.narrow.clone());
        stage.other_wants(true);
        stage.expect(1, true);
        stage.hears_ready(1, &[OTHER]);
        stage
    }

    fn say(&self, message: MasterToPeer) {
        let generation = self.session.core.lock().generation();
        self.session.control_said(generation, message);
        self.session.drive();
    }

    /// Tells the newcomer that there is such a member to link with, or that there is none.
    fn expect(&self, epoch: u32, is_there: bool) {
        let member = Member {
            peer: OTHER,
            number: MemberNumber(0),
            unit: UnitId(1),
            addresses: vec![self.other.address()],
            key: KEY,
            name: String::new(),
        };
        let vid = Vid {
            term: Term(1),
            epoch: Epoch(epoch),
        };
        self.say(MasterToPeer::Expect {
            vid,
            members: if is_there { vec![member] } else { Vec::new() },
            newcomers: Vec::new(),
        });
    }

    fn other_wants(&self, is_wanted: bool) {
        let neighbour = Neighbour {
            addresses: vec![self.session.listen_address()],
            key: self.session.core.lock().key(),
            dial: false,
        };
        let wanted = is_wanted.then_some((ME, neighbour));
        self.other.set_wanted(&wanted.into_iter().collect());
    }

    /// The session's next message.
    fn next(&mut self) -> PeerToMaster {
        let mut buffer = [0; 4096];
        loop {
            if let Some(message) = self.deframer.pop().unwrap() {
                return message;
            }
            let count = self.heard.read(&mut buffer).unwrap();
            assert!(count > 0, "the session keeps its connection");
            self.deframer.push(&buffer[..count]);
        }
    }

    /// The next `Ready` of this view.
    fn ready(&mut self, epoch: u32) -> Vec<PeerId> {
        loop {
            match self.next() {
                PeerToMaster::Ready { vid, linked } if vid.epoch == Epoch(epoch) => return linked,
                _ => {}
            }
        }
    }

    fn hears_ready(&mut self, epoch: u32, linked: &[PeerId]) {
        while self.ready(epoch) != linked {}
    }

    fn end(self) {
        self.session.end_calls(&SessionEnd::Left);
        self.session.links.shutdown();
        self.other.shutdown();
    }
}

/// Goal: the end of a link is processed before its successor, even if its keeper was delayed just
/// before it reported the end.
///
/// 1. The other end closes the link; the keeper's report is delayed.
/// 2. The link is dropped, then another one is wanted and comes up: `Ready`.
/// 3. The report is delivered. The newcomer is as ready as before.
#[test]
fn the_end_of_a_link_that_is_told_after_its_successor_is_dropped() {
    let mut stage = Stage::new(|_, _| true);
    stage.other_wants(false);
    stage.held.recv_timeout(PATIENCE).unwrap();
    stage.expect(2, false);
    stage.expect(3, true);
    stage.other_wants(true);
    stage.hears_ready(3, &[OTHER]);
    stage.narrow.open();
    stage.passed.recv_timeout(PATIENCE).unwrap();
    stage.expect(4, true);
    assert_eq!(stage.ready(4), [OTHER]);
    stage.end();
}

/// Goal: the losses of a link that restarts are reported before the new one is up.
///
/// 1. The other end forgets the link and creates another; something sent in between is lost.
/// 2. The session's link restarts and comes up. A report of the previous link is delayed until
///    then.
/// 3. The loss is reported once. The newcomer is ready all the same.
#[test]
fn the_loss_of_a_link_that_begins_anew_is_told_before_its_successor_comes_up() {
    let mut stage = Stage::new(|links, link| !links.is_current(link));
    stage.other_wants(false);
    stage.hears_ready(1, &[]);
    let header = FrameHeader {
        op: OpName::default(),
        frame: Frame::Post {
            ahead: 0,
            fingerprint_bytes: 0,
        },
        payload_bytes: 1,
    };
    let body = Bytes::from_static(b"!");
    stage.session.links.signal(OTHER, header, body);
    stage.other_wants(true);
    stage.hears_ready(1, &[OTHER]);
    stage.narrow.open();
    while !stage.passed.recv_timeout(PATIENCE).unwrap() {}
    stage.expect(2, true);
    assert_eq!(stage.ready(2), [OTHER]);
    stage.end();
}
