//! Handles: what C holds is a number that is never given twice, so that NULL, a destroyed handle
//! and one of another kind are told apart from a good one.
//!
//! A handle may be destroyed while other threads use it: each call keeps what it works on.
//!
//! After a fork the child has the parent's numbers, but none of its threads, and perhaps its locks
//! in a state that nobody will ever change. So the table belongs to a process: a child finds out
//! without a lock, and begins a table of its own with its first handle.

use std::collections::BTreeMap;
use std::ptr::without_provenance_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use ccl_core::Error;
use ccl_core::lock::RwLock;

use crate::communicator::Communicator;
use crate::master::Master;
use crate::operation::Operation;
use crate::result::{Failure, Outcome};
use crate::shared_state::SharedState;

/// What a handle stands for.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    /// Of `cclMaster_t`.
    Master(Arc<Master>),
    /// Of `cclCommunicator_t`.
    Communicator(Arc<Communicator>),
    /// Of `cclOperation_t`.
    Operation(Arc<Operation>),
    /// Of `cclSharedState_t`.
    SharedState(Arc<SharedState>),
}

/// A kind of thing that has handles.
pub(crate) trait Kind: Sized {
    /// What is said of a handle of another kind.
    const IS_NO: &str;
    /// As an entry of the table.
    fn wrap(this: Arc<Self>) -> Entry;
    /// From an entry of the table.
    fn unwrap(entry: Entry) -> Option<Arc<Self>>;
}

macro_rules! kind {
    ($name:ident, $words:literal) => {
        impl Kind for $name {
            const IS_NO: &str = $words;

            fn wrap(this: Arc<Self>) -> Entry {
                Entry::$name(this)
            }

            fn unwrap(entry: Entry) -> Option<Arc<Self>> {
                match entry {
                    Entry::$name(this) => Some(this),
                    _ => None,
                }
            }
        }
    };
}

kind!(Master, "it is no master's, or was destroyed");
kind!(Communicator, "it is no communicator's, or was destroyed");
kind!(Operation, "it is no operation's, or was destroyed");
kind!(SharedState, "it is no shared state's, or was destroyed");

/// The handles of one process.
#[derive(Debug)]
struct Table {
    process: u32,
    /// Numbers below were given by the parent, before the fork.
    first: u64,
    entries: RwLock<BTreeMap<u64, Entry>>,
}

static TABLE: AtomicPtr<Table> = AtomicPtr::new(std::ptr::null_mut());
static NEXT: AtomicU64 = AtomicU64::new(1);
/// Numbers are multiples of it, so that one is hardly taken for an index or a descriptor.
const STEP: u64 = 16;

/// Gives a thing its handle.
pub(crate) fn insert<T: Kind, Opaque>(this: Arc<T>) -> *mut Opaque {
    let table = own_table();
    let number = NEXT.fetch_add(1, Ordering::Relaxed) * STEP;
    table.entries.write().insert(number, T::wrap(this));
    without_provenance_mut(usize::try_from(number).expect("memory ends before the numbers"))
}

/// What a handle stands for.
pub(crate) fn get<T: Kind, Opaque>(handle: *mut Opaque) -> Outcome<Arc<T>> {
    let number = number(handle)?;
    let table = table_of(number)?;
    let entry = table.entries.read().get(&number).cloned();
    entry.and_then(T::unwrap).ok_or(Failure::Handle(T::IS_NO))
}

/// Takes a handle back.
pub(crate) fn remove<T: Kind, Opaque>(handle: *mut Opaque) -> Outcome<Arc<T>> {
    let number = number(handle)?;
    let table = table_of(number)?;
    let mut entries = table.entries.write();
    let entry = entries.get(&number).cloned();
    let this = entry.and_then(T::unwrap).ok_or(Failure::Handle(T::IS_NO))?;
    entries.remove(&number);
    Ok(this)
}

fn number<Opaque>(handle: *mut Opaque) -> Outcome<u64> {
    match handle.addr() {
        0 => Err(Failure::Handle("it is NULL")),
        number => Ok(number as u64),
    }
}

/// The table that may hold this number.
fn table_of(number: u64) -> Outcome<&'static Table> {
    let unknown = Failure::Handle("the library never gave it");
    let table = current().ok_or(unknown)?;
    if table.process != std::process::id() || number < table.first {
        return Err(Error::Forked.into());
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
            // SAFETY: made above and shown to nobody.
            drop(unsafe { Box::from_raw(fresh) });
        }
    }
}
