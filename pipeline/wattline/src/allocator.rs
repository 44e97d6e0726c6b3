//! The memory allocator of the program.
//!
//! Arrow buffers and hash tables come and go by the megabyte, with every batch and every checkpoint. The system's allocator
//! gives such blocks back to the kernel at once, and having fresh pages cleared costs more than the work on them. So the
//! program brings an allocator that keeps what was freed for the next batch, and gives it back when it was not needed for a while.
//!
//! It asks for no huge pages: a block that is begun would have 2 MiB of zeros written, of which most is never used.
#![allow(unsafe_code, reason = "the binding has no safe call for options")]

use std::ffi::c_long;

use libmimalloc_sys::{mi_option_set_default, mi_option_t};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc's header: milliseconds until freed memory goes back to the kernel.
const PURGE_DELAY: mi_option_t = 15;
/// Longer than a checkpoint takes to come round under load.
const KEPT_MS: c_long = 5_000;

/// Called once, before any other thread runs. `MIMALLOC_PURGE_DELAY` in the environment wins.
pub(crate) fn keep_freed_memory_for_a_while() {
    // SAFETY: only numbers are passed, and the library checks that the option exists.
    unsafe { mi_option_set_default(PURGE_DELAY, KEPT_MS) };
    // The allocator reads its own option before `main`, so the kernel is told. A kernel without this call says so, and then
    // nothing is lost but time.
    #[cfg(target_os = "linux")]
    // SAFETY: only numbers are passed.
    unsafe {
        libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0);
    }
}
