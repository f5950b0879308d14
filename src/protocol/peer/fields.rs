//! The fields of a frame: numbers, names, texts, and the rest.
