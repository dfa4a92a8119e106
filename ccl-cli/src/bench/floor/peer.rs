//! One process of the floor: blocking sockets of the standard library, one thread a direction.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::{Barrier, Mutex};
use std::time::Instant;

use socket2::SockRef;

use super::{CONNECTIONS, ELEMENT_BYTES, Exchange, Order, Setup, Spent, validate};
use crate::child::{Answer, orders, receive_line, send_line};
use crate::failure::{Context, Failure, Result};
use crate::measure::own_cpu_ns;

/// Serves the parent's orders until it closes standard input.
pub fn run() -> Result<ExitCode> {
    let mut input = std::io::stdin().lock();
    let mut output = std::io::stdout().lock();
    let setup: Setup = next(&mut input)?;
    let listener = TcpListener::bind((setup.address, 0)).context("listening")?;
    let address = listener.local_addr().context("listening")?;
    send_line(&mut output, &Answer::Ok(address))?;
    let addresses: Vec<SocketAddr> = next(&mut input)?;
    let streams = connect(&setup, &listener, &addresses)?;
    send_line(&mut output, &Answer::Ok(()))?;
    drop(input);
    for order in orders::<Order>() {
        let spent = match order? {
            Order::Exchange(order) => {
                validate(&order, &setup).and_then(|()| exchange(&order, &streams))
            }
            Order::PingPong { warmup, iterations } => ping_pong(&setup, &streams, warmup)
                .and_then(|_| ping_pong(&setup, &streams, iterations)),
        };
        let answer: Answer<Spent> = spent.map_err(|failure| failure.to_string());
        send_line(&mut output, &answer)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn next<T: serde::de::DeserializeOwned>(input: &mut impl std::io::BufRead) -> Result<T> {
    receive_line(input)?.ok_or_else(|| Failure::new("the parent is gone"))
}

/// The connections to each of the others, by place; none to itself. The later dials the earlier.
fn connect(
    setup: &Setup,
    listener: &TcpListener,
    addresses: &[SocketAddr],
) -> Result<Vec<Vec<TcpStream>>> {
    let most = CONNECTIONS.iter().copied().max().unwrap_or(1);
    let mut streams: Vec<Vec<TcpStream>> = (0..setup.world_size).map(|_| Vec::new()).collect();
    for (other, &address) in addresses.iter().enumerate().take(setup.index) {
        for _ in 0..most {
            let mut stream = TcpStream::connect(address).context("connecting")?;
            stream
                .write_all(&(setup.index as u64).to_le_bytes())
                .context("connecting")?;
            streams[other].push(stream);
        }
    }
    for _ in 0..most * (setup.world_size - 1 - setup.index) {
        let (mut stream, _) = listener.accept().context("accepting")?;
        let mut name = [0; 8];
        stream.read_exact(&mut name).context("accepting")?;
        let other = usize::try_from(u64::from_le_bytes(name)).context("accepting")?;
        streams
            .get_mut(other)
            .ok_or_else(|| Failure::new("a stranger connected"))?
            .push(stream);
    }
    for stream in streams.iter().flatten() {
        set_options(stream, setup)?;
    }
    Ok(streams)
}

/// As the lanes are set: no delay, and on one host `cubic` unless told otherwise.
fn set_options(stream: &TcpStream, setup: &Setup) -> Result<()> {
    stream.set_nodelay(true).context("TCP_NODELAY")?;
    let socket = SockRef::from(stream);
    match &setup.congestion_control {
        Some(name) => socket.set_tcp_congestion(name.as_bytes()).context(name),
        None if !setup.is_one_host => Ok(()),
        None => {
            // Where it may not be chosen the system's choice stays, for the lanes as well.
            let _ = socket.set_tcp_congestion(b"cubic");
            Ok(())
        }
    }
}

/// The first process sends, the last sends back; the others look on.
fn ping_pong(setup: &Setup, streams: &[Vec<TcpStream>], iterations: u32) -> Result<Spent> {
    let last = setup.world_size - 1;
    let mut stream = match (setup.index, streams) {
        (0, [_, .., others]) => others.first(),
        (index, [first, ..]) if index == last => first.first(),
        _ => None,
    };
    let (cpu, start) = (own_cpu_ns()?, Instant::now());
    let mut bytes = [1; ELEMENT_BYTES as usize];
    for stream in stream.iter_mut() {
        for _ in 0..iterations {
            if setup.index == 0 {
                stream.write_all(&bytes).context("ping-pong")?;
            }
            stream.read_exact(&mut bytes).context("ping-pong")?;
            if setup.index == last {
                stream.write_all(&bytes).context("ping-pong")?;
            }
        }
    }
    Ok(Spent {
        batch_ns: u64::try_from(start.elapsed().as_nanos()).context("time")?,
        cpu_ns: own_cpu_ns()?.saturating_sub(cpu),
    })
}

/// One direction of one connection: what it moves in an iteration.
enum Flow<'a> {
    Send {
        stream: &'a TcpStream,
        bytes: Vec<u8>,
    },
    Receive {
        stream: &'a TcpStream,
        sums: Vec<f32>,
        landing: Vec<u8>,
    },
}

impl Flow<'_> {
    fn run_once(&mut self) -> std::io::Result<()> {
        match self {
            Self::Send { stream, bytes } => bytes
                .chunks(WRITE_BYTES)
                .try_for_each(|piece| stream.write_all(piece)),
            Self::Receive {
                stream,
                sums,
                landing,
            } => sums.chunks_mut(READ_BYTES / 4).try_for_each(|sums| {
                let landing = &mut landing[..sums.len() * 4];
                stream.read_exact(landing)?;
                add(sums, landing);
                Ok(())
            }),
        }
    }
}

fn add(sums: &mut [f32], landing: &[u8]) {
    let (elements, _) = landing.as_chunks::<4>();
    for (sum, element) in sums.iter_mut().zip(elements) {
        *sum += f32::from_le_bytes(*element);
    }
}

fn exchange(order: &Exchange, streams: &[Vec<TcpStream>]) -> Result<Spent> {
    let flows = flows(order, streams);
    if flows.is_empty() {
        let (batch_ns, cpu_ns) = (0, 0);
        return Ok(Spent { batch_ns, cpu_ns });
    }
    let laps = Laps::new(flows.len(), order);
    std::thread::scope(|scope| {
        let threads: Vec<_> = flows
            .into_iter()
            .map(|mut flow| {
                let laps = &laps;
                scope.spawn(move || {
                    let mut outcome = Ok(());
                    for _ in 0..laps.total {
                        outcome = outcome.and_then(|()| flow.run_once());
                        laps.end_one();
                    }
                    outcome
                })
            })
            .collect();
        for thread in threads {
            thread
                .join()
                .map_err(|_| Failure::new("a floor thread panicked"))?
                .context("floor")?;
        }
        laps.spent()
    })
}

/// Iterations of several threads: one is over when everything has been sent and received, as a
/// collective's is.
struct Laps {
    barrier: Barrier,
    warmup: u32,
    total: u32,
    marks: Mutex<Marks>,
}

/// What the clocks said, read by the thread that ends an iteration: the others may get a processor
/// late.
#[derive(Default)]
struct Marks {
    ended: u32,
    start: Option<Reading>,
    end: Option<Reading>,
}

#[derive(Clone, Copy)]
struct Reading {
    time: Instant,
    cpu_ns: u64,
}

impl Laps {
    fn new(threads: usize, order: &Exchange) -> Self {
        Self {
            barrier: Barrier::new(threads),
            warmup: order.warmup,
            total: order.warmup + order.iterations,
            marks: Mutex::default(),
        }
    }

    /// Waits until all threads have ended the iteration.
    fn end_one(&self) {
        if !self.barrier.wait().is_leader() {
            return;
        }
        let mut marks = self.marks.lock().expect("nobody panics while holding it");
        marks.ended += 1;
        if marks.ended == self.warmup || marks.ended == self.total {
            let reading = own_cpu_ns().ok().map(|cpu_ns| Reading {
                time: Instant::now(),
                cpu_ns,
            });
            if marks.ended == self.warmup {
                marks.start = reading;
            } else {
                marks.end = reading;
            }
        }
    }

    fn spent(&self) -> Result<Spent> {
        let marks = self.marks.lock().expect("nobody panics while holding it");
        let unread = || Failure::new("the processor clock cannot be read");
        let (start, end) = marks.start.zip(marks.end).ok_or_else(unread)?;
        Ok(Spent {
            batch_ns: u64::try_from((end.time - start.time).as_nanos()).context("time")?,
            cpu_ns: end.cpu_ns.saturating_sub(start.cpu_ns),
        })
    }
}

/// Every direction that has something to move, its memory touched.
fn flows<'a>(order: &Exchange, streams: &'a [Vec<TcpStream>]) -> Vec<Flow<'a>> {
    let mut flows = Vec::new();
    for (other, streams) in streams.iter().enumerate() {
        for (place, stream) in streams.iter().take(order.connections).enumerate() {
            let send = stripe(order.send_bytes[other], place, order.connections);
            if send > 0 {
                flows.push(Flow::Send {
                    stream,
                    bytes: vec![1; send],
                });
            }
            let receive = stripe(order.receive_bytes[other], place, order.connections);
            if receive > 0 {
                let landing = vec![1; receive.min(READ_BYTES)];
                flows.push(Flow::Receive {
                    stream,
                    sums: vec![1.0; receive / 4],
                    landing,
                });
            }
        }
    }
    flows
}

/// The bytes of connection `place` among `connections`: equal shares, whole elements.
fn stripe(bytes: u64, place: usize, connections: usize) -> usize {
    let elements = bytes / ELEMENT_BYTES;
    let edge = |place: usize| elements * place as u64 / connections as u64 * ELEMENT_BYTES;
    usize::try_from(edge(place + 1) - edge(place)).expect("a stripe of a buffer fits the memory")
}

/// Bytes of one write.
const WRITE_BYTES: usize = 1 << 20;
/// Bytes received before they are added: they are still in the second-level cache then.
const READ_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stripes_cover_everything_in_whole_elements() {
        for bytes in [0, 4, 8, 12, 20, 1 << 20, (1 << 20) + 4] {
            for connections in CONNECTIONS {
                let stripes: Vec<usize> = (0..connections)
                    .map(|place| stripe(bytes, place, connections))
                    .collect();
                assert_eq!(stripes.iter().sum::<usize>() as u64, bytes);
                assert!(stripes.iter().all(|stripe| stripe % 4 == 0));
            }
        }
    }

    #[test]
    fn the_clock_runs_from_the_last_warm_up_to_the_last_iteration() {
        let order = Exchange {
            send_bytes: Vec::new(),
            receive_bytes: Vec::new(),
            connections: 1,
            warmup: 2,
            iterations: 3,
        };
        let laps = Laps::new(1, &order);
        laps.end_one();
        assert!(laps.spent().is_err(), "it has not started");
        for _ in 1..laps.total {
            laps.end_one();
        }
        let marks = laps.marks.lock().unwrap();
        assert_eq!(marks.ended, 5);
        let (start, end) = (marks.start.unwrap(), marks.end.unwrap());
        drop(marks);
        let batch = (end.time - start.time).as_nanos();
        assert_eq!(u128::from(laps.spent().unwrap().batch_ns), batch);
    }

    #[test]
    fn received_bytes_are_added() {
        let mut sums = [1.0_f32, 2.0];
        let landing: Vec<u8> = [0.5_f32, -4.0]
            .iter()
            .flat_map(|x| x.to_le_bytes())
            .collect();
        add(&mut sums, &landing);
        assert_eq!(sums, [1.5, -2.0]);
    }
}
