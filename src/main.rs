//! The `adtally` program: the allocator's settings and the exit code. Everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::give_back_large_allocations();
    adtally::cli::run()
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    /// An allocation of at least this size has a mapping of its own, which grows without a copy and goes back to the system when it is freed.
    /// Tables of campaigns and windows of decompressors are larger, blocks of text are smaller.
    const MMAP_THRESHOLD_BYTES: libc::c_int = 1024 * 1024;

    /// The most free memory that a thread's heap keeps at its end, for the next blocks.
    const TRIM_THRESHOLD_BYTES: libc::c_int = 8 * 1024 * 1024;

    /// Fixes the two thresholds. Without that, the first large allocation that is freed raises them to its own size, up to 32 MiB. Tables
    /// then lie between others in the heaps of threads, and most of what is freed stays there.
    ///
    /// See mallopt(3), `M_MMAP_THRESHOLD` and `M_TRIM_THRESHOLD`. A value that is refused leaves glibc as it is, which is correct, only larger.
    #[expect(unsafe_code, reason = "libc has no safe interface to the allocator")]
    pub(super) fn give_back_large_allocations() {
        // SAFETY: mallopt only sets parameters of the allocator, and may be called at any time.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES);
            libc::mallopt(libc::M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES);
        }
    }
}
