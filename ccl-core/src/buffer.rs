//! Memory lent to the tasks that move bytes, and how it is taken back.
//!
//! A [`Region`] is a range of memory behind a [`Gate`]. Tasks touch it only inside `read` and
//! `write`, whose closures run for one system call or one addition. `Gate::close` waits until no
//! task is inside and admits none afterwards: the memory is then the caller's alone.
#![allow(unsafe_code)]

use std::alloc::Layout;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Who is inside, and whether anybody may still enter.
#[derive(Debug, Default)]
pub struct Gate {
    /// Users inside, times two; plus one when closed.
    state: AtomicUsize,
    /// Memory of the library that regions behind this gate lie in; lives as long as they do.
    keeps: Vec<Arc<Storage>>,
}

const CLOSED: usize = 1;
const USER: usize = 2;

impl Gate {
    /// An open gate.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// An open gate that keeps memory alive for the regions behind it.
    #[must_use]
    pub fn keeping(storages: Vec<Arc<Storage>>) -> Arc<Self> {
        Arc::new(Self {
            state: AtomicUsize::new(0),
            keeps: storages,
        })
    }

    /// Enters, unless the gate is closed. Stay inside for one system call or one addition.
    pub fn enter(&self) -> Option<Inside<'_>> {
        let before = self.state.fetch_add(USER, Ordering::Acquire);
        let inside = Inside(self);
        (before & CLOSED == 0).then_some(inside)
    }

    /// Closes the gate and waits until no task is inside: at most one non-blocking system call or
    /// one addition of a segment.
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

/// Somebody inside a gate: its memory is valid until this is dropped.
#[derive(Debug)]
pub struct Inside<'a>(&'a Gate);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.state.fetch_sub(USER, Ordering::Release);
    }
}

/// The system gives no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot allocate {bytes} bytes of memory")]
pub struct NoMemory {
    /// How much was asked for.
    pub bytes: usize,
}

/// Memory of the library itself, zero until written, and not taken from the system before.
#[derive(Debug)]
pub struct Storage {
    /// First byte that is used, at the start of a cache line.
    pointer: *mut u8,
    bytes: usize,
    /// As it was allocated.
    allocation: *mut u8,
    layout: Layout,
}

// SAFETY: the memory is only touched through regions; see `Region`.
unsafe impl Send for Storage {}
// SAFETY: as above.
unsafe impl Sync for Storage {}

impl Storage {
    /// `bytes` bytes, a few.
    ///
    /// # Panics
    /// If there is no memory.
    #[must_use]
    pub fn new(bytes: usize) -> Arc<Self> {
        Self::try_new(bytes).expect("the system has memory for a few bytes")
    }

    /// `bytes` bytes, perhaps more than there are.
    ///
    /// # Errors
    /// If the system does not give them.
    pub fn try_new(bytes: usize) -> Result<Arc<Self>, NoMemory> {
        // A larger alignment would make the allocator write zeros to every page at once.
        let layout = Layout::from_size_align(
            bytes.saturating_add(CACHE_LINE_BYTES),
            ALLOCATION_ALIGNMENT_BYTES,
        )
        .map_err(|_| NoMemory { bytes })?;
        // SAFETY: the layout has at least one byte.
        let allocation = unsafe { std::alloc::alloc_zeroed(layout) };
        if allocation.is_null() {
            return Err(NoMemory { bytes });
        }
        let skipped = allocation.align_offset(CACHE_LINE_BYTES);
        assert!(
            skipped < CACHE_LINE_BYTES,
            "bytes can be aligned to any power of two"
        );
        // SAFETY: the allocation is longer than what is used by a cache line.
        let pointer = unsafe { allocation.add(skipped) };
        Ok(Arc::new(Self {
            pointer,
            bytes,
            allocation,
            layout,
        }))
    }

    /// Length in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The memory behind `gate`.
    ///
    /// # Panics
    /// If the gate does not keep this memory.
    #[must_use]
    pub fn open(self: &Arc<Self>, gate: &Arc<Gate>) -> Region {
        let is_kept = gate.keeps.iter().any(|kept| Arc::ptr_eq(kept, self));
        assert!(is_kept, "the gate keeps the memory of its regions");
        Region {
            gate: Arc::clone(gate),
            pointer: self.pointer,
            bytes: self.bytes,
        }
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout; the gates of all regions on it are gone.
        unsafe { std::alloc::dealloc(self.allocation, self.layout) };
    }
}

/// Kernels meet whole cache lines if chunks, which begin at multiples of this, do so in memory.
const CACHE_LINE_BYTES: usize = 64;
/// What the system's allocator guarantees anyway.
const ALLOCATION_ALIGNMENT_BYTES: usize = 8;

/// A range of memory behind a gate. Clones refer to the same memory.
///
/// Who may read or write which bytes when is decided by the collective's schedule: no two users
/// touch the same bytes at once unless both read.
#[derive(Clone, Debug)]
pub struct Region {
    gate: Arc<Gate>,
    pointer: *mut u8,
    bytes: usize,
}

// SAFETY: the memory outlives the gate's closing (promised to `Region::new`), and the schedule
// keeps concurrent users on disjoint bytes.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// Lends `bytes` bytes from `pointer` until `gate` is closed. Null may stand for no bytes.
    ///
    /// # Safety
    /// The memory must stay valid, and untouched by others except as the schedule allows, until
    /// `gate.close()` has returned. For a region that is only read, shared reads by others are
    /// fine.
    #[must_use]
    pub unsafe fn new(gate: Arc<Gate>, pointer: *mut u8, bytes: usize) -> Self {
        Self {
            gate,
            pointer: never_null(pointer),
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

    /// Whether both are the same memory.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.pointer == other.pointer && self.bytes == other.bytes
    }

    /// A part of the memory, for somebody inside its gate already.
    ///
    /// # Panics
    /// If the range is not inside it, or the gate is another.
    #[must_use]
    pub fn look<'a>(&'a self, inside: &'a Inside<'_>, range: Range<usize>) -> &'a [u8] {
        self.check(inside, &range);
        // SAFETY: `inside` keeps the memory valid; the range was checked; nobody writes these bytes
        // (type contract).
        unsafe { std::slice::from_raw_parts(self.pointer.add(range.start), range.len()) }
    }

    /// A part of the memory to write, for somebody inside its gate already.
    ///
    /// # Panics
    /// If the range is not inside it, or the gate is another.
    #[must_use]
    #[allow(clippy::mut_from_ref)]
    pub fn touch<'a>(&'a self, inside: &'a Inside<'_>, range: Range<usize>) -> &'a mut [u8] {
        self.check(inside, &range);
        // SAFETY: `inside` keeps the memory valid; the range was checked; nobody else uses these
        // bytes (type contract).
        unsafe { std::slice::from_raw_parts_mut(self.pointer.add(range.start), range.len()) }
    }

    fn check(&self, inside: &Inside<'_>, range: &Range<usize>) {
        assert!(
            std::ptr::eq(inside.0, &*self.gate),
            "whoever is inside another gate stays out of this one"
        );
        assert!(
            range.start <= range.end && range.end <= self.bytes,
            "range outside its region"
        );
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
        // SAFETY: inside the gate the memory is valid; nobody else uses these bytes (type
        // contract).
        Some(f(unsafe {
            std::slice::from_raw_parts_mut(self.pointer, self.bytes)
        }))
    }
}

/// Callers in C and Python give null for empty buffers; no slice in Rust may begin there.
fn never_null(pointer: *mut u8) -> *mut u8 {
    if pointer.is_null() {
        return std::ptr::dangling_mut();
    }
    pointer
}

/// Memory that a caller lends for one call, before any task may touch it.
///
/// Each attempt at the call opens regions on it behind a gate of its own, so that an attempt that
/// was stopped can never reach the memory while the next one uses it.
#[derive(Clone, Debug)]
pub struct Lent {
    pointer: *mut u8,
    bytes: usize,
}

// SAFETY: the memory is only touched through regions; see `Region`.
unsafe impl Send for Lent {}
// SAFETY: as above.
unsafe impl Sync for Lent {}

impl Lent {
    /// Lends `bytes` bytes from `pointer`. Null may stand for no bytes.
    ///
    /// # Safety
    /// As [`Region::new`], for every gate that a region of it is opened behind. Memory whose
    /// regions are only read need not be writable.
    #[must_use]
    pub unsafe fn new(pointer: *mut u8, bytes: usize) -> Self {
        let pointer = never_null(pointer);
        Self { pointer, bytes }
    }

    /// The memory behind `gate`.
    #[must_use]
    pub fn open(&self, gate: &Arc<Gate>) -> Region {
        Region {
            gate: Arc::clone(gate),
            pointer: self.pointer,
            bytes: self.bytes,
        }
    }

    /// Where it lies, for comparisons.
    #[must_use]
    pub fn addresses(&self) -> Range<usize> {
        let start = self.pointer as usize;
        start..start.saturating_add(self.bytes)
    }

    /// The memory as elements.
    ///
    /// # Safety
    /// It holds at least `count` of them, aligned, and nobody writes it meanwhile.
    #[must_use]
    pub unsafe fn as_slice<T>(&self, count: usize) -> &[T] {
        if count == 0 {
            return &[];
        }
        // SAFETY: passed on from the caller.
        unsafe { std::slice::from_raw_parts(self.pointer.cast(), count) }
    }

    /// The memory as elements, to write them.
    ///
    /// # Safety
    /// As `as_slice`, and nobody else uses it meanwhile.
    #[must_use]
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn as_mut_slice<T>(&self, count: usize) -> &mut [T] {
        if count == 0 {
            return &mut [];
        }
        // SAFETY: passed on from the caller.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.cast(), count) }
    }

    /// Length in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether both are the same memory: the call is in place.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.pointer == other.pointer && self.bytes == other.bytes
    }
}

#[cfg(test)]
impl Lent {
    /// Memory for tests. It is leaked, and so valid for ever.
    pub(crate) fn leaked(bytes: Vec<u8>) -> Self {
        let memory = bytes.leak();
        // SAFETY: nobody else knows this memory, and it is never freed.
        unsafe { Self::new(memory.as_mut_ptr(), memory.len()) }
    }

    /// What is in the memory now.
    pub(crate) fn snapshot(&self) -> Vec<u8> {
        let region = self.open(&Gate::new());
        region.read(<[u8]>::to_vec).expect("the gate is open")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_is_zero_aligned_and_lives_as_long_as_its_regions() {
        let storage = Storage::new(1000);
        let region = storage.open(&Gate::keeping(vec![Arc::clone(&storage)]));
        drop(storage);
        region.write(|bytes| {
            assert_eq!(bytes, [0; 1000]);
            assert_eq!(bytes.as_ptr().align_offset(64), 0);
            bytes.fill(1);
        });
        assert_eq!(region.read(|bytes| bytes[999]), Some(1));
    }

    #[test]
    fn more_memory_than_there_is_is_refused() {
        for bytes in [usize::MAX, isize::MAX as usize, isize::MAX as usize - 4096] {
            assert_eq!(Storage::try_new(bytes).unwrap_err(), NoMemory { bytes });
        }
    }

    #[test]
    #[should_panic(expected = "the gate keeps")]
    fn a_gate_that_does_not_keep_storage_alive_is_refused() {
        let _ = Storage::new(8).open(&Gate::new());
    }

    #[test]
    #[should_panic(expected = "another gate")]
    fn being_inside_one_gate_opens_no_other() {
        let (gate, other) = (Gate::new(), Gate::new());
        let region = Lent::leaked(vec![0; 8]).open(&gate);
        let inside = other.enter().unwrap();
        let _ = region.look(&inside, 0..1);
    }

    #[test]
    fn no_bytes_at_a_null_pointer_are_an_empty_slice() {
        // SAFETY: nothing can be reached through a region of no bytes.
        let lent = unsafe { Lent::new(std::ptr::null_mut(), 0) };
        let gate = Gate::new();
        let region = lent.open(&gate);
        assert_eq!(region.write(|bytes| bytes.len()), Some(0));
        assert_eq!(region.read(<[u8]>::len), Some(0));
        let inside = gate.enter().unwrap();
        assert!(region.touch(&inside, 0..0).is_empty());
        assert!(region.slice(0..0).look(&inside, 0..0).is_empty());
    }

    #[test]
    fn a_closed_gate_lets_nobody_in() {
        let mut memory = vec![0_u8; 8];
        let gate = Gate::new();
        // SAFETY: `memory` outlives the gate's closing below.
        let lent = unsafe { Lent::new(memory.as_mut_ptr(), memory.len()) };
        let region = lent.open(&gate).slice(2..4);
        assert_eq!(region.write(|bytes| bytes.fill(7)), Some(()));
        assert_eq!(region.read(<[u8]>::len), Some(2));
        gate.close();
        assert_eq!(region.write(|bytes| bytes.fill(9)), None);
        assert_eq!(memory, [0, 0, 7, 7, 0, 0, 0, 0]);
    }

    #[test]
    fn closing_waits_for_whoever_is_inside() {
        let mut memory = vec![0_u8; 1];
        let gate = Gate::new();
        // SAFETY: `memory` outlives the gate's closing below.
        let region = unsafe { Region::new(Arc::clone(&gate), memory.as_mut_ptr(), 1) };
        let (entered, wait_entered) = std::sync::mpsc::channel();
        let (leave, wait_leave) = std::sync::mpsc::channel::<()>();
        let user = std::thread::spawn(move || {
            region.write(|bytes| {
                entered.send(()).unwrap();
                wait_leave.recv().unwrap();
                bytes[0] = 1;
            })
        });
        wait_entered.recv().unwrap();
        let closer = std::thread::spawn(move || gate.close());
        leave.send(()).unwrap();
        closer.join().unwrap();
        assert_eq!(memory[0], 1, "the write ended before the memory came back");
        assert_eq!(user.join().unwrap(), Some(()));
    }
}
