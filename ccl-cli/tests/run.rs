//! Whole runs of several processes, started from the binary as by a user.
//!
//! Plan: 1. every type with every operator is right with both algorithms; 2. so are the other
//! collectives, in place and with odd shares; 3. a comparison has all algorithms; 4. the
//! demonstration trains to the end while newcomers come and go, a peer is killed and another
//! stopped; 5. and while its master dies; 6. and while peers are killed or started about once a
//! second.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::fs;
use std::process::{Command, Stdio};

use ccl_tests::process::{Process, run};
use serde_json::Value;

/// The output lines of a run that must succeed.
fn lines(arguments: &str) -> Vec<Value> {
    let printed = run(ccl(arguments).stdin(Stdio::null()));
    let parsed = printed.lines().map(serde_json::from_str);
    parsed.map(Result::unwrap).collect()
}

fn ccl(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ccl"));
    command.args(arguments.split_whitespace());
    command
}

fn assert_right(lines: &[Value], expected: usize) {
    assert_eq!(lines.len(), expected);
    for line in lines {
        assert_eq!(line["wrong"], 0, "{line}");
        assert_eq!(line["aborts"], 0, "{line}");
    }
}

#[test]
fn every_type_and_operator_is_right_with_every_algorithm() {
    for algorithm in ["one_shot", "two_shot", "ring"] {
        let lines = lines(&format!(
            "bench all-reduce --world 3 --algorithm {algorithm} --all-types --count 0,1,3,1023,40001 \
             --iters 1 --warmup 1 --json"
        ));
        // Averages of integers do not fit the elements of a ring.
        let is_right = |line: &Value| {
            let dtype = line["dtype"].as_str().unwrap();
            let is_integer = dtype.starts_with(['i', 'u']);
            line["algorithm"] == algorithm
                || is_integer && line["op"] == "avg" && line["algorithm"] == "two_shot"
        };
        assert!(lines.iter().all(is_right));
        assert_right(&lines, 12 * 5 * 5);
    }
}

#[test]
fn large_buffers_are_right_in_place_and_not_and_with_any_number_of_lanes() {
    for options in [
        "--lanes 1 --in-place",
        "--lanes 8",
        "--lanes 3 --no-checksum --algorithm ring",
    ] {
        let lines = lines(&format!(
            "bench all-reduce --world 2 {options} --sizes 64kB,3MiB,8MiB --iters 2 --warmup 1 --json"
        ));
        assert_right(&lines, 3);
    }
}

#[test]
fn the_other_collectives_are_right() {
    for collective in ["all-gather", "reduce-scatter", "broadcast"] {
        let lines = lines(&format!(
            "bench {collective} --world 3 --count 0,2,9,30000,1000003 --dtype i16 --iters 1 --json"
        ));
        assert_right(&lines, 5);
        assert!(lines.iter().all(|line| line["collective"] == collective));
    }
    assert_right(&lines("bench barrier --world 3 --iters 5 --json"), 1);
}

#[test]
fn a_world_of_one_and_a_floor_beside_it_are_measured() {
    assert_right(
        &lines("bench all-reduce --world 1 --sizes 4,1MiB --floor --repeat 1 --json"),
        2,
    );
    let lines =
        lines("bench all-reduce --world 2 --sizes 1MiB --iters 2 --floor --repeat 3 --json");
    assert_right(&lines, 1);
    for field in ["floor_time_ratio", "floor_cpu_ratio", "cpu_s_per_gib"] {
        assert!(lines[0][field].as_f64().unwrap() > 0.0, "{}", lines[0]);
    }
}

/// Without the other libraries, which need not be installed.
#[test]
fn every_algorithm_is_compared_and_the_results_are_saved() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (saved, drawn) = (path("saved.json"), path("drawn.svg"));
    let measured = lines(&format!(
        "bench compare --worlds 2,3 --sizes 4,20000 --contestants ccl,mpi,sockets --budget 1s \
         --peers {} --save {saved} --svg {drawn} --json",
        path("nowhere")
    ));
    assert_eq!(measured.len(), 1);
    let missing = measured[0]["missing"].as_array().unwrap();
    assert_eq!(missing.len(), 2, "Open MPI, in both worlds: {missing:?}");
    assert!(missing[0].as_str().unwrap().contains("run stress/peers.sh"));
    let cells = measured[0]["cells"].as_array().unwrap();
    assert_eq!(cells.len(), 2 * 2 * 2, "worlds, sizes and forms");
    for cell in cells {
        let rows = cell["rows"].as_array().unwrap();
        let ours = rows.iter().filter(|row| row["family"] == "ccl");
        assert!(
            ours.clone().count() >= 3,
            "auto and all that it chooses from"
        );
        for row in ours {
            assert_eq!(row["wrong"], 0, "{row}");
            assert!(row["algorithm"].is_string() && row["algorithm"] != "auto");
            assert!(row["time_us"][0].as_f64().unwrap() > 0.0, "{row}");
            assert!(row["cpu_s_per_gib"][0].as_f64().unwrap() > 0.0, "{row}");
        }
        let has_ping_pongs = !cell["ping_pong_us"].as_array().unwrap().is_empty();
        assert_eq!(has_ping_pongs, cell["bytes"] == 4);
    }
    assert!(fs::read_to_string(drawn).unwrap().starts_with("<svg "));
    assert_eq!(
        lines(&format!("bench compare --from {saved} --json")),
        measured
    );
}

#[test]
fn training_goes_on_when_newcomers_come_and_one_is_killed_and_one_stopped() {
    let lines = lines("demo --json");
    let summary = lines.last().unwrap();
    assert_eq!(summary["event"], "summary");
    assert_eq!(
        (&summary["kills"], &summary["stops"], &summary["joins"]),
        (&1.into(), &1.into(), &4.into()),
        "three newcomers, and the stopped one that came back"
    );
    assert_eq!(summary["leaves"], 4);
    assert_eq!(summary["needless_sync_bytes"], 0);
    assert_right_syncs(&lines, 4);
    assert_eq!(summary["world_size"], 2);
    let digests = summary["digests"].as_array().unwrap();
    assert_eq!(digests.len(), 2);
    assert_eq!(digests[0], digests[1]);
    assert!(summary["accuracy"].as_f64().unwrap() >= 0.95, "{summary}");
    let done = summary["kill_bytes_done"].as_u64().unwrap();
    assert!(
        0 < done && done < summary["kill_bytes_total"].as_u64().unwrap(),
        "{summary}"
    );
    assert_eq!(summary["evicted_woke"], true);
    assert!(
        summary["pause_after_kill_ms"].is_number() && summary["pause_after_stop_ms"].is_number()
    );
    assert_eq!(summary["problems"].as_array().unwrap().len(), 0);
}

/// Each newcomer received the whole state of the others' step, and little else.
fn assert_right_syncs(lines: &[Value], newcomers: usize) {
    let syncs: Vec<&Value> = lines
        .iter()
        .filter(|line| line["event"] == "synced")
        .collect();
    assert!(syncs.len() >= newcomers, "{syncs:?}");
    for sync in syncs {
        assert_eq!(sync["had_it"], false, "{sync}");
        assert!(sync["sources"].as_u64().unwrap() > 0, "{sync}");
        let bytes = sync["received_bytes"].as_u64().unwrap();
        assert!((2 << 20..3 << 20).contains(&bytes), "{sync}");
    }
}

#[test]
fn training_goes_on_while_somebody_is_killed_or_started_each_second() {
    let lines = lines("demo --churn --seconds 9 --seed 1 --json");
    let summary = lines.last().unwrap();
    assert_eq!(summary["event"], "summary");
    for field in ["kills", "joins"] {
        assert!(summary[field].as_u64().unwrap() >= 3, "{field}: {summary}");
    }
    assert!(summary["accuracy"].as_f64().unwrap() >= 0.95, "{summary}");
    let digests = summary["digests"].as_array().unwrap();
    assert_eq!(summary["world_size"], digests.len());
    assert!((2..=6).contains(&digests.len()));
    assert!(
        digests.iter().all(|digest| *digest == digests[0]),
        "{summary}"
    );
    assert_eq!(summary["needless_sync_bytes"], 0);
    assert!(summary["sync_bytes"].as_u64().unwrap() > 0, "{summary}");
    assert_eq!(summary["problems"].as_array().unwrap().len(), 0);
}

#[test]
fn training_goes_on_while_the_master_is_dead_and_when_it_comes_back() {
    let lines = lines("demo --json --restart-master 3");
    let summary = lines.last().unwrap();
    assert_eq!(summary["master_restarts"], 3);
    let meanwhile = summary["steps_without_master"].as_u64().unwrap();
    assert!(meanwhile > 0, "{summary}");
    for event in ["master_killed", "master_restarted"] {
        let told = lines.iter().filter(|line| line["event"] == event);
        assert_eq!(told.count(), 3, "{event}");
    }
    assert!(summary["accuracy"].as_f64().unwrap() >= 0.95, "{summary}");
    assert_eq!(summary["problems"].as_array().unwrap().len(), 0);
}

#[test]
fn two_commands_meet_at_one_master() {
    let mut master = Process::start(&mut ccl(
        "master --listen 127.0.0.1:0 --new-run --json --exit-with-parent",
    ));
    let line: Value = serde_json::from_str(&master.line()).unwrap();
    let address = line["address"].as_str().unwrap();
    let options =
        format!("bench all-reduce --master {address} --world 3 --count 5,70000 --iters 2 --json");
    std::thread::scope(|scope| {
        let two = scope.spawn(|| lines(&format!("{options} --local 2")));
        let one = scope.spawn(|| lines(&options));
        for lines in [two.join().unwrap(), one.join().unwrap()] {
            assert_right(&lines, 2);
            assert_eq!(lines[0]["world_size"], 3);
            assert!(
                lines[0]["cpu_s_per_gib"].is_null(),
                "not all processes are this command's"
            );
        }
    });
    master.close_input();
    master.end();
}

#[test]
fn nothing_outlives_a_bench_that_is_killed() {
    let mut bench = Process::start_reading_errors(&mut ccl(
        "bench all-reduce --world 2 --sizes 1MiB --iters 1000000 --verbose",
    ));
    for _ in 0..3 {
        let line = bench.line();
        assert!(line.contains("process"), "{line}");
    }
    bench.kill();
    // All processes share this pipe: it ends when the last of them does.
    bench.end();
}
