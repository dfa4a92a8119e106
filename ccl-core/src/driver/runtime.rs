//! The threads that move a communicator's bytes.

use std::cell::Cell;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use crate::lock::Mutex;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;

use crate::error::{Error, Result};
use crate::signals;

/// A tokio runtime of its own for each communicator: an application's runtime may stall, and must
/// not stall the run.
#[derive(Debug)]
pub(crate) struct IoThreads {
    handle: Handle,
    /// Tells its threads from others.
    number: u64,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl IoThreads {
    /// Starts `threads` threads. One thread runs everything without hand-over between threads,
    /// which on small machines costs the least per byte.
    ///
    /// # Errors
    /// [`Error::Os`] if the system gives no thread or no event queue.
    pub(crate) fn start(name: &str, threads: usize) -> Result<Self> {
        signals::without_signals(|| Self::spawn_all(name, threads))
    }

    fn spawn_all(name: &str, threads: usize) -> Result<Self> {
        static NEWEST: AtomicU64 = AtomicU64::new(0);
        let number = NEWEST.fetch_add(1, Ordering::Relaxed) + 1;
        let runtime = build(name, threads, number)
            .map_err(|error| Error::os("cannot start I/O threads", error))?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                INSIDE.set(number);
                // An error means that the sender was dropped, which is a stop as well.
                runtime.block_on(async { drop(stopped.await) });
                runtime.shutdown_background();
            })
            .map_err(|error| Error::os("cannot start an I/O thread", error))?;
        Ok(Self {
            handle,
            number,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Runs a task.
    pub(crate) fn spawn<F>(&self, task: F) -> tokio::task::JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.handle.spawn(task)
    }

    /// Whether the caller is one of these threads.
    pub(crate) fn is_inside(&self) -> bool {
        INSIDE.get() == self.number
    }

    /// For the transport.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for IoThreads {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // An error means that the thread has ended already.
            let _ = stop.send(());
        }
        let Some(thread) = self.thread.take() else {
            return;
        };
        // The last owner may be a task of the runtime itself, which cannot wait for its own thread.
        if thread.thread().id() != std::thread::current().id() {
            // An error is a panic, which the panic hook has reported.
            let _ = thread.join();
        }
    }
}

/// A thread of the library. Dropping this waits for its end.
#[derive(Debug)]
pub(crate) struct Thread(Option<JoinHandle<()>>);

impl Thread {
    /// Starts it, without the application's signals.
    ///
    /// # Errors
    /// [`Error::Os`] if the system gives no thread.
    pub(crate) fn start(name: &str, run: impl FnOnce() + Send + 'static) -> Result<Self> {
        let thread = std::thread::Builder::new().name(name.to_owned());
        let thread = signals::without_signals(|| thread.spawn(run))
            .map_err(|error| Error::os(format!("cannot start thread {name}"), error))?;
        Ok(Self(Some(thread)))
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        let Some(thread) = self.0.take() else {
            return;
        };
        // The last owner may be the thread itself, which ends by itself.
        if thread.thread().id() != std::thread::current().id() {
            // An error is a panic, which the panic hook has reported.
            let _ = thread.join();
        }
    }
}

thread_local! {
    /// The owner of this thread; 0: none.
    static INSIDE: Cell<u64> = const { Cell::new(0) };
}

fn build(name: &str, threads: usize, number: u64) -> std::io::Result<Runtime> {
    if threads <= 1 {
        return Builder::new_current_thread().enable_all().build();
    }
    probe(name, threads)?;
    Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name(name)
        .on_thread_start(move || INSIDE.set(number))
        .enable_all()
        .build()
}

/// An error if the system does not give so many threads at once. The runtime would panic where it
/// gets one less, and then wait for ever for those that it has.
fn probe(name: &str, threads: usize) -> std::io::Result<()> {
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock();
    let start = |_| {
        let gate = Arc::clone(&gate);
        let thread = std::thread::Builder::new().name(name.to_owned());
        thread.spawn(move || drop(gate.lock()))
    };
    // One more, for the thread that waits for the end.
    let started: std::io::Result<Vec<_>> = (0..=threads).map(start).collect();
    drop(closed);
    for thread in started? {
        thread.join().expect("it locks and unlocks");
    }
    Ok(())
}

/// Threads by default: half the cores, so that training keeps the other half; at least 1, at most
/// 4.
pub(crate) fn default_threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores / 2).clamp(1, 4)
}
