//! Names: each peer has one, and each name one peer in the broker.
