//! The messages between the parent and a training process.

use serde::{Deserialize, Serialize};

/// The first line to a training process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    /// Members that the first view waits for; 1 for newcomers.
    pub peers: usize,
    /// Fewest members to train with.
    pub peers_min: usize,
    /// Whether others have trained before: its state does not count.
    pub is_newcomer: bool,
    /// Decides weights and order of images.
    pub seed: u64,
    /// Passes over the images.
    pub epochs: usize,
    /// The master's `host:port`.
    pub master: String,
    /// What is to happen to it.
    pub fault: Option<Fault>,
}

/// Any later line to a training process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// The training may end once the images have been passed over so often. All end with the same
    /// step, if one of them was told.
    Finish,
    /// Leave the run before the next step, and end.
    Leave,
}

/// A signal that a process sends itself in the middle of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// The kind of fault.
    pub signal: FaultSignal,
    /// First step in which it may happen; a later one if the operation was too fast.
    pub step: usize,
    /// Share of the operation's bytes that have been moved then, from 0 to 1.
    pub share: f64,
}

/// Ways to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FaultSignal {
    /// SIGKILL: gone at once.
    Kill,
    /// SIGSTOP: alive but silent.
    Stop,
}

/// One line of a training process. Times are nanoseconds of the system's monotonic clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Note {
    /// It is a member.
    Joined {
        /// Its name in the run.
        peer: u64,
        /// Whether others have trained before.
        is_newcomer: bool,
        /// Rank of the peer.
        rank: u32,
        /// World size.
        world_size: usize,
    },
    /// It has the state that all members have.
    Synced {
        /// The step that comes next.
        step: usize,
        /// How many syncs there were before.
        revision: u64,
        /// The library's digest over the state.
        root: String,
        /// Whether it had the elected content before.
        had_it: bool,
        /// Bytes that came from other members.
        received_bytes: u64,
        /// Members that gave them.
        sources: usize,
    },
    /// A step was committed and applied.
    Step {
        /// Index of the step.
        step: usize,
        /// Digest of the weights after it.
        digest: String,
        /// Names in the run of those whose gradients are in it.
        contributors: Vec<u64>,
        /// Sum of the losses of this process's images, and their number.
        loss: f32,
        /// Images of this process.
        images: usize,
        /// Bytes sent and received since the start.
        moved_bytes: u64,
        /// When it was committed.
        at_ns: u64,
    },
    /// A step was aborted because a peer was lost; it is being repeated.
    Lost {
        /// Index of the step.
        step: usize,
        /// Name of the peer in the run.
        peer: u64,
        /// Whether it left of its own accord.
        has_left: bool,
        /// Why it is out.
        reason: String,
    },
    /// It is about to send itself the signal.
    Fault {
        /// The kind of fault.
        signal: FaultSignal,
        /// Step in which it happened.
        step: usize,
        /// Bytes of the operation that it had sent and received.
        done_bytes: u64,
        /// Bytes that it would have.
        total_bytes: u64,
        /// Time of the event.
        at_ns: u64,
    },
    /// It learned that it was evicted; it comes back as a newcomer.
    Evicted {
        /// Why the peer was lost.
        reason: String,
    },
    /// It was told to leave, and did.
    Left,
    /// It has trained to the end.
    Finished {
        /// Digest of the weights.
        digest: String,
        /// Share of the test images that it recognises.
        accuracy: f64,
        /// Members at the end.
        world_size: usize,
        /// Operations that were committed.
        commits: u64,
        /// Operations that were aborted.
        aborts: u64,
    },
    /// It could not go on.
    Failed {
        /// The error.
        error: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_survive_the_pipe() {
        let note = Note::Fault {
            signal: FaultSignal::Kill,
            step: 3,
            done_bytes: 1,
            total_bytes: 2,
            at_ns: 5,
        };
        let line = serde_json::to_string(&note).unwrap();
        assert!(
            line.starts_with(r#"{"event":"fault","signal":"kill""#),
            "{line}"
        );
        assert_eq!(serde_json::from_str::<Note>(&line).unwrap(), note);
    }
}
