//! A process that saves one revision after the other, for tests that kill it.
//!
//! `saver DIRECTORY REVISION` prints `ready`, and the number of each revision once it is saved,
//! from REVISION on, until it is killed or its standard output is closed.

use std::io::Write;

use ccl_core::checkpoint::Checkpoints;
use ccl_tests::saves::Saved;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().expect("first argument: the directory");
    let first = arguments.next().and_then(|text| text.parse().ok());
    let checkpoints = Checkpoints::new(directory);
    let mut revision: u64 = first.expect("second argument: the first revision");
    let mut output = std::io::stdout();
    if writeln!(output, "ready").is_err() {
        return;
    }
    loop {
        let state = Saved::of(revision);
        let saved = checkpoints.save(state.content, &state.keys, &state.slices());
        saved.expect("the disk works");
        if writeln!(output, "{revision}").is_err() {
            return;
        }
        revision += 1;
    }
}
