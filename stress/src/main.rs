//! The `ccl-stress` command as a program.

fn main() {}
