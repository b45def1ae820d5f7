//! Reading rows off the marks of a window.

use super::instructions::{ANY, Instructions};
use super::marks::{self, Form, Marked, Marks, Separators};
use super::usual::{self, BLANKS, ByteSet, Cursor, NOTHING, QUOTES_AND_BLANKS, Usual};
use super::window::{FIRST_BYTES, Window};
use crate::engine::aggregate::Aggregate;
use crate::engine::dialect::Columns;
use crate::engine::error::Fatal;
use crate::engine::judge::Judge;
use crate::engine::key::Key;
use crate::engine::lookup::{CountRows, Lookup};
use crate::engine::record::{Fields, Position};
use crate::engine::sums::{Lanes, MAX_LANE_ADDENDS_PER_BYTE};

/// From this number of campaigns on, a table does not fit the nearer caches.
const BATCH_FROM_CAMPAIGNS: usize = 4096;

/// Rows looked up at once.
const BATCH_ROWS: usize = 64;

/// The scanner's loops, each a function of its own that is compiled with the instructions.
pub(super) trait Loops: Instructions {
    /// [`marks::mark`] with these instructions.
    fn mark(window: &[u8], blocks: usize, delimiter: u8, form: Form, marks: &mut Marks) -> Marked {
        marks::mark::<Self>(window, blocks, delimiter, form, marks)
    }

    /// [`add_plain_rows`] with these instructions.
    fn add_plain_rows<const LINE_END: usize, const QUOTED: bool, const LONG_ID: bool>(
        window: &Window<'_>,
        start: &mut usize,
        room: &mut [usize],
        rows: &mut impl CountRows,
    ) -> u64 {
        add_plain_rows::<Self, LINE_END, QUOTED, LONG_ID>(window, start, room, rows)
    }

    /// [`collect_batch`] with these instructions.
    fn collect_batch<const LINE_END: usize, const QUOTED: bool, const LONG_ID: bool>(
        window: &Window<'_>,
        start: &mut usize,
        room: &mut [usize],
        lookup: &Lookup<'_>,
        batch: &mut Batch,
    ) {
        collect_batch::<Self, LINE_END, QUOTED, LONG_ID>(window, start, room, lookup, batch);
    }

    /// [`Separators::list`] with these instructions.
    fn list_separators(window: &[u8], marks: &Marks, separators: &mut Separators) {
        separators.list(window, marks);
    }

    /// [`usual::add_usual_rows`] with these instructions.
    fn add_usual_rows<const AROUND: u8>(
        window: &Window<'_>,
        usual: &Usual<'_>,
        cursor: &mut Cursor<'_>,
        lookup: Lookup<'_>,
    ) -> u64 {
        usual::add_usual_rows::<Self, AROUND>(window, usual, cursor, lookup)
    }

    /// [`usual::add_spelled_rows`] with these instructions.
    fn add_spelled_rows<const AROUND: u8>(
        window: &Window<'_>,
        usual: &Usual<'_>,
        start: &mut usize,
        lookup: Lookup<'_>,
    ) -> u64 {
        usual::add_spelled_rows::<Self, AROUND>(window, usual, start, lookup)
    }

    /// [`marks::has_blanks`] with these instructions.
    fn has_blanks(text: &[u8]) -> bool {
        marks::has_blanks(text)
    }
}

/// Rows that are neither plain nor of a new campaign.
#[derive(Default)]
pub(super) struct Oddness {
    in_window: usize,
    were_many: bool,
}

impl Oddness {
    /// From this number of them in a window on, all rows behind them are read in another way: in that, odd rows take far less
    /// time, and plain ones more.
    const MANY: usize = 8;

    fn begin_window(&mut self) {
        self.were_many = self.in_window >= if self.were_many { 1 } else { Self::MANY };
        self.in_window = 0;
    }

    /// Counts one, and tells whether they are many. Where they were many in the last window, one is enough.
    fn count_row(&mut self) -> bool {
        self.in_window += 1;
        self.in_window >= if self.were_many { 1 } else { Self::MANY }
    }
}

/// What rows are counted in, and what it takes to read them.
pub(super) struct Rows<'a> {
    pub(super) columns: &'a Columns,
    pub(super) delimiter: u8,
    /// Reads the rows of an input in a dialect, none of which is plain.
    pub(super) judge: Option<Judge<'a>>,
    pub(super) fields: &'a mut Fields,
    /// Buffer for the separators of a row that may be plain: one place for each column, at most one more than a window
    /// has bytes.
    pub(super) room: &'a mut [usize],
    /// Buffer for the separators of any other row.
    pub(super) separators: &'a mut Vec<usize>,
    /// Buffer for all separators of a window of an input in a dialect.
    pub(super) listed: &'a mut Separators,
    pub(super) oddness: &'a mut Oddness,
    pub(super) aggregate: &'a mut Aggregate,
    /// The next row.
    pub(super) start: &'a mut Position,
}

impl Rows<'_> {
    /// Counts the whole rows of a window and gives their length in bytes.
    pub(super) fn take<I: Loops>(&mut self, text: &[u8], marks: &Marks, marked: &Marked) -> Result<usize, Fatal> {
        let window = Window {
            text,
            marks,
            regular_to: marked.regular_to,
            columns: self.columns,
            is_standard: *self.columns == Columns::DEFAULT && marked.line_end != ANY,
        };
        // After this, announcing a row that was counted does not empty the lanes.
        self.aggregate.totals.reserve_lane_addends(0, marked.regular_to as u64 * MAX_LANE_ADDENDS_PER_BYTE);
        // Plain rows are taken without a look at doubled quotes.
        if self.judge.is_some() || marked.has_doubled {
            let length = self.take_rest::<I>(&window, 0, marked.quoted)?;
            self.start.byte_offset += length as u64;
            return Ok(length);
        }
        self.oddness.begin_window();
        let length = match (if window.is_standard { marked.line_end } else { ANY }, marked.quoted) {
            (1, false) => self.take_all::<I, 1, false>(&window)?,
            (1, true) => self.take_all::<I, 1, true>(&window)?,
            (2, false) => self.take_all::<I, 2, false>(&window)?,
            (2, true) => self.take_all::<I, 2, true>(&window)?,
            (_, false) => self.take_all::<I, ANY, false>(&window)?,
            (_, true) => self.take_all::<I, ANY, true>(&window)?,
        };
        self.start.byte_offset += length as u64;
        Ok(length)
    }

    fn take_all<I: Loops, const LINE_END: usize, const QUOTED: bool>(
        &mut self,
        window: &Window<'_>,
    ) -> Result<usize, Fatal> {
        let mut start = 0;
        loop {
            self.take_plain::<I, LINE_END, QUOTED, false>(window, &mut start)?;
            let Some(end) = window.row_end(start) else { return Ok(start) };
            if LINE_END != ANY && window.is_long(start) {
                // These read further long rows behind it, too.
                let before = start;
                self.take_plain::<I, LINE_END, QUOTED, true>(window, &mut start)?;
                if start == before {
                    self.take_plain::<I, ANY, QUOTED, false>(window, &mut start)?;
                }
                if start > before {
                    continue;
                }
            }
            let campaigns = self.aggregate.totals.len();
            self.take_unusual::<QUOTED>(window, start, end)?;
            start = end + 1;
            let is_new_campaign = self.aggregate.totals.len() > campaigns;
            if !is_new_campaign && self.oddness.count_row() {
                return self.take_rest::<I>(window, start, QUOTED);
            }
        }
    }

    /// Counts plain rows up to one that is not, or that is not of the kind which is read with this `LINE_END`.
    fn take_plain<I: Loops, const LINE_END: usize, const QUOTED: bool, const LONG_ID: bool>(
        &mut self,
        window: &Window<'_>,
        start: &mut usize,
    ) -> Result<(), Fatal> {
        let campaigns = self.aggregate.totals.len();
        if let Some(shares) = &mut self.aggregate.shares
            && shares.begin(campaigns)
        {
            let sorted_rows = I::add_plain_rows::<LINE_END, QUOTED, LONG_ID>(window, start, self.room, &mut **shares);
            self.aggregate.counters.rows_read += sorted_rows;
            self.start.line += sorted_rows;
            return Ok(());
        }
        if campaigns >= BATCH_FROM_CAMPAIGNS {
            self.take_batches::<I, LINE_END, QUOTED, LONG_ID>(window, start)?;
        }
        let mut lookup = self.aggregate.totals.lookup();
        let plain_rows = I::add_plain_rows::<LINE_END, QUOTED, LONG_ID>(window, start, self.room, &mut lookup);
        self.pass_plain_rows(plain_rows);
        Ok(())
    }

    /// For tables larger than the caches: looks up many rows at once, so that the processor loads their keys at the
    /// same time and not one after another, and while it reads further rows. Stops at a row that is not plain.
    fn take_batches<I: Loops, const LINE_END: usize, const QUOTED: bool, const LONG_ID: bool>(
        &mut self,
        window: &Window<'_>,
        start: &mut usize,
    ) -> Result<(), Fatal> {
        let [mut searched, mut next] = [Batch::new(), Batch::new()];
        loop {
            let lookup = self.aggregate.totals.lookup();
            I::collect_batch::<LINE_END, QUOTED, LONG_ID>(window, start, self.room, &lookup, &mut next);
            self.take_batch::<QUOTED>(window, &mut searched)?;
            let Batch { len, ids, found, .. } = &mut next;
            self.aggregate.totals.lookup().find_candidates(&ids[..*len], found);
            std::mem::swap(&mut searched, &mut next);
            if searched.len < BATCH_ROWS {
                return self.take_batch::<QUOTED>(window, &mut searched);
            }
        }
    }

    /// Counts the rows of a batch, for which candidates have been found.
    fn take_batch<const QUOTED: bool>(&mut self, window: &Window<'_>, batch: &mut Batch) -> Result<(), Fatal> {
        let Batch { len, has_long_ids, ids, found, lanes, places } = batch;
        let wanted = &ids[..std::mem::take(len)];
        let lookup = self.aggregate.totals.lookup();
        if *has_long_ids {
            lookup.confirm::<true>(window.text, wanted, found);
        } else {
            lookup.confirm::<false>(window.text, wanted, found);
        }
        let mut counted = 0;
        for (index, wanted) in wanted.iter().enumerate() {
            let totals = &mut self.aggregate.totals;
            // A row before it may have added the id.
            let campaign = if found[index] > 0 { Some(found[index]) } else { totals.find_or_add(window.text, *wanted) };
            if let Some(campaign) = campaign {
                totals.lookup().add(campaign, lanes[index]);
                counted += 1;
            } else {
                self.pass_plain_rows(std::mem::take(&mut counted));
                let (start, end) = places[index];
                self.take_unusual::<QUOTED>(window, start, end)?;
            }
        }
        self.pass_plain_rows(counted);
        Ok(())
    }

    /// Counts rows that have been added to lanes. Room for them was reserved before.
    fn pass_plain_rows(&mut self, count: u64) {
        self.aggregate.totals.reserve_lane_addends(count, 0);
        self.aggregate.counters.rows_read += count;
        self.start.line += count;
    }

    /// Counts the whole rows from `start` on, which are in a dialect or have numbers that plain rows do not have. Gives where they end.
    fn take_rest<I: Loops>(&mut self, window: &Window<'_>, start: usize, quoted: bool) -> Result<usize, Fatal> {
        if self.judge.is_some() || *self.columns != Columns::DEFAULT {
            return self.take_listed::<I>(window, start, quoted);
        }
        if quoted {
            return self.take_spelled::<I, QUOTES_AND_BLANKS>(window, start);
        }
        if I::has_blanks(&window.text[start..window.regular_to]) {
            self.take_spelled::<I, BLANKS>(window, start)
        } else {
            self.take_spelled::<I, NOTHING>(window, start)
        }
    }

    /// Does so for rows in the plain contract and in the usual columns.
    fn take_spelled<I: Loops, const AROUND: u8>(
        &mut self,
        window: &Window<'_>,
        mut start: usize,
    ) -> Result<usize, Fatal> {
        let usual = Usual::plain(self.columns, &ByteSet::NONE);
        loop {
            let lookup = self.aggregate.totals.lookup();
            let usual_rows = I::add_spelled_rows::<AROUND>(window, &usual, &mut start, lookup);
            self.pass_plain_rows(usual_rows);
            let Some(end) = window.row_end(start) else { return Ok(start) };
            if AROUND == QUOTES_AND_BLANKS {
                self.take_unusual::<true>(window, start, end)?;
            } else {
                self.take_unusual::<false>(window, start, end)?;
            }
            start = end + 1;
        }
    }

    /// Does so for all others.
    fn take_listed<I: Loops>(&mut self, window: &Window<'_>, start: usize, quoted: bool) -> Result<usize, Fatal> {
        let starting_totals = self.judge.map_or(ByteSet::NONE, |judge| ByteSet::starting_totals(judge.dialect));
        let mut listed = std::mem::take(self.listed);
        I::list_separators(&window.text[..window.regular_to], window.marks, &mut listed);
        let mut cursor = Cursor::at(start, &listed);
        let has_wrapped_fields = quoted || I::has_blanks(&window.text[start..window.regular_to]);
        loop {
            let Aggregate { totals, readings, .. } = &mut *self.aggregate;
            let usual = match (self.judge, readings.last()) {
                (Some(judge), Some(reading)) => Usual::in_dialect(judge, reading, &starting_totals),
                _ => Some(Usual::plain(self.columns, &starting_totals)),
            };
            if let Some(usual) = usual {
                let usual_rows = if has_wrapped_fields {
                    I::add_usual_rows::<QUOTES_AND_BLANKS>(window, &usual, &mut cursor, totals.lookup())
                } else {
                    I::add_usual_rows::<NOTHING>(window, &usual, &mut cursor, totals.lookup())
                };
                self.pass_plain_rows(usual_rows);
            }
            let Some(end) = cursor.row_end() else { break };
            match self.judge {
                Some(judge) => self.take_other(judge, window, cursor.start, end)?,
                None if quoted => self.take_unusual::<true>(window, cursor.start, end)?,
                None => self.take_unusual::<false>(window, cursor.start, end)?,
            }
            cursor.pass(end);
        }
        let end = cursor.start;
        *self.listed = listed;
        Ok(end)
    }

    /// Judges the row from `start` to its line end, of an input in a dialect.
    fn take_other(&mut self, judge: Judge<'_>, window: &Window<'_>, start: usize, end: usize) -> Result<(), Fatal> {
        let line = &window.text[start..end];
        let record = line.strip_suffix(b"\r").unwrap_or(line);
        let position = Position { line: self.start.line, byte_offset: self.start.byte_offset + start as u64 };
        self.start.line += 1;
        if record.is_empty() {
            self.aggregate.pass_empty_line(judge);
            return Ok(());
        }
        self.split(window, start, end);
        let separators = &*self.separators;
        let field = |index: usize| {
            let field_start = if index == 0 { 0 } else { separators[index - 1] + 1 };
            let field_end = separators[index].min(record.len());
            // A quoted field ends with its closing quote.
            let quote = usize::from(record.get(field_start) == Some(&b'"'));
            &record[field_start + quote..field_end - quote]
        };
        if window.has_doubled_quotes(start, end) {
            self.fields.split(record, self.delimiter);
            let fields = &*self.fields;
            return self.aggregate.take_judged(judge, fields.len(), |index| fields.get(index), record, position);
        }
        self.aggregate.take_judged(judge, separators.len(), field, record, position)
    }

    /// Writes out the separators of the row from `start` to its line end, that included.
    fn split(&mut self, window: &Window<'_>, start: usize, end: usize) {
        self.separators.clear();
        self.separators.extend(window.marks.delimiters.between(start, end).map(|delimiter| delimiter - start));
        self.separators.push(end - start);
    }

    /// Judges the row from `start` to its line end: it is not plain, or its campaign is new.
    #[cold]
    #[inline(never)]
    fn take_unusual<const QUOTED: bool>(&mut self, window: &Window<'_>, start: usize, end: usize) -> Result<(), Fatal> {
        let line = &window.text[start..end];
        let record = line.strip_suffix(b"\r").unwrap_or(line);
        let position = Position { line: self.start.line, byte_offset: self.start.byte_offset + start as u64 };
        self.start.line += 1;
        if QUOTED {
            self.fields.split(record, self.delimiter);
            let fields = &*self.fields;
            return self.aggregate.take_record(self.columns, fields.len(), |index| fields.get(index), record, position);
        }
        self.split(window, start, end);
        let separators = &*self.separators;
        let field = |index: usize| {
            let field_start = if index == 0 { 0 } else { separators[index - 1] + 1 };
            &record[field_start..separators[index].min(record.len())]
        };
        self.aggregate.take_record(self.columns, separators.len(), field, record, position)
    }
}

/// Plain rows, before their campaigns are looked up.
pub(super) struct Batch {
    len: usize,
    has_long_ids: bool,
    /// Keys and their hashes. That of a long id says where it lies in the window.
    ids: [(Key, u64); BATCH_ROWS],
    /// The campaigns that may be theirs.
    found: [usize; BATCH_ROWS],
    lanes: [Lanes; BATCH_ROWS],
    /// Where each row starts and ends.
    places: [(usize, usize); BATCH_ROWS],
}

impl Batch {
    fn new() -> Self {
        Self {
            len: 0,
            has_long_ids: false,
            ids: [(Key::NONE, 0); BATCH_ROWS],
            found: [0; BATCH_ROWS],
            lanes: [Lanes::default(); BATCH_ROWS],
            places: [(0, 0); BATCH_ROWS],
        }
    }
}

/// Adds plain rows up to the first row that is another, or that `rows` does not count. Gives their number; `start` moves on
/// with them.
#[inline(always)]
pub(super) fn add_plain_rows<I: Instructions, const LINE_END: usize, const QUOTED: bool, const LONG_ID: bool>(
    window: &Window<'_>,
    start: &mut usize,
    room: &mut [usize],
    rows: &mut impl CountRows,
) -> u64 {
    if rows.is_unusable() {
        return 0;
    }
    let (mut count, mut next) = (0, *start);
    while let Some(row) = plain_row::<I, LINE_END, QUOTED, LONG_ID>(window, next, room) {
        let is_added = match row.id {
            Id::Short(key) => rows.add_short(key, row.lanes),
            Id::Long(..) if LINE_END != ANY && !LONG_ID => false,
            Id::Long(start, end) => rows.add_long(&window.text[start..end], row.lanes),
        };
        if !is_added {
            break;
        }
        count += 1;
        next = row.end + 1;
    }
    *start = next;
    count
}

/// Fills a batch with plain rows, up to the first that is another. `start` moves on with them.
#[inline(always)]
pub(super) fn collect_batch<I: Instructions, const LINE_END: usize, const QUOTED: bool, const LONG_ID: bool>(
    window: &Window<'_>,
    start: &mut usize,
    room: &mut [usize],
    lookup: &Lookup<'_>,
    batch: &mut Batch,
) {
    batch.len = 0;
    batch.has_long_ids = false;
    while batch.len < BATCH_ROWS {
        let row = plain_row::<I, LINE_END, QUOTED, LONG_ID>(window, *start, room);
        let Some(PlainRow { id, lanes, end }) = row else { break };
        batch.ids[batch.len] = match id {
            Id::Short(key) => (key, lookup.hash(key)),
            Id::Long(..) if LINE_END != ANY && !LONG_ID => break,
            Id::Long(start, end) => {
                batch.has_long_ids = true;
                lookup.wanted_long(window.text, start..end)
            }
        };
        lookup.prefetch(batch.ids[batch.len].1);
        batch.lanes[batch.len] = lanes;
        batch.places[batch.len] = (*start, end);
        batch.len += 1;
        *start = end + 1;
    }
}

/// A campaign id as the scanner meets it.
enum Id {
    Short(Key),
    /// From a position up to another.
    Long(usize, usize),
}

/// What counts of a plain row, and where it ends.
struct PlainRow {
    id: Id,
    lanes: Lanes,
    end: usize,
}

/// The row from `start` on, if it is plain.
#[inline(always)]
fn plain_row<I: Instructions, const LINE_END: usize, const QUOTED: bool, const LONG_ID: bool>(
    window: &Window<'_>,
    start: usize,
    room: &mut [usize],
) -> Option<PlainRow> {
    // The four fields are written out: for columns known at compile time this needs neither bounds checks nor loops.
    let six;
    let (columns, row) = if LINE_END == ANY {
        if window.is_standard && !window.is_long(start) || !window.find_separators(start, room) {
            return None;
        }
        (window.columns, &*room)
    } else {
        six = window.six_separators::<LONG_ID>(start)?;
        (&Columns::DEFAULT, &six[..])
    };
    let fields = RowFields::<LINE_END, QUOTED> { window, row, start };
    let ends = [
        fields.end(columns.impressions),
        fields.end(columns.clicks),
        fields.end(columns.spend),
        fields.end(columns.conversions),
    ];
    let len = fields.len(columns.impressions)
        + fields.len(columns.clicks)
        + fields.len(columns.spend)
        + fields.len(columns.conversions);
    let lanes = I::numbers(window.text, start, ends, len)?;
    let (id_start, id_end) = (fields.start(columns.campaign_id), fields.end(columns.campaign_id));
    let end = start + row[row.len() - 1];
    let len = id_end - id_start;
    let Some((low, high)) = FIRST_BYTES.get(len) else {
        return Some(PlainRow { id: Id::Long(start + id_start, start + id_end), lanes, end });
    };
    let [first, second] = I::load_16(window.text, start + id_start);
    Some(PlainRow { id: Id::Short(Key::short(first & low, second & high, len)), lanes, end })
}

/// The fields of a row that starts at `start` and has the separators `row`. All positions are relative to its start.
struct RowFields<'a, const LINE_END: usize, const QUOTED: bool> {
    window: &'a Window<'a>,
    row: &'a [usize],
    start: usize,
}

impl<const LINE_END: usize, const QUOTED: bool> RowFields<'_, LINE_END, QUOTED> {
    #[inline(always)]
    fn behind_separator(&self, column: usize) -> usize {
        if column == 0 { 0 } else { self.row[column - 1] + 1 }
    }

    /// One when a field is quoted. Regular text: one that starts with a quote ends with its closing quote.
    #[inline(always)]
    fn quote(&self, column: usize) -> usize {
        usize::from(QUOTED && self.window.text[self.start + self.behind_separator(column)] == b'"')
    }

    /// Where the contents of a field start.
    #[inline(always)]
    fn start(&self, column: usize) -> usize {
        self.behind_separator(column) + self.quote(column)
    }

    /// The position behind the contents of a field.
    #[inline(always)]
    fn end(&self, column: usize) -> usize {
        let trim = if column + 1 == self.row.len() { self.return_at_end() } else { 0 };
        self.row[column] - trim - self.quote(column)
    }

    /// The length of a field with the byte before it.
    #[inline(always)]
    fn len(&self, column: usize) -> usize {
        self.end(column) + 1 - self.start(column)
    }

    /// One when the row ends with CRLF.
    #[inline(always)]
    fn return_at_end(&self) -> usize {
        if LINE_END != ANY {
            return LINE_END - 1;
        }
        let line_end = self.start + self.row[self.row.len() - 1];
        usize::from(self.window.text.get(line_end.wrapping_sub(1)) == Some(&b'\r'))
    }
}
