//! Marks that an application's callback is running: it must not call the library, which may hold
//! locks.

use std::cell::Cell;

/// Whether this thread is inside a callback.
pub(crate) fn is_inside() -> bool {
    INSIDE.try_with(Cell::get).unwrap_or_default()
}

/// Runs a callback. Not at the end of a thread, when it is too late for it.
pub(crate) fn run(callback: impl FnOnce()) {
    let _ = INSIDE.try_with(|inside| {
        let before = inside.replace(true);
        callback();
        inside.set(before);
    });
}

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}
