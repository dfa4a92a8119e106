//! A peer process that obeys commands on its standard input, for tests that kill and stop
//! processes.
//!
//! `actor MASTER WORLD [LANES]` connects and prints `connected RANK PORT`. Then, one command a
//! line: `reduce TAG COUNT in|out SEED` starts an all-reduce and prints `started`; `wait` prints
//! `ok RIGHT CONTRIBUTORS` or `error INTACT TEXT`; `progress` prints `progress DONE TOTAL`;
//! `counters` prints `counters COMMITS ABORTS REPAIRS`; `memory` prints `memory RSS PEAK` in KiB;
//! `update` and `leave` print `ok` or `error`; `fork` prints `forked PROCESS` of a child that
//! sleeps until it is killed; `records COUNT MS` gives entries for so many steps of a stream, each
//! with that deadline (0: none), and prints `records NEXT HASH OWN` with the next step, the hash of
//! the stream, and the records that have this peer's entry. It ends with its standard input.

use std::io::{BufRead, Write};
use std::time::Duration;

use ccl_core::{
    Collective, Communicator, CommunicatorConfig, Options, RawPart, RecordOptions, ReduceOp,
    Request, StreamId, Tag,
};

/// An all-reduce under way, with its memory.
struct Running {
    handle: ccl_core::RawHandle,
    // The handle is dropped first, and waits until these are no longer in use.
    send: Vec<u64>,
    receive: Vec<u64>,
    in_place: bool,
    seed: u64,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let master = arguments
        .next()
        .expect("first argument: the master's address");
    let world = arguments
        .next()
        .and_then(|text| text.parse().ok())
        .expect("second: world size");
    let lanes = arguments.next().and_then(|text| text.parse().ok());
    let config = CommunicatorConfig {
        master,
        initial_world_size: Some(world),
        lanes,
        connect_timeout: Duration::from_secs(30),
        operation_timeout: Some(Duration::from_secs(60)),
        ..CommunicatorConfig::default()
    };
    let communicator = match Communicator::connect(config) {
        Ok(communicator) => communicator,
        Err(error) => return say(&format!("error {error}")),
    };
    say(&format!(
        "connected {} {}",
        communicator.rank(),
        communicator.listen_address().port()
    ));
    let mut running = None;
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["reduce", tag, count, place, seed] => {
                running = Some(start(&communicator, [tag, count, seed], place == "in"));
                say("started");
            }
            ["wait"] => say(&end(
                running.take().expect("something was started"),
                &communicator,
            )),
            ["progress"] => {
                let running: &Running = running.as_ref().expect("something was started");
                let progress = running.handle.progress();
                say(&format!(
                    "progress {} {}",
                    progress.done_bytes, progress.total_bytes
                ));
            }
            ["counters"] => {
                let counters = communicator.counters();
                say(&format!(
                    "counters {} {} {}",
                    counters.commits, counters.aborts, counters.repairs
                ));
            }
            ["memory"] => say(&format!("memory {} {}", status("VmRSS"), status("VmHWM"))),
            ["update"] => match communicator.update_topology() {
                Ok(view) => say(&format!("ok {}", view.members.len())),
                Err(error) => say(&format!("error {error}")),
            },
            ["leave"] => match communicator.clone().leave() {
                Ok(()) => say("ok"),
                Err(error) => say(&format!("error {error}")),
            },
            ["records", count, deadline_ms] => say(&records(&communicator, [count, deadline_ms])),
            ["fork"] => say(&format!("forked {}", fork())),
            _ => panic!("unknown command {line:?}"),
        }
    }
}

/// Element `index` of the input of a peer; sums of them are exact.
fn element(peer: u64, seed: u64, index: u64) -> u64 {
    (peer + 1).wrapping_mul(seed ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

#[allow(unsafe_code)]
fn start(communicator: &Communicator, numbers: [&str; 3], in_place: bool) -> Running {
    let [tag, count, seed] = numbers.map(|text| text.parse::<u64>().expect("a number"));
    let peer = communicator.peer().0;
    let mut send: Vec<u64> = (0..count).map(|index| element(peer, seed, index)).collect();
    let mut receive = if in_place {
        Vec::new()
    } else {
        vec![u64::MAX; send.len()]
    };
    let part = if in_place {
        RawPart::in_place(&mut send)
    } else {
        RawPart::out_of_place(&send, &mut receive).expect("equally long")
    };
    let request = Request {
        collective: Collective::AllReduce {
            reduce_op: ReduceOp::Sum,
        },
        parts: vec![part],
        options: Options {
            tag: Tag(tag),
            ..Options::default()
        },
    };
    // SAFETY: `Running` keeps the vectors untouched until the handle has ended or was dropped.
    let handle = unsafe { communicator.raw_async(request) }.expect("a valid call");
    Running {
        handle,
        send,
        receive,
        in_place,
        seed,
    }
}

fn end(running: Running, communicator: &Communicator) -> String {
    let outcome = running.handle.wait();
    let expected = |contributors: &[ccl_core::PeerId], index| {
        contributors.iter().fold(0_u64, |sum, peer| {
            sum.wrapping_add(element(peer.0, running.seed, index))
        })
    };
    let holds = |buffer: &[u64], contributors: &[ccl_core::PeerId]| {
        buffer
            .iter()
            .zip(0_u64..)
            .all(|(&value, index)| value == expected(contributors, index))
    };
    match outcome {
        Ok(outcome) => {
            let result = if running.in_place {
                &running.send
            } else {
                &running.receive
            };
            let intact = running.in_place || holds(&running.send, &[communicator.peer()]);
            let is_right = intact && holds(result, &outcome.contributors);
            format!("ok {is_right} {}", outcome.contributors.len())
        }
        Err(error) => format!(
            "error {} {error}",
            holds(&running.send, &[communicator.peer()])
        ),
    }
}

fn records(communicator: &Communicator, numbers: [&str; 2]) -> String {
    let [count, deadline_ms] = numbers.map(|text| text.parse::<u64>().expect("a number"));
    let options = RecordOptions {
        deadline: (deadline_ms > 0).then(|| Duration::from_millis(deadline_ms)),
        ..RecordOptions::default()
    };
    let entry = communicator.peer().0.to_le_bytes();
    let (mut newest, mut own) = (None, 0);
    for _ in 0..count {
        match communicator.all_gather_records(StreamId(1), &entry, &options) {
            Ok(record) => {
                own += u64::from(record.entries.iter().any(|it| it.payload == entry));
                newest = Some((record.step.0 + 1, record.hash));
            }
            Err(error) => return format!("error {error}"),
        }
    }
    let (next, hash) = newest.expect("at least one step");
    format!("records {next} {hash} {own}")
}

#[allow(unsafe_code)]
fn fork() -> libc::pid_t {
    // SAFETY: the child does nothing but sleep.
    match unsafe { libc::fork() } {
        0 => loop {
            // SAFETY: no arguments.
            unsafe { libc::pause() };
        },
        child => child,
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // If the reader is gone, this process ends when its standard input does.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn status(field: &str) -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find(|line| line.starts_with(field))
        .unwrap_or_default();
    line.split_whitespace().nth(1).unwrap_or("0").to_owned()
}
