//! The `ccl` command: master, bench, demo.

fn main() {}
