//! Checks a report, and what reports and views have in common.

use super::records::check_streams;
use super::{
    Checked, check_abort, check_cancel, check_content, check_fingerprint, check_floor, check_op,
    check_ring, check_sealed, check_vid, distinct, distinct_by, length, number,
};
use crate::limits::{TAGS_MAX, WORLD_SIZE_MAX};
use crate::wire::control::{Birth, GivenBack, Report, TagReport};

pub(super) fn check_report(report: &Report) -> Checked {
    check_vid(report.vid)?;
    length("tags", report.tags.len(), TAGS_MAX)?;
    report.tags.iter().try_for_each(check_tag)?;
    distinct_by("tags", report.tags.iter().map(|tag| tag.tag))?;
    check_carried(&report.carried)?;
    number("safe points called", report.safe_called)?;
    number("safe points released", report.safe_released)?;
    number("safe points said", report.safe_said)?;
    check_given_back(&report.given_back)?;
    check_streams(&report.streams)
}

fn check_tag(tag: &TagReport) -> Checked {
    check_floor(tag.floor, tag.last_committed)?;
    check_sealed(tag.sealed)?;
    tag.aborted.iter().try_for_each(check_abort)?;
    number("next number", tag.next.unwrap_or_default().0)?;
    let Some(open) = &tag.open else { return Ok(()) };
    number("operation number", open.n.0)?;
    check_vid(open.birth)?;
    check_fingerprint(&open.fingerprint)?;
    open.elected.iter().try_for_each(check_content)?;
    open.cancel.iter().try_for_each(check_cancel)
}

pub(super) fn check_given_back(tags: &[GivenBack]) -> Checked {
    length("tags given back", tags.len(), TAGS_MAX)?;
    tags.iter().try_for_each(|one| check_vid(one.vid))?;
    distinct_by("tags given back", tags.iter().map(|one| one.tag))
}

pub(super) fn check_carried(carried: &[Birth]) -> Checked {
    length("carried operations", carried.len(), TAGS_MAX)?;
    for one in carried {
        check_op(one.op)?;
        length(
            "members of a carried operation",
            one.members.len(),
            WORLD_SIZE_MAX,
        )?;
        distinct("members of a carried operation", &one.members)?;
        check_ring(&one.ring_order, one.members.len())?;
    }
    distinct_by("carried operations", carried.iter().map(|one| one.op.tag))
}
