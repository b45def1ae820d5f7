//! Permission to take more memory, asked for before it is taken.

/// How much memory counting the next text takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Growth {
    /// Memory at the moment.
    pub now_bytes: usize,
    /// The most until it is measured again.
    pub most_bytes: usize,
    /// It cannot be less: without this permission nothing goes on.
    pub is_least: bool,
}

/// How much of some pieces has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// All.
    All,
    /// What was left has to wait for memory.
    Part,
    /// Others wait for the thread, and this upload has had its turn. What was left waits in line.
    TurnOver,
}
