//! Keeps the application's signals away from the library's threads.
//!
//! A handler that the application installed runs on one of its own threads, whose system calls it
//! interrupts. Signals that a thread raises by its own fault, and the profiler's, stay unblocked.

use nix::sys::signal::{SigSet, SigmaskHow, Signal};

/// What a fault of the thread itself raises, and what measures every thread.
const OPEN: [Signal; 8] = [
    Signal::SIGABRT,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGPROF,
    Signal::SIGSEGV,
    Signal::SIGSYS,
    Signal::SIGTRAP,
];

/// Runs `start` with all signals blocked, which the threads that it starts inherit.
pub fn without_signals<R>(start: impl FnOnce() -> R) -> R {
    let mut blocked = SigSet::all();
    OPEN.into_iter().for_each(|signal| blocked.remove(signal));
    let before = blocked.thread_swap_mask(SigmaskHow::SIG_BLOCK);
    let _restored = Restore(before.ok());
    start()
}

/// Gives the thread its mask back, also when it panics.
struct Restore(Option<SigSet>);

impl Drop for Restore {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // Only an invalid mask is refused, and this one was in force before.
            let _ = before.thread_set_mask();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_started_here_takes_no_signal_and_the_caller_keeps_its_own() {
        let before = SigSet::thread_get_mask().unwrap();
        let thread = without_signals(|| std::thread::spawn(SigSet::thread_get_mask));
        let inside = thread.join().unwrap().unwrap();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGUSR1] {
            assert!(inside.contains(signal), "{signal} is open");
        }
        for signal in OPEN {
            assert_eq!(inside.contains(signal), before.contains(signal));
        }
        assert_eq!(SigSet::thread_get_mask().unwrap(), before);
    }

    #[test]
    fn a_panic_gives_the_caller_its_mask_back() {
        let before = SigSet::thread_get_mask().unwrap();
        let panic = std::panic::catch_unwind(|| without_signals(|| panic!("no thread")));
        assert!(panic.is_err());
        assert_eq!(SigSet::thread_get_mask().unwrap(), before);
    }
}
