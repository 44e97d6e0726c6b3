//! How many files the program may have open: what the stages of rules keep lies in hundreds of them when memory does not hold it.
#![allow(unsafe_code, reason = "the binding has no safe call for limits")]

/// More than any job has use for.
const WANTED: libc::rlim_t = 65_536;

/// Takes as many as the system grants without asking. A shell often grants a thousand, and a multiple of that on request.
pub(crate) fn allow_many() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call writes one struct, which is there.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return;
    }
    limit.rlim_cur = limit.rlim_cur.max(limit.rlim_max.min(WANTED));
    // SAFETY: the call reads one struct. If it is refused, the old limit stays: whoever meets it is told by the file.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
}
