//! One operation in progress, and what it keeps alive: its memory and its callbacks.
#![allow(unsafe_code)]

use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use ccl_core::lock::Mutex;
use ccl_core::{
    Collective, Communicator, Error, Options, Outcome, RawHandle, RawPart, Request, Tag,
};
use pyo3::prelude::*;

use crate::errors::raise;
use crate::memory::{Keep, Memory};
use crate::notifier::{self, Call};
use crate::staged::Staged;
use crate::wait;

/// The memory of an operation.
#[derive(Debug)]
pub struct Part {
    /// This peer's contribution; `None`: `receive`, in place.
    pub send: Option<Memory>,
    /// Memory for the result.
    pub receive: Memory,
    /// Elements as `ccl_core::RawPart` counts them.
    pub count: usize,
}

/// A collective, without its buffers.
#[derive(Debug)]
pub struct Plan {
    /// Which collective.
    pub collective: Collective,
    /// Tag, deadline, algorithm, retry.
    pub options: Options,
}

/// An operation in progress. It must not be dropped before its end: instead call
/// [`Flight::leave_to_itself`].
#[derive(Debug)]
pub struct Flight {
    raw: RawHandle,
    keeps: Mutex<Vec<Keep>>,
    staged: Staged,
    /// Callbacks of this package, which never block.
    own_callbacks: Mutex<Vec<Py<PyAny>>>,
    callbacks: Mutex<Vec<Py<PyAny>>>,
}

impl Flight {
    /// Starts a collective.
    ///
    /// # Errors
    /// `InvalidArgument`, `InvalidUsage` and the fatal ones.
    pub fn start(
        py: Python<'_>,
        communicator: &Communicator,
        plan: Plan,
        parts: Vec<Part>,
    ) -> PyResult<Arc<Self>> {
        let mut keeps = Vec::with_capacity(parts.len());
        let mut raw_parts = Vec::with_capacity(parts.len());
        for part in parts {
            let receive = part.receive.address as *mut u8;
            let send = part.send.as_ref();
            raw_parts.push(RawPart {
                send: send.map_or(receive.cast_const(), |send| send.address as *const u8),
                receive,
                count: part.count,
                dtype: part.receive.dtype,
            });
            keeps.push(part.receive.keep);
            keeps.extend(part.send.map(|send| send.keep));
        }
        let staged = Staged::of(py, &keeps)?;
        let request = Request {
            collective: plan.collective,
            parts: raw_parts,
            options: plan.options,
        };
        // Pointers are not `Send`, and this one goes nowhere.
        let request = Lent(request);
        // SAFETY: `keeps` holds the memory until the operation has ended. That Python code does not
        // touch it meanwhile is what the documentation asks of it; races on numbers are all that
        // comes of it.
        let started = py.detach(|| unsafe { communicator.raw_async(request.take()) });
        let raw = started.map_err(|error| raise(py, &error))?;
        Ok(Arc::new(Self {
            raw,
            keeps: Mutex::new(keeps),
            staged,
            own_callbacks: Mutex::default(),
            callbacks: Mutex::default(),
        }))
    }

    /// Waits for its end, at most `timeout` seconds if that is given.
    ///
    /// # Errors
    /// Why it was not committed, `Timeout`, or what a signal handler raised.
    pub fn wait(&self, py: Python<'_>, timeout: Option<Duration>) -> PyResult<Outcome> {
        let end = wait::wait_for(py, timeout, |slice| self.look(slice))?;
        let Some(end) = end else {
            return Err(raise(py, &Error::Timeout));
        };
        let settled = self.staged.settle(py, end.is_ok());
        self.release(py);
        let outcome = end.map_err(|error| raise(py, &error))?;
        settled?;
        self.staged.join(py)?;
        Ok(outcome)
    }

    /// As `wait` without a timeout, but a signal handler that raises cancels it. If its verdict
    /// does not come soon, it is still in progress when this returns.
    ///
    /// # Errors
    /// Why it was not committed, or what a signal handler raised.
    pub fn wait_or_cancel(self: &Arc<Self>, py: Python<'_>) -> PyResult<Outcome> {
        let result = self.wait(py, None);
        if !self.is_finished() {
            self.cancel();
            let verdict = py.detach(|| self.look(wait::VERDICT_MAX));
            self.leave_to_itself();
            if let (None, Err(error)) = (verdict, &result) {
                wait::note_in_use(py, error);
            }
        }
        result
    }

    fn look(&self, timeout: Duration) -> Option<ccl_core::Result<Outcome>> {
        match self.raw.wait_for(timeout) {
            Err(Error::Timeout) => None,
            end => Some(end),
        }
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        self.raw.is_finished()
    }

    /// Whether it has ended. If so, the current streams wait for its results.
    ///
    /// # Errors
    /// What a device raises.
    pub fn is_done(&self, py: Python<'_>) -> PyResult<bool> {
        if !self.is_finished() {
            return Ok(false);
        }
        self.staged.settle(py, self.is_success())?;
        self.staged.join(py)?;
        Ok(true)
    }

    /// Whether it has ended well.
    fn is_success(&self) -> bool {
        matches!(self.look(Duration::ZERO), Some(Ok(_)))
    }

    /// Whether its end has not been handled yet.
    pub fn is_open(&self) -> bool {
        !self.is_finished() || self.staged.is_open()
    }

    /// The first memory of the library's own that it used. The operation has ended.
    pub fn take_own(&self) -> Option<Box<[f64]>> {
        self.keeps.lock().drain(..).find_map(|keep| match keep {
            Keep::Own { elements } => Some(elements),
            Keep::Object { .. } | Keep::Buffer { .. } | Keep::Staged { .. } => None,
        })
    }

    /// Asks to abort it for all members.
    pub fn cancel(&self) {
        self.raw.cancel();
    }

    /// Its progress.
    pub fn progress(&self) -> ccl_core::Progress {
        self.raw.progress()
    }

    /// Calls `callback` without arguments once it has ended, on a thread that it may block.
    pub fn add_callback(self: &Arc<Self>, callback: Py<PyAny>) {
        self.callbacks.lock().push(callback);
        self.leave_to_itself();
    }

    /// Calls `callback` without arguments once it has ended, on a thread that it must not block.
    pub fn add_own_callback(self: &Arc<Self>, callback: Py<PyAny>) {
        self.own_callbacks.lock().push(callback);
        self.leave_to_itself();
    }

    /// Keeps it, and its memory, until it has ended.
    pub fn leave_to_itself(self: &Arc<Self>) {
        let waker = Waker::from(Arc::clone(self));
        if self.raw.poll(&Context::from_waker(&waker)).is_ready() {
            waker.wake();
        }
    }

    /// Releases Python's memory; the library's own stays, for reading the result.
    fn release(&self, _py: Python<'_>) {
        let mut keeps = self.keeps.lock();
        let is_own = |keep: &mut Keep| matches!(keep, Keep::Own { .. });
        let foreign: Vec<Keep> = keeps.extract_if(.., |keep| !is_own(keep)).collect();
        // Releasing them may run any code of their owners, so not under the lock.
        drop(keeps);
        drop(foreign);
    }
}

/// Operations that can no longer be waited for: a signal handler ended the call before the verdict,
/// or the handle was dropped.
#[derive(Debug, Default)]
pub struct Abandoned(Mutex<Vec<(Tag, Arc<Flight>)>>);

impl Abandoned {
    /// Keeps an operation for which its caller no longer waits.
    pub fn add(&self, tag: Tag, flight: &Arc<Flight>) {
        self.0.lock().push((tag, Arc::clone(flight)));
    }

    /// Waits until those of a tag have ended, so that the same call can be made again.
    ///
    /// # Errors
    /// What a signal handler raised.
    pub fn wait(&self, py: Python<'_>, tag: Tag) -> PyResult<()> {
        while let Some(flight) = self.find(tag) {
            // Its result belongs to its caller.
            let _ = wait::wait(py, |slice| flight.look(slice))?;
        }
        Ok(())
    }

    fn find(&self, tag: Tag) -> Option<Arc<Flight>> {
        let mut flights = self.0.lock();
        let ended: Vec<_> = flights
            .extract_if(.., |(_, flight)| flight.is_finished())
            .collect();
        let mut left = flights.iter();
        let of_tag = left
            .find(|(other, _)| *other == tag)
            .map(|(_, flight)| Arc::clone(flight));
        // Dropping the last reference frees memory of Python, which may run any code: not under the
        // lock.
        drop(flights);
        drop(ended);
        of_tag
    }
}

impl Call for Flight {
    fn settle(&self, py: Python<'_>) {
        let settled = self.staged.settle(py, self.is_success());
        // Callbacks take the end for the end.
        if let Err(error) = settled.and_then(|()| self.staged.wait(py)) {
            error.write_unraisable(py, None);
        }
        self.release(py);
        notifier::tell(std::mem::take(&mut *self.callbacks.lock()));
        let own = std::mem::take(&mut *self.own_callbacks.lock());
        notifier::call_each(py, own);
    }
}

/// Woken by an I/O thread of the library, which must not wait for Python.
impl Wake for Flight {
    fn wake(self: Arc<Self>) {
        notifier::settle(self);
    }
}

/// A request passed through [`Python::detach`], which stays on this thread.
struct Lent(Request);

// SAFETY: it is taken by the thread that made it.
unsafe impl Send for Lent {}

impl Lent {
    fn take(self) -> Request {
        self.0
    }
}
