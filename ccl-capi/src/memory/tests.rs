//! Structs of older and of newer callers, and pointers that no caller should hand in.

use super::*;

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Now {
    struct_bytes: usize,
    first: u32,
    second: u32,
    third: u64,
}

// SAFETY: repr(C), opens with `struct_bytes`, integers only.
unsafe impl Growing for Now {
    fn struct_bytes(&mut self) -> &mut usize {
        &mut self.struct_bytes
    }
}

/// What a later version might make of it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Later {
    now: Now,
    fourth: u64,
}

fn later(fourth: u64) -> Later {
    let now = Now {
        struct_bytes: size_of::<Later>(),
        first: 1,
        second: 2,
        third: 3,
    };
    Later { now, fourth }
}

fn read(source: *const Now) -> Outcome<Now> {
    // SAFETY: the tests hand in what their first fields say.
    unsafe { growing(source, "it") }
}

#[test]
fn fields_that_an_older_caller_does_not_have_are_zero() {
    let mut source = later(0).now;
    source.struct_bytes = 12;
    let value = read(&raw const source).unwrap();
    assert_eq!((value.first, value.second, value.third), (1, 0, 0));
    assert_eq!(read(std::ptr::null()).unwrap(), Now::default());
}

#[test]
fn fields_that_only_a_newer_caller_knows_must_be_zero() {
    let source = later(0);
    assert_eq!(read((&raw const source).cast()).unwrap().third, 3);
    let source = later(4);
    assert_eq!(read((&raw const source).cast()).unwrap_err().code(), 1);
}

#[test]
fn a_size_that_was_not_set_is_an_error() {
    for bytes in [0, 7, STRUCT_BYTES_MAX + 1, usize::MAX] {
        let source = Now {
            struct_bytes: bytes,
            ..Now::default()
        };
        assert_eq!(read(&raw const source).unwrap_err().code(), 1);
    }
}

#[test]
fn results_fill_what_the_caller_has() {
    let value = later(0).now;
    let mut place = later(9);
    // SAFETY: a place as long as it says.
    unsafe { growing_out((&raw mut place).cast::<Now>(), "it") }
        .unwrap()
        .set(value);
    assert_eq!(place, later(0));
    let mut place = later(9);
    place.now.struct_bytes = 12;
    // SAFETY: as above.
    unsafe { growing_out((&raw mut place).cast::<Now>(), "it") }
        .unwrap()
        .set(Now::default());
    assert_eq!((place.now.first, place.now.second, place.fourth), (0, 2, 9));
    assert_eq!(place.now.struct_bytes, 12);
}

#[test]
fn pointers_are_checked() {
    let mut numbers = [0_u64; 2];
    let odd = (&raw mut numbers).cast::<u8>().wrapping_add(1);
    // SAFETY: nothing is written.
    unsafe {
        assert!(out(odd.cast::<u32>(), "it").is_err());
        assert!(out(std::ptr::null_mut::<u32>(), "it").is_err());
        assert!(growing_out(odd.cast::<Now>(), "it").is_err());
        assert!(growing(odd.cast::<Now>().cast_const(), "it").is_err());
        assert!(set_list(odd.cast::<u32>(), 1, "it", &[1]).is_err());
        assert!(set_list(std::ptr::null_mut(), 1, "it", &[1]).is_err());
        assert!(set_list(std::ptr::null_mut(), 0, "it", &[1]).is_ok());
    }
}

#[test]
fn a_text_fits_with_its_end_or_not_at_all() {
    let mut place = [b'x'; 4];
    let pointer = (&raw mut place).cast::<c_char>();
    // SAFETY: four bytes.
    unsafe {
        assert!(set_text(pointer, 4, "it", "abcd").is_err());
        assert_eq!(&place, b"xxxx");
        assert!(set_text(pointer, 4, "it", "abc").is_ok());
        assert_eq!(text(pointer, "it").unwrap().as_deref(), Some("abc"));
        assert!(text(c"\xff".as_ptr(), "it").is_err());
    }
    assert_eq!(&place, b"abc\0");
}
