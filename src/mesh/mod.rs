//! The mesh. (stub: signatures to keep)
pub mod doorbell;
pub mod ring;
