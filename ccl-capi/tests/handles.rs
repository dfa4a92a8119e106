//! The table of handles, used as by another crate with a C interface, for its own kind of object.

use std::ffi::c_void;
use std::sync::Arc;

use ccl::handles::{self, Invalid, Kind};

#[derive(Debug, PartialEq)]
struct Plan(u32);

impl Kind for Plan {
    const NAME: &'static str = "plan";
}

#[derive(Debug)]
struct Stream;

impl Kind for Stream {
    const NAME: &'static str = "stream";
}

fn plan(handle: *mut c_void) -> Result<u32, Invalid> {
    handles::get::<Plan, _>(handle).map(|plan| plan.0)
}

#[test]
fn kinds_of_another_crate_have_handles_too() {
    let first: *mut c_void = handles::insert(Arc::new(Plan(1)));
    let second: *mut c_void = handles::insert(Arc::new(Plan(2)));
    assert_ne!(first, second);
    assert_eq!((plan(first), plan(second)), (Ok(1), Ok(2)));
    assert_eq!(plan(std::ptr::null_mut()), Err(Invalid::Null));

    let stream: *mut c_void = handles::insert(Arc::new(Stream));
    assert_eq!(plan(stream), Err(Invalid::Not("plan")));
    let mistaken = handles::remove::<Plan, _>(stream);
    let mistaken = mistaken.expect_err("it is a stream").to_string();
    assert_eq!(mistaken, "it does not belong to a plan, or was destroyed");
    handles::remove::<Stream, _>(stream).expect("nothing happened to it");

    let kept = handles::get::<Plan, _>(first).expect("it is there");
    handles::remove::<Plan, _>(first).expect("it is there");
    assert_eq!(*kept, Plan(1), "whoever uses it keeps it");
    assert_eq!(plan(first), Err(Invalid::Not("plan")));
    assert_eq!(plan(second), Ok(2));
}
