//! Bytes as they arrive, to text, to the engine: decompression, charsets, local files on all cores.

mod block;
mod brotli_memory;
mod charset;
mod counter;
mod decompress;
mod growth;
mod gzip;
mod handoff;
mod inflate;
mod input;
mod lane;
mod local;
mod pipeline;
mod pipeline_reader;
mod saved;
mod segments;
mod step;
mod tail;
mod text;
mod turns;
mod workers;

pub use charset::{TextDecoder, UnknownEncoding, encoding_for_label};
pub use decompress::{Coding, DecompressError, Decompressor, Place};
pub use growth::Growth;
pub use input::{Input, LocalError, LocalProblem, Observer};
pub use lane::{FileProgress, LANE_BYTES, LaneError, LaneObserver, SharedPipeline, receive};
pub use local::{LocalOptions, aggregate_local};
pub use pipeline::{ContentError, Finished, Pipeline, PipelineOptions, RATIO_FREE_BYTES, Sha256Digest};
pub use pipeline_reader::PipelineReader;
pub use saved::SavedPipeline;
pub use step::Step;
pub use tail::MAX_TAIL_BYTES;
pub use workers::{Turn, WorkerPanicked, Workers};
