//! A peer's control connection, clock and tasks around `peer::Peer`.
