//! Handles: C holds a number that is never reused, so that NULL, a destroyed handle and one of
//! another kind are detected.
//!
//! The table does not know the kinds of its entries, so other crates with a C interface can keep
//! theirs here too. A handle may be destroyed while other threads use it: each call keeps its
//! object alive.
//!
//! After a fork the child has the parent's numbers, but none of its threads, and perhaps locks that
//! are held forever. So the table belongs to one process: a child detects this without a lock, and
//! starts its own table with its first handle.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::ptr::without_provenance_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use ccl_core::lock::RwLock;

/// A kind of thing that has handles.
pub trait Kind: Any + Send + Sync {
    /// What failures call it, such as `communicator`.
    const NAME: &'static str;
}

/// Why a handle is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// It is NULL.
    Null,
    /// The library never issued this number.
    Unknown,
    /// It is not a handle of the kind of this name, or was destroyed.
    Not(&'static str),
    /// It belongs to the parent process.
    Forked,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("it is NULL"),
            Self::Unknown => f.write_str("the library never issued it"),
            Self::Not(kind) => write!(f, "it does not belong to a {kind}, or was destroyed"),
            Self::Forked => f.write_str("it belongs to the parent process"),
        }
    }
}

/// The object behind a handle, of any kind.
type Entry = Arc<dyn Any + Send + Sync>;

/// The handles of one process.
#[derive(Debug)]
struct Table {
    process: u32,
    /// Lower numbers were issued by the parent, before the fork.
    first: u64,
    entries: RwLock<BTreeMap<u64, Entry>>,
}

/// Issues a handle for an object.
///
/// # Panics
/// If there have been more handles than memory has addresses.
pub fn insert<T: Kind, Opaque>(this: Arc<T>) -> *mut Opaque {
    let table = own_table();
    let number = NEXT.fetch_add(1, Ordering::Relaxed) * STEP;
    table.entries.write().insert(number, this);
    without_provenance_mut(usize::try_from(number).expect("memory ends before the numbers"))
}

/// What a handle stands for.
///
/// # Errors
/// Why it stands for nothing.
pub fn get<T: Kind, Opaque>(handle: *mut Opaque) -> Result<Arc<T>, Invalid> {
    let number = number(handle)?;
    let entry = table_of(number)?.entries.read().get(&number).cloned();
    downcast(entry)
}

/// Takes a handle back.
///
/// # Errors
/// Why it stands for nothing.
pub fn remove<T: Kind, Opaque>(handle: *mut Opaque) -> Result<Arc<T>, Invalid> {
    let number = number(handle)?;
    let mut entries = table_of(number)?.entries.write();
    let this = downcast(entries.get(&number).cloned())?;
    entries.remove(&number);
    Ok(this)
}

fn downcast<T: Kind>(entry: Option<Entry>) -> Result<Arc<T>, Invalid> {
    let this = entry.and_then(|entry| entry.downcast().ok());
    this.ok_or(Invalid::Not(T::NAME))
}

fn number<Opaque>(handle: *mut Opaque) -> Result<u64, Invalid> {
    match handle.addr() {
        0 => Err(Invalid::Null),
        number => Ok(number as u64),
    }
}

/// The table that may hold this number.
fn table_of(number: u64) -> Result<&'static Table, Invalid> {
    let table = current().ok_or(Invalid::Unknown)?;
    if table.process != std::process::id() || number < table.first {
        return Err(Invalid::Forked);
    }
    Ok(table)
}

fn current() -> Option<&'static Table> {
    // SAFETY: NULL, or a table that was leaked in `own_table`.
    unsafe { TABLE.load(Ordering::Acquire).as_ref() }
}

/// This process's table, made if need be. A parent's table is never touched again in a child.
fn own_table() -> &'static Table {
    loop {
        let found = TABLE.load(Ordering::Acquire);
        if let Some(table) = current().filter(|table| table.process == std::process::id()) {
            return table;
        }
        let fresh = Box::into_raw(Box::new(Table {
            process: std::process::id(),
            first: NEXT.load(Ordering::Relaxed) * STEP,
            entries: RwLock::default(),
        }));
        let swap = TABLE.compare_exchange(found, fresh, Ordering::AcqRel, Ordering::Acquire);
        if swap.is_err() {
            // SAFETY: created above and not published.
            drop(unsafe { Box::from_raw(fresh) });
        }
    }
}

static TABLE: AtomicPtr<Table> = AtomicPtr::new(std::ptr::null_mut());
static NEXT: AtomicU64 = AtomicU64::new(1);
/// Handles are multiples of this, so that they are not easily confused with indices or descriptors.
const STEP: u64 = 16;
