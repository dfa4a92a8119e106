//! Checks a decoded control message before it is used.
//!
//! A message that passes fits the memory reserved for it, its numbers can be incremented without
//! overflow, and its lists can be indexed by the machines. Whether it makes sense in the present
//! state is the machines' business. Senders are held to the same rules as receivers.

mod place;
mod records;
mod report;
mod waits;

use std::collections::BTreeSet;
use std::time::Duration;

use crate::ids::{OpName, OpNumber, Rank, Vid};
use crate::limits::{
    ABORT_REASONS_MAX, ADDRESSES_MAX, CALLER_BYTES_MAX, COUNT_MAX, GENERATION_MAX, NAME_BYTES_MAX,
    NUMBER_MAX, OPEN_OPS_MAX, PARTS_MAX, PEERS_MAX, SAFE_POINTS_AHEAD_MAX, TAGS_MAX,
    TEXT_BYTES_MAX, TIMER_MAX, WORLD_SIZE_MAX,
};
use crate::timers::Timers;
use crate::wire::control::{
    AbortReason, CancelReason, CommitRecord, EvictReason, Fingerprint, Install, MasterToPeer,
    Member, OpNote, OtherGroups, PeerToMaster, Sealed, StateId, SyncFault, TagFloor,
};

use place::{check_claim, check_place};
use records::{check_entry, check_record, check_stream_places};
use report::{check_carried, check_given_back, check_report};
use waits::{check_crossed, check_late, check_wait_point, check_waits};

/// The first rule that a message breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A list, a text or a number is beyond its limit in `crate::limits`.
    #[error("{what}: {found}, at most {max}")]
    OverLimit {
        /// What is too long, too many or too large.
        what: &'static str,
        /// What was sent. A list that was cut while decoding counts one more than its limit.
        found: u64,
        /// The maximum.
        max: u64,
    },
    /// A list names something twice, or leaves its order.
    #[error("{what}: named twice or out of order")]
    Disordered {
        /// Name of the list.
        what: &'static str,
    },
    /// A text that is to be shown holds what moves the cursor.
    #[error("{what} holds control characters")]
    Unprintable {
        /// Name of the text.
        what: &'static str,
    },
    /// The waiting times contradict each other.
    #[error("{0}")]
    Timers(&'static str),
}

type Checked = Result<(), Violation>;

impl PeerToMaster {
    /// Checks every list, text and number against `crate::limits`.
    ///
    /// # Errors
    /// The first violation.
    pub fn validate(&self) -> Checked {
        match self {
            Self::Hello {
                library,
                run,
                addresses,
                min_world,
                attach,
                name,
                place,
                ..
            } => {
                check_place(*place)?;
                check_name("name", name, NAME_BYTES_MAX)?;
                text("library version", library)?;
                text("run name", run)?;
                length("addresses", addresses.len(), ADDRESSES_MAX)?;
                length("min_world", *min_world as usize, WORLD_SIZE_MAX)?;
                number("attach", *attach)
            }
            Self::Attach {
                attach,
                claim,
                report,
                ..
            } => {
                number("attach", *attach)?;
                check_claim(claim)?;
                check_report(report)
            }
            Self::Here {
                attach, vid, claim, ..
            } => {
                number("attach", *attach)?;
                check_vid(*vid)?;
                check_claim(claim)
            }
            Self::Ready { vid, linked } => {
                check_vid(*vid)?;
                length("linked", linked.len(), PEERS_MAX)?;
                distinct("linked", linked)
            }
            Self::Posted(notes) => check_notes("posted", notes),
            Self::Done(notes) => check_notes("done", notes),
            Self::Cancel { op, reason } => {
                check_op(*op)?;
                check_cancel(reason)
            }
            Self::Flush { vid, report } | Self::Installed { vid, report } => {
                check_vid(*vid)?;
                check_report(report)
            }
            Self::AtSafePoint { k, ahead } => {
                number("safe point", *k)?;
                length("safe points ahead", *ahead as usize, SAFE_POINTS_AHEAD_MAX)
            }
            Self::Withdraw { k } => number("safe point", *k),
            Self::LinkDown { vid, .. } => check_vid(*vid),
            Self::NoLink { why, .. } => check_name("link error", why, TEXT_BYTES_MAX),
            Self::Entered(entry) => check_entry(entry),
            Self::RecordsHeld { next, .. } => number("step", next.0),
            Self::LinkUp { .. } | Self::Leave | Self::Ping => Ok(()),
        }
    }
}

impl MasterToPeer {
    /// Checks every list, text and number against `crate::limits`.
    ///
    /// # Errors
    /// The first violation.
    pub fn validate(&self) -> Checked {
        match self {
            Self::Welcome {
                term,
                timers,
                others,
                waits,
                ..
            } => {
                generation("term", term.0)?;
                check_timers(timers)?;
                check_others(others)?;
                check_waits(waits.as_ref())
            }
            Self::Expect {
                vid,
                members,
                newcomers,
            } => {
                check_vid(*vid)?;
                check_members(members)?;
                length("newcomers", newcomers.len(), PEERS_MAX)?;
                newcomers.iter().try_for_each(check_member)?;
                let peers: Vec<_> = members.iter().chain(newcomers).map(|m| m.peer).collect();
                distinct("expected peers", &peers)
            }
            Self::Install(install) => check_install(install),
            Self::Commit(records) => {
                length("commits", records.len(), OPEN_OPS_MAX)?;
                records.iter().try_for_each(check_commit)
            }
            Self::Elected {
                op,
                content,
                sources,
            } => {
                check_op(*op)?;
                check_content(content)?;
                length("sources", sources.len(), WORLD_SIZE_MAX)?;
                distinct("sources", sources)
            }
            Self::Summon => Ok(()),
            Self::Recorded(sealed) => check_record(&sealed.record),
            Self::RecordsReleased { released, .. } => number("step", released.0),
            Self::Suspend { vid } | Self::Release { vid } => check_vid(*vid),
            Self::SafeReleased { k, vid } => {
                number("safe point", *k)?;
                check_vid(*vid)
            }
            Self::Evicted { reason } => check_evict(reason),
            Self::Refused { reason } => text("reason", reason),
            Self::Pong {
                term,
                others,
                waits,
            } => {
                generation("term", term.0)?;
                check_others(others)?;
                check_waits(waits.as_ref())
            }
        }
    }
}

/// Cuts a text to what a message may carry, at a character boundary.
#[must_use]
pub fn clip(text: &str) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

fn check_floor(floor: OpNumber, last_committed: Option<OpNumber>) -> Checked {
    number("floor", floor.0)?;
    match last_committed {
        Some(n) if n >= floor => Err(Violation::OverLimit {
            what: "last_committed, which is below its floor",
            found: n.0,
            max: floor.0.saturating_sub(1),
        }),
        _ => Ok(()),
    }
}

fn check_notes(what: &'static str, notes: &[OpNote]) -> Checked {
    length(what, notes.len(), OPEN_OPS_MAX)?;
    notes.iter().try_for_each(|note| {
        check_op(note.op)?;
        check_fingerprint(&note.fingerprint)
    })
}

fn check_commit(record: &CommitRecord) -> Checked {
    check_op(record.op)?;
    length("contributors", record.contributors.len(), WORLD_SIZE_MAX)?;
    distinct("contributors", &record.contributors)?;
    check_sealed(record.sealed)
}

fn check_sealed(sealed: Sealed) -> Checked {
    match sealed {
        Sealed::Nothing => Ok(()),
        Sealed::State(content) => check_content(&content),
    }
}

fn check_install(install: &Install) -> Checked {
    check_vid(install.vid)?;
    check_members(&install.members)?;
    check_ring(&install.ring_order, install.members.len())?;
    length("floors", install.floors.len(), TAGS_MAX)?;
    install.floors.iter().try_for_each(check_tag_floor)?;
    distinct_by("floors", install.floors.iter().map(|floor| floor.tag))?;
    check_given_back(&install.given_back)?;
    check_carried(&install.carried)?;
    number("safe points released", install.safe_released)?;
    check_stream_places(&install.streams)?;
    length("departed", install.departed.len(), PEERS_MAX)?;
    install
        .departed
        .iter()
        .try_for_each(|(_, reason)| check_evict(reason))
}

fn check_tag_floor(floor: &TagFloor) -> Checked {
    check_floor(floor.floor, floor.last_committed)?;
    length("abort reasons", floor.reasons.len(), ABORT_REASONS_MAX)?;
    floor.reasons.iter().try_for_each(|(n, reason)| {
        number("operation number", n.0)?;
        check_abort(reason)
    })
}

fn check_abort(reason: &AbortReason) -> Checked {
    match reason {
        AbortReason::Lost { reason, .. } => check_evict(reason),
        AbortReason::Cancelled { reason, .. } => check_cancel(reason),
        AbortReason::State(SyncFault::RevisionLost { unwilling, .. }) => {
            length("unwilling members", unwilling.len(), WORLD_SIZE_MAX)
        }
        AbortReason::State(_) => Ok(()),
    }
}

fn check_content(content: &StateId) -> Checked {
    number("revision", content.revision.0)
}

/// Rank is the position by member number, so members come in strictly rising order of it.
fn check_members(members: &[Member]) -> Checked {
    length("members", members.len(), WORLD_SIZE_MAX)?;
    members.iter().try_for_each(check_member)?;
    if members
        .windows(2)
        .any(|pair| pair[0].number >= pair[1].number)
    {
        return Err(Violation::Disordered { what: "members" });
    }
    distinct_by("members", members.iter().map(|member| member.peer))
}

fn check_member(member: &Member) -> Checked {
    check_name("name", &member.name, NAME_BYTES_MAX)?;
    length("addresses", member.addresses.len(), ADDRESSES_MAX)
}

/// A ring visits each member once: as many entries as members, each in range, none twice.
fn check_ring(ring: &[Rank], members: usize) -> Checked {
    length("ring order", ring.len(), members)?;
    let last = members.saturating_sub(1) as u64;
    ring.iter()
        .try_for_each(|rank| over("rank in the ring order", rank.0.into(), last))?;
    if ring.len() < members {
        return Err(Violation::Disordered { what: "ring order" });
    }
    distinct("ring order", ring)
}

fn check_fingerprint(fingerprint: &Fingerprint) -> Checked {
    let called = &fingerprint.called;
    if let Some(elements) = called.elements() {
        over("count", elements.count, COUNT_MAX)?;
        length("parts", elements.parts as usize, PARTS_MAX)?;
    }
    if let Some(root) = called.root() {
        over("root", root.0.into(), WORLD_SIZE_MAX as u64 - 1)?;
    }
    length("min_world", fingerprint.min_world as usize, WORLD_SIZE_MAX)?;
    length("caller", fingerprint.caller.len(), CALLER_BYTES_MAX)?;
    match called.offer() {
        Some(offer) => check_content(&offer.content),
        None => Ok(()),
    }
}

fn check_cancel(reason: &CancelReason) -> Checked {
    match reason {
        CancelReason::Mismatch {
            field,
            mine,
            theirs,
            ..
        } => {
            text("field", field)?;
            text("own value", mine)?;
            text("other's value", theirs)
        }
        CancelReason::Local(what) => text("reason", what),
        CancelReason::Deadline { late } => late.as_ref().map_or(Ok(()), check_late),
        CancelReason::Crossed(crossed) => check_crossed(crossed),
        CancelReason::User | CancelReason::Leave => Ok(()),
    }
}

fn check_evict(reason: &EvictReason) -> Checked {
    match reason {
        EvictReason::Unreachable { by } => length("reporters", by.len(), WORLD_SIZE_MAX),
        EvictReason::NotPosted { n, .. } => number("operation number", n.0),
        EvictReason::NotAtSafePoint { k } => number("safe point", *k),
        EvictReason::Protocol(what) => text("reason", what),
        EvictReason::Crossed { own, others } => {
            check_wait_point(**own)?;
            check_wait_point(**others)
        }
        _ => Ok(()),
    }
}

fn check_timers(timers: &Timers) -> Checked {
    let longest = [
        timers.heartbeat_interval,
        timers.peer_timeout,
        timers.reattach_grace,
        timers.blame_window,
        timers.link_timeout,
        timers.rebuild_window,
        timers.detach_timeout,
        timers.verdict_timeout,
        timers.post_timeout.unwrap_or_default(),
    ]
    .into_iter()
    .fold(Duration::ZERO, Duration::max);
    over(
        "waiting time in seconds",
        longest.as_secs(),
        TIMER_MAX.as_secs(),
    )?;
    timers.validate().map_err(Violation::Timers)
}

/// Groups that are counted have members, and none has more than the largest.
fn check_others(others: &OtherGroups) -> Checked {
    length(
        "members of other groups",
        others.members as usize,
        PEERS_MAX,
    )?;
    length("largest group", others.largest as usize, WORLD_SIZE_MAX)?;
    over("other groups", others.groups.into(), others.members.into())?;
    let most = u64::from(others.groups) * u64::from(others.largest);
    over("members of other groups", others.members.into(), most)
}

/// A text that others print: it must not look like lines of its own.
fn check_name(what: &'static str, name: &str, bytes_max: usize) -> Checked {
    length(what, name.len(), bytes_max)?;
    match name.contains(char::is_control) {
        true => Err(Violation::Unprintable { what }),
        false => Ok(()),
    }
}

fn check_op(op: OpName) -> Checked {
    number("operation number", op.n.0)?;
    check_vid(op.birth)
}

fn check_vid(vid: Vid) -> Checked {
    generation("term", vid.term.0)?;
    generation("epoch", vid.epoch.0)
}

fn distinct<T: Ord + Copy>(what: &'static str, list: &[T]) -> Checked {
    distinct_by(what, list.iter().copied())
}

fn distinct_by<T: Ord>(what: &'static str, items: impl Iterator<Item = T>) -> Checked {
    let mut seen = BTreeSet::new();
    for item in items {
        if !seen.insert(item) {
            return Err(Violation::Disordered { what });
        }
    }
    Ok(())
}

fn text(what: &'static str, text: &str) -> Checked {
    length(what, text.len(), TEXT_BYTES_MAX)
}

fn length(what: &'static str, found: usize, max: usize) -> Checked {
    over(what, found as u64, max as u64)
}

fn number(what: &'static str, found: u64) -> Checked {
    over(what, found, NUMBER_MAX)
}

fn generation(what: &'static str, found: u32) -> Checked {
    over(what, found.into(), GENERATION_MAX.into())
}

fn over(what: &'static str, found: u64, max: u64) -> Checked {
    if found > max {
        return Err(Violation::OverLimit { what, found, max });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Epoch, LinkKey, MemberNumber, PeerId, Tag, Term, UnitId};
    use crate::wire::control::CostTable;
    use crate::wire::control::{Report, TagReport};

    fn vid(term: u32, epoch: u32) -> Vid {
        Vid {
            term: Term(term),
            epoch: Epoch(epoch),
        }
    }

    fn member(peer: u64) -> Member {
        Member {
            peer: PeerId(peer),
            number: MemberNumber(peer),
            unit: UnitId(0),
            addresses: Vec::new(),
            key: LinkKey(0),
            name: String::new(),
        }
    }

    fn install(ring: &[u32]) -> Install {
        Install {
            vid: vid(1, 1),
            members: vec![member(3), member(5), member(9)],
            ring_order: ring.iter().copied().map(Rank).collect(),
            floors: Vec::new(),
            given_back: Vec::new(),
            carried: Vec::new(),
            safe_released: 0,
            costs: CostTable::default(),
            released: false,
            suspended: false,
            departed: Vec::new(),
            streams: Vec::new(),
        }
    }

    fn tag_report(floor: u64, last_committed: Option<u64>) -> TagReport {
        TagReport {
            tag: Tag(1),
            floor: OpNumber(floor),
            last_committed: last_committed.map(OpNumber),
            sealed: Sealed::Nothing,
            aborted: None,
            open: None,
            next: Some(OpNumber(floor)),
        }
    }

    fn flush(tags: Vec<TagReport>) -> PeerToMaster {
        let report = Report {
            tags,
            ..Report::default()
        };
        let vid = vid(1, 1);
        PeerToMaster::Flush { vid, report }
    }

    #[test]
    fn numbers_that_could_overflow_are_refused_on_both_sides_of_the_edge() {
        let at = |k| PeerToMaster::AtSafePoint { k, ahead: 0 }.validate();
        assert_eq!(at(NUMBER_MAX), Ok(()));
        assert!(at(NUMBER_MAX + 1).is_err());
        let suspend = |vid| MasterToPeer::Suspend { vid }.validate();
        assert_eq!(suspend(vid(GENERATION_MAX, GENERATION_MAX)), Ok(()));
        assert!(suspend(vid(GENERATION_MAX + 1, 0)).is_err());
        assert!(suspend(vid(0, GENERATION_MAX + 1)).is_err());
    }

    #[test]
    fn a_ring_order_is_a_permutation_of_the_members() {
        let check = |ring: &[u32]| MasterToPeer::Install(install(ring)).validate();
        assert_eq!(check(&[2, 0, 1]), Ok(()));
        for ring in [&[0, 1][..], &[0, 1, 3], &[0, 1, 1], &[0, 1, 2, 2]] {
            assert!(check(ring).is_err(), "{ring:?}");
        }
    }

    #[test]
    fn members_come_in_rank_order_and_once() {
        let mut turned = install(&[0, 1, 2]);
        turned.members.reverse();
        assert!(MasterToPeer::Install(turned).validate().is_err());
        let mut twice = install(&[0, 1, 2]);
        twice.members[2].peer = twice.members[0].peer;
        assert!(MasterToPeer::Install(twice).validate().is_err());
    }

    #[test]
    fn a_report_names_a_tag_once_and_commits_below_its_floor() {
        assert_eq!(flush(vec![tag_report(1, Some(0))]).validate(), Ok(()));
        assert!(flush(vec![tag_report(0, Some(0))]).validate().is_err());
        assert!(flush(vec![tag_report(3, Some(3))]).validate().is_err());
        let twice = flush(vec![tag_report(0, None), tag_report(1, None)]);
        assert_eq!(
            twice.validate(),
            Err(Violation::Disordered { what: "tags" })
        );
    }

    #[test]
    fn waiting_times_beyond_a_year_are_refused_before_they_are_multiplied() {
        let welcome = |heartbeat_interval| {
            let timers = Timers {
                heartbeat_interval,
                ..Timers::default()
            };
            check_timers(&timers)
        };
        assert_eq!(welcome(Duration::from_millis(250)), Ok(()));
        assert!(welcome(Duration::MAX).is_err());
        assert!(welcome(Duration::ZERO).is_err());
    }

    #[test]
    fn other_groups_are_counted_as_groups_can_be() {
        let check = |members, groups, largest| {
            let others = OtherGroups {
                members,
                groups,
                largest,
            };
            let term = Term(1);
            let waits = None;
            let pong = MasterToPeer::Pong {
                term,
                others,
                waits,
            };
            pong.validate().is_ok()
        };
        assert!(check(0, 0, 0) && check(1, 1, 1) && check(1024, 4, 256));
        assert!(!check(1025, 5, 256), "more than a master serves");
        assert!(!check(257, 2, 257), "larger than any world");
        assert!(!check(2, 3, 1), "a group without members");
        assert!(!check(9, 2, 4), "more than the largest allows");
        assert!(!check(u32::MAX, u32::MAX, u32::MAX));
    }

    #[test]
    fn clipped_text_fits_and_stays_text() {
        let long = "€".repeat(TEXT_BYTES_MAX);
        let clipped = clip(&long);
        assert_eq!(clipped.len(), TEXT_BYTES_MAX / 3 * 3);
        assert!(long.starts_with(&clipped));
        assert_eq!(clip("short"), "short");
    }
}
