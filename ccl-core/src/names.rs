//! The names of peers, for messages to people. No decision depends on a name.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::ids::PeerId;

/// The known names of peers, each with its address. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(Arc<BTreeMap<PeerId, String>>);

impl Names {
    /// Adds names; for one peer the newest counts.
    pub fn learn(&mut self, names: impl IntoIterator<Item = (PeerId, String)>) {
        for (peer, name) in names {
            if self.0.get(&peer) != Some(&name) {
                Arc::make_mut(&mut self.0).insert(peer, name);
            }
        }
    }

    /// Keeps only the names of the `most` newest peers.
    pub fn forget_old(&mut self, most: usize) {
        while self.0.len() > most {
            Arc::make_mut(&mut self.0).pop_first();
        }
    }

    /// The name alone, if it is known.
    #[must_use]
    pub fn get(&self, peer: PeerId) -> Option<&str> {
        self.0.get(&peer).map(String::as_str)
    }

    /// In a sentence: `peer 3 (node7:4242, 10.0.0.7:40123)`.
    #[must_use]
    pub fn of(&self, peer: PeerId) -> Named<'_> {
        Named {
            peer,
            name: self.get(peer),
        }
    }

    /// Several in a sentence, with commas and an `and`.
    #[must_use]
    pub fn list<'a>(&'a self, peers: &'a [PeerId]) -> Listed<'a> {
        Listed { names: self, peers }
    }
}

impl FromIterator<(PeerId, String)> for Names {
    fn from_iter<I: IntoIterator<Item = (PeerId, String)>>(names: I) -> Self {
        Self(Arc::new(names.into_iter().collect()))
    }
}

/// See [`Names::of`].
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    peer: PeerId,
    name: Option<&'a str>,
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer {}", self.peer)?;
        match self.name {
            Some(name) => write!(f, " ({name})"),
            None => Ok(()),
        }
    }
}

/// See [`Names::list`].
#[derive(Clone, Copy, Debug)]
pub struct Listed<'a> {
    names: &'a Names,
    peers: &'a [PeerId],
}

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, &peer) in self.peers.iter().enumerate() {
            let separator = match index {
                0 => "",
                _ if index + 1 == self.peers.len() => " and ",
                _ => ", ",
            };
            write!(f, "{separator}{}", self.names.of(peer))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_peers_have_their_name_and_others_their_number() {
        let mut names = Names::default();
        names.learn([(PeerId(1), "one".into()), (PeerId(2), "two".into())]);
        let peers = [PeerId(1), PeerId(2), PeerId(3)];
        let list = |count| names.list(&peers[..count]).to_string();
        assert_eq!(list(0), "");
        assert_eq!(list(2), "peer 1 (one) and peer 2 (two)");
        assert_eq!(list(3), "peer 1 (one), peer 2 (two) and peer 3");
    }

    #[test]
    fn the_oldest_names_are_forgotten_first() {
        let mut names: Names = (0..5).map(|peer| (PeerId(peer), "name".into())).collect();
        names.forget_old(2);
        assert_eq!(names.get(PeerId(2)), None);
        assert_eq!(names.get(PeerId(3)), Some("name"));
    }
}
