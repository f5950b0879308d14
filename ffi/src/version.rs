//! Which library this is. (A home of unsafe: its names are exported.)

#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};

const VERSION: &CStr =
    match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => panic!("a version has no NUL"),
    };

/// The version of the library that runs, such as `"0.1.0"`. (`PUBSUB_VERSION` is that of this header.) Never freed.
#[unsafe(no_mangle)]
pub extern "C" fn pubsub_version() -> *const c_char {
    VERSION.as_ptr()
}
