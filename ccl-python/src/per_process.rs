//! Values of which a forked child gets its own.
//!
//! A lock of the parent may be held forever in the child, by a thread that the child does not have.
//! So the child does not use it.

use std::sync::OnceLock;

/// A value for each process; those of its ancestors stay in memory.
#[derive(Debug)]
pub struct PerProcess<T: 'static> {
    process: OnceLock<u32>,
    value: T,
    of_child: OnceLock<Box<Self>>,
}

impl<T> PerProcess<T> {
    /// Creates it with the value of the first process.
    pub const fn new(value: T) -> Self {
        Self {
            process: OnceLock::new(),
            value,
            of_child: OnceLock::new(),
        }
    }

    /// The value of this process, made by `make` if it is a child that has none yet.
    pub fn get(&'static self, make: fn() -> T) -> &'static T {
        let process = std::process::id();
        let mut place = self;
        while *place.process.get_or_init(|| process) != process {
            let child = &place.of_child;
            place = child.get_or_init(|| Box::new(Self::new(make())));
        }
        &place.value
    }
}
