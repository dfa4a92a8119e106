//! The Python package `ccl`: only translates between Python and `ccl-core`.
//!
//! Whatever can block lets other Python threads run and ends on Ctrl-C (`wait`). Memory is used in
//! place, without a copy (`memory`) unless it is on a device (`staged`), and is kept alive by the
//! operation (`flight`, or `sync` for shared state).

mod attach;
mod collectives;
mod command;
mod communicator;
mod connecting;
mod dlpack;
mod errors;
mod extract;
mod flight;
mod handle;
mod log;
mod master;
mod memory;
mod native;
mod notifier;
mod per_process;
mod pool;
mod results;
mod safe_point;
mod settings;
mod shared_state;
mod staged;
mod sync;
mod sync_handle;
mod tensor;
mod uninterrupted;
mod wait;

use pyo3::prelude::*;

/// Bindings of `ccl-core`; use them through the package `ccl`.
#[pymodule(name = "_native")]
mod ccl_native {
    #[pymodule_export]
    use crate::attach::{close_door, forget_inside};
    #[pymodule_export]
    use crate::command::run_command;
    #[pymodule_export]
    use crate::communicator::Communicator;
    #[pymodule_export]
    use crate::connecting::Connecting;
    #[pymodule_export]
    use crate::extract::TensorExtractor;
    #[pymodule_export]
    use crate::handle::Handle;
    #[pymodule_export]
    use crate::log::{log_close, log_level, log_lines};
    #[pymodule_export]
    use crate::master::Master;
    #[pymodule_export]
    use crate::notifier::call_soon;
    #[pymodule_export]
    use crate::results::{Counters, Outcome, Progress, StateId, View};
    #[pymodule_export]
    use crate::safe_point::SafePoint;
    #[pymodule_export]
    use crate::shared_state::{SharedState, newest_checkpoint};
    #[pymodule_export]
    use crate::sync_handle::{SyncHandle, SyncInfo};
    #[pymodule_export]
    use crate::uninterrupted::uninterrupted;

    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");
}
