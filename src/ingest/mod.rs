//! Bytes as they arrive, to text, to the engine: decompression, charsets, local files on all cores.

mod charset;
mod decompress;
mod local;

pub use charset::{TextDecoder, UnknownEncoding, encoding_for_label};
pub use decompress::{Coding, DecompressError, Decompressor, Step};
pub use local::{Input, LocalError, LocalOptions, Observer, aggregate_local};

/// Bytes read and handed over at once: large enough that handing over costs nothing, small enough for the second-level
/// cache, where the parser finds them.
pub(crate) const BLOCK_BYTES: usize = 256 * 1024;
