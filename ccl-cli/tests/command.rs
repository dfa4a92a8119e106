//! The binary from outside: what it prints, how it ends, and that nothing outlives it.
//!
//! Plan: 1. the floor and the hash run for real and print their lines; 2. a master announces its
//! port and ends cleanly on SIGTERM; 3. children end with their parent's end of the pipe; 4. wrong
//! options are reported as text.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::fs::File;
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};

use ccl_core::{Communicator, CommunicatorConfig, SharedState, SyncStrategy};
use ccl_tests::process::{Process, Signal};
use serde_json::Value;

fn ccl(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ccl"));
    command.args(arguments.split_whitespace());
    command
}

fn output(arguments: &str) -> Output {
    ccl(arguments).stdin(Stdio::null()).output().unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A master, and its address.
fn master() -> (Process, SocketAddr) {
    let mut command = ccl("master --listen 127.0.0.1:0 --new-run --json");
    let process = Process::start(command.stderr(Stdio::null()));
    let line: Value = serde_json::from_str(&process.line()).unwrap();
    assert_eq!(line["event"], "listening");
    (process, line["address"].as_str().unwrap().parse().unwrap())
}

#[test]
fn hashing_is_measured_with_every_number_of_threads() {
    let output = output("bench hash --bytes 3MiB --entries 3 --threads 1,2 --repeat 1 --json");
    assert!(output.status.success(), "{output:?}");
    let lines = lines(&output);
    let threads: Vec<_> = lines.iter().map(|line| line["threads"].as_u64()).collect();
    assert_eq!(threads, [Some(1), Some(2)]);
    for line in lines {
        assert_eq!(line["bytes"], 3 << 20);
        for rate in ["hash_gb_s", "memcpy_gb_s", "ratio"] {
            assert!(line[rate].as_f64().unwrap() > 0.0, "{line}");
        }
    }
}

#[test]
fn kernels_are_measured_beside_copies() {
    let output = output("bench kernels --bytes 100kB --repeat 1 --json");
    assert!(output.status.success(), "{output:?}");
    let lines = lines(&output);
    assert!(
        lines
            .iter()
            .all(|line| line["ratio"].as_f64().unwrap() > 0.0)
    );
    let names: Vec<&str> = lines
        .iter()
        .map(|line| line["kernel"].as_str().unwrap())
        .collect();
    for name in [
        "perturb rademacher",
        "replay irwin-hall 128",
        "outer nesterov",
        "decode-add int2",
    ] {
        assert!(names.contains(&name), "{names:?}");
    }
}

#[test]
fn the_floor_moves_bytes_with_every_number_of_connections() {
    let output = output("bench floor --world 3 --sizes 3000,1MiB --iters 2 --repeat 1 --json");
    assert!(output.status.success(), "{output:?}");
    let lines = lines(&output);
    assert_eq!(lines.len(), 6, "two sizes, three numbers of connections");
    for line in lines {
        assert_eq!(line["world_size"], 3);
        assert!(line["time_us"].as_f64().unwrap() > 0.0, "{line}");
        assert!(line["busbw_gb_s"].as_f64().unwrap() > 0.0, "{line}");
    }
}

#[test]
fn a_master_announces_its_port_and_ends_cleanly_when_told_to() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (mut master, address) = master();
        assert_ne!(address.port(), 0);
        std::net::TcpStream::connect(address).unwrap();
        master.signal(signal);
        assert!(master.end().0.success());
    }
}

/// A training run syncs once per step, which belongs in a more detailed log.
#[test]
fn a_masters_log_has_one_line_for_the_first_sync_of_each_view_and_none_for_the_others() {
    let errors = std::env::temp_dir().join(format!("ccl-master-log-{}", std::process::id()));
    let mut command = ccl("master --listen 127.0.0.1:0 --new-run --json");
    let mut master = Process::start(command.stderr(File::create(&errors).unwrap()));
    let line: Value = serde_json::from_str(&master.line()).unwrap();
    let config = CommunicatorConfig {
        master: line["address"].as_str().unwrap().into(),
        ..CommunicatorConfig::default()
    };
    for first in [0, 3] {
        let peer = Communicator::connect(config.clone()).unwrap();
        for revision in first..first + 3 {
            let mut state = SharedState::new(revision);
            let strategy = SyncStrategy::EnforcePopular;
            peer.sync_shared_state(&mut state, strategy).unwrap();
        }
    }
    master.signal(Signal::SIGTERM);
    let (_, lines) = master.end();
    let log = std::fs::read_to_string(&errors).unwrap();
    std::fs::remove_file(errors).unwrap();
    let sealed = |text: &&str| text.contains("was sealed");
    assert_eq!(log.lines().filter(sealed).count(), 2, "{log}");
    let sealed = |line: &&String| line.contains("state_sealed");
    assert_eq!(lines.iter().filter(sealed).count(), 6, "{lines:?}");
}

#[test]
fn a_second_master_on_the_same_port_is_refused_with_words() {
    let (_master, address) = master();
    let second = output(&format!("master --listen {address}"));
    assert_eq!(second.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&second.stderr).contains("ccl: "),
        "{second:?}"
    );
}

#[test]
fn children_end_when_their_input_is_closed() {
    for name in ["floor-peer", "bench-peer", "state-peer", "demo-peer"] {
        // Standard input is empty: the parent is gone before it said anything.
        let output = output(name);
        assert!(!output.status.success(), "{name}: {output:?}");
    }
    let mut master = Process::start(&mut ccl(
        "master --listen 127.0.0.1:0 --new-run --exit-with-parent",
    ));
    master.close_input();
    let (status, _) = master.end();
    assert!(!status.success(), "it says that it was left alone");
}

#[test]
fn wrong_options_are_told_with_words() {
    for (arguments, word) in [
        ("bench all-reduce --sizes 8:4", "8:4"),
        ("bench all-reduce --dtype f8", "bf16"),
        ("bench all-reduce --world 0", "--world"),
        ("bench floor --world 1", "--world"),
        ("demo --peers 2", "--peers"),
        ("demo --restart-master 99", "--restart-master"),
        ("demo --churn --peers 7", "2 to 6"),
        ("demo --churn --no-faults", "--no-faults"),
        ("demo --seconds 5", "--churn"),
        ("master --listen nowhere", "--listen"),
    ] {
        let output = output(arguments);
        assert!(!output.status.success(), "{arguments}");
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(words.contains(word), "{arguments}: {words}");
    }
}
