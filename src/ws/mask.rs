//! Masking. (stub)
