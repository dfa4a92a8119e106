//! Threads of the library that call into Python. If the interpreter ends while one of them is
//! inside, the process is killed.
//!
//! The last step at exit (`ccl._exit`) is to close the door: it waits for the threads inside Python
//! and keeps out all others. There is no lock, because a forked child would inherit its state.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pyo3::prelude::*;

/// Calls `body` with Python; `None` if the interpreter is about to end.
pub fn attach<T>(body: impl FnOnce(Python<'_>) -> T) -> Option<T> {
    let _inside = Inside::enter()?;
    Python::try_attach(body)
}

/// Keeps out threads of the library from now on, and waits at most a second for those inside.
#[pyfunction]
pub fn close_door(py: Python<'_>) {
    IS_CLOSED.store(true, Ordering::SeqCst);
    py.detach(|| {
        let until = Instant::now() + CALLBACK_MAX;
        while INSIDE.load(Ordering::SeqCst) > 0 && Instant::now() < until {
            std::thread::sleep(LOOK_INTERVAL);
        }
    });
}

/// In a forked child, which has none of the threads that were inside.
#[pyfunction]
pub fn forget_inside() {
    INSIDE.store(0, Ordering::SeqCst);
}

/// A thread that is, or is about to be, in Python.
struct Inside;

impl Inside {
    fn enter() -> Option<Self> {
        // Counted before the door is checked; the door is closed before the count is checked.
        INSIDE.fetch_add(1, Ordering::SeqCst);
        let inside = Self;
        (!IS_CLOSED.load(Ordering::SeqCst)).then_some(inside)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.fetch_sub(1, Ordering::SeqCst);
    }
}

static INSIDE: AtomicUsize = AtomicUsize::new(0);
static IS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Longest time that the end of a process waits for callbacks of the application.
const CALLBACK_MAX: Duration = Duration::from_secs(1);
const LOOK_INTERVAL: Duration = Duration::from_millis(1);
