//! The simulator of ccl.
