//! The master's own assertions (docs/protocol.md, Invariants) fail where they should.
//!
//! Goal: a master that contradicts itself stops, so that no peer relies on it.
//!
//! 1. A group that was founded is in order.
//! 2. It is changed behind the master's back, in one way at a time: the next check panics.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::ids::MemberNumber;
use crate::master::group::invariants::check;

/// The master's panic after a change of group 0 behind its back; `None` if it is in order.
fn contradiction(change: impl FnOnce(&mut Group)) -> Option<String> {
    let mut stage = Stage::new();
    stage.founded(0, 2);
    stage.join_group(0);
    let Master { groups, shared, .. } = &mut stage.master;
    let group = groups.get_mut(&GroupId(0)).unwrap();
    change(group);
    let panic = catch_unwind(AssertUnwindSafe(|| check(group, shared))).err()?;
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).into()))
}

fn assert_contradiction(words: &str, change: impl FnOnce(&mut Group)) {
    let told = contradiction(change);
    assert!(
        told.as_ref().is_some_and(|told| told.contains(words)),
        "{words}: {told:?}"
    );
}

#[test]
fn group_in_order_is_left_alone() {
    assert_eq!(contradiction(|_| ()), None);
}

#[test]
fn members_out_of_order_stop_the_master() {
    assert_contradiction("rank order", |group| group.view.members.reverse());
    assert_contradiction("rank order", |group| {
        group.view.members[1].number = group.view.members[0].number;
    });
}

#[test]
fn member_that_is_listed_twice_stops_the_master() {
    assert_contradiction("listed once", |group| {
        let mut again = group.view.members[1].clone();
        again.number = MemberNumber(again.number.0 + 1);
        group.view.members.push(again);
        group.view.ring_order.push(Rank(2));
    });
}

#[test]
fn ring_without_a_member_stops_the_master() {
    assert_contradiction("names each rank", |group| {
        group.view.ring_order.pop();
    });
}

#[test]
fn member_that_is_a_newcomer_too_stops_the_master() {
    assert_contradiction("a newcomer or a member", |group| {
        let (_, newcomer) = group.newcomers.pop_first().unwrap();
        let member = group.view.members[0].peer;
        group.newcomers.insert(member, newcomer);
    });
}
