//! Reading rows off the marks of a window.

use super::marks::{Marked, Marks};
use super::{Instructions, index_to_position};
use crate::engine::aggregate::{Aggregate, Position};
use crate::engine::dialect::Columns;
use crate::engine::error::Fatal;
use crate::engine::record::Fields;
use crate::engine::totals::{Key, Lanes, Lookup};

/// Tables with so many campaigns no longer fit the nearer caches.
const BATCH_FROM_CAMPAIGNS: usize = 4096;

/// Rows looked up at once.
const BATCH_ROWS: usize = 32;

/// A piece of text that starts at a record.
pub(super) struct Window<'a> {
    text: &'a [u8],
    columns: &'a Columns,
    /// How many CRs stand before each LF; without meaning where that differs.
    returns_at_end: u32,
}

/// The rows of a window that are still to be taken.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a> {
    /// Where the first of them starts.
    start: usize,
    /// Its separators and those of the rows behind it.
    separators: &'a [u32],
    row_ends: &'a [u32],
}

impl<'a> Cursor<'a> {
    /// Its rows with their ends, as if each had as many fields as it should: up to the first that has not, that is so.
    #[inline(always)]
    fn rows(&self, field_count: usize) -> impl Iterator<Item = (&'a [u32], u32)> + use<'a> {
        self.separators.chunks_exact(field_count).zip(self.row_ends.iter().copied())
    }

    /// Passes over rows that have as many fields as they should, the last of which ends before `start`.
    #[inline(always)]
    fn skip(&mut self, rows: usize, field_count: usize, start: usize) {
        self.start = start;
        self.separators = &self.separators[rows * field_count..];
        self.row_ends = &self.row_ends[rows..];
    }
}

/// Where rows go, and what is known of them.
pub(super) struct Rows<'a> {
    pub(super) columns: &'a Columns,
    pub(super) delimiter: u8,
    pub(super) fields: &'a mut Fields,
    pub(super) aggregate: &'a mut Aggregate,
    /// The next row.
    pub(super) start: &'a mut Position,
}

impl Rows<'_> {
    /// Counts the whole rows of a window and gives their length in bytes.
    pub(super) fn take<I: Instructions>(
        &mut self,
        text: &[u8],
        marks: &Marks,
        marked: &Marked,
    ) -> Result<usize, Fatal> {
        let cursor = Cursor {
            start: 0,
            separators: &marks.separators[..marked.separators],
            row_ends: &marks.row_ends[..marked.row_ends],
        };
        let window = Window { text, columns: self.columns, returns_at_end: marked.returns_at_end.unwrap_or(0) };
        // At most so many plain rows follow, each a small addend, and at most so many others, announced one by one.
        let rows = marked.row_ends as u64;
        self.aggregate.totals.reserve_lane_addends(rows, rows);
        let is_standard = *self.columns == Columns::DEFAULT && marked.returns_at_end.is_some();
        let length = match (is_standard, marked.quoted) {
            (true, false) => self.take_all::<I, true, false>(&window, cursor)?,
            (true, true) => self.take_all::<I, true, true>(&window, cursor)?,
            (false, false) => self.take_all::<I, false, false>(&window, cursor)?,
            (false, true) => self.take_all::<I, false, true>(&window, cursor)?,
        };
        self.start.byte_offset += length as u64;
        Ok(length)
    }

    fn take_all<I: Instructions, const STANDARD: bool, const QUOTED: bool>(
        &mut self,
        window: &Window<'_>,
        mut cursor: Cursor<'_>,
    ) -> Result<usize, Fatal> {
        loop {
            if self.aggregate.totals.len() >= BATCH_FROM_CAMPAIGNS {
                self.take_batches::<I, STANDARD, QUOTED>(window, &mut cursor)?;
            }
            let lookup = self.aggregate.totals.lookup();
            let plain_rows = I::add_plain_rows::<STANDARD, QUOTED>(window, &mut cursor, lookup);
            self.pass_plain_rows(plain_rows as u64);
            if cursor.row_ends.is_empty() {
                return Ok(cursor.start);
            }
            cursor = self.take_unusual::<QUOTED>(window.text, cursor)?;
        }
    }

    /// For tables larger than the caches: looks up many rows at once, so that the processor waits for their keys side by
    /// side and not one after another. Stops at a row for which that does not go.
    fn take_batches<I: Instructions, const STANDARD: bool, const QUOTED: bool>(
        &mut self,
        window: &Window<'_>,
        cursor: &mut Cursor<'_>,
    ) -> Result<(), Fatal> {
        let mut batch = Batch::new();
        loop {
            let lookup = self.aggregate.totals.lookup();
            I::collect_batch::<STANDARD, QUOTED>(window, cursor, &lookup, &mut batch);
            let is_full = batch.len == BATCH_ROWS;
            self.take_batch::<QUOTED>(window.text, &mut batch)?;
            if !is_full {
                return Ok(());
            }
        }
    }

    fn take_batch<const QUOTED: bool>(&mut self, text: &[u8], batch: &mut Batch<'_>) -> Result<(), Fatal> {
        let mut found = [0; BATCH_ROWS];
        self.aggregate.totals.lookup().find_many(&batch.ids[..batch.len], &mut found);
        for (index, campaign) in found.into_iter().take(std::mem::take(&mut batch.len)).enumerate() {
            let (key, hash) = batch.ids[index];
            let mut lookup = self.aggregate.totals.lookup();
            // An id that was new to the batch may have come in with it.
            let campaign = if campaign > 0 { Some(campaign) } else { lookup.find_short(key, hash) };
            if let Some(campaign) = campaign {
                lookup.add(campaign, batch.lanes[index]);
                self.pass_plain_rows(1);
            } else {
                self.take_unusual::<QUOTED>(text, batch.cursor(index, self.columns.count))?;
            }
        }
        Ok(())
    }

    fn pass_plain_rows(&mut self, count: u64) {
        self.aggregate.counters.rows_read += count;
        self.start.line += count;
    }

    /// Judges the first row of a cursor, which is not plain, or new. Gives the cursor behind it.
    #[cold]
    #[inline(never)]
    fn take_unusual<'m, const QUOTED: bool>(&mut self, text: &[u8], cursor: Cursor<'m>) -> Result<Cursor<'m>, Fatal> {
        let Some((end, row_ends)) = cursor.row_ends.split_first() else { return Ok(cursor) };
        let start = cursor.start;
        let field_count = 1 + cursor.separators.iter().take_while(|separator| *separator != end).count();
        let (row, separators) = cursor.separators.split_at(field_count);
        let line = &text[start..*end as usize];
        let record = line.strip_suffix(b"\r").unwrap_or(line);
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
        Ok(Cursor { start: *end as usize + 1, separators, row_ends })
    }
}

/// Plain rows with short ids, before their campaigns are looked up.
pub(super) struct Batch<'a> {
    len: usize,
    /// Keys and their hashes.
    ids: [(Key, u64); BATCH_ROWS],
    lanes: [Lanes; BATCH_ROWS],
    /// Where each row starts.
    starts: [usize; BATCH_ROWS],
    /// The rows from the first on.
    first: Cursor<'a>,
}

impl<'a> Batch<'a> {
    fn new() -> Self {
        Self {
            len: 0,
            ids: [(Key::NONE, 0); BATCH_ROWS],
            lanes: [Lanes::default(); BATCH_ROWS],
            starts: [0; BATCH_ROWS],
            first: Cursor { start: 0, separators: &[], row_ends: &[] },
        }
    }

    /// The rows from one of the batch's on.
    fn cursor(&self, index: usize, field_count: usize) -> Cursor<'a> {
        let mut cursor = self.first;
        cursor.skip(index, field_count, self.starts[index]);
        cursor
    }
}

/// Adds plain rows of known campaigns up to the first that is not one. Gives their number.
#[inline(always)]
pub(super) fn add_plain_rows<I: Instructions, const STANDARD: bool, const QUOTED: bool>(
    window: &Window<'_>,
    cursor: &mut Cursor<'_>,
    mut lookup: Lookup<'_>,
) -> usize {
    let field_count = if STANDARD { Columns::DEFAULT.count } else { window.columns.count };
    let (mut count, mut start) = (0, cursor.start);
    for (row, end) in cursor.rows(field_count) {
        let Some((id, addends)) = plain_row::<I, STANDARD, QUOTED>(window, start, row, end) else { break };
        let Some(campaign) = id.find(&lookup, window.text) else { break };
        lookup.add(campaign, addends);
        count += 1;
        start = end as usize + 1;
    }
    cursor.skip(count, field_count, start);
    count
}

/// Fills a batch with plain rows, up to the first that is not one with a short id.
#[inline(always)]
pub(super) fn collect_batch<'a, I: Instructions, const STANDARD: bool, const QUOTED: bool>(
    window: &Window<'_>,
    cursor: &mut Cursor<'a>,
    lookup: &Lookup<'_>,
    batch: &mut Batch<'a>,
) {
    let field_count = if STANDARD { Columns::DEFAULT.count } else { window.columns.count };
    let first = *cursor;
    let (mut count, mut start) = (0, cursor.start);
    for (row, end) in first.rows(field_count).take(BATCH_ROWS) {
        let Some((Id::Short(key), addends)) = plain_row::<I, STANDARD, QUOTED>(window, start, row, end) else { break };
        batch.ids[count] = (key, lookup.hash(key));
        batch.lanes[count] = addends;
        batch.starts[count] = start;
        count += 1;
        start = end as usize + 1;
    }
    cursor.skip(count, field_count, start);
    (batch.first, batch.len) = (first, count);
}

/// A campaign id as the scanner meets it.
enum Id {
    Short(Key),
    /// From a position up to another.
    Long(usize, usize),
}

impl Id {
    #[inline(always)]
    fn find(self, lookup: &Lookup<'_>, text: &[u8]) -> Option<usize> {
        match self {
            Self::Short(key) => lookup.find_short(key, lookup.hash(key)),
            Self::Long(start, end) => lookup.find_id(&text[start..end]),
        }
    }
}

/// The id and the numbers of a row from `start` to `end`, if they are plain and `row` are its separators.
#[inline(always)]
fn plain_row<I: Instructions, const STANDARD: bool, const QUOTED: bool>(
    window: &Window<'_>,
    start: usize,
    row: &[u32],
    end: u32,
) -> Option<(Id, Lanes)> {
    if row.last() != Some(&end) {
        return None;
    }
    // Columns the compiler knows cost it no checks, and arrays of them no loops: hence the literals.
    let (columns, row) =
        if STANDARD { (&Columns::DEFAULT, row.first_chunk::<6>()?.as_slice()) } else { (window.columns, row) };
    let fields = RowFields::<STANDARD, QUOTED> { window, row, start };
    let lanes = if STANDARD && !QUOTED {
        // The four numbers stand side by side: their separators are taken as they lie.
        let (before, ends) = (row[1..].first_chunk()?, row[2..].first_chunk()?);
        I::numbers(window.text, before, ends, fields.return_at_end())?
    } else {
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
        I::numbers(window.text, &before, &ends, 0)?
    };
    let id_start = fields.before(columns.campaign_id).wrapping_add(1) as usize;
    let id_end = fields.end(columns.campaign_id) as usize;
    let len = id_end.wrapping_sub(id_start);
    let Some((low, high)) = FIRST_BYTES.get(len) else {
        return Some((Id::Long(id_start, id_end), lanes));
    };
    let [first, second] = I::load_16(window.text, id_start);
    Some((Id::Short(Key::short(first & low, second & high, len)), lanes))
}

/// The fields of a row that starts at `start` and has the separators `row`.
struct RowFields<'a, const STANDARD: bool, const QUOTED: bool> {
    window: &'a Window<'a>,
    row: &'a [u32],
    start: usize,
}

impl<const STANDARD: bool, const QUOTED: bool> RowFields<'_, STANDARD, QUOTED> {
    /// Regular text: a field that starts with a quote ends with its closing quote.
    #[inline(always)]
    fn quote(&self, before: u32) -> u32 {
        u32::from(QUOTED && self.window.text[before.wrapping_add(1) as usize] == b'"')
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
        let trim = if column + 1 == self.row.len() { self.return_at_end() } else { 0 };
        self.row[column] - trim - self.quote(self.separator_before(column))
    }

    /// One when the row ends with CRLF.
    #[inline(always)]
    fn return_at_end(&self) -> u32 {
        if STANDARD {
            return self.window.returns_at_end;
        }
        let line_end = self.row[self.row.len() - 1] as usize;
        u32::from(self.window.text.get(line_end.wrapping_sub(1)) == Some(&b'\r'))
    }
}

/// Masks for the first bytes of sixteen, eight by eight.
const FIRST_BYTES: [(u64, u64); 16] = {
    let mut masks = [(0, 0); 16];
    let mut len = 1;
    while len < 16 {
        let (low, high) = masks[len - 1];
        masks[len] = if len <= 8 { (low << 8 | 0xff, 0) } else { (low, high << 8 | 0xff) };
        len += 1;
    }
    masks
};
