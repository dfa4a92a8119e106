//! Memory that C lends: checked on the way in, written on success only.
//!
//! Structs that may grow begin with their own size. What a caller's struct does not have yet is 0;
//! what this library does not know yet must be 0, so that nothing is silently ignored.

use std::ffi::{CStr, c_char};
use std::ptr::NonNull;

use ccl_core::Error;

use crate::result::Outcome;

/// Longest struct that a caller may hand in: far beyond what any version will have.
const STRUCT_BYTES_MAX: usize = 1 << 16;

/// A struct that may become longer in later versions.
///
/// # Safety
/// It is `repr(C)`, opens with `struct_bytes: usize`, and every bit pattern of it is valid.
pub(crate) unsafe trait Growing: Copy + Default {
    /// The first field.
    fn struct_bytes(&mut self) -> &mut usize;
}

/// A place for a result.
#[derive(Debug)]
pub(crate) struct Out<T> {
    place: NonNull<T>,
}

/// A place for a struct that may be shorter or longer than this library's.
#[derive(Debug)]
pub(crate) struct GrowingOut<T> {
    place: NonNull<T>,
    bytes: usize,
}

impl<T: Copy> Out<T> {
    /// Writes the result.
    pub(crate) fn set(self, value: T) {
        // SAFETY: `out` checked it, and its caller vouched for the rest.
        unsafe { self.place.write(value) }
    }
}

impl<T: Growing> GrowingOut<T> {
    /// Writes the result, as much of it as the caller has room for, and zeros beyond.
    pub(crate) fn set(self, mut value: T) {
        *value.struct_bytes() = self.bytes;
        let known = self.bytes.min(size_of::<T>());
        let place = self.place.cast::<u8>();
        // SAFETY: the caller has `bytes` bytes there, checked and vouched for in `growing_out`.
        unsafe {
            place.copy_from(NonNull::from(&mut value).cast(), known);
            place.add(known).write_bytes(0, self.bytes - known);
        }
    }
}

/// Checks a place for a result.
///
/// # Safety
/// `pointer` is NULL or points to memory for a `T` that may be written during this call.
pub(crate) unsafe fn out<T>(pointer: *mut T, name: &str) -> Outcome<Out<T>> {
    let place = NonNull::new(pointer).ok_or_else(|| Error::invalid(format!("{name} is NULL")))?;
    check_alignment(pointer, name)?;
    Ok(Out { place })
}

/// Checks a place for a struct that may have grown.
///
/// # Safety
/// `pointer` is NULL or points to as many bytes as its first field says, which may be written
/// during this call.
pub(crate) unsafe fn growing_out<T: Growing>(
    pointer: *mut T,
    name: &str,
) -> Outcome<GrowingOut<T>> {
    let place = NonNull::new(pointer).ok_or_else(|| Error::invalid(format!("{name} is NULL")))?;
    // SAFETY: passed on from the caller.
    let bytes = unsafe { struct_bytes(pointer, name) }?;
    Ok(GrowingOut { place, bytes })
}

/// Reads a struct that may have grown; NULL is one of zeros.
///
/// # Safety
/// `pointer` is NULL or points to as many bytes as its first field says.
pub(crate) unsafe fn growing<T: Growing>(pointer: *const T, name: &str) -> Outcome<T> {
    let mut value = T::default();
    if pointer.is_null() {
        return Ok(value);
    }
    // SAFETY: passed on from the caller.
    let bytes = unsafe { struct_bytes(pointer, name) }?;
    let source = pointer.cast::<u8>();
    let known = bytes.min(size_of::<T>());
    // SAFETY: the caller has `bytes` bytes there, and every bit pattern of a `T` is valid.
    let is_known = unsafe {
        (&raw mut value).cast::<u8>().copy_from(source, known);
        (known..bytes).all(|at| source.add(at).read() == 0)
    };
    if !is_known {
        let what = format!("{name} has a field that this version of the library does not know");
        return Err(Error::invalid(what).into());
    }
    Ok(value)
}

/// # Safety
/// `pointer` points to at least a `usize`.
unsafe fn struct_bytes<T: Growing>(pointer: *const T, name: &str) -> Outcome<usize> {
    check_alignment(pointer, name)?;
    // SAFETY: aligned, and the caller vouches for the first field.
    let bytes = unsafe { pointer.cast::<usize>().read() };
    if (size_of::<usize>()..=STRUCT_BYTES_MAX).contains(&bytes) {
        return Ok(bytes);
    }
    let what = format!("{name}->struct_bytes is {bytes}; set it to the struct's sizeof");
    Err(Error::invalid(what).into())
}

/// Copies a text; NULL is none.
///
/// # Safety
/// `pointer` is NULL or points to a text that ends with a zero byte.
pub(crate) unsafe fn text(pointer: *const c_char, name: &str) -> Outcome<Option<String>> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: not NULL; the rest is vouched for by the caller.
    let text = unsafe { CStr::from_ptr(pointer) }
        .to_str()
        .map_err(|_| Error::invalid(format!("{name} is not UTF-8")))?;
    Ok(Some(text.to_owned()))
}

/// Copies a text and its zero byte into the caller's memory.
///
/// # Safety
/// `place` is NULL or points to `place_bytes` bytes that may be written during this call.
pub(crate) unsafe fn set_text(
    place: *mut c_char,
    place_bytes: usize,
    name: &str,
    text: &str,
) -> Outcome<()> {
    let place = NonNull::new(place).ok_or_else(|| Error::invalid(format!("{name} is NULL")))?;
    let needed = text.len() + 1;
    if place_bytes < needed {
        let what = format!("{name} has {place_bytes} bytes, but {needed} are needed");
        return Err(Error::invalid(what).into());
    }
    let place = place.cast::<u8>();
    // SAFETY: not NULL, and long enough for the text and its end.
    unsafe {
        place.copy_from(NonNull::from(text.as_bytes()).cast(), text.len());
        place.add(text.len()).write(0);
    }
    Ok(())
}

/// Copies numbers into the caller's memory, as many as there is room for.
///
/// # Safety
/// `place` is NULL or points to `capacity` elements that may be written during this call.
pub(crate) unsafe fn set_list<T: Copy>(
    place: *mut T,
    capacity: usize,
    name: &str,
    list: &[T],
) -> Outcome<()> {
    check_list(place, capacity, name)?;
    let count = list.len().min(capacity);
    if count > 0 {
        // SAFETY: not NULL, aligned, and long enough.
        unsafe { place.copy_from(list.as_ptr(), count) };
    }
    Ok(())
}

/// Copies a list that the caller has, of at most `count_max` elements: one that is beyond all
/// reason would end the process where memory is set aside for it.
///
/// # Safety
/// `source` is NULL or points to `count` elements.
pub(crate) unsafe fn list<T: Copy>(
    source: *const T,
    count: usize,
    count_max: usize,
    name: &str,
) -> Outcome<Vec<T>> {
    check_list(source, count, name)?;
    if count > count_max {
        return Err(
            Error::invalid(format!("{name} has {count} elements, at most {count_max}")).into(),
        );
    }
    // SAFETY: aligned and not NULL unless `count` is 0; the rest is vouched for by the caller.
    Ok((0..count)
        .map(|at| unsafe { source.add(at).read() })
        .collect())
}

/// Checks a place for a list before anything is done.
pub(crate) fn check_list<T>(place: *const T, capacity: usize, name: &str) -> Outcome<()> {
    if capacity == 0 {
        return Ok(());
    }
    if place.is_null() {
        return Err(Error::invalid(format!("{name} is NULL but has a capacity")).into());
    }
    check_alignment(place, name)
}

/// A switch that crosses as a number.
pub(crate) fn switch(value: u32, name: &str) -> Outcome<bool> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Error::invalid(format!("{name} is {value}; expected 0 or 1")).into()),
    }
}

fn check_alignment<T>(pointer: *const T, name: &str) -> Outcome<()> {
    if pointer.is_aligned() {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{name} is not aligned to {} bytes",
        align_of::<T>()
    ))
    .into())
}

#[cfg(test)]
mod tests;
