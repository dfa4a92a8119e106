//! The thread that moves packets between the hosts' devices and the router.
//!
//! It alone owns the router. It sleeps until a packet arrives, one is due, or a request comes.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::prctl::set_timerslack;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeSpec, TimeValLike};

use crate::wan::command::Command;
use crate::wan::error::{Context, Error, Result};
use crate::wan::packet::{PACKET_BYTES_MAX, Packet};
use crate::wan::router::Router;
use crate::wan::stats::Stats;
use crate::wan::sys;

/// The running pump. Dropping it ends it.
#[derive(Debug)]
pub struct Pump {
    requests: Option<Sender<Request>>,
    waker: UnixStream,
    thread: Option<JoinHandle<()>>,
    /// What the system refused.
    pub note: Option<String>,
}

/// A command, and where its outcome goes.
struct Request {
    command: Command,
    answer: Sender<Result<Stats, String>>,
}

impl Pump {
    /// Starts to move packets. Host `n` is behind device `n`.
    pub fn start(router: Router, devices: Vec<File>, is_real_time: bool) -> Result<Self> {
        let (sleeper, waker) = UnixStream::pair().context("a pair of sockets")?;
        sleeper.set_nonblocking(true).context("a socket")?;
        waker.set_nonblocking(true).context("a socket")?;
        let (requests, receiver) = channel();
        let shift = Shift {
            router,
            devices,
            requests: receiver,
            sleeper,
            start: Instant::now(),
            spare: Vec::new(),
            refused_packets: 0,
        };
        let (noted, note) = channel();
        let builder = thread::Builder::new().name("wan-pump".into());
        let started = builder.spawn(move || {
            // Nobody listens only if the starting thread has died.
            let _ = noted.send(hurry(is_real_time));
            shift.run();
        });
        let thread = started.context("starting a thread")?;
        Ok(Self {
            requests: Some(requests),
            waker,
            thread: Some(thread),
            note: note.recv().map_err(|_| Error::Ended)?,
        })
    }

    /// Carries out a command; what has been counted after it.
    pub fn ask(&self, command: Command) -> Result<Stats> {
        let (answer, receiver) = channel();
        let requests = self.requests.as_ref().ok_or(Error::Ended)?;
        let request = Request { command, answer };
        requests.send(request).map_err(|_| Error::Ended)?;
        self.wake();
        let outcome = receiver.recv().map_err(|_| Error::Ended)?;
        outcome.map_err(Error::Command)
    }

    fn wake(&self) {
        // If the pipe is full, the pump is about to wake up.
        let _ = (&self.waker).write(&[0]);
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.requests = None;
        self.wake();
        if let Some(thread) = self.thread.take() {
            // It ends without a result; if it has panicked, that was reported.
            let _ = thread.join();
        }
    }
}

/// Makes this thread punctual, as far as the system allows; returns what it does not allow.
fn hurry(is_real_time: bool) -> Option<String> {
    let slack = set_timerslack(1).err();
    let note = slack.map(|error| format!("timers are less exact: {error}"));
    if !is_real_time {
        return note;
    }
    let refused = sys::set_real_time(PRIORITY).err();
    refused
        .map(|error| {
            format!("no real-time priority, so packets are late when the machine is busy: {error}")
        })
        .or(note)
}

/// What the thread owns.
struct Shift {
    router: Router,
    devices: Vec<File>,
    requests: Receiver<Request>,
    sleeper: UnixStream,
    start: Instant,
    /// Memory for large packets.
    spare: Vec<Vec<u8>>,
    refused_packets: u64,
}

impl Shift {
    fn run(mut self) {
        let mut passes = 0_u32;
        loop {
            let was_busy = self.deliver() | self.receive();
            passes += 1;
            if was_busy && passes < PASSES_MAX {
                continue;
            }
            passes = 0;
            if self.sleep(was_busy) && !self.obey() {
                return;
            }
        }
    }

    /// Hands over what is due; whether anything was.
    fn deliver(&mut self) -> bool {
        for count in 0..DELIVERIES_MAX {
            let now = self.start.elapsed();
            let Some(delivery) = self.router.poll_delivery(now) else {
                return count > 0;
            };
            self.router.record(&delivery, self.start.elapsed());
            let packet = delivery.packet;
            if (&self.devices[packet.target()])
                .write(packet.bytes())
                .is_err()
            {
                self.refused_packets += 1;
            }
            self.recycle(packet.into_buffer());
        }
        true
    }

    /// Takes what hosts have sent; whether they have.
    fn receive(&mut self) -> bool {
        let mut was_busy = false;
        for host in 0..self.devices.len() {
            for _ in 0..PACKETS_MAX {
                let mut buffer = self
                    .spare
                    .pop()
                    .unwrap_or_else(|| vec![0; PACKET_BYTES_MAX]);
                let Ok(length) = (&self.devices[host]).read(&mut buffer) else {
                    self.recycle(buffer);
                    break;
                };
                was_busy = true;
                // Small packets wait in memory of their own length.
                let bytes = match length {
                    0..=SMALL_BYTES_MAX => {
                        let copy = buffer[..length].to_vec();
                        self.recycle(buffer);
                        copy
                    }
                    _ => buffer,
                };
                match Packet::parse(bytes, length) {
                    Ok(packet) => {
                        let now = self.start.elapsed();
                        self.router.handle_packet(now, host, packet);
                    }
                    Err(buffer) => self.recycle(buffer),
                }
            }
        }
        was_busy
    }

    fn recycle(&mut self, buffer: Vec<u8>) {
        if buffer.len() == PACKET_BYTES_MAX && self.spare.len() < SPARE_MAX {
            self.spare.push(buffer);
        }
    }

    /// Waits until there is something to do; whether requests may have come.
    fn sleep(&self, was_busy: bool) -> bool {
        let wait = match self.router.next_due() {
            _ if was_busy => Some(Duration::ZERO),
            Some(due) => Some(due.saturating_sub(self.start.elapsed())),
            None => None,
        };
        let timeout = wait.map(|wait| {
            let nanos = i64::try_from(wait.as_nanos()).unwrap_or(i64::MAX);
            TimeSpec::nanoseconds(nanos)
        });
        let devices = self.devices.iter().map(AsFd::as_fd);
        let mut waited: Vec<PollFd<'_>> = std::iter::once(self.sleeper.as_fd())
            .chain(devices)
            .map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN))
            .collect();
        // After an interruption the next pass looks again.
        let _ = ppoll(&mut waited, timeout, None);
        waited[0].any().unwrap_or(true)
    }

    /// Carries out what was asked; `false` when nobody will ask again.
    fn obey(&mut self) -> bool {
        let mut bytes = [0; 64];
        // Empty when several requests came with one waking.
        let _ = self.sleeper.read(&mut bytes);
        loop {
            let request = match self.requests.try_recv() {
                Ok(request) => request,
                Err(std::sync::mpsc::TryRecvError::Empty) => return true,
                Err(std::sync::mpsc::TryRecvError::Disconnected) => return false,
            };
            let outcome = self.router.apply(&request.command);
            // Whoever asked may have gone.
            let _ = request.answer.send(outcome.map(|()| self.stats()));
        }
    }

    fn stats(&self) -> Stats {
        let usage = getrusage(UsageWho::RUSAGE_THREAD);
        let used = usage.map_or(0, |usage| {
            usage.user_time().num_milliseconds() + usage.system_time().num_milliseconds()
        });
        Stats {
            refused_packets: self.refused_packets,
            cpu_ms: u64::try_from(used).unwrap_or(0),
            ..self.router.stats()
        }
    }
}

/// Real-time priority, of 1 to 99: above ordinary processes, below what the system itself needs.
const PRIORITY: i32 = 10;

/// Packets taken from one host before the next gets its turn.
const PACKETS_MAX: usize = 16;

/// Packets handed over before hosts are read again.
const DELIVERIES_MAX: usize = 64;

/// Passes of a busy pump before it looks for requests.
const PASSES_MAX: u32 = 64;

/// Packets up to this length are copied: large memory is for large packets.
const SMALL_BYTES_MAX: usize = 8 << 10;

/// Large buffers kept for later: 256 MiB, more than is in flight at 5 Gbit/s and 100 ms.
const SPARE_MAX: usize = 4096;
