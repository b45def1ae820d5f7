//! Having memory loaded before it is needed.
#![expect(unsafe_code, reason = "the instruction takes a pointer")]

/// Has a value loaded into the caches. It is a hint: on processors for which there is no such instruction here, it does
/// nothing.
#[inline(always)]
pub(in crate::engine) fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

        let start = std::ptr::from_ref(value).cast::<i8>();
        // SAFETY: all processors of this kind have the instruction, and it may name any address. The end may lie in another
        // cache line.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(start);
            _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(size_of::<T>() - 1));
        }
    }
}
