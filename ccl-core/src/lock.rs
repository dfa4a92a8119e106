//! Locks that work in a forked child and are not poisoned by a panic.
//!
//! They are std's, whose state lies in the lock itself, so a lock that a forked child creates
//! works. parking_lot keeps waiters in a process-wide table, which the child may copy in the middle
//! of another thread's change (docs/decisions/0004-locks-of-std.md).

use std::sync::{PoisonError, TryLockError};
use std::time::Duration;

pub use std::sync::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};

/// [`std::sync::Mutex`]; after a panic of its holder it goes on with what is there.
#[derive(Debug, Default)]
pub struct Mutex<T: ?Sized>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    /// A lock around `value`.
    pub const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    /// The value, which nobody else can reach any more.
    pub fn into_inner(self) -> T {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Blocks until the lock is this thread's.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock, if nobody holds it; does not block.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        free(self.0.try_lock())
    }
}

/// [`std::sync::Condvar`]. A wait may end without a notice, as std's.
#[derive(Debug, Default)]
pub struct Condvar(std::sync::Condvar);

impl Condvar {
    /// One that nobody waits for.
    #[must_use]
    pub const fn new() -> Self {
        Self(std::sync::Condvar::new())
    }

    /// Wakes one that waits.
    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Wakes all that wait.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }

    /// Lets go of the lock until a notice comes.
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.0.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    /// As `wait`, at most as long as `timeout`; whether that is over.
    pub fn wait_for<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> (MutexGuard<'a, T>, bool) {
        let woken = self.0.wait_timeout(guard, timeout);
        let (guard, result) = woken.unwrap_or_else(PoisonError::into_inner);
        (guard, result.timed_out())
    }

    /// Lets go of the lock while `is_waiting` holds of the value.
    pub fn wait_while<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        is_waiting: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'a, T> {
        let woken = self.0.wait_while(guard, is_waiting);
        woken.unwrap_or_else(PoisonError::into_inner)
    }

    /// As `wait_while`, at most as long as `timeout`; what came of it shows in the value.
    pub fn wait_while_for<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        is_waiting: impl FnMut(&mut T) -> bool,
        timeout: Duration,
    ) -> MutexGuard<'a, T> {
        let woken = self.0.wait_timeout_while(guard, timeout, is_waiting);
        woken.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// [`std::sync::RwLock`]; after a panic of its holder it goes on with what is there.
#[derive(Debug, Default)]
pub struct RwLock<T: ?Sized>(std::sync::RwLock<T>);

impl<T> RwLock<T> {
    /// A lock around `value`.
    pub const fn new(value: T) -> Self {
        Self(std::sync::RwLock::new(value))
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Blocks until nobody writes.
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks until nobody reads or writes.
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock to read, if nobody writes; does not block.
    pub fn try_read(&self) -> Option<RwLockReadGuard<'_, T>> {
        free(self.0.try_read())
    }
}

fn free<G>(attempt: Result<G, TryLockError<G>>) -> Option<G> {
    match attempt {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_the_holder_poisons_nothing() {
        let (lock, shared) = (Mutex::new(1), RwLock::new(1));
        let panicked = std::thread::scope(|scope| {
            let holder = || {
                let (mut a, mut b) = (lock.lock(), shared.write());
                (*a, *b) = (2, 2);
                panic!("on purpose, while both are held");
            };
            scope.spawn(holder).join().is_err()
        });
        assert!(panicked);
        assert_eq!((*lock.lock(), *shared.read()), (2, 2));
        assert_eq!(lock.try_lock().map(|value| *value), Some(2));
        assert_eq!(shared.try_read().map(|value| *value), Some(2));
        let (guard, is_late) = Condvar::new().wait_for(lock.lock(), Duration::ZERO);
        assert!(is_late);
        drop(guard);
        assert_eq!(lock.into_inner(), 2);
    }

    #[test]
    fn a_held_lock_is_not_waited_for_by_an_attempt() {
        let (lock, shared) = (Mutex::new(()), RwLock::new(()));
        let (_held, _written) = (lock.lock(), shared.write());
        std::thread::scope(|scope| {
            let attempt = || lock.try_lock().is_none() && shared.try_read().is_none();
            assert!(scope.spawn(attempt).join().unwrap());
        });
    }
}
