//! The thread that tells Python of ends: the library's own threads must never wait for it.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};

use ccl_core::signals::without_signals;
use pyo3::prelude::*;

use crate::attach::attach;
use crate::per_process::PerProcess;

/// A call that somebody in Python may want to be told of.
pub trait Call: Send + Sync {
    /// Lets go of what the call held, and tells whoever wanted to know. It has ended.
    fn settle(&self, py: Python<'_>);
}

/// Settles a call that has ended, soon, on the notifier's thread. Does not block.
pub fn settle(call: Arc<dyn Call>) {
    match notifier() {
        Some(notifier) => {
            let _the_thread_ends_with_the_process = notifier.send(call);
        }
        // Without a thread nobody can be told; the memory stays valid for ever.
        None => std::mem::forget(call),
    }
}

/// The way to this process's notifier, which lasts as long as the process; `None` if there is no
/// thread to be had.
fn notifier() -> Option<&'static Ended> {
    static NOTIFIER: PerProcess<OnceLock<Ended>> = PerProcess::new(OnceLock::new());
    let notifier = NOTIFIER.get(OnceLock::new);
    if let Some(found) = notifier.get() {
        return Some(found);
    }
    let (sender, receiver) = channel();
    let thread = std::thread::Builder::new().name("ccl-notify".into());
    without_signals(|| thread.spawn(move || run(&receiver))).ok()?;
    // The thread of whoever comes second ends at once.
    let _another_was_first = notifier.set(sender);
    notifier.get()
}

/// Where calls that have ended go.
type Ended = Sender<Arc<dyn Call>>;

fn run(ended: &Receiver<Arc<dyn Call>>) {
    for call in ended {
        // While the interpreter shuts down nobody is left to be told.
        let _is_attached = attach(|py| {
            call.settle(py);
            drop(call);
        });
    }
}

/// Calls each without arguments; what it raises is shown, and goes nowhere.
pub fn tell(py: Python<'_>, callbacks: Vec<Py<PyAny>>) {
    for callback in callbacks {
        if let Err(error) = callback.call0(py) {
            error.write_unraisable(py, Some(callback.bind(py)));
        }
    }
}
