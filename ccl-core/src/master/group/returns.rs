//! Returned tags: when a tag may be forgotten, and who may still know its old state (R2).
//!
//! A tag is idle when no member has an unfinished operation of it and all members would give the
//! next call the same number. Its numbers may then restart at 0, for all members in the same view
//! change. How operations of a tag end is in `ledger`.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{OpNumber, Tag, Vid};
use crate::limits;
use crate::master::group::Group;
use crate::master::group::ledger::Ledger;
use crate::master::group::phase::Phase;
use crate::mutation::{Mutation, is_active};
use crate::wire::control::{GivenBack, Report, TagReport};

/// The tags that were given back, and when to try again.
#[derive(Debug, Default)]
pub struct Returns {
    /// Tags whose old state some member may still know, with the view in which they restart.
    named: BTreeMap<Tag, Vid>,
    /// Tags from which on a view change is made to give some back.
    next: usize,
}

/// What a master that resumes a group knows of its newest view.
#[derive(Debug)]
pub struct Base<'a> {
    /// The view that the journal ends with, if it knows one.
    pub sealed: Option<Vid>,
    /// The newest view.
    pub newest: Vid,
    /// The tags that it names as given back.
    pub given_back: &'a [GivenBack],
    /// How operations ended according to a member of it, if the journal ends before it.
    pub tags: &'a [TagReport],
}

impl Returns {
    /// The list that members get with the view.
    pub fn named(&self, view: Vid) -> Vec<GivenBack> {
        let is_named = |vid: Vid| vid == view || !is_active(Mutation::ReturnsNamedOnce);
        let named = self.named.iter().filter(|(_, vid)| is_named(**vid));
        named.map(|(&tag, &vid)| GivenBack { tag, vid }).collect()
    }

    /// All members have the newest view, and with it all that was given back.
    pub fn settle(&mut self) {
        self.named.clear();
    }

    /// Whether a member that comes from this view counts a tag as before it was given back.
    pub fn is_void(&self, tag: Tag, vid: Vid) -> bool {
        let begun = self.named.get(&tag);
        begun.is_some_and(|&begun| vid < begun) && !is_active(Mutation::EarlierTagHeard)
    }
}

impl Ledger {
    /// Whether a view change is to be made only to give tags back.
    pub fn wants_return(&self, kept: usize) -> bool {
        self.may_return(kept) && self.count() >= self.returns.next
    }

    /// Whether a view change made for another reason gives tags back: there are many, and all
    /// members know of those given back before.
    pub fn may_return(&self, kept: usize) -> bool {
        self.count() >= kept && self.returns.named.is_empty()
    }

    /// Adds the tags that are not at rest at a member, as its report shows.
    fn note_busy(&self, report: &Report, busy: &mut BTreeSet<Tag>) {
        let reported: BTreeMap<Tag, &TagReport> =
            report.tags.iter().map(|tag| (tag.tag, tag)).collect();
        for (tag, floor) in self.tags() {
            let next = match reported.get(&tag) {
                Some(known) if is_active(Mutation::TagGivenBackTooEarly) => {
                    known.next.map(|_| floor)
                }
                Some(known) => known.next,
                // It has called nothing, and knows of no decision.
                None => Some(OpNumber(0)),
            };
            if next != Some(floor) {
                busy.insert(tag);
            }
        }
    }

    /// Tags that can be given back, once all reports are in and before anything is decided:
    /// outcomes decided now are yet to be reported.
    pub fn at_rest(&self, busy: &BTreeSet<Tag>) -> Vec<Tag> {
        let tags = self.tags().map(|(tag, _)| tag);
        let is_kept = |tag: &Tag| *tag == Tag::SHARED_STATE || self.open_of(*tag).is_some();
        tags.filter(|tag| !is_kept(tag) && !busy.contains(tag))
            .collect()
    }

    /// These tags restart in this view.
    pub fn give_back(&mut self, tags: &[Tag], vid: Vid, kept: usize) {
        for &tag in tags {
            self.forget_tag(tag);
            self.returns.named.insert(tag, vid);
        }
        // If many are in use, the next try is when half of the remaining room is used up.
        let most = limits::TAGS_MAX.min(2 * kept);
        let room = most.saturating_sub(self.count());
        self.returns.next = kept.max(self.count() + room.div_ceil(2).max(1));
    }

    /// Adds the tags that were given back before the newest view. Of a journal that ends before
    /// that view, only what a member of it confirms counts: the tag may have restarted since. The
    /// tag of shared state is never given back.
    pub fn take_base(&mut self, base: &Base) {
        if base.sealed.is_some_and(|sealed| sealed < base.newest) {
            let tags: Vec<Tag> = self.tags().map(|(tag, _)| tag).collect();
            let others = tags.into_iter().filter(|tag| *tag != Tag::SHARED_STATE);
            others.for_each(|tag| self.forget_tag(tag));
        }
        let named = base.given_back.iter();
        self.returns.named = named.map(|given| (given.tag, given.vid)).collect();
        for tag in base.tags {
            // Too many tags are the fault of the peer that claims them: its report contains them
            // too.
            let _ = self.learn(tag);
        }
    }
}

impl Group {
    /// A member reports at the end of a view.
    pub fn note_busy(&mut self, report: &Report) {
        if let Phase::Suspended(change) = &mut self.phase
            && let Some(busy) = &mut change.busy
        {
            self.ledger.note_busy(report, busy);
        }
    }
}
