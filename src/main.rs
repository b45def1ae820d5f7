//! The `adtally` program: the allocator's settings and the exit code. Everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::give_back_large_allocations();
    adtally::cli::run()
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    /// glibc maps each allocation of at least this size by itself. Such an allocation grows without a copy, and goes back to the system when it
    /// is freed. Large tables and windows of decompressors are above this size, blocks of text are below it.
    const MMAP_THRESHOLD_BYTES: libc::c_int = 1024 * 1024;

    /// A thread's heap keeps at most this much free memory at its end. The next blocks of text use it again.
    const TRIM_THRESHOLD_BYTES: libc::c_int = 8 * 1024 * 1024;

    /// Fixes the two thresholds. Otherwise glibc raises them: the first one to the size of the largest allocation that was freed, up to
    /// 32 MiB, and the second one to twice that. Tables then share the heaps of threads with other data, and most of their memory stays there
    /// after they are freed.
    ///
    /// See mallopt(3), `M_MMAP_THRESHOLD` and `M_TRIM_THRESHOLD`. If glibc refuses a value, the program only needs more memory.
    #[expect(unsafe_code, reason = "libc has no safe interface to the allocator")]
    pub(super) fn give_back_large_allocations() {
        // SAFETY: mallopt only sets parameters of the allocator, and may be called at any time.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES);
            libc::mallopt(libc::M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES);
        }
    }
}
