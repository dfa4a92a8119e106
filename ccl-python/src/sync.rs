//! Syncs of shared state in progress. Each has its own thread, which hashes, waits, and gives the
//! state back, so that Ctrl-C and coroutines need not wait for a hash.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ccl_core::lock::{Condvar, Mutex};
use ccl_core::signals::without_signals;
use ccl_core::{Error, Progress, Result, SyncHandle, SyncInfo, SyncOptions};
use pyo3::prelude::*;

use crate::attach::attach;
use crate::errors::raise;
use crate::notifier;
use crate::shared_state::Prepared;
use crate::wait;

/// The objects that a sync needs until its end.
#[derive(Debug)]
pub struct Job {
    /// The session whose members take part.
    pub communicator: ccl_core::Communicator,
    /// The state, and its memory.
    pub prepared: Prepared,
    /// Its options.
    pub options: SyncOptions,
    /// The rights to the state and to the communicator's syncs.
    pub turns: [Turning; 2],
}

/// A sync in progress. It goes on even if no caller waits for it.
#[derive(Debug)]
pub struct Flight {
    /// Empty while the state is hashed.
    sync: OnceLock<SyncHandle<Prepared>>,
    stage: Mutex<Stage>,
    is_over: Condvar,
    is_cancelled: AtomicBool,
    /// Whether its last handle was dropped.
    is_dropped: AtomicBool,
    /// A forked child has none of the threads that would end it.
    process: u32,
}

#[derive(Debug)]
enum Stage {
    /// The result, and the callbacks.
    UnderWay(Vec<Py<PyAny>>),
    Over(Result<SyncInfo, Failure>),
}

/// Why a sync did not succeed.
#[derive(Clone, Debug)]
enum Failure {
    /// An error of the library.
    Library(Error),
    /// A number could not be copied back to its owner.
    Owner(Arc<PyErr>),
}

impl Failure {
    fn raise(&self, py: Python<'_>) -> PyErr {
        match self {
            Self::Library(error) => raise(py, error),
            Self::Owner(error) => error.clone_ref(py),
        }
    }
}

impl Flight {
    /// Starts a sync.
    ///
    /// # Errors
    /// `OsError` if no thread can be started.
    pub fn start(py: Python<'_>, job: Job) -> PyResult<Arc<Self>> {
        let flight = Arc::new(Self {
            sync: OnceLock::new(),
            stage: Mutex::new(Stage::UnderWay(Vec::new())),
            is_over: Condvar::new(),
            is_cancelled: AtomicBool::new(false),
            is_dropped: AtomicBool::new(false),
            process: std::process::id(),
        });
        for turn in &job.turns {
            turn.lend(&flight);
        }
        let mine = Arc::clone(&flight);
        let thread = std::thread::Builder::new().name("ccl-sync".into());
        match without_signals(|| thread.spawn(move || mine.run(job))) {
            // The flight reports the thread's end.
            Ok(_) => Ok(flight),
            Err(error) => Err(raise(py, &Error::os("starting a thread for a sync", error))),
        }
    }

    /// Waits for its end, at most `timeout` if that is given.
    ///
    /// # Errors
    /// Why it did not succeed, `Timeout`, `Forked`, or what a signal handler raised.
    pub fn wait(&self, py: Python<'_>, timeout: Option<Duration>) -> PyResult<SyncInfo> {
        self.check_process(py)?;
        let end = wait::wait_for(py, timeout, |slice| self.look(slice))?
            .unwrap_or(Err(Failure::Library(Error::Timeout)));
        end.map_err(|failure| failure.raise(py))
    }

    /// As `wait` without a timeout, but a signal handler that raises cancels it.
    ///
    /// # Errors
    /// Why it did not succeed, or what a signal handler raised.
    pub fn wait_or_cancel(&self, py: Python<'_>) -> PyResult<SyncInfo> {
        let result = self.wait(py, None);
        if !self.is_finished() {
            let verdict = py.detach(|| {
                self.cancel();
                self.look(wait::VERDICT_MAX)
            });
            if let (None, Err(error)) = (verdict, &result) {
                wait::note_in_use(py, error);
            }
        }
        result
    }

    fn look(&self, timeout: Duration) -> Option<Result<SyncInfo, Failure>> {
        let is_under_way = |stage: &mut Stage| matches!(stage, Stage::UnderWay(_));
        let stage = self.stage.lock();
        let stage = self.is_over.wait_while_for(stage, is_under_way, timeout);
        match &*stage {
            Stage::UnderWay(_) => None,
            Stage::Over(end) => Some(end.clone()),
        }
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        matches!(&*self.stage.lock(), Stage::Over(_))
    }

    /// Asks to abort it for all members.
    pub fn cancel(&self) {
        // Set before the sync is looked up; the end of hashing checks in the opposite order.
        self.is_cancelled.store(true, Ordering::SeqCst);
        let _stage = self.stage.lock();
        if let Some(sync) = self.sync.get() {
            sync.cancel();
        }
    }

    /// Marks that no caller waits for it, except the next one that needs its turn.
    pub fn leave_to_itself(&self) {
        self.is_dropped.store(true, Ordering::SeqCst);
    }

    /// Whether its caller may have no handle for it: then the next caller waits.
    fn is_left(&self) -> bool {
        let of_both = [&self.is_cancelled, &self.is_dropped];
        of_both.iter().any(|it| it.load(Ordering::SeqCst))
    }

    /// Its progress, or its last one.
    pub fn progress(&self) -> Progress {
        let sync = self.sync.get();
        sync.map(SyncHandle::progress).unwrap_or_default()
    }

    /// Whether this peer serves the elected content, or did; `None` before the election.
    pub fn is_source(&self) -> Option<bool> {
        self.sync.get()?.is_source()
    }

    /// Calls `callback` without arguments once it has ended, on a thread that it may block.
    pub fn add_callback(&self, callback: Py<PyAny>) {
        let callback = match &mut *self.stage.lock() {
            Stage::UnderWay(callbacks) => {
                callbacks.push(callback);
                return;
            }
            Stage::Over(_) => callback,
        };
        notifier::tell(vec![callback]);
    }

    fn check_process(&self, py: Python<'_>) -> PyResult<()> {
        if self.process == std::process::id() {
            return Ok(());
        }
        Err(raise(py, &Error::Forked))
    }

    /// The thread's work, from the first hash to the last callback.
    fn run(&self, job: Job) {
        let Job {
            communicator,
            prepared,
            options,
            turns,
        } = job;
        let synchronise = AssertUnwindSafe(|| self.synchronise(&communicator, prepared, &options));
        let lost = |_| (Err(Error::Ended("a sync was lost to a panic".into())), None);
        let (end, prepared) = std::panic::catch_unwind(synchronise).unwrap_or_else(lost);
        let is_written = end.as_ref().is_ok_and(|info| info.received_bytes > 0);
        let written = prepared.map_or(Ok(()), |prepared| settle(prepared, is_written));
        drop(turns);
        let end = end
            .map_err(Failure::Library)
            .and_then(|info| written.map(|()| info));
        let before = std::mem::replace(&mut *self.stage.lock(), Stage::Over(end));
        self.is_over.notify_all();
        if let Stage::UnderWay(callbacks) = before {
            notifier::tell(callbacks);
        }
        // Dropping the last clone of a session leaves the run, which takes a while.
        drop(communicator);
    }

    /// Makes the state equal on all members, and gives it back.
    fn synchronise(
        &self,
        communicator: &ccl_core::Communicator,
        prepared: Prepared,
        options: &SyncOptions,
    ) -> (Result<SyncInfo>, Option<Prepared>) {
        let sync = match communicator.sync_shared_state_async(prepared, options) {
            Ok(sync) => {
                let _stage = self.stage.lock();
                self.sync.get_or_init(|| sync)
            }
            Err((error, prepared)) => return (Err(error), Some(prepared)),
        };
        if self.is_cancelled.load(Ordering::SeqCst) {
            sync.cancel();
        }
        (sync.wait(), sync.take_state())
    }
}

/// Copies the result to the state's owners. While the interpreter shuts down there is no one to
/// notify.
fn settle(mut prepared: Prepared, is_written: bool) -> Result<(), Failure> {
    prepared.settle();
    let written = attach(|py| {
        let written = prepared.write_back(py, is_written);
        drop(prepared);
        written
    });
    written
        .unwrap_or(Ok(()))
        .map_err(|error| Failure::Owner(Arc::new(error)))
}

/// The right to use something that one call at a time may use.
#[derive(Debug, Default)]
pub struct Turn(Mutex<Taken>);

#[derive(Debug, Default)]
enum Taken {
    #[default]
    No,
    ByCall,
    BySync(Arc<Flight>),
}

impl Turn {
    /// Takes it. Waits for a sync that has it, if that was cancelled or its handle is dropped.
    ///
    /// # Errors `InvalidUsage` if another call has it, `Forked`, or what a signal handler raised.
    pub fn take(self: &Arc<Self>, py: Python<'_>, who: &str) -> PyResult<Turning> {
        loop {
            let Some(flight) = self.try_take(py, who)? else {
                return Ok(Turning(Arc::clone(self)));
            };
            // It frees the turn before its end; its result belongs to the waiting caller.
            let _ = wait::wait(py, |slice| flight.look(slice))?;
        }
    }

    /// The cancelled or dropped sync that has it; `None` if it is the caller's now.
    fn try_take(&self, py: Python<'_>, who: &str) -> PyResult<Option<Arc<Flight>>> {
        // Creating an exception runs Python code, during which another thread may come here: the
        // lock is not held then.
        let sync = {
            let mut taken = self.0.lock();
            match &*taken {
                Taken::No => {
                    *taken = Taken::ByCall;
                    return Ok(None);
                }
                Taken::BySync(flight) => Some(Arc::clone(flight)),
                Taken::ByCall => None,
            }
        };
        if let Some(flight) = sync {
            flight.check_process(py)?;
            if flight.is_left() {
                return Ok(Some(flight));
            }
        }
        let what = format!("{who} is in progress; wait for it, or cancel it");
        Err(raise(py, &Error::usage(what)))
    }
}

/// A turn that was taken; dropping it gives it to the next.
#[derive(Debug)]
pub struct Turning(Arc<Turn>);

impl Turning {
    fn lend(&self, flight: &Arc<Flight>) {
        *self.0.0.lock() = Taken::BySync(Arc::clone(flight));
    }
}

impl Drop for Turning {
    fn drop(&mut self) {
        *self.0.0.lock() = Taken::No;
    }
}
