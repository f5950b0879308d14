//! Rooms: sets of clients that peers fill, and speak to.
