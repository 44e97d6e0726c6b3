//! The memory allocator of the program.
//!
//! Arrow buffers and hash tables come and go by the megabyte, with every batch and every checkpoint. The system's allocator
//! gives such blocks back to the kernel at once, and having fresh pages cleared costs more than the work on them. So the
//! program brings an allocator that keeps what was freed for the next batch, and gives it back when it was not needed for a while.
//!
//! What is kept counts as memory of the process, so it goes back early when the budget comes near ([`keep_below`]).
//!
//! It asks for no huge pages: a block that is begun would have 2 MiB of zeros written, of which most is never used.
#![allow(unsafe_code, reason = "the binding has no safe call for options")]

use std::ffi::c_long;
use std::time::{Duration, Instant};

use libmimalloc_sys::{mi_collect, mi_option_get, mi_option_set, mi_option_set_default, mi_option_t};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc's header: milliseconds until freed memory goes back to the kernel.
const PURGE_DELAY: mi_option_t = 15;
/// Longer than a checkpoint takes to come round under load.
const KEPT_MS: c_long = 5_000;

/// How often the memory of the process is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long freed memory goes back at once before it is believed that the rest is in use.
const AT_ONCE_FOR: Duration = Duration::from_secs(60);

/// Called once, before any other thread runs. `MIMALLOC_PURGE_DELAY` in the environment wins, as long as memory is not short.
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

/// Gives freed memory back to the kernel whenever the process has five eighths of its budget. If that does not help, as
/// what it has is in use, the next time is when it has grown by a sixteenth of the budget. Each thread has blocks of its own that only
/// it can give back: above three quarters what is freed goes back at once, as long as that may help.
pub(crate) async fn keep_below(budget_bytes: u64) {
    let (usual, near) = (budget_bytes / 8 * 5, budget_bytes / 4 * 3);
    let mut give_back_at = usual;
    // SAFETY: asks for a number; the library checks that the option exists.
    let usual_ms = unsafe { mi_option_get(PURGE_DELAY) };
    let mut at_once_since: Option<Instant> = None;
    let mut in_use = 0;
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        // Systems that do not tell keep what they have for a while, as at any other time.
        let Some(resident) = resident_bytes() else { return };
        if at_once_since.is_some_and(|since| since.elapsed() > AT_ONCE_FOR) {
            in_use = resident;
        } else if resident < usual {
            in_use = 0;
        }
        let at_once = resident > near.max(in_use + budget_bytes / 16);
        if at_once != at_once_since.is_some() {
            at_once_since = at_once.then(Instant::now);
            // SAFETY: only numbers are passed, and the library checks that the option exists.
            unsafe { mi_option_set(PURGE_DELAY, if at_once { 0 } else { usual_ms }) };
        }
        if resident > give_back_at {
            // SAFETY: no pointer is passed; memory in use is left alone.
            unsafe { mi_collect(true) };
            give_back_at = usual.max(resident_bytes().unwrap_or(resident).saturating_add(budget_bytes / 16));
        } else {
            give_back_at = usual.max(give_back_at.min(resident.saturating_add(budget_bytes / 16)));
        }
    }
}

/// Memory of this process that is not swapped out.
fn resident_bytes() -> Option<u64> {
    let sizes = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = sizes.split(' ').nth(1)?.parse().ok()?;
    // SAFETY: asks for a number.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    Some(pages * u64::try_from(page).ok()?)
}
