//! Waiting without blocking Python: other threads run, and Ctrl-C ends the wait.

use std::time::{Duration, Instant};

use ccl_core::{Notices, Waiting};
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::intern;
use pyo3::prelude::*;

/// Longest delay before a signal is handled. Python's own handler runs between two slices, on the
/// main thread only; 20 wake-ups a second cost nothing.
const SLICE: Duration = Duration::from_millis(50);

/// Longest that an interrupted call waits for its verdict: Ctrl-C has to be answered within 200 ms.
/// That is enough for the three round trips of an abort, if the master is reachable.
pub const VERDICT_MAX: Duration = Duration::from_millis(80);

/// Adds a note to the exception of a signal handler: the memory of the call is still in use.
pub fn note_in_use(py: Python<'_>, error: &PyErr) {
    let note = "ccl: the call is cancelled, and its memory in use until the master says so; the same \
                call, made again, waits for that, as does close()";
    add_note(py, error, note);
}

/// Adds a note to the exception of a signal handler: the operation of the handle goes on.
pub fn note_goes_on(py: Python<'_>, error: &PyErr) {
    // Other errors are the operation's, or already name it.
    if error.is_instance_of::<PyKeyboardInterrupt>(py) {
        let note = "ccl: the wait has ended, and the operation goes on; wait for the handle again, or \
                    end it for all members by cancel()";
        add_note(py, error, note);
    }
}

fn add_note(py: Python<'_>, error: &PyErr, note: &str) {
    let value = error.value(py);
    if let Err(failure) = value.call_method1(intern!(py, "add_note"), (note,)) {
        failure.write_unraisable(py, None);
    }
}

/// Calls `step`, which blocks at most for the given time, until it has a value. `None` if `timeout`
/// passes before.
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

/// As [`wait_for`], without a timeout.
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

/// As [`wait`], and regularly logs what it waits for.
///
/// # Errors
/// What a signal handler raised, such as `KeyboardInterrupt`, or a handler of the logger.
pub fn wait_telling<T: Send>(
    py: Python<'_>,
    waiting: impl Fn() -> Option<Waiting>,
    mut step: impl FnMut(Duration) -> Option<T> + Send,
) -> PyResult<T> {
    let (began, mut notices) = (Instant::now(), Notices::default());
    loop {
        if let Some(value) = py.detach(|| step(SLICE)) {
            return Ok(value);
        }
        py.check_signals()?;
        if let Some(words) = notices.next(waiting(), began.elapsed()) {
            py.import("ccl._log")?
                .call_method1(intern!(py, "tell"), (words,))?;
        }
    }
}
