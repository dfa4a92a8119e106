//! Checks an `Install` against what this peer knows for certain. It only compares.
//!
//! A contradiction means that the master is not the one it claims to be, or has lost what it sealed
//! (I4–I6).

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{OpNumber, PeerId, Rank, Tag};
use crate::limits;
use crate::wire::control::{Birth, Install, TagFloor};

use super::io::View;
use super::tags::{Stage, TagState, Tags};

/// What a peer knows for certain.
pub(super) struct Known<'a> {
    /// Its own id.
    pub me: PeerId,
    /// The newest view that it was in.
    pub view: Option<&'a View>,
    /// Whether the `Install` answers an `Attach`, and so may confirm that view.
    pub is_reply: bool,
    /// Safe points that were released.
    pub safe_released: u64,
    /// The state of its tags.
    pub tags: &'a Tags,
}

impl Known<'_> {
    /// Names the first contradiction.
    pub fn check(&self, install: &Install) -> Result<(), String> {
        self.check_view(install)?;
        check_members(install, self.me)?;
        if install.safe_released < self.safe_released {
            return Err("it takes a safe point back".into());
        }
        self.check_tags(install)
    }

    fn check_view(&self, install: &Install) -> Result<(), String> {
        let Some(view) = self.view else {
            return Ok(());
        };
        if install.vid < view.vid || (install.vid == view.vid && !self.is_reply) {
            return Err(format!("it follows view {}", view.vid));
        }
        if install.vid == view.vid && install.members != view.members {
            return Err("it has other members than before".into());
        }
        Ok(())
    }

    fn check_tags(&self, install: &Install) -> Result<(), String> {
        let floors: BTreeMap<Tag, &TagFloor> = install
            .floors
            .iter()
            .map(|sealed| (sealed.tag, sealed))
            .collect();
        let carried: BTreeMap<Tag, &Birth> = install
            .carried
            .iter()
            .map(|carried| (carried.op.tag, carried))
            .collect();
        if floors.len() != install.floors.len() || carried.len() != install.carried.len() {
            return Err("it names a tag twice".into());
        }
        if let Some(early) = carried
            .values()
            .find(|carried| carried.op.birth >= install.vid)
        {
            return Err(format!("{} is carried into its birth view", early.op));
        }
        let given_back = self.check_given_back(install)?;
        let state_of = |tag: &Tag| {
            let state = self.tags.get(*tag);
            state.filter(|_| !given_back.contains(tag))
        };
        for (tag, sealed) in &floors {
            if sealed.floor > NUMBER_MAX {
                return Err(format!("tag {tag} has counted to {}", sealed.floor));
            }
            if sealed.last_committed >= Some(sealed.floor) {
                return Err(format!("tag {tag} has a commit above its floor"));
            }
            if self.view.is_some() {
                let state = state_of(tag);
                check_floor(state, sealed).map_err(|what| format!("tag {tag} {what}"))?;
            }
        }
        for (tag, carried) in &carried {
            let known = state_of(tag).map(|state| state.floor);
            let floor = floors
                .get(tag)
                .map(|sealed| sealed.floor)
                .or(known)
                .unwrap_or_default();
            if carried.op.n > floor {
                return Err(format!("{} is carried above floor {floor}", carried.op));
            }
        }
        let new = TagState::default();
        for (tag, _) in self.tags.iter() {
            let state = state_of(&tag).unwrap_or(&new);
            let sealed = floors.get(&tag).map(|sealed| sealed.floor);
            let floor = sealed.max(Some(state.floor)).unwrap_or_default();
            let carried = carried
                .get(&tag)
                .copied()
                .filter(|carried| carried.op.n >= floor);
            if floor == state.floor || carried.is_some() {
                self.check_open(state, install, carried)?;
            }
        }
        Ok(())
    }

    /// Tags that restart with this view, for this peer. None of them has an operation here.
    fn check_given_back(&self, install: &Install) -> Result<BTreeSet<Tag>, String> {
        let mut tags = BTreeSet::new();
        for given in &install.given_back {
            if given.vid > install.vid {
                return Err(format!("tag {} is given back later", given.tag));
            }
            if self.view.is_none_or(|view| given.vid <= view.vid) {
                continue;
            }
            let call = self
                .tags
                .get(given.tag)
                .and_then(|state| state.call.as_ref());
            if call.is_some_and(|call| !matches!(call.stage, Stage::Waiting)) {
                return Err(format!("tag {} is given back in use", given.tag));
            }
            tags.insert(given.tag);
        }
        Ok(tags)
    }

    /// I5: what is open and not decided is carried under its name, with its members.
    fn check_open(
        &self,
        state: &TagState,
        install: &Install,
        carried: Option<&Birth>,
    ) -> Result<(), String> {
        let open = state.posted().filter(|posted| posted.op.n >= state.floor);
        match (open, carried) {
            (Some(posted), None) if posted.op.birth < install.vid => Err(format!(
                "{} is open here, but neither decided nor carried",
                posted.op
            )),
            (Some(posted), Some(carried)) if posted.op.n == carried.op.n => {
                if posted.op != carried.op || posted.members != carried.members {
                    return Err(format!("{} is carried as {}", posted.op, carried.op));
                }
                Ok(())
            }
            (_, Some(carried)) => {
                let is_behind = self.view.is_none() || state.next > carried.op.n;
                if is_behind || carried.members.contains(&self.me) {
                    return Ok(());
                }
                Err(format!("{} is carried without this peer", carried.op))
            }
            _ => Ok(()),
        }
    }
}

/// Highest number of a tag. None could follow a higher one.
const NUMBER_MAX: OpNumber = OpNumber(u64::MAX / 2);

/// I4 and I6 for one tag. An unknown tag begins at 0.
fn check_floor(state: Option<&TagState>, sealed: &TagFloor) -> Result<(), String> {
    let new = TagState::default();
    let state = state.unwrap_or(&new);
    if sealed.floor < state.sealed_floor {
        return Err(format!("falls below floor {}", state.sealed_floor));
    }
    if sealed.floor < state.floor {
        // The members know verdicts that the master does not know yet (R19).
        return Ok(());
    }
    if sealed.last_committed < state.last_committed {
        return Err(format!("takes back a commit below floor {}", state.floor));
    }
    if sealed.floor == state.floor && sealed.last_committed != state.last_committed {
        return Err("has another newest commit below the same floor".into());
    }
    let Some(n) = sealed
        .last_committed
        .filter(|_| sealed.last_committed > state.last_committed)
    else {
        return Ok(());
    };
    if state.next <= n {
        return Err(format!("committed {n}, never called here"));
    }
    match state.posted().filter(|posted| posted.op.n == n) {
        Some(posted) if !posted.held => Err(format!("committed {n}, whose result this peer lacks")),
        _ => Ok(()),
    }
}

fn check_members(install: &Install, me: PeerId) -> Result<(), String> {
    let count = install.members.len();
    if !install.members.iter().any(|member| member.peer == me) {
        return Err("this peer is not in it".into());
    }
    if count > limits::WORLD_SIZE_MAX {
        return Err(format!("it has {count} members"));
    }
    if !install
        .members
        .is_sorted_by(|one, next| one.number < next.number)
    {
        return Err("its members are not in the order of their admission".into());
    }
    let mut ring: Vec<Rank> = install.ring_order.clone();
    ring.sort_unstable();
    let is_ring = ring.len() == count && ring.iter().enumerate().all(|(i, rank)| rank.index() == i);
    if is_ring {
        Ok(())
    } else {
        Err("its ring does not pass every member once".into())
    }
}
