//! Finding and reading plain rows many bytes at a time.
//!
//! The text is taken in windows that start at a record. First the marks of a window are found, 64 bytes at a time: every
//! separator and every row end, those inside quotes left out (the inside of quotes is a prefix xor over the quotes, as in
//! simdjson: Langdale and Lemire, "Parsing gigabytes of JSON per second", 2019). Then rows are read off the marks: a row
//! is plain when the next row end is where the header says, its id is short and known, and its four numbers are at most
//! eight digits, the spend with up to two decimals. Any other row goes, fields already found, to the general judgement.
//!
//! Marks are right only where the text is regular: quotes open and close whole fields, nothing is doubled or broken
//! inside them, CR stands only before LF. At the first block of 64 bytes where it is not, the scanner stops and says how
//! far the general reader has to go. So a text without any regular block costs one look at each block and no more.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod portable;

use super::aggregate::{Aggregate, Position};
use super::dialect::Columns;
use super::error::Fatal;
use super::record::Fields;
use super::totals::{Key, Lanes, Totals};

/// Bytes that marks are found for at once: few enough for the first-level cache.
const WINDOW_BYTES: usize = 8192;

/// Bytes looked at in one step, and the bits of a mask.
const BLOCK_BYTES: usize = 64;

/// Readable bytes behind every marked block, so that a field can be loaded as one word from its first byte.
const SLACK_BYTES: usize = 16;

/// Rows longer than a window are the general reader's; limits below this one too.
pub(crate) const MIN_RECORD_LIMIT_BYTES: usize = WINDOW_BYTES;

/// Which instructions the scanner uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kernel {
    /// The fastest that this processor has.
    #[default]
    Detect,
    /// Those that every processor has.
    Portable,
    /// None: the general reader reads everything. For tests and comparisons.
    Off,
}

/// The special bytes of a block, one bit a byte.
struct Masks {
    delimiters: u64,
    newlines: u64,
    returns: u64,
    quotes: u64,
}

/// The instructions a scanner is made of. Every position that is loaded from has [`SLACK_BYTES`] readable bytes.
trait Instructions: Sized {
    fn masks(block: &[u8; BLOCK_BYTES], delimiter: u8) -> Masks;

    /// Bit `n` of the result is the parity of bits 0 to `n`.
    fn prefix_xor(bits: u64) -> u64;

    /// Sixteen bytes, the first one lowest.
    fn load_16(text: &[u8], start: usize) -> u128;

    /// Reads three whole numbers and, third, an amount with up to two decimals, in cents. They start behind the positions
    /// `before` and end before the positions `ends`. `None` when one of them is not as plain as that.
    fn numbers(text: &[u8], before: [u32; 4], ends: [u32; 4]) -> Option<Lanes>;

    /// [`mark`] with these instructions.
    fn mark(window: &[u8], blocks: usize, delimiter: u8, marks: &mut Marks) -> Marked {
        mark::<Self>(window, blocks, delimiter, marks)
    }

    /// [`Rows::count_one_by_one`] with these instructions.
    fn count_one_by_one<const STANDARD: bool, const QUOTED: bool>(
        rows: &mut Rows<'_>,
        window: &Window<'_>,
    ) -> Result<usize, Fatal> {
        rows.count_one_by_one::<Self, STANDARD, QUOTED>(window)
    }

    /// [`Rows::count_in_batches`] with these instructions.
    fn count_in_batches<const STANDARD: bool, const QUOTED: bool>(
        rows: &mut Rows<'_>,
        window: &Window<'_>,
    ) -> Result<usize, Fatal> {
        rows.count_in_batches::<Self, STANDARD, QUOTED>(window)
    }
}

/// The marks of one window: positions in it, ascending. Room for one more block is left behind the last.
struct Marks {
    /// Delimiters and row ends.
    separators: Box<[u32]>,
    /// Row ends: the LF, whether there is a CR before it or not.
    row_ends: Box<[u32]>,
}

impl Marks {
    fn new() -> Self {
        let room = vec![0; WINDOW_BYTES + BLOCK_BYTES].into_boxed_slice();
        Self { separators: room.clone(), row_ends: room }
    }
}

/// What is known of a window.
struct Marked {
    separators: usize,
    row_ends: usize,
    /// There are quotes in it.
    quoted: bool,
    /// Up to here it is regular.
    regular_to: usize,
    /// The block there is not.
    is_irregular: bool,
}

/// How far a scan came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Scanned {
    /// Bytes of whole rows.
    pub(crate) consumed: usize,
    /// The general reader has to read on until here before it is worth scanning again.
    pub(crate) general_to: usize,
}

/// The scanner with its buffers.
pub(crate) struct Scanner {
    instructions: Selected,
    marks: Marks,
    fields: Fields,
}

#[derive(Clone, Copy)]
enum Selected {
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Available),
    Portable,
}

impl Scanner {
    /// A scanner, unless it is switched off.
    pub(crate) fn new(kernel: Kernel) -> Option<Self> {
        let instructions = match kernel {
            Kernel::Off => return None,
            Kernel::Portable => Selected::Portable,
            #[cfg(target_arch = "x86_64")]
            Kernel::Detect => avx2::Available::detect().map_or(Selected::Portable, Selected::Avx2),
            #[cfg(not(target_arch = "x86_64"))]
            Kernel::Detect => Selected::Portable,
        };
        Some(Self { instructions, marks: Marks::new(), fields: Fields::default() })
    }

    /// Counts the rows at the start of `text`, which starts at the record at `start`, as far as they are regular and whole.
    /// `start` moves on with them.
    pub(crate) fn scan(
        &mut self,
        text: &[u8],
        columns: &Columns,
        delimiter: u8,
        aggregate: &mut Aggregate,
        start: &mut Position,
    ) -> Result<Scanned, Fatal> {
        let Self { instructions, marks, fields } = self;
        let job = Job { text, marks, rows: Rows { columns, delimiter, fields, aggregate, start } };
        match *instructions {
            #[cfg(target_arch = "x86_64")]
            Selected::Avx2(available) => available.run(job),
            Selected::Portable => job.run::<portable::Portable>(),
        }
    }
}

/// One call of [`Scanner::scan`].
struct Job<'a> {
    text: &'a [u8],
    marks: &'a mut Marks,
    rows: Rows<'a>,
}

impl Job<'_> {
    fn run<I: Instructions>(mut self) -> Result<Scanned, Fatal> {
        let is_standard = *self.rows.columns == Columns::DEFAULT;
        let mut consumed = 0;
        loop {
            let window = &self.text[consumed..];
            let blocks = window.len().saturating_sub(SLACK_BYTES).min(WINDOW_BYTES) / BLOCK_BYTES;
            let marked = I::mark(window, blocks, self.rows.delimiter, self.marks);
            // At most so many rows follow, each a small addend.
            self.rows.aggregate.totals.reserve_lane_addends(marked.row_ends as u64);
            let window = Window {
                text: window,
                separators: &self.marks.separators[..marked.separators],
                row_ends: &self.marks.row_ends[..marked.row_ends],
            };
            let length = match (is_standard, marked.quoted) {
                (true, false) => self.rows.count::<I, true, false>(&window)?,
                (true, true) => self.rows.count::<I, true, true>(&window)?,
                (false, false) => self.rows.count::<I, false, false>(&window)?,
                (false, true) => self.rows.count::<I, false, true>(&window)?,
            };
            let irregular_to = consumed + marked.regular_to + BLOCK_BYTES;
            consumed += length;
            self.rows.start.byte_offset += length as u64;
            if marked.is_irregular {
                return Ok(Scanned { consumed, general_to: irregular_to });
            }
            if length == 0 {
                // Either the text ends here, or this row is longer than a window.
                let is_long_row = blocks == WINDOW_BYTES / BLOCK_BYTES;
                let general_to = if is_long_row { consumed + 1 } else { self.text.len() };
                return Ok(Scanned { consumed, general_to });
            }
        }
    }
}

/// A piece of text that starts at a record, and its marks.
struct Window<'a> {
    text: &'a [u8],
    separators: &'a [u32],
    row_ends: &'a [u32],
}

/// Where rows go, and what is known of them.
struct Rows<'a> {
    columns: &'a Columns,
    delimiter: u8,
    fields: &'a mut Fields,
    aggregate: &'a mut Aggregate,
    /// The line of the next row, and where its window starts.
    start: &'a mut Position,
}

impl Rows<'_> {
    /// Counts the whole rows of a window and gives their length in bytes.
    fn count<I: Instructions, const STANDARD: bool, const QUOTED: bool>(
        &mut self,
        window: &Window<'_>,
    ) -> Result<usize, Fatal> {
        if self.aggregate.totals.len() < BATCH_FROM_CAMPAIGNS {
            I::count_one_by_one::<STANDARD, QUOTED>(self, window)
        } else {
            I::count_in_batches::<STANDARD, QUOTED>(self, window)
        }
    }

    #[inline(always)]
    fn count_one_by_one<I: Instructions, const STANDARD: bool, const QUOTED: bool>(
        &mut self,
        window: &Window<'_>,
    ) -> Result<usize, Fatal> {
        let Window { text, separators, row_ends } = *window;
        let (mut start, mut rest, mut plain_rows) = (0, separators, 0);
        for end in row_ends {
            if let Some((row, behind)) = split_row::<STANDARD>(rest, self.columns.count, *end)
                && let Some((id, lanes)) = plain_row::<I, STANDARD, QUOTED>(text, self.columns, start, row)
                && let Some(index) = id.find(&self.aggregate.totals, text)
            {
                self.aggregate.totals.add_lanes(index, lanes);
                plain_rows += 1;
                rest = behind;
            } else {
                self.pass_plain_rows(plain_rows);
                plain_rows = 0;
                rest = self.take_unusual::<QUOTED>(text, start, rest, *end)?;
            }
            start = *end as usize + 1;
        }
        self.pass_plain_rows(plain_rows);
        Ok(start)
    }

    /// The same for tables larger than the caches: looks up many rows at once, so that the processor waits for their
    /// entries side by side and not one after another.
    #[inline(always)]
    fn count_in_batches<I: Instructions, const STANDARD: bool, const QUOTED: bool>(
        &mut self,
        window: &Window<'_>,
    ) -> Result<usize, Fatal> {
        let Window { text, separators, row_ends } = *window;
        let (mut start, mut rest) = (0, separators);
        let mut batch = Batch::new();
        for end in row_ends {
            let row_start = start;
            start = *end as usize + 1;
            if let Some((row, behind)) = split_row::<STANDARD>(rest, self.columns.count, *end)
                && let Some((Id::Short(key), lanes)) =
                    plain_row::<I, STANDARD, QUOTED>(text, self.columns, row_start, row)
            {
                let hash = self.aggregate.totals.hash(key);
                if batch.push(BatchedRow { key, hash, lanes, start: row_start, separators: rest, end: *end }) {
                    self.take_batch::<QUOTED>(text, &mut batch)?;
                }
                rest = behind;
            } else {
                self.take_batch::<QUOTED>(text, &mut batch)?;
                rest = self.take_unusual::<QUOTED>(text, row_start, rest, *end)?;
            }
        }
        self.take_batch::<QUOTED>(text, &mut batch)?;
        Ok(start)
    }

    fn take_batch<const QUOTED: bool>(&mut self, window: &[u8], batch: &mut Batch<'_>) -> Result<(), Fatal> {
        let rows = &batch.rows[..batch.len];
        let mut lookups = [(Key::NONE, 0); BATCH_ROWS];
        for (lookup, row) in lookups.iter_mut().zip(rows) {
            *lookup = (row.key, row.hash);
        }
        let mut found = [0; BATCH_ROWS];
        self.aggregate.totals.find_many(&lookups[..batch.len], &mut found);
        for (row, index) in rows.iter().zip(found) {
            // An id that was new to the batch may have come in with it.
            let index = if index > 0 { Some(index) } else { self.aggregate.totals.find_short(row.key, row.hash) };
            if let Some(index) = index {
                self.aggregate.totals.add_lanes(index, row.lanes);
                self.pass_plain_rows(1);
            } else {
                self.take_unusual::<QUOTED>(window, row.start, row.separators, row.end)?;
            }
        }
        batch.len = 0;
        Ok(())
    }

    fn pass_plain_rows(&mut self, count: u64) {
        self.aggregate.counters.rows_read += count;
        self.start.line += count;
    }

    /// A row that is not plain: from `start` to the LF at `end`, the first of `separators` being its own. Gives the
    /// separators behind it.
    #[cold]
    #[inline(never)]
    fn take_unusual<'s, const QUOTED: bool>(
        &mut self,
        window: &[u8],
        start: usize,
        separators: &'s [u32],
        end: u32,
    ) -> Result<&'s [u32], Fatal> {
        let field_count = 1 + separators.iter().take_while(|separator| **separator != end).count();
        let (row, behind) = separators.split_at(field_count);
        let record = window[start..end as usize].strip_suffix(b"\r").unwrap_or(&window[start..end as usize]);
        let position = Position { line: self.start.line, byte_offset: self.start.byte_offset + start as u64 };
        self.start.line += 1;
        if QUOTED {
            self.fields.split(record, self.delimiter);
            let fields = &*self.fields;
            self.aggregate.take_record(self.columns, fields.len(), |index| fields.get(index), record, position)?;
        } else {
            let field = |index: usize| {
                let field_start = if index == 0 { 0 } else { row[index - 1] as usize + 1 - start };
                &record[field_start..record.len().min(row[index] as usize - start)]
            };
            self.aggregate.take_record(self.columns, row.len(), field, record, position)?;
        }
        Ok(behind)
    }
}

/// Tables with so many campaigns no longer fit the nearer caches.
const BATCH_FROM_CAMPAIGNS: usize = 4096;

/// Rows looked up at once.
const BATCH_ROWS: usize = 32;

/// A plain row with a short id, before its campaign is looked up.
#[derive(Clone, Copy)]
struct BatchedRow<'a> {
    key: Key,
    hash: u64,
    lanes: Lanes,
    start: usize,
    /// This row's and those behind it.
    separators: &'a [u32],
    end: u32,
}

struct Batch<'a> {
    rows: [BatchedRow<'a>; BATCH_ROWS],
    len: usize,
}

impl<'a> Batch<'a> {
    fn new() -> Self {
        let none = BatchedRow { key: Key::NONE, hash: 0, lanes: [0; 4], start: 0, separators: &[], end: 0 };
        Self { rows: [none; BATCH_ROWS], len: 0 }
    }

    /// True when the batch is full now.
    #[inline(always)]
    fn push(&mut self, row: BatchedRow<'a>) -> bool {
        self.rows[self.len] = row;
        self.len += 1;
        self.len == BATCH_ROWS
    }
}

/// The separators of the row that ends at `end`, and those behind it, if it has `count` fields.
#[inline(always)]
fn split_row<const STANDARD: bool>(separators: &[u32], count: usize, end: u32) -> Option<(&[u32], &[u32])> {
    let (row, behind) = if STANDARD {
        let (row, behind) = separators.split_first_chunk::<6>()?;
        (row.as_slice(), behind)
    } else {
        separators.split_at_checked(count)?
    };
    (row.last() == Some(&end)).then_some((row, behind))
}

/// A campaign id as the scanner meets it.
enum Id {
    Short(Key),
    /// From a position up to another.
    Long(usize, usize),
}

impl Id {
    #[inline(always)]
    fn find(self, totals: &Totals, window: &[u8]) -> Option<usize> {
        match self {
            Self::Short(key) => totals.find_short(key, totals.hash(key)),
            Self::Long(start, end) => totals.find_id(&window[start..end]),
        }
    }
}

/// The id and the numbers of a row that starts at `start` and has the separators `row`, if they are plain.
#[inline(always)]
fn plain_row<I: Instructions, const STANDARD: bool, const QUOTED: bool>(
    window: &[u8],
    columns: &Columns,
    start: usize,
    row: &[u32],
) -> Option<(Id, Lanes)> {
    // Columns the compiler knows cost it no checks, and arrays of them no loops: hence the literals.
    let (columns, row) =
        if STANDARD { (&Columns::DEFAULT, row.first_chunk::<6>()?.as_slice()) } else { (columns, row) };
    let fields = RowFields::<QUOTED> { window, row, start };
    let before = [
        fields.before(columns.impressions),
        fields.before(columns.clicks),
        fields.before(columns.spend),
        fields.before(columns.conversions),
    ];
    let ends = [
        fields.end(columns.impressions),
        fields.end(columns.clicks),
        fields.end(columns.spend),
        fields.end(columns.conversions),
    ];
    let lanes = I::numbers(window, before, ends)?;
    let id_start = fields.before(columns.campaign_id).wrapping_add(1) as usize;
    let id_end = fields.end(columns.campaign_id) as usize;
    let len = id_end.wrapping_sub(id_start);
    let Some(first_bytes) = FIRST_BYTES.get(len) else {
        return Some((Id::Long(id_start, id_end), lanes));
    };
    #[expect(clippy::cast_possible_truncation, reason = "a short id has at most 15 bytes")]
    let key = Key::short(I::load_16(window, id_start) & first_bytes, len as u8);
    Some((Id::Short(key), lanes))
}

/// The fields of a row that starts at `start` and has the separators `row`.
struct RowFields<'a, const QUOTED: bool> {
    window: &'a [u8],
    row: &'a [u32],
    start: usize,
}

impl<const QUOTED: bool> RowFields<'_, QUOTED> {
    /// Regular text: a field that starts with a quote ends with its closing quote.
    #[inline(always)]
    fn quote(&self, before: u32) -> u32 {
        u32::from(QUOTED && self.window[before.wrapping_add(1) as usize] == b'"')
    }

    #[inline(always)]
    fn separator_before(&self, column: usize) -> u32 {
        if column == 0 { index_to_position(self.start).wrapping_sub(1) } else { self.row[column - 1] }
    }

    /// The position before the contents of a field; that before 0 wraps around.
    #[inline(always)]
    fn before(&self, column: usize) -> u32 {
        let before = self.separator_before(column);
        before.wrapping_add(self.quote(before))
    }

    /// The position behind the contents of a field.
    #[inline(always)]
    fn end(&self, column: usize) -> u32 {
        let end = self.row[column];
        let is_return = column + 1 == self.row.len() && self.window.get((end as usize).wrapping_sub(1)) == Some(&b'\r');
        end - u32::from(is_return) - self.quote(self.separator_before(column))
    }
}

/// Positions in a window are small.
#[expect(clippy::cast_possible_truncation, reason = "see above")]
#[inline(always)]
fn index_to_position(index: usize) -> u32 {
    index as u32
}

/// Masks for the first bytes of sixteen.
const FIRST_BYTES: [u128; 16] = {
    let mut masks = [0; 16];
    let mut len = 1;
    while len < 16 {
        masks[len] = masks[len - 1] << 8 | 0xff;
        len += 1;
    }
    masks
};

/// Finds the marks of the first `blocks` blocks of a window that starts at a record.
#[inline(always)]
fn mark<I: Instructions>(window: &[u8], blocks: usize, delimiter: u8, marks: &mut Marks) -> Marked {
    let (mut separators, mut row_ends, mut quoted) = (0, 0, false);
    // All ones while inside quotes, else zero.
    let mut inside_before = 0_u64;
    // One when the byte before this block is such a one: a delimiter or line end, a closing quote.
    let (mut after_separator, mut after_closing) = (1, 0);
    for block in 0..blocks {
        let at = block * BLOCK_BYTES;
        let Some((bytes, behind)) = window[at..].split_first_chunk::<BLOCK_BYTES>() else {
            break;
        };
        let Masks { mut delimiters, newlines, returns, quotes } = I::masks(bytes, delimiter);
        let mut irregular = 0;
        if quotes | inside_before | after_closing != 0 {
            let inside = I::prefix_xor(quotes) ^ inside_before;
            let (opening, closing) = (quotes & inside, quotes & !inside);
            delimiters &= !inside;
            let separating = delimiters | newlines | returns;
            irregular |= opening & !(separating << 1 | after_separator);
            irregular |= (closing << 1 | after_closing) & !separating;
            irregular |= (newlines | returns) & inside;
            inside_before = 0_u64.wrapping_sub(inside >> 63);
            after_closing = closing >> 63;
            quoted = true;
        }
        if returns != 0 {
            let newline_behind = u64::from(behind.first() == Some(&b'\n'));
            irregular |= returns & !(newlines >> 1 | newline_behind << 63);
        }
        if irregular != 0 {
            return Marked { separators, row_ends, quoted, regular_to: at, is_irregular: true };
        }
        after_separator = (delimiters | newlines | returns) >> 63;
        separators = push_positions::<12>(&mut marks.separators, separators, delimiters | newlines, at);
        row_ends = push_positions::<2>(&mut marks.row_ends, row_ends, newlines, at);
    }
    Marked { separators, row_ends, quoted, regular_to: blocks * BLOCK_BYTES, is_irregular: false }
}

/// Appends the positions of the bits of a mask to a list of so many, and gives its new length. Writes in steps, beyond the
/// last position if need be: how many bits there are is hard to predict one by one. `FEW` is what most masks have.
#[inline(always)]
fn push_positions<const FEW: usize>(list: &mut [u32], len: usize, mask: u64, base: usize) -> usize {
    let count = mask.count_ones() as usize;
    let Some(room) = list[len..].first_chunk_mut::<BLOCK_BYTES>() else {
        return len;
    };
    let mut bits = Bits { mask, base: index_to_position(base) };
    bits.write(room, 0, FEW);
    if count > FEW {
        bits.write(room, FEW, 2 * FEW);
        if count > 2 * FEW {
            bits.write(room, 2 * FEW, BLOCK_BYTES);
        }
    }
    len + count
}

/// The bits of a mask that are still to be written.
struct Bits {
    mask: u64,
    base: u32,
}

impl Bits {
    #[expect(unsafe_code, reason = "a volatile write is the only kind that is not made into vectors")]
    #[inline(always)]
    fn write(&mut self, room: &mut [u32; BLOCK_BYTES], from: usize, to: usize) {
        for place in &mut room[from..to] {
            let position = self.base.wrapping_add(self.mask.trailing_zeros());
            // SAFETY: a reference may be written to. The compiler would otherwise gather positions into vectors element
            // by element, which takes longer than all the rest.
            unsafe { std::ptr::from_mut(place).write_volatile(position) };
            self.mask &= self.mask.wrapping_sub(1);
        }
    }
}
