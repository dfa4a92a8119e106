//! Python's exception classes are sorted as the core sorts its errors.
//!
//! The classes are written by hand, for readers and type checkers. Each error of the core has a
//! class below `Retryable` if it is retryable, below `SessionOver` if it is fatal, and otherwise
//! below neither.

mod source;

use ccl_core::ErrorKind;

/// The name of an error's class in Python.
fn class(kind: ErrorKind) -> String {
    match kind {
        ErrorKind::SharedState => "StateMismatch".into(),
        ErrorKind::Os => "OsError".into(),
        kind => format!("{kind:?}"),
    }
}

/// The base class of an error: retryable, fatal, or neither.
fn base(kind: ErrorKind) -> &'static str {
    assert!(!(kind.is_retryable() && kind.is_fatal()), "{kind:?}");
    if kind == ErrorKind::RevisionAhead {
        // A kind of `Evicted`, and so of `SessionOver`.
        return "Evicted";
    }
    if kind.is_retryable() {
        "Retryable"
    } else if kind.is_fatal() {
        "SessionOver"
    } else {
        "Error"
    }
}

#[test]
fn pythons_classes_are_sorted_as_the_core_sorts_its_errors() {
    let path = source::root().join("ccl-python/python/ccl/_errors.py");
    let text = std::fs::read_to_string(path).expect("the package has its errors");
    for kind in ErrorKind::ALL {
        let opening = format!("\nclass {}({}", class(kind), base(kind));
        let is_whole = |rest: &str| rest.starts_with([')', ',']);
        let found = text.split_once(&opening);
        assert!(
            found.is_some_and(|(_, rest)| is_whole(rest)),
            "{opening:?} is not in _errors.py"
        );
    }
}
