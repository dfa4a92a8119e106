//! The command `ccl-stress wan`, and what it leaves behind: nothing.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::channel;
use std::thread;

use ccl_stress::wan::stats::Stats;

use crate::{HANG, turn, wait_until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_ccl-stress");

fn wan(arguments: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.arg("wan").args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Whether a process is in this network namespace or holds it open.
fn is_in_use(namespace: u64) -> bool {
    let inode = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.ino());
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes.map(|entry| entry.path()).any(|process| {
        let held = fs::read_dir(process.join("fd"))
            .into_iter()
            .flatten()
            .flatten();
        inode(&process.join("ns/net")) == namespace
            || held
                .into_iter()
                .any(|entry| inode(&entry.path()) == namespace)
    })
}

#[test]
fn a_command_runs_in_every_host() {
    let Some(_turn) = turn() else { return };
    let each = "grep -c wan0 /proc/net/dev; echo {host} of {hosts} is {ip}, first {ip0}";
    let output = wan(&["run", "--preset", "ocean", "--each", each]);
    let printed = text(&output.stdout);
    let mut lines: Vec<&str> = printed.lines().collect();
    lines.sort_unstable();
    let expected = [
        "host 0| 0 of 2 is 10.77.0.1, first 10.77.0.1",
        "host 0| 1",
        "host 1| 1",
        "host 1| 1 of 2 is 10.77.0.2, first 10.77.0.1",
    ];
    assert_eq!(lines, expected, "{}", text(&output.stderr));
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_failed_command_fails_the_run() {
    let Some(_turn) = turn() else { return };
    let each = "[ {host} = 0 ] || exit 5; sleep 1000";
    let output = wan(&["run", "--each", each]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("host 1 ended with exit status 5"));
    let output = wan(&["run", "--with", "0 exit 0", "--each", "sleep 1000"]);
    assert_eq!(output.status.code(), Some(1), "a service must not end");
}

/// A service runs in host 0, and the command of every host ends. So does the run, although
/// the commands have left processes behind that hold their output open.
#[test]
fn nothing_is_left_when_a_run_ends() {
    let Some(_turn) = turn() else { return };
    let output = wan(&[
        "run",
        "--with",
        "0 sleep 1000",
        "--each",
        "setsid sleep 1000 & echo on",
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    let mut lines: Vec<&str> = printed.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["host 0| on", "host 1| on"]);
}

/// A command in a host starts another in a session of its own. The emulator is killed.
/// Both are gone, and nobody has the host's namespace any more.
#[test]
fn nothing_is_left_when_the_emulator_is_killed() {
    let Some(_turn) = turn() else { return };
    let script = "\
        $0 wan ctl --json hosts; \
        exec $0 wan exec 1 -- sh -c 'setsid sleep 1000 & echo; exec sleep 1000'";
    let mut emulator = Command::new(PROGRAM)
        .args(["wan", "run", "--", "sh", "-c", script, PROGRAM])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(emulator.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    let reply: serde_json::Value = serde_json::from_str(&line).unwrap();
    let path = reply["hosts"][1]["namespace"].as_str().unwrap();
    let namespace = fs::metadata(path).unwrap().ino();
    output.read_line(&mut line).unwrap();
    assert!(is_in_use(namespace));
    emulator.kill().unwrap();
    emulator.wait().unwrap();
    // The processes hold the output open.
    let (sender, receiver) = channel();
    thread::spawn(move || sender.send(output.read_to_string(&mut line)));
    receiver.recv_timeout(HANG).unwrap().unwrap();
    wait_until("the namespace is gone", || !is_in_use(namespace));
}

/// A command outside of the hosts changes the network, and is told what is wrong. What was
/// counted comes out as JSON.
#[test]
fn a_running_network_is_changed_from_outside() {
    let Some(_turn) = turn() else { return };
    let script = "$0 wan ctl 'set * * delay 1ms' && $0 wan ctl cut 0 1 && ! $0 wan ctl cut 0 2 && \
        $0 wan exec 1 -- cat /proc/sys/net/ipv4/tcp_min_tso_segs && $0 wan ctl --json stats";
    let sysctl = "net.ipv4.tcp_min_tso_segs=16";
    let output = wan(&[
        "run", "--json", "--sysctl", sysctl, "--", "sh", "-c", script, PROGRAM,
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("there is no host 2"));
    let printed = text(&output.stdout);
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[0], "16");
    let answer: serde_json::Value = serde_json::from_str(lines[1]).unwrap();
    assert!(answer["stats"]["lateness"].is_object());
    let stats: Stats = serde_json::from_str(lines[2]).unwrap();
    assert_eq!(stats.refused_packets, 0);
}

/// A user namespace, in which `exec` runs too.
#[test]
fn a_network_runs_without_root() {
    let Some(_turn) = turn() else { return };
    let script = "$0 wan exec 1 -- grep -c wan0 /proc/net/dev; readlink /proc/self/ns/user";
    let output = wan(&["run", "--rootless", "--", "sh", "-c", script, PROGRAM]);
    if text(&output.stderr).contains("a user namespace") {
        eprintln!("skipped: {}", text(&output.stderr));
        return;
    }
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let own = fs::read_link("/proc/self/ns/user").unwrap();
    let printed = text(&output.stdout);
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[0], "1");
    assert_ne!(lines[1], own.to_string_lossy());
}

/// Whether a rate is trusted depends on what else the machine does.
#[test]
fn a_machine_is_calibrated() {
    let Some(_turn) = turn() else { return };
    let output = wan(&["calibrate", "--rates", "20m"]);
    let printed = text(&output.stdout);
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.len(), 3, "{printed}{}", text(&output.stderr));
    assert!(lines[1].trim_start().starts_with("20m"), "{printed}");
    let is_trusted = lines[2] == "Trust rates up to 20m between two hosts.";
    assert_eq!(output.status.success(), is_trusted, "{printed}");
}
