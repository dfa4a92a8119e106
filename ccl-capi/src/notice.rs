//! Notifies the application of an operation's end, without a waiting thread.

use std::ffi::c_void;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use ccl_core::lock::Mutex;

use crate::callback;

/// The callback for an operation's end, called once.
#[derive(Debug, Default)]
pub(crate) struct Notice {
    /// Locked while the callback runs, so that `take_back` waits for it.
    wanted: Mutex<Option<Wanted>>,
}

/// The application's function.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// The function to call.
    pub(crate) callback: unsafe extern "C" fn(*mut c_void),
    /// Its argument.
    pub(crate) user_data: *mut c_void,
}

// SAFETY: the pointer is only passed to the application's callback, which allows any thread.
unsafe impl Send for Wanted {}

impl Notice {
    /// Replaces the callback. `poll` returns whether the operation has ended; if not, it wakes the
    /// notice at the end.
    pub(crate) fn want(
        self: &Arc<Self>,
        wanted: Option<Wanted>,
        poll: impl FnOnce(&Context<'_>) -> Poll<()>,
    ) {
        let is_wanted = wanted.is_some();
        *self.wanted.lock() = wanted;
        if is_wanted {
            let waker = Waker::from(Arc::clone(self));
            if poll(&Context::from_waker(&waker)).is_ready() {
                self.tell();
            }
        }
    }

    /// Removes the callback. When this returns it is not running and will not be called.
    pub(crate) fn take_back(&self) {
        *self.wanted.lock() = None;
    }

    fn tell(&self) {
        let mut wanted = self.wanted.lock();
        if let Some(wanted) = wanted.take() {
            // SAFETY: the application vouched for the function, and it may be called anywhere.
            callback::run(|| unsafe { (wanted.callback)(wanted.user_data) });
        }
    }
}

impl Wake for Notice {
    fn wake(self: Arc<Self>) {
        self.tell();
    }
}
