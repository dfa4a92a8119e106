//! Posts that arrived before this peer posted the same.
//!
//! A peer can be one operation of a tag ahead of another (it heard the verdict earlier), so one
//! post a sender and tag is kept, the newest. Of what came with the posts a bounded number is kept:
//! beyond, the data is dropped and its receiver asks for it again when it gets there.

use std::collections::BTreeMap;

use super::operation::ArrivedPost;
use crate::ids::{OpName, PeerId, Tag};
use crate::limits;

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
            Some(newer) if (newer.0.n, newer.0.birth) >= (op.n, op.birth) => {
                posts.insert(op.tag, newer);
                return Ok(());
            }
            _ => {}
        }
        if posts.len() >= limits::TAGS_MAX {
            return Err("posts of more tags than there may be");
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
            } else if name.n > op.n {
                posts.insert(op.tag, (name, post));
            }
        }
        taken
    }

    pub(super) fn retain_peers(&mut self, is_neighbour: impl Fn(PeerId) -> bool) {
        self.peers.retain(|&peer, _| is_neighbour(peer));
    }

    pub(super) fn forget_peer(&mut self, peer: PeerId) {
        self.peers.remove(&peer);
    }
}
