//! Arguments: what C code passes, taken as what Rust can trust.
//!
//! A home of unsafe: a pointer of the caller is good for as long as the call lasts, and for as many bytes as the caller
//! says. That is what the header asks for; nothing can check it. What can be checked is checked here: NULL, sizes, UTF-8.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_void};
use std::ptr::NonNull;

use crate::status::Failure;
use crate::status::pubsub_status::PUBSUB_EINVAL;

/// The bytes at `data`; NULL is fine if there are none.
///
/// # Safety
/// `data` points to `size` bytes that nobody changes before the call returns, or is NULL; `'a` ends before that.
pub unsafe fn bytes<'a>(
    data: *const c_void,
    size: usize,
    what: &'static str,
) -> Result<&'a [u8], Failure> {
    if size == 0 {
        return Ok(&[]);
    }
    if data.is_null() {
        return Err(wrong(what, "is NULL"));
    }
    if isize::try_from(size).is_err() {
        return Err(wrong(what, "is larger than the memory"));
    }
    // SAFETY: the caller's; it is not NULL, and no larger than an object can be.
    Ok(unsafe { std::slice::from_raw_parts(data.cast(), size) })
}

/// The text at `text`, which ends with NUL.
///
/// # Safety
/// As for [`bytes`], up to the NUL.
pub unsafe fn text<'a>(text: *const c_char, what: &'static str) -> Result<&'a str, Failure> {
    // SAFETY: the caller's.
    unsafe { optional_text(text, what) }?.ok_or_else(|| wrong(what, "is NULL"))
}

/// The same, where NULL means that there is none.
///
/// # Safety
/// As for [`text`].
pub unsafe fn optional_text<'a>(
    text: *const c_char,
    what: &'static str,
) -> Result<Option<&'a str>, Failure> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's; it is not NULL.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str()
        .map(Some)
        .map_err(|_| wrong(what, "is not UTF-8"))
}

/// The objects at `first`; NULL is fine if there are none.
///
/// # Safety
/// As for [`bytes`], for `count` objects.
pub unsafe fn list<'a, T>(
    first: *const T,
    count: usize,
    what: &'static str,
) -> Result<&'a [T], Failure> {
    if count == 0 {
        return Ok(&[]);
    }
    if first.is_null() || !first.is_aligned() {
        return Err(wrong(what, "is NULL, or no pointer to such objects"));
    }
    let size = count.checked_mul(size_of::<T>());
    if size.is_none_or(|size| isize::try_from(size).is_err()) {
        return Err(wrong(what, "is larger than the memory"));
    }
    // SAFETY: the caller's; it is not NULL, aligned, and no larger than an object can be.
    Ok(unsafe { std::slice::from_raw_parts(first, count) })
}

/// Where an output goes.
pub struct Output<T>(NonNull<T>);

impl<T> Output<T> {
    /// An output that the caller must want.
    ///
    /// # Errors
    /// It is NULL.
    pub fn new(place: *mut T, what: &'static str) -> Result<Output<T>, Failure> {
        let place = Output::optional(place, what)?;
        place.ok_or_else(|| wrong(what, "is NULL"))
    }

    /// One that the caller may do without.
    ///
    /// # Errors
    /// It points to no `T`.
    pub fn optional(place: *mut T, what: &'static str) -> Result<Option<Output<T>>, Failure> {
        if !place.is_aligned() {
            return Err(wrong(what, "is no pointer to such an object"));
        }
        Ok(NonNull::new(place).map(Output))
    }

    /// Writes it.
    ///
    /// # Safety
    /// The pointer was to room for a `T`, and the call has not returned.
    pub unsafe fn write(self, value: T) {
        // SAFETY: the caller's; it is not NULL, and aligned.
        unsafe { self.0.write(value) };
    }
}

fn wrong(what: &'static str, why: &'static str) -> Failure {
    Failure::told(PUBSUB_EINVAL, format_args!("{what} {why}"))
}

#[cfg(test)]
mod tests {
    use std::ptr::null;

    use super::*;

    #[test]
    fn pointers_are_checked() {
        let data = b"abc";
        // SAFETY: each pointer is NULL or to what the size says.
        unsafe {
            assert_eq!(bytes(data.as_ptr().cast(), 3, "data").unwrap(), b"abc");
            assert_eq!(bytes(null(), 0, "data").unwrap(), b"");
            assert_eq!(
                bytes(null(), 1, "data").unwrap_err().to_string(),
                "data is NULL"
            );
            assert!(bytes(data.as_ptr().cast(), usize::MAX, "data").is_err());
            assert_eq!(text(c"a".as_ptr(), "name").unwrap(), "a");
            assert_eq!(
                text(null(), "name").unwrap_err().to_string(),
                "name is NULL"
            );
            assert!(text(c"\xff".as_ptr(), "name").is_err());
            assert!(optional_text(null(), "name").unwrap().is_none());
            let words = [1_u64, 2];
            assert_eq!(list(words.as_ptr(), 2, "words").unwrap(), [1, 2]);
            assert!(list::<u64>(null(), 1, "words").is_err());
            assert!(list(words.as_ptr(), usize::MAX / 4, "words").is_err());
            let odd = words.as_ptr().byte_add(1);
            assert!(list(odd, 1, "words").is_err());
        }
    }

    #[test]
    fn outputs_are_written() {
        let mut place = 0_u64;
        assert!(Output::<u64>::new(std::ptr::null_mut(), "out").is_err());
        assert!(
            Output::<u64>::optional(std::ptr::null_mut(), "out")
                .unwrap()
                .is_none()
        );
        let output = Output::new(&raw mut place, "out").unwrap();
        // SAFETY: it is to `place`.
        unsafe { output.write(7) };
        assert_eq!(place, 7);
    }
}
