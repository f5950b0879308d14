//! The feed of a peer: what clients say to it waits while it is behind.
