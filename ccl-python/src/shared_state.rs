//! `ccl.SharedState`: data that all members hold with the same bits, in Python's memory.
//!
//! Its source is looked up again at each call (`ccl._state`), because torch replaces tensors when
//! it loads a state; memory is held only while a call uses it. `sync` makes it equal on all
//! members.
#![allow(unsafe_code)]

use std::borrow::{Borrow, BorrowMut};
use std::path::PathBuf;
use std::sync::Arc;

use ccl_core::lock::Mutex;
use ccl_core::{Checkpoints, Hashes, Key, Result};
use pyo3::exceptions::PyFileNotFoundError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

use crate::errors::{about, invalid, raise};
use crate::memory::{Keep, Memory, Use};
use crate::results::StateId;
use crate::staged::Staged;
use crate::sync::{Turn, Turning};

type Object<'a, 'py> = &'a Bound<'py, PyAny>;

/// A dict of arrays, a module, an optimizer, or a list of these, and its revision.
#[pyclass(frozen, weakref, module = "ccl")]
#[derive(Debug)]
pub struct SharedState {
    source: Py<PyAny>,
    /// Names of the entries that may differ between members.
    unequal: Py<PyAny>,
    facts: Arc<Mutex<Facts>>,
    /// Checkpoints that the last load passed over.
    skipped: Mutex<Vec<String>>,
    turn: Arc<Turn>,
}

/// Facts about the content.
#[derive(Debug)]
pub struct Facts {
    revision: u64,
    is_usable: bool,
    /// What the last sync hashed.
    hashes: Option<Hashes>,
}

#[pymethods]
impl SharedState {
    #[new]
    #[pyo3(signature = (source, *, revision = 0, allow_inequality = None))]
    fn new(
        source: Object<'_, '_>,
        revision: u64,
        allow_inequality: Option<Object<'_, '_>>,
    ) -> PyResult<Self> {
        let names = source.py().import("ccl._state")?;
        let unequal = names.call_method1("names", (allow_inequality,))?;
        let facts = Facts {
            revision,
            is_usable: true,
            hashes: None,
        };
        let state = Self {
            source: source.clone().unbind(),
            unequal: unequal.unbind(),
            facts: Arc::new(Mutex::new(facts)),
            skipped: Mutex::default(),
            turn: Arc::default(),
        };
        // Reports errors now rather than at the first sync.
        let _ = state.prepare(source.py(), Use::Look)?;
        Ok(state)
    }

    /// The revision: how often the state was advanced.
    #[getter]
    fn revision(&self) -> u64 {
        self.facts.lock().revision
    }

    #[setter]
    fn set_revision(&self, py: Python<'_>, revision: u64) -> PyResult<()> {
        let _turn = self.take(py)?;
        self.facts.lock().revision = revision;
        Ok(())
    }

    /// Whether the content is consistent; false after a sync failed half-way.
    #[getter]
    fn is_usable(&self) -> bool {
        self.facts.lock().is_usable
    }

    /// Marks the content as a mixture: the next sync only receives.
    fn mark_mixed(&self, py: Python<'_>) -> PyResult<()> {
        let _turn = self.take(py)?;
        self.facts.lock().is_usable = false;
        Ok(())
    }

    /// Declares that the program itself has filled the memory with a consistent content.
    #[pyo3(signature = (revision = 0))]
    fn begin_anew(&self, py: Python<'_>, revision: u64) -> PyResult<()> {
        let _turn = self.take(py)?;
        *self.facts.lock() = Facts {
            revision,
            is_usable: true,
            hashes: None,
        };
        Ok(())
    }

    /// Names of the entries, in order.
    #[getter]
    fn names(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let prepared = self.prepare(py, Use::Look)?;
        let keys = prepared.state.keys().iter();
        Ok(keys.map(|key| key.name.clone()).collect())
    }

    /// The root digest over all entries as they are now, in hexadecimal.
    fn root(&self, py: Python<'_>) -> PyResult<String> {
        self.with(py, Use::Read, |state| {
            state.root().map(|root| root.to_string())
        })
    }

    /// Saves the state and its revision; returns the path once the file survives a power loss.
    #[pyo3(signature = (directory, *, keep = 2))]
    fn save(&self, py: Python<'_>, directory: PathBuf, keep: usize) -> PyResult<PathBuf> {
        if keep == 0 {
            return Err(invalid(
                py,
                "keep is 0; expected at least 1, the new checkpoint",
            ));
        }
        let checkpoints = Checkpoints::new(directory).keep(keep);
        self.with(py, Use::Read, |state| state.save(&checkpoints))
    }

    /// Loads the newest intact checkpoint. If there are no checkpoints, raises FileNotFoundError,
    /// or returns false with missing_ok.
    #[pyo3(signature = (directory, *, missing_ok = false))]
    fn load(&self, py: Python<'_>, directory: PathBuf, missing_ok: bool) -> PyResult<bool> {
        let checkpoints = Checkpoints::new(&directory);
        let loaded = self.with(py, Use::Write, |state| state.load(&checkpoints))?;
        let is_loaded = loaded.is_some();
        if !is_loaded && !missing_ok {
            let what = "no checkpoint there (missing_ok=True returns False instead)";
            let number = py.import("errno")?.getattr("ENOENT")?.unbind();
            return Err(PyFileNotFoundError::new_err((number, what, directory)));
        }
        let skipped = loaded.map_or_else(Vec::new, |loaded| loaded.skipped);
        self.skipped.lock().clone_from(&skipped);
        for what in skipped {
            let words = format!("a checkpoint cannot be used: {what}; an older one was loaded");
            py.import("ccl._log")?.call_method1("tell", (words,))?;
        }
        Ok(is_loaded)
    }

    /// Newer checkpoints that the last load passed over, newest first: file, and what is wrong.
    #[getter]
    fn skipped(&self) -> Vec<String> {
        self.skipped.lock().clone()
    }

    fn __repr__(&self) -> String {
        let (revision, is_usable) = {
            let facts = self.facts.lock();
            (facts.revision, facts.is_usable)
        };
        let is_usable = if is_usable { "True" } else { "False" };
        format!("SharedState(revision={revision}, is_usable={is_usable})")
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> std::result::Result<(), PyTraverseError> {
        visit.call(&self.source)?;
        visit.call(&self.unequal)
    }
}

/// The newest checkpoint in a directory, without hashing it; `None` if there are no checkpoints.
#[pyfunction]
pub fn newest_checkpoint(py: Python<'_>, directory: PathBuf) -> PyResult<Option<StateId>> {
    let newest = py
        .detach(|| Checkpoints::new(directory).newest())
        .map_err(|error| raise(py, &error))?;
    Ok(newest.map(StateId))
}

impl SharedState {
    /// The right to use the state, until it is dropped.
    ///
    /// # Errors
    /// `InvalidUsage` if another call uses it, or what a signal handler raised.
    pub fn take(&self, py: Python<'_>) -> PyResult<Turning> {
        self.turn.take(py, "another call on this state")
    }

    /// The state for `ccl-core`, with the objects that hold its memory in place.
    ///
    /// # Errors
    /// `InvalidArgument` or `TypeError` with the name of the entry and what to do about it.
    pub fn prepare(&self, py: Python<'_>, access: Use) -> PyResult<Prepared> {
        let module = py.import("ccl._state")?;
        // SAFETY: the object is alive, and this thread is attached to the interpreter.
        let references = unsafe { pyo3::ffi::Py_REFCNT(self.source.as_ptr()) };
        // Other owners see what is written to it.
        let is_held = access != Use::Write || references > 1;
        let content = module.call_method1("look", (&self.source, &self.unequal, is_held))?;
        let mut state = ccl_core::SharedState::new(self.revision());
        if !self.is_usable() {
            state.mark_mixed();
        }
        let mut keeps = Vec::new();
        for entry in content.getattr("entries")?.try_iter()? {
            let (name, object, shape, allow_inequality) = entry?.extract::<Entry<'_>>()?;
            let memory = Memory::of(&object, access).map_err(|error| named(py, &name, &error))?;
            let key = Key {
                name,
                dtype: memory.dtype,
                shape: shape.unwrap_or_else(|| vec![memory.count as u64]),
                allow_inequality,
            };
            check_count(py, &key, &memory)?;
            // SAFETY: `keeps` holds the memory for as long as the state. That Python code does not
            // touch it while a call uses it is what the documentation asks of it.
            let added = unsafe { state.add_raw(key, memory.address as *mut u8) };
            added.map_err(|error| raise(py, &error))?;
            keeps.push(memory.keep);
        }
        let staged = Staged::of(py, &keeps)?;
        Ok(Prepared {
            state,
            content: content.unbind(),
            facts: Arc::clone(&self.facts),
            staged,
            _keeps: keeps,
        })
    }

    /// Uses the state, and lets other threads run meanwhile.
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        access: Use,
        body: impl FnOnce(&mut ccl_core::SharedState<'static>) -> Result<T> + Send,
    ) -> PyResult<T> {
        let turn = self.take(py)?;
        let mut prepared = self.prepare(py, access)?;
        let result = py.detach(|| body(&mut prepared.state));
        if access == Use::Write {
            prepared.settle();
            prepared.write_back(py, result.is_ok())?;
        }
        drop(turn);
        result.map_err(|error| raise(py, &error))
    }
}

/// Name, memory, shape unless it has none, and whether contents may differ.
type Entry<'py> = (String, Bound<'py, PyAny>, Option<Vec<u64>>, bool);

/// A state for one call.
#[derive(Debug)]
pub struct Prepared {
    /// Lies in the memory that is held here.
    pub state: ccl_core::SharedState<'static>,
    /// A `ccl._state.Content`.
    content: Py<PyAny>,
    facts: Arc<Mutex<Facts>>,
    staged: Staged,
    _keeps: Vec<Keep>,
}

impl Prepared {
    /// Reuses the hashes of the last sync; returns the indices of the entries to hash again, which
    /// always include numbers.
    ///
    /// # Errors
    /// `InvalidArgument` for a name that no entry has, `TypeError` if it is not a list of names.
    pub fn resume(&mut self, touched: &Bound<'_, PyAny>) -> PyResult<Vec<usize>> {
        let py = touched.py();
        let indices = self
            .content
            .call_method1(py, "touched", (touched,))?
            .extract(py)?;
        let hashes = self.facts.lock().hashes.take();
        hashes
            .into_iter()
            .for_each(|hashes| self.state.resume(hashes));
        Ok(indices)
    }

    /// Keeps the results of the call.
    pub fn settle(&mut self) {
        *self.facts.lock() = Facts {
            revision: self.state.revision(),
            is_usable: self.state.is_usable(),
            hashes: self.state.take_hashes(),
        };
    }

    /// Copies back what is not written in place, if the content is whole: numbers and, if any
    /// memory was written, tensors on devices.
    ///
    /// # Errors What their owners raise. The content is then a mixture.
    pub fn write_back(&self, py: Python<'_>, is_memory_written: bool) -> PyResult<()> {
        if !self.state.is_usable() {
            return self.staged.settle(py, false);
        }
        let delivered = self.staged.settle(py, is_memory_written);
        let arrived = delivered.and_then(|()| self.staged.wait(py));
        let written = arrived.and_then(|()| self.content.call_method0(py, "write_back"));
        self.facts.lock().is_usable = written.is_ok();
        written.map(drop)
    }
}

/// A sync owns the state, and so its memory too.
impl BorrowMut<ccl_core::SharedState<'static>> for Prepared {
    fn borrow_mut(&mut self) -> &mut ccl_core::SharedState<'static> {
        &mut self.state
    }
}

impl Borrow<ccl_core::SharedState<'static>> for Prepared {
    fn borrow(&self) -> &ccl_core::SharedState<'static> {
        &self.state
    }
}

fn check_count(py: Python<'_>, key: &Key, memory: &Memory) -> PyResult<()> {
    if key.count() == Some(memory.count as u64) {
        return Ok(());
    }
    let what = format!(
        "entry {:?} has {} elements, but shape {:?}",
        key.name, memory.count, key.shape
    );
    Err(invalid(py, what))
}

/// The same error, with the entry's name.
fn named(py: Python<'_>, name: &str, error: &PyErr) -> PyErr {
    about(py, &format!("entry {name:?}"), error)
}
