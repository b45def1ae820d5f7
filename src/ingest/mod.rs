//! Bytes as they arrive, to text, to the engine: decompression, charsets, local files on all cores.

mod charset;
mod decompress;
mod lane;
mod local;
mod pipeline;
mod saved;

pub use charset::{TextDecoder, UnknownEncoding, encoding_for_label};
pub use decompress::{Coding, DecompressError, Decompressor, Step};
pub use lane::{LaneError, LaneObserver, WorkerPanicked, Workers, receive};
pub use local::{Input, LocalError, LocalOptions, Observer, aggregate_local};
pub use pipeline::{ContentError, Finished, Pipeline, PipelineOptions, RATIO_FREE_BYTES, Sha256Digest};
pub use saved::SavedPipeline;

/// Bytes read and handed over at once: large enough that handing over costs nothing, small enough for the second-level
/// cache, where the parser finds them.
pub(crate) const BLOCK_BYTES: usize = 256 * 1024;
