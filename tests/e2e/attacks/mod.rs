//! What attackers do, and do not get: each file is one of them, with what that one has in hand.

mod host;
mod neighbour;
