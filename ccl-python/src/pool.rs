//! Threads for jobs that run in Python and may block there.
//!
//! A few are kept. If a job waits while all of them are busy, they may be blocked, perhaps waiting
//! for that very job: so one more thread is started for each `STALL_MAX`.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use ccl_core::lock::{Condvar, Mutex};
use ccl_core::signals::without_signals;
use pyo3::prelude::*;

use crate::attach::attach;

/// A job that runs once, attached to Python; dropped if the interpreter is about to end.
pub type Job = Box<dyn FnOnce(Python<'_>) + Send>;

/// A queue of jobs and the threads that run them. Lasts as long as the process.
#[derive(Debug)]
pub struct Pool {
    name: &'static str,
    threads_kept: usize,
    state: Mutex<State>,
    /// There is a job to do.
    has_job: Condvar,
    /// There are more jobs than idle threads.
    is_short: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    /// Jobs that a thread has taken.
    taken: u64,
    has_keeper: bool,
}

impl Pool {
    /// Has no thread yet.
    pub const fn new(name: &'static str, threads_kept: usize) -> Self {
        Self {
            name,
            threads_kept,
            state: Mutex::new(State {
                jobs: VecDeque::new(),
                threads: 0,
                idle: 0,
                taken: 0,
                has_keeper: false,
            }),
            has_job: Condvar::new(),
            is_short: Condvar::new(),
        }
    }

    /// Runs the job soon. Does not block.
    pub fn submit(&'static self, job: Job) {
        let mut state = self.state.lock();
        state.jobs.push_back(job);
        self.has_job.notify_one();
        self.is_short.notify_one();
        if !state.has_keeper {
            // If no thread can be started now, the next job tries again.
            state.has_keeper = self.spawn("ccl-keep", || self.keep());
        }
    }

    /// Starts threads when there are too few, forever.
    fn keep(&'static self) {
        let mut state = self.state.lock();
        loop {
            while state.jobs.len() <= state.idle {
                state = self.is_short.wait(state);
            }
            let taken = state.taken;
            if state.threads >= self.threads_kept {
                let stalled = |_: &mut State| true;
                state = self.is_short.wait_while_for(state, stalled, STALL_MAX);
            }
            if state.taken == taken && state.threads < THREADS_MAX {
                state.threads += 1;
                if !self.spawn(self.name, || self.work()) {
                    state.threads -= 1;
                }
            }
        }
    }

    fn spawn(&self, name: &str, body: impl FnOnce() + Send + 'static) -> bool {
        let thread = std::thread::Builder::new().name(name.into());
        without_signals(|| thread.spawn(body)).is_ok()
    }

    fn work(&self) {
        while let Some(job) = self.take() {
            let _ = attach(job);
        }
    }

    /// The next job; `None`: this thread is no longer needed.
    fn take(&self) -> Option<Job> {
        let mut state = self.state.lock();
        state.idle += 1;
        while state.jobs.is_empty() {
            let is_late;
            (state, is_late) = self.has_job.wait_for(state, IDLE_MAX);
            if is_late && state.jobs.is_empty() && state.threads > self.threads_kept {
                state.threads -= 1;
                break;
            }
        }
        state.idle -= 1;
        state.taken += 1;
        state.jobs.pop_front()
    }
}

impl fmt::Debug for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (jobs, threads) = (self.jobs.len(), self.threads);
        write!(formatter, "{jobs} jobs, {threads} threads")
    }
}

/// Longest wait of a job before one more thread is started. Short callbacks take less, so bursts of
/// them start none.
const STALL_MAX: Duration = Duration::from_millis(10);

/// How long a thread beyond those kept waits for another job.
const IDLE_MAX: Duration = Duration::from_secs(5);

/// Most threads of a pool. Each may be blocked by a callback that waits for another operation; a
/// run has fewer operations in progress.
const THREADS_MAX: usize = 1024;
