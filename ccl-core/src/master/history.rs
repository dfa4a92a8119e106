//! What the journal of an earlier master says, read once at the start.

use std::collections::BTreeMap;

use super::record::{Record, Registration, SealedView};
use crate::ids::{GroupId, MemberNumber, PeerId, RunId, Tag, Term};
use crate::wire::control::TagFloor;

/// The state that the sealed history adds up to.
#[derive(Debug, Default)]
pub(super) struct History {
    pub run_id: Option<RunId>,
    pub term: Term,
    /// Sessions that had not ended.
    pub sessions: BTreeMap<PeerId, Registration>,
    /// The newest view of each group, with what happened since.
    pub groups: BTreeMap<GroupId, SealedView>,
    /// What the next admitted peer of each group is numbered.
    pub next_numbers: BTreeMap<GroupId, MemberNumber>,
    /// Greater than every peer id given so far.
    pub next_peer: PeerId,
}

impl History {
    /// Adds the records up, oldest first.
    pub fn read(records: &[Record]) -> Self {
        let mut history = Self::default();
        records.iter().for_each(|record| history.add(record));
        history
    }

    fn add(&mut self, record: &Record) {
        match record {
            Record::RunFounded { run_id, .. } => self.run_id = Some(*run_id),
            Record::TermBegan { term } => self.term = self.term.max(*term),
            Record::SessionRegistered(registration) => {
                self.see(registration.peer);
                self.sessions
                    .insert(registration.peer, registration.clone());
            }
            Record::SessionEnded { peer, .. } => {
                self.sessions.remove(peer);
            }
            Record::ViewSealed(sealed) => self.add_view(sealed),
            Record::Committed { group, commits } => {
                let Some(view) = self.groups.get_mut(group) else {
                    return;
                };
                for commit in commits {
                    let floor = floor_of(view, commit.op.tag);
                    if commit.op.n >= floor.floor {
                        floor.floor = commit.op.n.next();
                        floor.last_committed = Some(commit.op.n);
                        floor.absent.clear();
                    }
                }
            }
            Record::SafePoint { group, k, .. } => {
                if let Some(view) = self.groups.get_mut(group) {
                    view.safe_released = view.safe_released.max(k + 1);
                }
            }
        }
    }

    fn add_view(&mut self, sealed: &SealedView) {
        for (peer, _) in &sealed.departed {
            self.sessions.remove(peer);
        }
        let next = self.next_numbers.entry(sealed.group).or_default();
        for known in &sealed.members {
            next.0 = next.0.max(known.member.number.0 + 1);
        }
        for known in &sealed.members {
            self.see(known.member.peer);
            self.sessions
                .entry(known.member.peer)
                .or_insert_with(|| Registration {
                    peer: known.member.peer,
                    session: known.session,
                    group: sealed.group,
                    unit: known.member.unit,
                    addresses: known.member.addresses.clone(),
                    key: known.member.key,
                    min_world: 1,
                });
        }
        self.groups.insert(sealed.group, sealed.clone());
    }

    fn see(&mut self, peer: PeerId) {
        self.next_peer = self.next_peer.max(PeerId(peer.0 + 1));
    }
}

fn floor_of(view: &mut SealedView, tag: Tag) -> &mut TagFloor {
    let index = match view.floors.binary_search_by_key(&tag, |floor| floor.tag) {
        Ok(index) => index,
        Err(index) => {
            view.floors.insert(
                index,
                TagFloor {
                    tag,
                    floor: Default::default(),
                    last_committed: None,
                    absent: Vec::new(),
                    reasons: Vec::new(),
                },
            );
            index
        }
    };
    &mut view.floors[index]
}
