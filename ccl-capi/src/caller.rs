//! What a call restores in the calling thread: `errno`, and whether it can be cancelled.
//!
//! `pthread_cancel` unwinds a thread where it enters the system, past frames that must not be
//! unwound, which ends the process. So it waits until the call has returned.

use std::ffi::c_int;

/// The calling thread's state, until the call returns.
#[derive(Debug)]
pub(crate) struct Caller {
    errno: c_int,
    cancel_state: c_int,
}

impl Caller {
    /// Keeps the state, and puts off being cancelled.
    pub(crate) fn enter() -> Self {
        Self {
            errno: system::errno(),
            cancel_state: system::set_cancel_state(system::CANCEL_DISABLE),
        }
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        let _disabled = system::set_cancel_state(self.cancel_state);
        system::set_errno(self.errno);
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::ffi::c_int;

    /// Of `pthread.h`, the same in all C libraries of Linux.
    pub const CANCEL_DISABLE: c_int = 1;

    unsafe extern "C" {
        fn pthread_setcancelstate(state: c_int, before: *mut c_int) -> c_int;
    }

    pub fn errno() -> c_int {
        // SAFETY: the thread's own, which is always there.
        unsafe { *libc::__errno_location() }
    }

    pub fn set_errno(errno: c_int) {
        // SAFETY: as above.
        unsafe { *libc::__errno_location() = errno }
    }

    /// Returns what it was before.
    pub fn set_cancel_state(state: c_int) -> c_int {
        let mut before = state;
        // SAFETY: it writes the place and a flag of this thread; it fails for other states only.
        let _result = unsafe { pthread_setcancelstate(state, &raw mut before) };
        before
    }
}

/// Other systems: nothing is kept.
#[cfg(not(target_os = "linux"))]
mod system {
    use std::ffi::c_int;

    pub const CANCEL_DISABLE: c_int = 0;

    pub fn errno() -> c_int {
        0
    }

    pub fn set_errno(_errno: c_int) {}

    pub fn set_cancel_state(state: c_int) -> c_int {
        state
    }
}
