//! Waiting without holding Python up: other threads run, and Ctrl-C ends the wait.

use std::time::{Duration, Instant};

use pyo3::prelude::*;

/// Longest that a signal is left unanswered. Python's own handler runs between two slices, on the
/// main thread only; 20 wake-ups a second cost nothing.
const SLICE: Duration = Duration::from_millis(50);

/// Calls `step`, which blocks at most as long as it is told, until it has a value. `None` if
/// `timeout` passes before.
///
/// # Errors
/// What a signal handler raised, such as `KeyboardInterrupt`.
pub fn wait_for<T: Send>(
    py: Python<'_>,
    timeout: Option<Duration>,
    mut step: impl FnMut(Duration) -> Option<T> + Send,
) -> PyResult<Option<T>> {
    let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        let left = until.map_or(SLICE, |until| {
            until.saturating_duration_since(Instant::now())
        });
        let is_last = left.is_zero();
        if let Some(value) = py.detach(|| step(left.min(SLICE))) {
            return Ok(Some(value));
        }
        py.check_signals()?;
        if is_last {
            return Ok(None);
        }
    }
}

/// As [`wait_for`], for ever.
///
/// # Errors
/// What a signal handler raised, such as `KeyboardInterrupt`.
pub fn wait<T: Send>(
    py: Python<'_>,
    step: impl FnMut(Duration) -> Option<T> + Send,
) -> PyResult<T> {
    let value = wait_for(py, None, step)?;
    Ok(value.expect("without a timeout it ends with a value or an error"))
}
