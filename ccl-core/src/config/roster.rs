//! The members that a closed group is to have.

use std::collections::BTreeSet;

use blake3::Hasher;

use crate::error::Error;
use crate::ids::Rank;
use crate::limits;
use crate::wire::control::Place;

/// The members of a closed group in rank order, and this peer's own place among them.
///
/// The group forms once, when all of them have connected: with exactly these members, in this
/// order. Nobody joins it later, and its id is never used again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roster {
    /// A name for each member, unique within the list, 1 to 256 of them. The names mean nothing to
    /// the library; all members must give the same list.
    pub members: Vec<String>,
    /// This peer's index in the list, which is its rank.
    pub rank: u32,
}

impl Roster {
    /// Checks the list and the rank.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let size = self.members.len();
        if size == 0 || size > limits::WORLD_SIZE_MAX {
            let most = limits::WORLD_SIZE_MAX;
            return Err(Error::invalid(format!(
                "members must be a list of 1 to {most} names"
            )));
        }
        if self.rank as usize >= size {
            return Err(Error::invalid(format!(
                "rank must be below the number of members, {size}, but is {}",
                self.rank
            )));
        }
        let mut seen = BTreeSet::new();
        match self.members.iter().find(|member| !seen.insert(*member)) {
            Some(twice) => Err(Error::invalid(format!("members lists {twice:?} twice"))),
            None => Ok(()),
        }
    }

    /// This peer's place, as its `Hello` carries it.
    pub(crate) fn place(&self) -> Place {
        let mut hasher = Hasher::new_derive_key("ccl roster 1");
        for member in &self.members {
            hasher.update(&(member.len() as u64).to_le_bytes());
            hasher.update(member.as_bytes());
        }
        let mut digest = [0; 16];
        hasher.finalize_xof().fill(&mut digest);
        Place {
            roster: u128::from_le_bytes(digest),
            size: u32::try_from(self.members.len()).expect("validate allows 256 members"),
            rank: Rank(self.rank),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roster(members: &[&str], rank: u32) -> Roster {
        Roster {
            members: members.iter().map(ToString::to_string).collect(),
            rank,
        }
    }

    #[test]
    fn only_equal_lists_in_equal_order_are_the_same() {
        let place = |members: &[&str]| roster(members, 0).place();
        assert!(place(&["a", "b"]).has_same_list(&roster(&["a", "b"], 1).place()));
        for other in [&["b", "a"][..], &["ab"], &["a", "b", ""], &["a", "bc"]] {
            assert!(
                !place(&["a", "b"]).has_same_list(&place(other)),
                "{other:?}"
            );
        }
    }

    #[test]
    fn bad_lists_are_refused_with_what_is_wrong() {
        let error = |members: &[&str], rank| {
            let error = roster(members, rank).validate().expect_err("it is wrong");
            error.to_string()
        };
        assert!(error(&[], 0).contains("1 to 256 names"));
        assert!(error(&["a"], 1).contains("below the number of members, 1"));
        assert!(error(&["a", "b", "a"], 1).contains("lists \"a\" twice"));
        roster(&["a", "b"], 1).validate().expect("it is right");
    }
}
