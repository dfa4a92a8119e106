//! A forked child keeps none of its parent's descriptors.
//!
//! This test has its own process, because a child holds all descriptors for a moment, until it has
//! closed them.
#![allow(
    clippy::unwrap_used,
    unsafe_code,
    reason = "all of it is tests, of forks"
)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ccl_core::descriptors::{Own, Owner};

fn own(owner: &Arc<Owner>) -> Own<File> {
    Own::make(owner, || File::open("/dev/null")).unwrap()
}

/// The result of `look` in a forked child, which may only do what is safe in signal handlers.
fn in_forked_child(look: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child calls `look` and exits without running destructors.
    match unsafe { libc::fork() } {
        0 => {
            let code = if look() { 0 } else { 1 };
            // SAFETY: ends the child.
            unsafe { libc::_exit(code) }
        }
        child => {
            let mut status = 0;
            // SAFETY: a live local.
            let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
            assert_eq!(waited, child);
            libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
        }
    }
}

fn is_open(descriptor: RawFd) -> bool {
    // SAFETY: only queries.
    unsafe { libc::fcntl(descriptor, libc::F_GETFD) != -1 }
}

#[test]
fn a_forked_child_has_none_of_them_and_the_parent_keeps_all() {
    let owner = Arc::default();
    // More than one piece of the table.
    let owned: Vec<Own<File>> = (0..600).map(|_| own(&owner)).collect();
    let other = File::open("/dev/null").unwrap();
    let gone = in_forked_child(|| {
        let mut owned = owned.iter();
        owned.all(|own| !is_open(own.as_raw_fd())) && is_open(other.as_raw_fd())
    });
    assert!(gone);
    assert!(owned.iter().all(|own| is_open(own.as_raw_fd())));
}

#[test]
fn an_owner_waits_until_all_of_his_are_closed() {
    let owner: Arc<Owner> = Arc::default();
    let (one, other) = (own(&owner), own(&owner));
    let descriptor = one.as_raw_fd();
    drop(one);
    assert!(!is_open(descriptor) || descriptor != other.as_raw_fd());
    assert!(!owner.wait_closed(Duration::ZERO), "one is open");
    let waiter = {
        let owner = Arc::clone(&owner);
        std::thread::spawn(move || owner.wait_closed(Duration::from_secs(30)))
    };
    drop(other);
    assert!(waiter.join().unwrap());
}

#[test]
fn what_becomes_another_object_stays_noted_and_what_fails_does_not() {
    let owner: Arc<Owner> = Arc::default();
    let kept = own(&owner).try_map(|file| Ok(std::os::fd::OwnedFd::from(file)));
    let kept = kept.unwrap();
    assert!(in_forked_child(|| !is_open(kept.as_raw_fd())));
    let failed = own(&owner).try_map(|file| {
        drop(file);
        Err::<File, _>(io::ErrorKind::Other.into())
    });
    assert!(failed.is_err());
    drop(kept);
    assert!(owner.wait_closed(Duration::ZERO));
}

/// The number of the file behind a descriptor; 0 if it is not open.
fn file_number(descriptor: RawFd) -> libc::ino_t {
    // SAFETY: integers only, for which zeros are valid.
    let mut facts: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: a live local.
    match unsafe { libc::fstat(descriptor, &raw mut facts) } {
        0 => facts.st_ino,
        _ => 0,
    }
}

#[test]
fn whenever_a_process_forks_its_child_has_none() {
    let owner: Arc<Owner> = Arc::default();
    let name = format!("ccl-descriptors-{}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let number = file_number(File::create(&path).unwrap().as_raw_fd());
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let own = Own::make(&owner, || File::open(&path)).unwrap();
                    drop(own.try_map(|file| Ok(std::os::fd::OwnedFd::from(file))));
                }
            });
        }
        for _ in 0..200 {
            let is_there = |descriptor| file_number(descriptor) == number;
            assert!(in_forked_child(|| !(0..1000).any(is_there)));
        }
        stop.store(true, Ordering::Relaxed);
    });
    std::fs::remove_file(&path).unwrap();
    assert!(owner.wait_closed(Duration::ZERO));
}
