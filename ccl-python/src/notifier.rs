//! The thread that tells Python of ends: the library's own threads must never wait for it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use ccl_core::signals::without_signals;
use parking_lot::Mutex;
use pyo3::prelude::*;

use crate::flight::Flight;

/// Settles an operation that has ended, soon, on the notifier's thread. Does not block.
pub fn settle(flight: Arc<Flight>) {
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
            return std::mem::forget(flight);
        }
        *notifier = Some((process, sender));
    }
    if let Some((_, sender)) = &*notifier {
        let _the_thread_ends_with_the_process = sender.send(flight);
    }
}

/// Process and channel of the notifier, which lasts as long as the process.
static NOTIFIER: Mutex<Option<(u32, Sender<Arc<Flight>>)>> = Mutex::new(None);

fn run(ended: &Receiver<Arc<Flight>>) {
    for flight in ended {
        // While the interpreter shuts down nobody is left to be told.
        let _is_attached = Python::try_attach(|py| {
            flight.settle(py);
            drop(flight);
        });
    }
}
