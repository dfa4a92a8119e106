//! The shared-state benchmark, run from the binary as by a user.
//!
//! Plan: 1. a newcomer gets the state from all sources, each byte once; 2. a slow source sends
//! less;
//! 3. one flipped bit moves one block; 4. a source dies half-way and nothing is fetched twice;
//! 5. wrong options are reported as text.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::process::{Command, Output, Stdio};

use serde_json::Value;

const MIB: u64 = 1 << 20;

fn output(arguments: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ccl"))
        .args(["bench", "shared-state", "--json"])
        .args(arguments.split_whitespace())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// The output line of a benchmark that must succeed.
fn line(arguments: &str) -> Value {
    let output = output(arguments);
    assert!(output.status.success(), "{arguments}: {output:?}");
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&line["wrong"], &line["digests_equal"]),
        (&0.into(), &true.into())
    );
    line
}

#[test]
fn a_joiner_gets_the_state_from_all_sources_and_hardly_a_byte_twice() {
    let line = line("--bytes 16MiB --sources 3 --repeat 3");
    let received = line["received_bytes"].as_u64().unwrap();
    // A sixteenth may be asked of a second source.
    assert!((16 * MIB..18 * MIB).contains(&received), "{line}");
    let shares = line["shares"].as_array().unwrap();
    assert_eq!(shares.len(), 3);
    assert!(
        shares.iter().all(|share| share.as_f64().unwrap() > 0.0),
        "{line}"
    );
    for field in [
        "time_us",
        "hash_time_us",
        "transfer_time_us",
        "floor_time_ratio",
    ] {
        assert!(line[field].as_f64().unwrap() > 0.0, "{field}: {line}");
    }
    for field in ["joiner_extra_rss_bytes", "source_extra_rss_bytes"] {
        assert!(line[field].as_u64().unwrap() <= 64 * MIB, "{field}: {line}");
    }
}

#[test]
fn a_state_smaller_than_a_block_comes_from_one_source() {
    let line = line("--bytes 8 --sources 1 --repeat 2");
    assert_eq!(line["shares"], serde_json::json!([1.0]));
    assert!(line["received_bytes"].as_u64().unwrap() >= 8);
}

#[test]
fn a_slow_source_gives_less_than_its_part() {
    let line = line("--bytes 32MiB --sources 3 --repeat 3 --slow-source 0.1");
    assert!(line["slow_source_bytes_per_second"].as_u64().unwrap() > 0);
    assert_eq!(line["slow_source_share"], line["shares"][0]);
    assert!(line["slow_source_share"].as_f64().unwrap() < 0.15, "{line}");
}

#[test]
fn one_flipped_bit_moves_one_block() {
    let line = line("--bytes 16MiB --sources 3 --repeat 3 --flip-bit");
    let received = line["received_bytes"].as_u64().unwrap();
    assert!(0 < received && received < MIB, "{line}");
}

#[test]
fn the_death_of_a_source_costs_nothing_that_is_here() {
    let line = line("--bytes 32MiB --sources 3 --kill-source");
    assert!(line["shares"][0].as_f64().unwrap() > 0.0, "{line}");
    let received = line["received_bytes"].as_u64().unwrap();
    assert!((32 * MIB..32 * MIB * 11 / 10).contains(&received), "{line}");
}

#[test]
fn wrong_options_are_told_with_words() {
    for (arguments, word) in [
        ("--bytes 7", "--bytes"),
        ("--sources 0", "--sources"),
        ("--sources 1 --kill-source", "--sources"),
        ("--kill-source --flip-bit", "--flip-bit"),
        ("--slow-source 2", "--slow-source"),
        ("--repeat 0", "--repeat"),
    ] {
        let output = output(arguments);
        assert!(!output.status.success(), "{arguments}");
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(words.contains(word), "{arguments}: {words}");
    }
}
