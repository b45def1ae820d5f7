//! Inflating the deflate format (RFC 1951), with positions at which another inflater can go on.
//!
//! A deflate stream consists of blocks. Where one ends, all that the next one depends on is known: the text of the last 32 KiB (the window),
//! and the bits of the last byte that belong to the next block, as blocks end anywhere within a byte. zlib reports these positions,
//! and takes them up: its `examples/zran.c` does so as well. Within a block the tables of its codes would have to be known, too.
//!
//! This file calls zlib's interface, as the Rust crates above it do not pass these positions on.
#![expect(unsafe_code, reason = "zlib's interface consists of pointers")]

use std::ffi::{CStr, c_int};
use std::ptr::{null, null_mut};

use libz_rs_sys::{
    Z_BLOCK, Z_BUF_ERROR, Z_NO_FLUSH, Z_OK, Z_STREAM_END, inflate, inflateEnd, inflateGetDictionary, inflateInit2_,
    inflatePrime, inflateReset, inflateSetDictionary, z_stream, zlibVersion,
};
use serde::{Deserialize, Serialize};

use super::step::StopAt;
use crate::engine::RestoreError;

/// The largest window that deflate has.
const MAX_WINDOW_BYTES: usize = 1 << WINDOW_LOG;
const WINDOW_LOG: c_int = 15;

/// Of `z_stream::data_type`: how many bits of the last byte are unused, whether the block is the last one, and whether it has just ended.
const UNUSED_BITS: c_int = 63;
const IS_LAST_BLOCK: c_int = 64;
const IS_BLOCK_END: c_int = 128;

/// What is around the deflate stream.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrapper {
    Nothing,
    /// Header and checksum of RFC 1950.
    Zlib,
}

/// What one call did.
#[derive(Clone, Copy)]
pub(super) struct Inflated {
    pub(super) consumed: usize,
    pub(super) produced: usize,
    pub(super) has_ended: bool,
}

/// The end of a block that is not the last one: all that another inflater needs to go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BlockEnd {
    /// How many bits of the last byte belong to the next block, and these bits.
    unused_bits: u8,
    bits: u8,
    /// The last bytes of the text.
    window: Vec<u8>,
}

/// Inflates one stream, given in pieces of any size.
pub(super) struct Inflater {
    /// In a box, as zlib wants it to stay where it is.
    stream: Box<z_stream>,
    /// The byte that was taken last; behind a [`BlockEnd`] only its unused bits.
    last_byte: u8,
    is_at_block_end: bool,
}

// SAFETY: the stream is the only owner of its memory, which is bound to no thread, and reads no input and writes no output between two calls.
unsafe impl Send for Inflater {}

impl Inflater {
    /// An inflater at the start of a stream.
    ///
    /// # Errors
    /// When the memory cannot be had.
    pub(super) fn new(wrapper: Wrapper) -> Result<Self, &'static str> {
        let window_bits = if wrapper == Wrapper::Zlib { WINDOW_LOG } else { -WINDOW_LOG };
        let stream_bytes = c_int::try_from(size_of::<z_stream>()).map_err(|_| "zlib is another one")?;
        let mut stream = Box::new(z_stream::default());
        // SAFETY: the stream is valid, its functions for memory are zlib's own, and the version is a C string of zlib's.
        let code = unsafe { inflateInit2_(&raw mut *stream, window_bits, zlibVersion(), stream_bytes) };
        if code == Z_OK {
            Ok(Self { stream, last_byte: 0, is_at_block_end: false })
        } else {
            Err("there is no memory for it")
        }
    }

    /// An inflater for what follows the end of a block in a stream without a wrapper.
    ///
    /// # Errors
    /// When no block can have ended so, or the memory cannot be had.
    pub(super) fn behind(block_end: &BlockEnd) -> Result<Self, RestoreError> {
        let BlockEnd { unused_bits, bits, ref window } = *block_end;
        if unused_bits > 7 || bits >> unused_bits != 0 {
            return Err(RestoreError::Inconsistent("there are other bits than the unused ones"));
        }
        let window_bytes = u32::try_from(window.len()).unwrap_or(u32::MAX);
        if window.len() > MAX_WINDOW_BYTES {
            return Err(RestoreError::Inconsistent("its window is too large"));
        }
        let mut inflater = Self::new(Wrapper::Nothing).map_err(RestoreError::Inconsistent)?;
        inflater.last_byte = if unused_bits > 0 { bits << (8 - unused_bits) } else { 0 };
        inflater.is_at_block_end = true;
        let stream = &raw mut *inflater.stream;
        // SAFETY: the stream has been initialised.
        let primed = unsafe { inflatePrime(stream, unused_bits.into(), bits.into()) };
        // SAFETY: the stream has been initialised, and as many bytes can be read.
        let is_set = unsafe { inflateSetDictionary(stream, window.as_ptr(), window_bytes) };
        // As it is where a block has ended.
        inflater.stream.data_type = IS_BLOCK_END | c_int::from(unused_bits);
        if primed == Z_OK && is_set == Z_OK {
            Ok(inflater)
        } else {
            Err(RestoreError::Inconsistent("inflating cannot go on"))
        }
    }

    /// Back to the start of a stream with the same wrapper.
    pub(super) fn reset(&mut self) {
        // SAFETY: the stream has been initialised.
        unsafe { inflateReset(&raw mut *self.stream) };
        self.is_at_block_end = false;
    }

    /// Takes from the input and writes to the output as much as goes, up to `stop_at`.
    ///
    /// # Errors
    /// When the data is damaged.
    pub(super) fn inflate(
        &mut self,
        input: &[u8],
        output: &mut [u8],
        stop_at: StopAt,
    ) -> Result<Inflated, &'static str> {
        let flush = if stop_at == StopAt::BlockEnd { Z_BLOCK } else { Z_NO_FLUSH };
        let mut inflated = self.call(input, output, flush)?;
        let place = self.stream.data_type;
        let is_block_end = !inflated.has_ended && flush == Z_BLOCK && place & IS_BLOCK_END != 0;
        self.is_at_block_end = is_block_end && place & IS_LAST_BLOCK == 0;
        if is_block_end && !self.is_at_block_end {
            // Nothing follows the last block: only another call says so.
            let rest = self.call(&input[inflated.consumed..], &mut output[inflated.produced..], Z_NO_FLUSH)?;
            inflated = Inflated {
                consumed: inflated.consumed + rest.consumed,
                produced: inflated.produced + rest.produced,
                has_ended: rest.has_ended,
            };
        }
        Ok(inflated)
    }

    fn call(&mut self, input: &[u8], output: &mut [u8], flush: c_int) -> Result<Inflated, &'static str> {
        // What is longer is read by further calls.
        let input_bytes = u32::try_from(input.len()).unwrap_or(u32::MAX);
        let output_bytes = u32::try_from(output.len()).unwrap_or(u32::MAX);
        (self.stream.next_in, self.stream.avail_in) = (input.as_ptr(), input_bytes);
        (self.stream.next_out, self.stream.avail_out) = (output.as_mut_ptr(), output_bytes);
        // SAFETY: the stream has been initialised; as many bytes can be read and written.
        let code = unsafe { inflate(&raw mut *self.stream, flush) };
        (self.stream.next_in, self.stream.next_out) = (null(), null_mut());
        let consumed = (input_bytes - self.stream.avail_in) as usize;
        let produced = (output_bytes - self.stream.avail_out) as usize;
        if let Some(last) = consumed.checked_sub(1) {
            self.last_byte = input[last];
        }
        match code {
            // No room or no input is no error.
            Z_OK | Z_BUF_ERROR => Ok(Inflated { consumed, produced, has_ended: false }),
            Z_STREAM_END => Ok(Inflated { consumed, produced, has_ended: true }),
            _ => Err(self.message()),
        }
    }

    fn message(&self) -> &'static str {
        let message = self.stream.msg;
        if message.is_null() {
            return "it does not follow the format";
        }
        // SAFETY: zlib's messages are constants that end with a zero.
        unsafe { CStr::from_ptr(message) }.to_str().unwrap_or("it does not follow the format")
    }

    /// The end of a block, when the last call has [stopped](StopAt::BlockEnd) there.
    pub(super) fn block_end(&self) -> Option<BlockEnd> {
        if !self.is_at_block_end {
            return None;
        }
        // More than seven bits would be a byte that need not have been taken.
        let unused_bits = u8::try_from(self.stream.data_type & UNUSED_BITS).ok().filter(|bits| *bits <= 7)?;
        let bits = self.last_byte.checked_shr(8 - u32::from(unused_bits)).unwrap_or(0);
        let mut window = vec![0; MAX_WINDOW_BYTES];
        let mut window_bytes = 0;
        // SAFETY: the stream has been initialised, and there is room for the largest window.
        let code = unsafe { inflateGetDictionary(&raw const *self.stream, window.as_mut_ptr(), &raw mut window_bytes) };
        if code != Z_OK {
            return None;
        }
        window.truncate(window_bytes as usize);
        Some(BlockEnd { unused_bits, bits, window })
    }
}

impl Drop for Inflater {
    fn drop(&mut self) {
        // SAFETY: the stream has been initialised, and is not used any more.
        unsafe { inflateEnd(&raw mut *self.stream) };
    }
}
