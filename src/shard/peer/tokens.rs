//! Tokens: clients that a peer has accepted, and the ids that they show.
