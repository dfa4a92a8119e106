//! Notifies Python of the end of operations, without making the library's threads wait for it.
//!
//! One kind of thread releases what a call held, and another runs the application's callbacks, so
//! that the library never waits for a callback, while callbacks may wait for the library.

use std::sync::Arc;

use pyo3::prelude::*;

use crate::per_process::PerProcess;
use crate::pool::Pool;

/// A call whose end Python code may wait for.
pub trait Call: Send + Sync {
    /// The call has ended: releases what it held, and notifies those that wait for it.
    fn settle(&self, py: Python<'_>);
}

/// Settles a call that has ended, soon, on a thread of the library. Does not block.
pub fn settle(call: Arc<dyn Call>) {
    let settle = move |py: Python<'_>| {
        call.settle(py);
        drop(call);
    };
    pools().ends.submit(Box::new(settle));
}

/// Calls each without arguments, soon, one after the other, on a thread that it may block. Errors
/// are printed and ignored.
pub fn tell(callbacks: Vec<Py<PyAny>>) {
    if callbacks.is_empty() {
        return;
    }
    let tell = move |py: Python<'_>| call_each(py, callbacks);
    pools().callbacks.submit(Box::new(tell));
}

/// Calls each without arguments, now. They are short and never block.
pub fn call_each(py: Python<'_>, callbacks: Vec<Py<PyAny>>) {
    for callback in callbacks {
        if let Err(error) = callback.call0(py) {
            error.write_unraisable(py, Some(callback.bind(py)));
        }
    }
}

/// Calls `callback()` soon, on a thread that it may block.
#[pyfunction]
pub fn call_soon(callback: Py<PyAny>) {
    tell(vec![callback]);
}

#[derive(Debug)]
struct Pools {
    ends: Pool,
    callbacks: Pool,
}

impl Pools {
    const fn new() -> Self {
        Self {
            // One thread keeps the order of the ends, unless a device makes it wait.
            ends: Pool::new("ccl-notify", 1),
            callbacks: Pool::new("ccl-callback", 2),
        }
    }
}

/// The threads of this process.
fn pools() -> &'static Pools {
    static POOLS: PerProcess<Pools> = PerProcess::new(Pools::new());
    POOLS.get(Pools::new)
}
