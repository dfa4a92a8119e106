//! Tags that are given back (R2): where each numbering of a tag begins, and that no host has an
//! operation of one that ends.

use std::ops::Range;

use ccl_core::master::Record;

use super::*;

impl Checkers {
    /// A host learns which tags begin anew.
    ///
    /// # Errors It has an open operation of one of them, or learns it from an older view.
    pub(super) fn hears_given_back(
        &mut self,
        host: &Host,
        install: &Install,
    ) -> Result<(), String> {
        let Some(run) = host.run else {
            return Ok(());
        };
        for given in &install.given_back {
            ensure(given.vid <= install.vid, || {
                format!("tag {} is given back in a view to come", given.tag)
            })?;
            let key = (run, host.group, given.tag);
            self.given_back.entry(key).or_default().insert(given.vid);
            if host.view.is_none() || given.vid <= host.vid() {
                continue;
            }
            let mut open = open_operations(host).filter_map(|operation| operation.started);
            let open = open.find(|op| op.tag == given.tag);
            ensure(open.is_none(), || {
                format!("tag {} is given back in the middle of {open:?}", given.tag)
            })?;
        }
        Ok(())
    }

    /// The master seals a view. If it has no members, none learns what begins anew in it.
    pub fn note_emptied(&mut self, record: &Record) {
        if let Record::ViewSealed(view) = record
            && view.members.is_empty()
        {
            let tags = view.given_back.iter().filter(|given| given.vid == view.vid);
            let tags = tags.map(|given| given.tag).collect();
            self.emptied.insert((view.group, view.vid), tags);
        }
    }

    /// The view without members is in force.
    pub(super) fn emptied(&mut self, group: GroupId, vid: Vid) {
        for tag in self.emptied.remove(&(group, vid)).unwrap_or_default() {
            let key = (self.run, group, tag);
            self.given_back.entry(key).or_default().insert(vid);
        }
    }

    /// A master finds in its journal which tags begin anew, whether or not any host has learned it.
    pub fn reads_given_back(&mut self, journal: &[Record]) {
        for record in journal {
            let Record::ViewSealed(view) = record else {
                continue;
            };
            for given in &view.given_back {
                let key = (self.run, view.group, given.tag);
                self.given_back.entry(key).or_default().insert(given.vid);
            }
        }
    }

    /// The numbering to which an operation belongs whose outcome is told, or which was born, in a
    /// view.
    #[must_use]
    pub fn outcome_key(&self, (run, group): (usize, GroupId), op: OpName, at: Vid) -> OutcomeKey {
        // Members that were all lost may have known commits that no master learned.
        let foundings = self.foundings.get(&(run, group));
        let founded = foundings.and_then(|founded| founded.range(..=at).next_back());
        let founded = founded.map(|(vid, _)| *vid).unwrap_or_default();
        let begun = self.numbering((run, group, op.tag), at).start.max(founded);
        (run, group, (op.tag, begun), op.n)
    }

    /// The births of the operations that a tag's numbers stand for in a view.
    #[must_use]
    pub fn numbering(&self, (run, group, tag): (usize, GroupId, Tag), at: Vid) -> Range<Vid> {
        let never = Vid {
            term: Term(u32::MAX),
            epoch: Epoch(u32::MAX),
        };
        let Some(begun) = self.given_back.get(&(run, group, tag)) else {
            return Vid::default()..never;
        };
        let from = begun.range(..=at).next_back();
        let next = begun.iter().find(|begun| **begun > at);
        from.copied().unwrap_or_default()..next.copied().unwrap_or(never)
    }
}

/// Tags that begin anew for a host that comes from this view.
pub(super) fn new_tags(install: &Install, from: Vid) -> impl Iterator<Item = Tag> {
    let given_back = install.given_back.iter();
    given_back
        .filter(move |given| given.vid > from)
        .map(|given| given.tag)
}
