//! Fault-tolerant collective communication for training over links that fail.

pub mod buffer;
pub mod checkpoint;
pub mod collective;
pub mod communicator;
pub mod config;
pub mod descriptors;
pub mod driver;
pub mod error;
pub mod event;
pub mod ids;
pub mod limits;
pub mod lock;
pub mod master;
pub mod mutation;
pub mod names;
pub mod peer;
pub mod signals;
pub mod state;
pub mod time;
pub mod topology;
pub mod transport;
pub mod wire;

pub use ccl_reduce as reduce;
pub use checkpoint::Checkpoints;
pub use communicator::{
    Census, Communicator, Connecting, Counters, Handle, Hashes, Options, Outcome, Progress,
    RawHandle, RawPart, Request, SafePoint, Scope, ScopedHandle, SharedState, SyncHandle, SyncInfo,
    SyncOptions, SyncWatch,
};
pub use config::{CommunicatorConfig, MasterConfig, Timers};
pub use driver::master::MasterServer;
pub use driver::notice::Notices;
pub use error::{Error, Eviction, Result};
pub use half::{bf16, f16};
pub use ids::{GroupId, PeerId, Rank, Tag, Vid};
pub use names::Names;
pub use peer::View;
pub use reduce::{Dtype, Element, ReduceOp};
pub use state::Key;
pub use wire::control::{
    Algorithm, CancelReason, Digest, Kind, StateId, SyncFault, SyncStrategy, Wait,
};
