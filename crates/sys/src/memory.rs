//! The allocator of the C library: how much it has given out, and how much it keeps for itself.
//!
//! glibc gives each thread that finds the others busy an arena of its own, up to eight for each processor, and hands
//! memory back to the system only from the top of one. A daemon whose threads take turns ends with what each arena held
//! at its worst moment.

use rustix::io::{Errno, Result};

/// How many arenas a daemon's threads share: enough that they seldom wait for each other, few enough that what one has
/// freed serves the others.
pub const ARENAS: i32 = 2;

/// Has all threads share [`ARENAS`] arenas. To be called before there are threads; those that have an arena keep it.
/// Source: mallopt(3), `M_ARENA_MAX`.
///
/// # Errors
/// `INVAL`: this C library has no such setting.
pub fn share_arenas() -> Result<()> {
    // JUSTIFICATION: no crate offers it. SAFETY: takes two numbers, and takes its own lock.
    let done = unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS) };
    if done == 1 { Ok(()) } else { Err(Errno::INVAL) }
}

/// Gives free memory back to the system, in the middle of the heap too. Takes as long as there are free pages.
/// Source: malloc_trim(3).
pub fn give_back() {
    // JUSTIFICATION: no crate offers it. SAFETY: takes a number, and takes the locks of all arenas.
    unsafe { libc::malloc_trim(0) };
}

/// Returns how much is allocated and not freed. *Unit:* bytes. Source: mallinfo2(3), `uordblks` and `hblkhd`.
pub fn allocated() -> usize {
    // JUSTIFICATION: no crate offers it. SAFETY: takes nothing, returns numbers by value.
    let counted = unsafe { libc::mallinfo2() };
    counted.uordblks + counted.hblkhd
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allocated_is_counted_until_it_is_freed() {
        const MUCH: usize = 256 << 20;
        share_arenas().unwrap();
        let before = allocated();
        let held = std::hint::black_box(vec![1_u8; MUCH]);
        assert!(allocated() >= before + MUCH / 2, "other tests free what they have meanwhile");
        drop(held);
        give_back();
        assert!(allocated() < before + MUCH / 2);
    }
}
