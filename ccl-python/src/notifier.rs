//! The thread that tells Python of ends: the library's own threads must never wait for it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use ccl_core::signals::without_signals;
use parking_lot::Mutex;
use pyo3::prelude::*;

use crate::attach::attach;

/// A call that somebody in Python may want to be told of.
pub trait Call: Send + Sync {
    /// Lets go of what the call held, and tells whoever wanted to know. It has ended.
    fn settle(&self, py: Python<'_>);
}

/// Settles a call that has ended, soon, on the notifier's thread. Does not block.
pub fn settle(call: Arc<dyn Call>) {
    let mut notifier = NOTIFIER.lock();
    let process = std::process::id();
    // A forked child has the variable but not the thread.
    let is_here = notifier
        .as_ref()
        .is_some_and(|(made_in, _)| *made_in == process);
    if !is_here {
        let (sender, receiver) = channel();
        let thread = std::thread::Builder::new().name("ccl-notify".into());
        let started = without_signals(|| thread.spawn(move || run(&receiver)));
        if started.is_err() {
            // Without a thread nobody can be told; the memory stays valid for ever.
            return std::mem::forget(call);
        }
        *notifier = Some((process, sender));
    }
    if let Some((_, sender)) = &*notifier {
        let _the_thread_ends_with_the_process = sender.send(call);
    }
}

/// Process and channel of the notifier, which lasts as long as the process.
static NOTIFIER: Mutex<Option<(u32, Ended)>> = Mutex::new(None);

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
