//! The transition table, whole, so that a change to it is seen.

use std::fmt::Write;

use super::super::phase::{Reaction, STATES, TRIGGERS, Trigger, reaction};
use super::Peer;

#[test]
fn the_table_is_what_the_protocol_says() {
    let mut text = format!("{:14}", "");
    for state in STATES {
        write!(text, "{:11}", state.name()).unwrap();
    }
    for trigger in TRIGGERS {
        write!(text, "\n{:14}", trigger.name()).unwrap();
        for state in STATES {
            let word = match reaction(state, trigger) {
                Reaction::Act => "act",
                Reaction::Tolerate => "tolerate",
                Reaction::Ignore => "-",
                Reaction::Fault => "fault",
            };
            write!(text, "{word:11}").unwrap();
        }
    }
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn every_event_has_its_own_row() {
    for (row, trigger) in TRIGGERS.into_iter().enumerate() {
        assert_eq!(row, trigger as usize);
    }
    let legal = Peer::legal_cells();
    assert!(legal.contains(&("Steady", Trigger::Post.name())));
    assert!(!legal.contains(&("Steady", "Install")));
}
