//! What one step of decompression does.

/// What one step did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Bytes taken from the input.
    pub consumed: usize,
    /// Bytes written to the output.
    pub produced: usize,
}

/// Where a step stops before the input is used up or the output is full.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum StopAt {
    StreamEnd,
    /// Also where a deflate block ends, which costs a little.
    BlockEnd,
}
