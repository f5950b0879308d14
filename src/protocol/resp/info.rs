//! Facts for people.
