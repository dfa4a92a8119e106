//! Values of the library that have threads of their own, as Python objects own them.

use std::ops::Deref;

use crate::attach::attach;

/// Dropped without blocking other Python threads, and never in a forked child, which lacks the
/// threads that dropping waits for.
#[derive(Debug)]
pub struct Native<T: Send + Sync> {
    value: Option<T>,
    process: u32,
}

impl<T: Send + Sync> Native<T> {
    /// Owned by this process.
    pub fn new(value: T) -> Self {
        Self {
            value: Some(value),
            process: std::process::id(),
        }
    }

    /// Whether it belongs to the process that this one was forked from.
    pub fn is_inherited(&self) -> bool {
        self.process != std::process::id()
    }
}

impl<T: Send + Sync> Deref for Native<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("taken only by `drop`")
    }
}

impl<T: Send + Sync> Drop for Native<T> {
    fn drop(&mut self) {
        let is_inherited = self.is_inherited();
        let Some(value) = self.value.take() else {
            return;
        };
        if is_inherited {
            return std::mem::forget(value);
        }
        let mut value = Some(value);
        // While the interpreter shuts down there are no other threads to let run: then it is
        // dropped below.
        attach(|py| py.detach(|| drop(value.take())));
        drop(value);
    }
}
