//! TCP connections, the ports they come in at, and their options.
//!
//! Links between peers and connections to the master both use it. It moves bytes and knows
//! addresses; it knows neither frames nor peers. Nothing here blocks: whoever has to wait, awaits.

mod dial;
mod host;
mod listen;
mod options;
mod pace;
mod stream;

pub use dial::{connect, plain};
pub use host::{is_of_this_host, is_same_host, source_towards};
pub use listen::{Bound, Port};
pub use options::{Tuned, Tuning, keep_alive, reset_on_close, tune};
pub use pace::{Backoff, Warnings};
pub use stream::{Stream, is_pause};
