//! Notifies the application of an operation's end, without a waiting thread.

use std::ffi::c_void;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use ccl_core::lock::Mutex;

use crate::callback;

/// Who is to be told of an operation's end, once.
#[derive(Debug, Default)]
pub(crate) struct Notice {
    /// Locked while the callback runs, so that whoever takes it back waits for it.
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

// SAFETY: the pointer is only handed back to the application, whose callback is for any thread.
unsafe impl Send for Wanted {}

impl Notice {
    /// Takes back what was wanted, and wants this. `poll` says whether the operation has ended, or
    /// promises to wake.
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

    /// Nobody is told any more, nor being told, when this returns.
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
