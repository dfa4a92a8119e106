//! TCP connections, listening ports, and their options.
//!
//! Used by links between peers and by connections to the master. It moves bytes and knows
//! addresses, but neither frames nor peers. Nothing here blocks; waiting is `async`.

mod dial;
mod host;
mod info;
mod listen;
mod options;
mod pace;
mod stream;

pub use dial::{connect, plain};
pub use host::{is_of_this_host, is_same_host, source_towards};
pub use info::{Condition, condition};
pub use listen::{Bound, Port};
pub use options::{
    LONG_PATH, Tuned, Tuning, keep_alive, pace, reset_on_close, send_buffer_bytes_autotuned,
    set_congestion_control, tune,
};
pub use pace::{Backoff, Warnings};
pub use stream::{Stream, is_pause};
