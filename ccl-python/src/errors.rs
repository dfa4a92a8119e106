//! Errors of `ccl-core` as exceptions of `ccl._errors`, one to one.

use ccl_core::{CancelReason, Error, ErrorKind};
use pyo3::exceptions::{PyBufferError, PyOverflowError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType};

/// The exception for an error.
pub fn raise(py: Python<'_>, error: &Error) -> PyErr {
    let made = class(py, class_name(error)).and_then(|class| {
        let instance = class.call((error.to_string(),), Some(&facts(py, error)?))?;
        if let Error::Os { source, .. } = error {
            instance.setattr("errno", source.raw_os_error())?;
        }
        Ok(PyErr::from_value(instance))
    });
    made.unwrap_or_else(|failure| failure)
}

/// An `InvalidArgument` with this text.
pub fn invalid(py: Python<'_>, what: impl Into<String>) -> PyErr {
    raise(py, &Error::invalid(what))
}

/// The same error, with what it is about. What says nothing of the value stays as it is.
pub fn about(py: Python<'_>, what: &str, error: &PyErr) -> PyErr {
    let text = error.value(py).to_string();
    if error.is_instance_of::<PyTypeError>(py) {
        return PyTypeError::new_err(format!("{what}: {text}"));
    }
    let is_of_value = error.is_instance_of::<PyValueError>(py)
        || error.is_instance_of::<PyOverflowError>(py)
        || error.is_instance_of::<PyBufferError>(py);
    if !is_of_value {
        return error.clone_ref(py);
    }
    let prefix = Error::invalid("").to_string();
    let text = text.strip_prefix(&prefix).unwrap_or(&text);
    invalid(py, format!("{what}: {text}"))
}

fn class<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyType>> {
    let class = py.import("ccl._errors")?.getattr(name)?;
    Ok(class.cast_into::<PyType>()?)
}

fn class_name(error: &Error) -> &'static str {
    match error {
        Error::PeerLost { .. } => "PeerLost",
        Error::Cancelled { reason, .. } => match **reason {
            CancelReason::Deadline { .. } => "DeadlinePassed",
            _ => "Cancelled",
        },
        Error::SharedState { .. } => "StateMismatch",
        Error::TooFewPeers { .. } => "TooFewPeers",
        Error::WorldChanged { .. } => "WorldChanged",
        Error::Evicted(_) => match error.kind() {
            ErrorKind::RevisionAhead => "RevisionAhead",
            _ => "Evicted",
        },
        Error::Refused(_) => "Refused",
        Error::Unknown(_) => "Unknown",
        Error::Ended(_) => "Ended",
        Error::MasterUnreachable { .. } => "MasterUnreachable",
        Error::NotAdmitted { .. } => "NotAdmitted",
        Error::Timeout => "Timeout",
        Error::InvalidArgument(_) => "InvalidArgument",
        Error::InvalidUsage(_) => "InvalidUsage",
        Error::Forked => "Forked",
        Error::Os { .. } => "OsError",
        // `ccl_core::Error` may grow; until this table has, the base class is what is true.
        _ => "Error",
    }
}

/// The attributes of the exception.
fn facts<'py>(py: Python<'py>, error: &Error) -> PyResult<Bound<'py, PyDict>> {
    let facts = PyDict::new(py);
    match error {
        Error::PeerLost {
            peer,
            op,
            vid,
            reason,
            ..
        } => {
            facts.set_item("peer", peer.0)?;
            facts.set_item("op", op.to_string())?;
            facts.set_item("epoch", vid.epoch.0)?;
            facts.set_item("reason", reason.to_string())?;
        }
        Error::Cancelled { op, by, reason, .. } => {
            facts.set_item("peer", by.0)?;
            facts.set_item("op", op.to_string())?;
            facts.set_item("epoch", op.birth.epoch.0)?;
            facts.set_item("reason", reason.to_string())?;
            if let CancelReason::Deadline { late: Some(late) } = &**reason {
                let late: Vec<u64> = late.first().iter().map(|peer| peer.0).collect();
                facts.set_item("late", late)?;
            }
        }
        Error::SharedState { fault, op, vid, .. } => {
            facts.set_item("peer", fault.odd_peer().map(|peer| peer.0))?;
            facts.set_item("op", op.to_string())?;
            facts.set_item("epoch", vid.epoch.0)?;
            facts.set_item("reason", fault.to_string())?;
            facts.set_item("fault", fault.name())?;
        }
        Error::TooFewPeers {
            world_size,
            min_world_size,
        } => {
            facts.set_item("world_size", world_size)?;
            facts.set_item("min_world_size", min_world_size)?;
        }
        Error::WorldChanged { world_size } => facts.set_item("world_size", world_size)?,
        Error::Evicted(eviction) => {
            facts.set_item("peer", eviction.peer.0)?;
            facts.set_item("epoch", eviction.vid.epoch.0)?;
            facts.set_item("reason", eviction.reason.to_string())?;
        }
        Error::Refused(reason) | Error::Unknown(reason) | Error::Ended(reason) => {
            facts.set_item("reason", reason)?;
        }
        Error::MasterUnreachable { address, cause } => {
            facts.set_item("address", address)?;
            facts.set_item("reason", cause)?;
        }
        _ => {}
    }
    Ok(facts)
}

/// The error for a bug in this library.
pub fn internal(what: &str) -> PyErr {
    PyRuntimeError::new_err(format!("internal error, please report it: {what}"))
}
