//! Ring orders of a view.
