//! Memory lent to the tasks that move bytes, and how it is taken back.
//!
//! A [`Region`] is a range of memory behind a [`Gate`]. Tasks touch it only inside `read` and `write`,
//! whose closures run for one system call or one addition. `Gate::close` waits until nobody is inside
//! and lets nobody in again, so that afterwards the memory is the caller's alone.
#![allow(unsafe_code)]

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Who is inside, and whether anybody may still enter.
#[derive(Debug, Default)]
pub struct Gate {
    /// Users inside, times two; plus one when closed.
    state: AtomicUsize,
}

const CLOSED: usize = 1;
const USER: usize = 2;

impl Gate {
    /// An open gate.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Enters, unless the gate is closed.
    fn enter(&self) -> Option<Inside<'_>> {
        let before = self.state.fetch_add(USER, Ordering::Acquire);
        let inside = Inside(self);
        (before & CLOSED == 0).then_some(inside)
    }

    /// Closes the gate and waits until nobody is inside: at most one non-blocking system call or one
    /// addition of a segment.
    pub fn close(&self) {
        self.state.fetch_or(CLOSED, Ordering::AcqRel);
        while self.state.load(Ordering::Acquire) & !CLOSED != 0 {
            std::thread::yield_now();
        }
    }

    /// Whether `close` was called.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state.load(Ordering::Acquire) & CLOSED != 0
    }
}

struct Inside<'a>(&'a Gate);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.state.fetch_sub(USER, Ordering::Release);
    }
}

/// A range of memory behind a gate. Clones refer to the same memory.
///
/// Who may read or write which bytes when is decided by the collective's schedule: no two users touch
/// the same bytes at once unless both read.
#[derive(Clone, Debug)]
pub struct Region {
    gate: Arc<Gate>,
    pointer: *mut u8,
    bytes: usize,
}

// SAFETY: the memory outlives the gate's closing (promised to `Region::new`), and the schedule keeps
// concurrent users on disjoint bytes.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// Lends `bytes` bytes from `pointer` until `gate` is closed.
    ///
    /// # Safety
    /// The memory must stay valid, and untouched by others except as the schedule allows, until
    /// `gate.close()` has returned. For a region that is only read, shared reads by others are fine.
    #[must_use]
    pub unsafe fn new(gate: Arc<Gate>, pointer: *mut u8, bytes: usize) -> Self {
        Self {
            gate,
            pointer,
            bytes,
        }
    }

    /// A part of this region.
    ///
    /// # Panics
    /// If the range is not inside it.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(
            range.start <= range.end && range.end <= self.bytes,
            "range outside its region"
        );
        // SAFETY: the assertion keeps the pointer inside the lent memory.
        let pointer = unsafe { self.pointer.add(range.start) };
        Self {
            gate: Arc::clone(&self.gate),
            pointer,
            bytes: range.end - range.start,
        }
    }

    /// Length in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Runs `f` on the memory, or returns `None` if it was taken back.
    pub fn read<R>(&self, f: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let _inside = self.gate.enter()?;
        // SAFETY: inside the gate the memory is valid; nobody writes these bytes (type contract).
        Some(f(unsafe {
            std::slice::from_raw_parts(self.pointer, self.bytes)
        }))
    }

    /// Runs `f` on the memory, or returns `None` if it was taken back.
    #[allow(clippy::mut_from_ref)]
    pub fn write<R>(&self, f: impl FnOnce(&mut [u8]) -> R) -> Option<R> {
        let _inside = self.gate.enter()?;
        // SAFETY: inside the gate the memory is valid; nobody else uses these bytes (type contract).
        Some(f(unsafe {
            std::slice::from_raw_parts_mut(self.pointer, self.bytes)
        }))
    }
}
