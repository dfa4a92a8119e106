//! Posts that arrived before this peer made the same call.
//!
//! A peer that hears a verdict earlier can be one operation ahead, so the newest post per sender
//! and tag is kept. Data that came with posts is kept up to a limit; beyond that it is dropped, and
//! the receiver asks for it again when it needs it.

use std::collections::BTreeMap;

use super::operation::ArrivedPost;
use crate::ids::{OpName, OpNumber, PeerId, Tag, Vid};
use crate::limits;
use crate::mutation::{Mutation, is_active};

/// The posts, by sender and tag.
#[derive(Debug)]
pub(super) struct KeptPosts {
    bodies_max: usize,
    peers: BTreeMap<PeerId, BTreeMap<Tag, (OpName, ArrivedPost)>>,
}

impl KeptPosts {
    /// Without posts. A sender may have `eager_ops_max` operations with data open, and as many that
    /// were aborted before this peer came to them.
    pub(super) fn new(eager_ops_max: usize) -> Self {
        Self {
            bodies_max: 2 * eager_ops_max,
            peers: BTreeMap::new(),
        }
    }

    /// Keeps a post, unless a newer one of its tag is here.
    pub(super) fn keep(
        &mut self,
        from: PeerId,
        op: OpName,
        mut post: ArrivedPost,
    ) -> Result<(), &'static str> {
        let posts = self.peers.entry(from).or_default();
        match posts.remove(&op.tag) {
            Some(newer) if order(newer.0) >= order(op) => {
                posts.insert(op.tag, newer);
                return Ok(());
            }
            _ => {}
        }
        if posts.len() >= limits::TAGS_MAX {
            return Err("posts on too many tags");
        }
        let bodies = posts.values().filter(|(_, post)| !post.body.is_empty());
        if !post.body.is_empty() && bodies.count() >= self.bodies_max {
            post.body.clear();
            post.is_body_lost = true;
        }
        posts.insert(op.tag, (op, post));
        Ok(())
    }

    /// Takes out the posts of an operation, and drops those of the same tag that can never be
    /// started.
    pub(super) fn take(&mut self, op: OpName) -> Vec<(PeerId, ArrivedPost)> {
        let mut taken = Vec::new();
        for (&peer, posts) in &mut self.peers {
            let Some((name, post)) = posts.remove(&op.tag) else {
                continue;
            };
            if name == op {
                taken.push((peer, post));
            } else if order(name) > order(op) {
                posts.insert(op.tag, (name, post));
            }
        }
        taken
    }

    /// Drops the posts of operations that are over.
    pub(super) fn retain(&mut self, goes_on: impl Fn(OpName) -> bool) {
        for posts in self.peers.values_mut() {
            posts.retain(|_, (op, _)| goes_on(*op));
        }
    }

    pub(super) fn retain_peers(&mut self, is_neighbour: impl Fn(PeerId) -> bool) {
        self.peers.retain(|&peer, _| is_neighbour(peer));
    }

    pub(super) fn forget_peer(&mut self, peer: PeerId) {
        self.peers.remove(&peer);
    }
}

/// Operations of a tag in the order in which they begin. A later one is born in the same view or a
/// later one, even if the tag was returned in between and its numbers restarted.
pub(super) fn order(op: OpName) -> (Vid, OpNumber) {
    if is_active(Mutation::PostsOrderedByNumber) {
        return (Vid::default(), op.n);
    }
    (op.birth, op.n)
}
