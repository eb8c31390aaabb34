//! Attackers, each acting as one would: what is promised must hold against them.

mod neighbour;
