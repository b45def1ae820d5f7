//! Where a file goes on.

use super::checkpoint::TakenState;
use super::model::JobFile;
use crate::ingest::FileProgress;

/// What a checkpoint says.
#[derive(Clone, Copy)]
pub(super) struct Durable {
    /// How far the file had been read.
    pub(super) progress: FileProgress,
    /// Of what had been read.
    pub(super) crc64: Option<u64>,
    /// Memory of the pipeline that goes on from there.
    pub(super) memory_bytes: u64,
}

impl Durable {
    pub(super) fn of(state: &TakenState) -> Self {
        let TakenState { progress, memory_bytes, saved, .. } = state;
        Self { progress: *progress, crc64: saved.crc64, memory_bytes: *memory_bytes }
    }

    /// Writes into a file that it goes on here.
    pub(super) fn write_to(self, file: &mut JobFile) {
        file.show(self.progress);
        file.durable_offset = self.progress.bytes_received;
        file.crc64nvme = self.crc64.map(crc64_text);
        file.memory_bytes = self.memory_bytes;
    }
}

pub(super) fn crc64_text(crc64: u64) -> String {
    format!("{crc64:016x}")
}
