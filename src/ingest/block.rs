//! How much is handed over at once.

/// Bytes read and handed over at once: large enough that handing over costs nothing, small enough for the second-level
/// cache, where the parser finds them.
pub(super) const BLOCK_BYTES: usize = 256 * 1024;
