//! Closes this process's file descriptors in a forked child at once.
//!
//! If the child kept its copies, a dead parent's connections would stay open, so that no peer
//! noticed the death, and its port would stay taken. The child cannot reach the objects that own
//! them and may not even run a destructor: after a `fork` with threads it may only call what is
//! safe in a signal handler. So each descriptor is recorded in a table that is read without a lock,
//! and a `fork` handler closes what the table holds. It does not shut connections down, since that
//! would end the parent's.
//!
//! Opening or closing a descriptor blocks forks for one or two system calls, so that no child is
//! made between a descriptor and its record. Closed descriptors are counted too: an `Owner` can
//! wait until none of its own is open.
#![allow(unsafe_code)]

use std::io;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use crate::lock::{Condvar, Mutex};

/// A descriptor that children do not keep, in the object that owns it.
#[derive(Debug)]
pub struct Own<T: AsRawFd> {
    value: ManuallyDrop<T>,
    note: Note,
}

/// Whoever wants to know when his descriptors are closed.
#[derive(Debug, Default)]
pub struct Owner {
    open: Mutex<usize>,
    closed: Condvar,
}

impl Owner {
    /// Blocks until no descriptor of this owner is open, at most `timeout`; whether that is so.
    pub fn wait_closed(&self, timeout: Duration) -> bool {
        let open = self.open.lock();
        *self.closed.wait_while_for(open, |open| *open > 0, timeout) == 0
    }
}

impl<T: AsRawFd> Own<T> {
    /// Makes a descriptor by `make`, which must not block.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn make<E>(owner: &Arc<Owner>, make: impl FnOnce() -> Result<T, E>) -> Result<Self, E> {
        let no_forks = NoForks::enter();
        let value = make()?;
        let note = Note::new(value.as_raw_fd(), owner);
        drop(no_forks);
        let value = ManuallyDrop::new(value);
        Ok(Self { value, note })
    }

    /// Hands the descriptor to another object; `convert` must not block.
    ///
    /// # Errors
    /// Those of `convert`, which then has closed it.
    pub fn try_map<U: AsRawFd>(
        self,
        convert: impl FnOnce(T) -> io::Result<U>,
    ) -> io::Result<Own<U>> {
        let no_forks = NoForks::enter();
        let (value, note) = self.into_parts();
        let descriptor = value.as_raw_fd();
        match convert(value) {
            Ok(value) => {
                assert_eq!(value.as_raw_fd(), descriptor, "it is the same one");
                drop(no_forks);
                let value = ManuallyDrop::new(value);
                Ok(Own { value, note })
            }
            Err(error) => {
                // While forks wait: the number may be another's already.
                note.erase();
                drop(no_forks);
                Err(error)
            }
        }
    }

    fn into_parts(self) -> (T, Note) {
        let mut own = ManuallyDrop::new(self);
        // SAFETY: `own` is never dropped, and its parts are taken out once.
        unsafe {
            (
                ManuallyDrop::take(&mut own.value),
                std::ptr::read(&raw const own.note),
            )
        }
    }
}

impl<T: AsRawFd> Deref for Own<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: AsRawFd> DerefMut for Own<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: AsRawFd> Drop for Own<T> {
    fn drop(&mut self) {
        if self.note.process != std::process::id() {
            // A child's copy is closed, and its number may be another's.
            return;
        }
        let _guard = NoForks::enter();
        self.note.erase();
        // SAFETY: it is dropped here and nowhere else.
        unsafe { ManuallyDrop::drop(&mut self.value) };
    }
}

/// Where a descriptor is recorded. Its owner is notified when it is closed.
#[derive(Debug)]
struct Note {
    slot: &'static AtomicI32,
    owner: Arc<Owner>,
    process: u32,
}

impl Note {
    /// Notes a descriptor while forks wait.
    fn new(descriptor: RawFd, owner: &Arc<Owner>) -> Self {
        *owner.open.lock() += 1;
        Self {
            slot: TABLE.take(descriptor),
            owner: Arc::clone(owner),
            process: std::process::id(),
        }
    }

    fn erase(&self) {
        self.slot.store(FREE, Ordering::Release);
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        // Fields are dropped after `Own::drop` has closed the descriptor.
        if self.process == std::process::id() {
            *self.owner.open.lock() -= 1;
            self.owner.closed.notify_all();
        }
    }
}

/// The noted descriptors of this process: pieces that are never given back.
struct Table {
    slots: [AtomicI32; SLOTS],
    next: AtomicPtr<Table>,
}

static TABLE: Table = Table::new();

impl Table {
    const fn new() -> Self {
        Self {
            slots: [const { AtomicI32::new(FREE) }; SLOTS],
            next: AtomicPtr::new(std::ptr::null_mut()),
        }
    }

    /// A free slot, with this descriptor in it.
    fn take(&'static self, descriptor: RawFd) -> &'static AtomicI32 {
        let mut piece = self;
        loop {
            let free = piece.slots.iter().find(|slot| {
                slot.compare_exchange(FREE, descriptor, Ordering::AcqRel, Ordering::Relaxed)
                    .is_ok()
            });
            match free {
                Some(slot) => return slot,
                None => piece = piece.next_piece(),
            }
        }
    }

    /// The next piece, created if there is none.
    fn next_piece(&'static self) -> &'static Self {
        if let Some(next) = self.next() {
            return next;
        }
        let made = Box::into_raw(Box::new(Self::new()));
        let none = std::ptr::null_mut();
        let raced = self
            .next
            .compare_exchange(none, made, Ordering::AcqRel, Ordering::Acquire);
        if raced.is_err() {
            // SAFETY: nobody else has seen it.
            drop(unsafe { Box::from_raw(made) });
        }
        self.next().expect("one was put there")
    }

    fn next(&self) -> Option<&'static Self> {
        // SAFETY: null, or a piece that is never freed.
        unsafe { self.next.load(Ordering::Acquire).as_ref() }
    }

    /// Closes everything that is noted: in a forked child, with nothing but what is safe there.
    fn close_all(&self) {
        let mut piece = Some(self);
        while let Some(Self { slots, .. }) = piece {
            for slot in slots {
                let descriptor = slot.swap(FREE, Ordering::Relaxed);
                if descriptor != FREE {
                    // SAFETY: the child's copy of a descriptor that was open when it was forked,
                    // for notes are erased before descriptors are closed, and forks wait for both.
                    // Whoever owns it in the parent is not dropped here (`Own::drop`).
                    unsafe { libc::close(descriptor) };
                }
            }
            piece = piece.and_then(Self::next);
        }
    }
}

/// Keeps forks waiting while it lives; not to be entered twice by one thread.
struct NoForks;

/// Threads that keep forks waiting.
static ENTERED: AtomicUsize = AtomicUsize::new(0);
/// Forks that wait, or are under way.
static FORKS: AtomicUsize = AtomicUsize::new(0);

impl NoForks {
    fn enter() -> Self {
        static HANDLERS: Once = Once::new();
        HANDLERS.call_once(|| {
            // SAFETY: the handlers have no arguments, and live as long as the library is loaded;
            // the system forgets them when it is unloaded.
            let refused =
                unsafe { libc::pthread_atfork(Some(before_fork), Some(in_parent), Some(in_child)) };
            assert_eq!(refused, 0, "there is memory for three pointers");
        });
        loop {
            ENTERED.fetch_add(1, Ordering::SeqCst);
            if FORKS.load(Ordering::SeqCst) == 0 {
                return Self;
            }
            ENTERED.fetch_sub(1, Ordering::SeqCst);
            std::thread::yield_now();
        }
    }
}

impl Drop for NoForks {
    fn drop(&mut self) {
        ENTERED.fetch_sub(1, Ordering::SeqCst);
    }
}

extern "C" fn before_fork() {
    FORKS.fetch_add(1, Ordering::SeqCst);
    while ENTERED.load(Ordering::SeqCst) > 0 {
        std::thread::yield_now();
    }
}

extern "C" fn in_parent() {
    FORKS.fetch_sub(1, Ordering::SeqCst);
}

extern "C" fn in_child() {
    // Other threads that wanted to fork, or to make descriptors, are not here.
    FORKS.store(0, Ordering::SeqCst);
    ENTERED.store(0, Ordering::SeqCst);
    TABLE.close_all();
}

/// No descriptor has this number.
const FREE: RawFd = -1;
/// Descriptors of a piece of the table: those of a few links.
const SLOTS: usize = 256;
