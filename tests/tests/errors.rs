//! Python's classes of errors are sorted as the core sorts its errors.
//!
//! They are written by hand, for whoever reads and checks types there: each error of the core has a
//! class below `Retryable`, below `SessionOver`, or below neither, as it says itself.

mod source;

use ccl_core::ErrorKind;

/// What Python calls an error.
fn class(kind: ErrorKind) -> String {
    match kind {
        ErrorKind::SharedState => "StateMismatch".into(),
        ErrorKind::Os => "OsError".into(),
        kind => format!("{kind:?}"),
    }
}

/// The class that a retryable error, a fatal one and any other is derived from.
fn base(kind: ErrorKind) -> &'static str {
    assert!(!(kind.is_retryable() && kind.is_fatal()), "{kind:?}");
    if kind == ErrorKind::RevisionAhead {
        // One of its kind, which `SessionOver` is the base of.
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
