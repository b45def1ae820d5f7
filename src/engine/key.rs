//! What a campaign is found by in the table: the key of its id, and the key's hash.

use std::hash::{BuildHasher, Hasher, RandomState};

/// The longest id that fits into a [`Key`].
pub(crate) const MAX_SHORT_ID_BYTES: usize = 15;

/// The last byte of a [`Key`] whose id lies in the shared buffer.
const LONG_ID: u64 = 0xff;

/// The identity of a campaign as two words: an id's bytes, zeros, and its length in the last byte; or, for an id longer
/// than [`MAX_SHORT_ID_BYTES`], its hash and where it lies. The length makes `"A"` and `"A\0"` two keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(align(16))]
pub(crate) struct Key([u8; 16]);

impl Key {
    /// The key of no campaign: no id has this length.
    pub(crate) const NONE: Self = Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfe]);
    const LONG_OFFSET_BITS: u32 = 44;

    /// The key of a short id from its bytes, padded with zeros, eight by eight, and its length.
    #[inline(always)]
    pub(crate) fn short(low: u64, high: u64, len: usize) -> Self {
        Self::from_words(low, high | (len as u64) << 56)
    }

    /// The key of an id of at most [`MAX_SHORT_ID_BYTES`].
    #[inline]
    pub(crate) fn of_short_id(id: &[u8]) -> Self {
        let len = id.len();
        let (low, high) = match (id.first_chunk(), id.last_chunk()) {
            // The last eight bytes may be among the first: those are shifted out.
            (Some(first), Some(last)) => {
                let last = u64::from_le_bytes(*last);
                (u64::from_le_bytes(*first), if len == 8 { 0 } else { last >> (8 * (16 - len)) })
            }
            _ => (id.iter().rev().fold(0, |low, byte| low << 8 | u64::from(*byte)), 0),
        };
        Self::short(low, high, len)
    }

    #[inline(always)]
    fn from_words(low: u64, high: u64) -> Self {
        Self((u128::from(high) << 64 | u128::from(low)).to_le_bytes())
    }

    #[inline(always)]
    pub(crate) fn is(self, other: Self) -> bool {
        // Word by word, as they are in registers already, and with one branch.
        (self.low() ^ other.low()) | (self.high() ^ other.high()) == 0
    }

    pub(crate) fn long(hash: u64, offset: usize, len: usize) -> Self {
        let place = LONG_ID << 56 | (len as u64) << Self::LONG_OFFSET_BITS | offset as u64;
        Self::from_words(hash, place)
    }

    #[inline(always)]
    pub(crate) fn low(self) -> u64 {
        low_half(u128::from_le_bytes(self.0))
    }

    #[inline(always)]
    fn high(self) -> u64 {
        low_half(u128::from_le_bytes(self.0) >> 64)
    }

    /// True for a short id that is ASCII, without blanks at its ends.
    #[inline(always)]
    pub(crate) fn is_plain(self) -> bool {
        const HIGH_BITS: u64 = 0x8080_8080_8080_8080;
        let [first, .., len] = self.0;
        let last = low_half(u128::from_le_bytes(self.0) >> (8 * (u32::from(len).wrapping_sub(1) % 16))) & 0xff;
        // The length is below 16.
        (self.low() | self.high()) & HIGH_BITS == 0 && first > b' ' && last > u64::from(b' ')
    }

    pub(crate) fn is_long(self) -> bool {
        self.high() >> 56 == LONG_ID
    }

    /// The id that is part of the key. Meaningless for a long one.
    pub(crate) fn short_id(&self) -> &[u8] {
        &self.0[..usize::from(self.0[15])]
    }

    /// The key of a long id that lies `offset` bytes further in the shared buffer.
    pub(crate) fn moved(self, offset: usize) -> Self {
        Self::from_words(self.low(), self.high() + offset as u64)
    }

    /// Where a long id lies in the shared buffer.
    pub(crate) fn long_range(self) -> std::ops::Range<usize> {
        let offset = word_to_index(self.high() & ((1 << Self::LONG_OFFSET_BITS) - 1));
        let len = word_to_index(self.high() >> Self::LONG_OFFSET_BITS & 0x1ff);
        offset..offset + len
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is what is asked for")]
#[inline(always)]
fn low_half(word: u128) -> u64 {
    word as u64
}

/// Words used as indices come from indices, or are masked to a table's size at once.
#[expect(clippy::cast_possible_truncation, reason = "see above")]
#[inline(always)]
pub(crate) fn word_to_index(word: u64) -> usize {
    word as usize
}

/// Multiplies to 128 bits and folds the halves together, as wyhash and foldhash do.
#[inline(always)]
fn folded_multiply(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    low_half(product) ^ low_half(product >> 64)
}

/// Secret to one table, so that no input can be made to collide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seed([u64; 2]);

impl Seed {
    pub(crate) fn random() -> Self {
        let random = RandomState::new();
        Self([1, 2].map(|salt| {
            let mut hasher = random.build_hasher();
            hasher.write_u64(salt);
            hasher.finish()
        }))
    }

    /// The hash of a short id's key.
    #[inline(always)]
    pub(crate) fn hash(self, key: Key) -> u64 {
        let folded = folded_multiply(key.low() ^ self.0[0], key.high() ^ self.0[1]);
        // Ids often differ in a few digits only. With one multiplication some seeds place them at regular distances, and many
        // at the same; the upper half of a second product does not. It is the lower half that chooses the place.
        folded.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32)
    }

    /// The hash of an id that is too long for a key.
    #[inline]
    pub(crate) fn hash_long(self, id: &[u8]) -> u64 {
        let mut hash = id.len() as u64 ^ self.0[1];
        // The last sixteen bytes may be among those before them.
        for chunk in id.as_chunks().0.iter().chain(id.last_chunk()) {
            let word = u128::from_le_bytes(*chunk);
            hash = folded_multiply(low_half(word) ^ self.0[0], low_half(word >> 64) ^ hash);
        }
        hash
    }
}
