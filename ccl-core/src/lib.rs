//! Fault-tolerant collective communication for training over links that fail.
//!
//! Peers reduce among themselves; a small master decides who is a member and which results count. A
//! peer may die, hang or be cut off at any moment: the survivors agree on what happened, keep their
//! inputs, and continue. Newcomers join between operations.
//!
//! The three main types:
//!
//! - [`MasterServer`]: the run's master, usually a process of its own (`ccl master`).
//! - [`Communicator`]: a member of the run. Its collectives block, or return a [`Handle`]
//!   (`…_async`), which is also a future, or live in a [`Communicator::scope`] on borrowed buffers.
//! - [`SharedState`]: named buffers that all members hold with the same bits.
//!
//! # Example
//!
//! A master and two peers in one process; each peer runs three collectives at once.
//!
//! ```
//! use ccl_core::{Communicator, CommunicatorConfig, MasterConfig, MasterServer};
//! use ccl_core::{Options, Rank, ReduceOp, Result, Tag};
//!
//! fn run_peer(master: String) -> Result<()> {
//!     let config = CommunicatorConfig {
//!         master,
//!         initial_world_size: Some(2),
//!         ..CommunicatorConfig::default()
//!     };
//!     let communicator = Communicator::connect(config)?;
//!     // Operations of one tag run one after the other; of different tags, side by side.
//!     let tagged = |tag| Options { tag: Tag(tag), ..Options::default() };
//!     let rank = communicator.rank().0;
//!     let gradients = vec![rank as f32; 1000];
//!     let gradients = communicator.all_reduce_async(gradients, ReduceOp::Avg, &tagged(0));
//!     let losses = communicator.all_gather_async(vec![rank], vec![0; 2], &tagged(1));
//!     let seed = communicator.broadcast_async(vec![40 + rank], Rank(1), &tagged(2));
//!     let (gradients, end) = gradients.wait();
//!     assert_eq!(end?.contributors.len(), 2); // whose data is in the result
//!     assert_eq!(gradients[0], 0.5);
//!     let ((_, losses), end) = losses.wait();
//!     end?;
//!     assert_eq!(losses, [0, 1]);
//!     let (seed, end) = seed.wait();
//!     end?;
//!     assert_eq!(seed, [41]);
//!     communicator.leave()
//! }
//!
//! # fn main() -> Result<()> {
//! let master = MasterServer::start(
//!     MasterConfig {
//!         listen: ([127, 0, 0, 1], 0).into(), // port 0: the system chooses
//!         new_run: true,                      // do not wait for an earlier run
//!         ..MasterConfig::default()
//!     },
//!     None,
//! )?;
//! let peers = [(); 2].map(|()| {
//!     let address = master.address().to_string();
//!     std::thread::spawn(move || run_peer(address))
//! });
//! for peer in peers {
//!     peer.join().expect("a peer does not panic")?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Guarantees and limits
//!
//! - An operation ends the same way on all members: committed with the same bytes and the same list
//!   of contributors, or aborted for all. A peer that cannot know the outcome gets
//!   [`Error::Unknown`], and its session is over.
//! - Until the commit, and after an error, the input buffer holds the caller's input.
//! - Every call ends, at the latest shortly after its deadline. [`Error`] says what to do;
//!   [`Error::is_retryable`] says whether to call again.
//! - Results have the same bits on all members: elements combine in rank order.
//! - Traffic is not encrypted. There is no protection against malicious peers.
//!
//! `docs/failure-model.md` has the full list, and how each failure is detected and reported;
//! `docs/performance.md` covers tuning for fast links with high latency.

pub mod checkpoint;
pub mod error;
pub mod event;
pub mod ids;
pub mod limits;

// Used by the other crates of this workspace. Not a stable API.
#[doc(hidden)]
pub mod buffer;
#[doc(hidden)]
pub mod collective;
#[doc(hidden)]
pub mod communicator;
#[doc(hidden)]
pub mod config;
#[doc(hidden)]
pub mod descriptors;
#[doc(hidden)]
pub mod driver;
#[doc(hidden)]
pub mod lock;
#[doc(hidden)]
pub mod master;
#[doc(hidden)]
pub mod mutation;
#[doc(hidden)]
pub mod names;
#[doc(hidden)]
pub mod net;
#[doc(hidden)]
pub mod outcome;
#[doc(hidden)]
pub mod paths;
#[doc(hidden)]
pub mod peer;
#[doc(hidden)]
pub mod signals;
#[doc(hidden)]
pub mod state;
#[doc(hidden)]
pub mod time;
#[doc(hidden)]
pub mod timers;
#[doc(hidden)]
pub mod topology;
#[doc(hidden)]
pub mod transport;
#[doc(hidden)]
pub mod wire;

pub use ccl_reduce as reduce;
pub use checkpoint::{Checkpoints, Loaded};
pub use communicator::{
    Census, Collective, Communicator, Connecting, Handle, Hashes, Options, RawHandle, RawPart,
    RecordHandle, RecordOptions, Request, SafePoint, Scope, ScopedHandle, SharedState, SyncHandle,
    SyncInfo, SyncOptions, SyncWatch,
};
pub use config::{CommunicatorConfig, MasterConfig, Roster};
pub use driver::master::MasterServer;
pub use driver::peer::notice::{Notices, Waiting};
pub use error::{Error, ErrorKind, Eviction, Result};
pub use half::{bf16, f16};
pub use ids::{GroupId, MemberNumber, PeerId, Rank, Step, StreamId, Tag, Vid};
pub use master::{GroupStatus, PeerStatus, Status};
pub use names::Names;
pub use outcome::{Counters, LinkState, Outcome, Progress, Recorded};
pub use paths::Paths;
pub use peer::View;
pub use reduce::{Dtype, Element, Encoding, ReduceOp};
pub use state::Key;
pub use timers::Timers;
pub use wire::control::{
    Algorithm, CancelReason, Digest, Kind, StateId, StepEntry, SyncFault, SyncStrategy, Wait,
};
