//! Memory of Brotli's decompressor, counted as it allocates it: windows of up to 16 MiB, and tables.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use brotli_decompressor::{Allocator, SliceWrapper as _, StandardAlloc};

/// Allocates, and counts what is allocated.
#[derive(Clone, Default)]
pub(super) struct CountingAlloc(Arc<AtomicUsize>);

impl CountingAlloc {
    /// What all clones have allocated together.
    pub(super) fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl<T: Clone + Default> Allocator<T> for CountingAlloc {
    type AllocatedMemory = <StandardAlloc as Allocator<T>>::AllocatedMemory;

    fn alloc_cell(&mut self, len: usize) -> Self::AllocatedMemory {
        self.0.fetch_add(len * size_of::<T>(), Ordering::Relaxed);
        StandardAlloc::default().alloc_cell(len)
    }

    fn free_cell(&mut self, cell: Self::AllocatedMemory) {
        self.0.fetch_sub(size_of_val(cell.slice()), Ordering::Relaxed);
    }
}
