//! The streaming accumulator: text in, in pieces of any size; an [`Aggregate`] out.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::aggregate::Aggregate;
use super::dialect::{
    Columns, DecimalMark, Delimiter, DelimiterChoice, Dialect, Field, HeaderError, HeaderHint, HeaderSearch, Layout,
    MAX_SEARCHED_BYTES, find_formats, first_record, is_campaign_name,
};
use super::error::Fatal;
use super::judge::Judge;
use super::reading::{KeyedBy, Reading};
use super::record::{Fields, Found, LastRecord, LineCounter, Position, RecordFinder, is_blank, is_line_end};
use super::reject_log::{RejectLog, SHOWN_RECORD_BYTES};
use super::row::SkipReason;
use super::scan::{Kernel, Scanned, Scanner};
use super::shares::{Parcel, Shares};

/// Limits on what a single input can make grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The longest record, from its first byte up to its line end.
    pub max_record_bytes: usize,
    /// The most different campaign ids.
    pub max_campaigns: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_record_bytes: 65_536, max_campaigns: 1 << 30 }
    }
}

/// How to read an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TallyOptions {
    /// The byte between two fields, unless a dialect says it.
    pub delimiter: Delimiter,
    /// The first record names the columns; without, they are [`super::DEFAULT_COLUMNS`]. A dialect says it itself.
    pub has_header: bool,
    /// Limits on what the input can make grow.
    pub limits: Limits,
    /// The input is refused once more rows than these have been skipped.
    pub max_skipped: Option<u64>,
    /// How the scanner works. Results do not depend on it.
    pub kernel: Kernel,
    /// Keep all rejects up to this limit: of each, its record (at most [`SHOWN_RECORD_BYTES`]) and
    /// [`REJECT_ROW_BYTES`](super::REJECT_ROW_BYTES) count. None: only the first ones.
    pub max_rejects_bytes: Option<u64>,
}

impl Default for TallyOptions {
    fn default() -> Self {
        Self {
            delimiter: Delimiter::COMMA,
            has_header: true,
            limits: Limits::default(),
            max_skipped: None,
            kernel: Kernel::Detect,
            max_rejects_bytes: None,
        }
    }
}

/// Reads the UTF-8 text of one file, its byte-order mark removed.
///
/// However the text is cut into pieces, the result is the same.
pub struct Tally {
    pub(super) options: TallyOptions,
    pub(super) dialect: Option<Arc<Dialect>>,
    /// `None` until the header has been read.
    pub(super) columns: Option<Columns>,
    /// Of an input in a dialect: `None` until the header has been read.
    pub(super) layout: Option<Layout>,
    /// The text so far while a header is looked for in it: that of a dialect; or, without one, the header of some format, to
    /// be named when the input is refused. At most [`MAX_SEARCHED_BYTES`].
    pub(super) searched: Option<Vec<u8>>,
    /// The header that was found, while the searched text is read again. `None` between two pieces.
    found: Option<HeaderSearch>,
    /// Something of the current line has been read.
    is_within_line: bool,
    pub(super) finder: RecordFinder,
    /// The bytes so far of a record that the last piece did not finish: as many as the finder counts.
    pub(super) unfinished: Vec<u8>,
    /// Where the unfinished record starts; meaningless between records.
    pub(super) record_start: Position,
    /// Bytes of text read.
    pub(super) offset: u64,
    pub(super) lines: LineCounter,
    pub(super) aggregate: Aggregate,
    fields: Fields,
    scanner: Option<Scanner>,
}

impl Tally {
    /// Nothing read yet, of an input in the plain contract.
    #[must_use]
    pub fn new(options: TallyOptions) -> Self {
        Self::in_dialect(options, None)
    }

    /// Nothing read yet, of an input that may be written otherwise.
    #[must_use]
    pub fn in_dialect(options: TallyOptions, dialect: Option<Arc<Dialect>>) -> Self {
        let mut tally = Self {
            options,
            columns: (dialect.is_none() && !options.has_header).then_some(Columns::DEFAULT),
            layout: None,
            searched: None,
            found: None,
            is_within_line: false,
            dialect,
            finder: RecordFinder::new(options.delimiter.byte(), options.limits.max_record_bytes),
            unfinished: Vec::new(),
            record_start: Position::default(),
            offset: 0,
            lines: LineCounter::default(),
            aggregate: Aggregate { max_skipped: options.max_skipped, ..Aggregate::new(options.limits.max_campaigns) },
            fields: Fields::default(),
            scanner: Scanner::new(options.kernel, options.delimiter.byte(), options.limits.max_record_bytes),
        };
        tally.aggregate.reject_log = options.max_rejects_bytes.map(RejectLog::new);
        if let Some(dialect) = tally.dialect.clone() {
            match (dialect.header, dialect.delimiter) {
                (None, DelimiterChoice::Fixed(delimiter)) => tally.lay_out(Layout::without_header(delimiter)),
                _ => tally.searched = Some(Vec::new()),
            }
        }
        tally
    }

    /// Sets the delimiter and the columns.
    pub(super) fn lay_out(&mut self, layout: Layout) {
        let delimiter = layout.delimiter;
        self.options.delimiter = delimiter;
        self.finder = RecordFinder::new(delimiter.byte(), self.options.limits.max_record_bytes);
        self.scanner = Scanner::new(self.options.kernel, delimiter.byte(), self.options.limits.max_record_bytes);
        self.aggregate.readings = vec![Reading::new(delimiter)];
        self.columns = Some(layout.columns.clone());
        self.layout = Some(layout);
    }

    /// A tally for the same file that starts at a later line start. What it finds is joined by [`Self::join`].
    ///
    /// `None` before all is [known](Self::can_fork).
    #[must_use]
    pub fn fork(&self, offset: u64) -> Option<Self> {
        if !self.can_fork() {
            return None;
        }
        let mut fork = Self::in_dialect(self.options, self.dialect.clone());
        fork.searched = None;
        fork.columns.clone_from(&self.columns);
        fork.layout.clone_from(&self.layout);
        fork.aggregate.readings = self.aggregate.readings.iter().map(Reading::fork).collect();
        fork.aggregate.totals = self.aggregate.totals.alike();
        fork.offset = offset;
        Some(fork)
    }

    /// Shares campaigns with other tallies of the same file, all of them forked from one or it themselves, `tallies` of
    /// them: once this one has `from_campaigns` campaigns, it sorts its plain rows by the tally that counts them.
    pub fn share_campaigns(&mut self, tallies: usize, from_campaigns: usize) {
        self.aggregate.shares = Some(Box::new(Shares::new(&self.aggregate.totals, tallies, from_campaigns)));
    }

    /// Swaps the rows that have been sorted for one of the tallies, this one included, with an empty parcel. False when
    /// there are none. All of them must be counted before the tallies are joined. They take more memory than their text.
    pub fn swap_parcel(&mut self, tally: usize, parcel: &mut Parcel) -> bool {
        self.aggregate.shares.as_mut().is_some_and(|shares| shares.swap(tally, parcel))
    }

    /// Counts the rows of a parcel that is for this tally, and empties it.
    ///
    /// # Errors
    /// When there are more campaigns than allowed.
    pub fn count_parcel(&mut self, parcel: &mut Parcel) -> Result<(), Fatal> {
        self.aggregate.shares.as_mut().map_or(Ok(()), |shares| shares.count(parcel))
    }

    /// Counts all campaigns itself from now on, after having [shared](Self::has_shared) none.
    pub fn stop_sharing(&mut self) {
        self.aggregate.shares = None;
    }

    /// True when this tally has sorted rows, or counted those of others. Then what it has read is known only together with
    /// all the others.
    #[must_use]
    pub fn has_shared(&self) -> bool {
        self.aggregate.shares.as_ref().is_some_and(|shares| shares.are_used())
    }

    /// Bytes of text read so far, from the start of the file.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// True once all is known that a [fork](Self::fork) has to know.
    #[must_use]
    pub fn can_fork(&self) -> bool {
        let is_ready = |dialect: &Arc<Dialect>| {
            let is_decided = self.aggregate.readings.last().is_some_and(|reading| reading.decimal.is_some());
            dialect.is_divisible() && (dialect.decimal != DecimalMark::Auto || is_decided)
        };
        self.columns.is_some() && self.dialect.as_ref().is_none_or(is_ready)
    }

    /// Memory of the fields of the latest record.
    pub(super) fn fields_bytes(&self) -> usize {
        self.fields.memory_bytes()
    }

    /// True when the text so far ends with a whole record.
    #[must_use]
    pub fn is_between_records(&self) -> bool {
        self.finder.is_between_records()
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.options.limits
    }

    /// What has been counted so far.
    #[must_use]
    pub fn so_far(&self) -> &Aggregate {
        &self.aggregate
    }

    /// Reads the next piece of text.
    ///
    /// # Errors
    /// When the input as a whole is unusable. The tally must not be used after that.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), Fatal> {
        let mut rest = piece;
        if let Some(searched) = &mut self.searched {
            let (first, behind) = rest.split_at(rest.len().min(MAX_SEARCHED_BYTES - searched.len()));
            searched.extend_from_slice(first);
            let is_full = searched.len() == MAX_SEARCHED_BYTES;
            if self.dialect.is_none() {
                // The header has been read and refused.
                self.aggregate.counters.bytes_read += first.len() as u64;
                self.pass(first, first.len());
            }
            if !is_full {
                return Ok(());
            }
            self.end_search(false)?;
            rest = behind;
        }
        self.push_text(rest)?;
        if self.searched.as_ref().is_some_and(|searched| searched.len() == MAX_SEARCHED_BYTES) {
            self.end_search(false)?;
        }
        Ok(())
    }

    /// Reads the next piece of text, in which no header is looked for any more.
    fn push_text(&mut self, piece: &[u8]) -> Result<(), Fatal> {
        self.aggregate.counters.bytes_read += piece.len() as u64;
        let mut rest = piece;
        while !rest.is_empty() {
            let mut general_to = 1;
            if self.finder.is_between_records() {
                rest = self.pass_line_ends(rest);
                let (consumed, to) = self.scan(rest)?;
                rest = &rest[consumed..];
                general_to = to.saturating_sub(consumed);
            }
            rest = self.read_generally(rest, general_to)?;
        }
        Ok(())
    }

    /// Ends the input.
    ///
    /// # Errors
    /// When the input as a whole is unusable.
    pub fn finish(mut self) -> Result<Aggregate, Fatal> {
        self.end_search(true)?;
        let record = std::mem::take(&mut self.unfinished);
        match self.finder.finish() {
            LastRecord::None => {}
            LastRecord::Complete => self.take_record(&record, self.record_start)?,
            LastRecord::OpenQuote => self.take_malformed(&record, self.record_start, HeaderHint::OpenQuote)?,
        }
        // The last record may have been the first.
        self.end_search(true)?;
        self.aggregate.end_sharing()?;
        let has_header = self.dialect.as_ref().map_or(self.options.has_header, |dialect| dialect.header.is_some());
        if self.columns.is_none() || (!has_header && !self.aggregate.has_data()) {
            return Err(Fatal::EmptyInput);
        }
        self.aggregate.check_totals()?;
        if let Some(dialect) = &self.dialect {
            self.aggregate.finish_reading(dialect);
        }
        Ok(self.aggregate)
    }

    /// Ends the search for a header, if there is one, with the text so far, and reads that. `is_whole`: the input ends with it.
    fn end_search(&mut self, is_whole: bool) -> Result<(), Fatal> {
        let Some(text) = self.searched.take() else { return Ok(()) };
        let max_record_bytes = self.options.limits.max_record_bytes;
        let Some(dialect) = self.dialect.clone() else {
            return Err(self.refuse_header(&text, is_whole));
        };
        match HeaderSearch::run(&text, is_whole, &dialect, max_record_bytes) {
            Ok(found) => {
                self.lay_out(found.layout.clone());
                // The text is read again from its start. The columns are set when the header comes.
                self.columns = None;
                self.found = Some(found);
                self.push_text(&text)
            }
            Err(error) => {
                let mut fatal = Fatal::from(error);
                if let Fatal::HeaderNotFound { formats, .. } = &mut fatal {
                    *formats = find_formats(&text, is_whole, max_record_bytes);
                    formats.retain(|format| Some(*format) != dialect.format);
                }
                Err(fatal)
            }
        }
    }

    /// Why the first record is no header, and which formats would read the text, which starts with it.
    #[cold]
    fn refuse_header(&self, text: &[u8], is_whole: bool) -> Fatal {
        let formats = find_formats(text, is_whole, self.options.limits.max_record_bytes);
        let first = first_record(text, self.options.delimiter, self.options.limits.max_record_bytes);
        match Columns::from_header(first.iter().map(Vec::as_slice), self.options.delimiter) {
            Err(error) => Fatal::bad_header(self.record_start.line, error).with_formats(formats),
            // Cannot happen: this record was refused as a header before.
            Ok(_) => Fatal::no_header(self.record_start.line, HeaderHint::None),
        }
    }

    /// Appends what `next`, a [fork](Self::fork) that started where this tally stopped, has read; or gives it back when it
    /// started inside a record, so that what it read is wrong. It also gives it back when reading in order ends with an error.
    ///
    /// # Errors
    /// When there are more campaigns than allowed, or a total grows beyond what can be reported.
    pub fn join(&mut self, mut next: Self) -> Result<Option<Self>, Fatal> {
        let started_at = next.offset - next.aggregate.counters.bytes_read;
        let rows_skipped = self.aggregate.counters.rows_skipped() + next.aggregate.counters.rows_skipped();
        let has_too_many_skipped = self.options.max_skipped.is_some_and(|max_skipped| rows_skipped > max_skipped);
        let mut readings = self.aggregate.readings.iter().zip(&next.aggregate.readings);
        let is_in_other_currency = readings.any(|(mine, theirs)| mine.is_in_other_currency(theirs));
        // Then there is an error, which is that of the row at which reading in order ends.
        if !self.finder.is_between_records()
            || started_at != self.offset
            || has_too_many_skipped
            || is_in_other_currency
        {
            return Ok(Some(next));
        }
        for reject in &mut next.aggregate.rejects {
            reject.line += self.lines.ended;
        }
        if let Some(log) = &mut next.aggregate.reject_log {
            log.move_down(self.lines.ended);
        }
        for (mine, theirs) in self.aggregate.readings.iter_mut().zip(next.aggregate.readings.drain(..)) {
            mine.join(theirs, self.lines.ended);
        }
        self.finder = next.finder;
        self.unfinished = next.unfinished;
        self.record_start = next.record_start;
        self.record_start.line += self.lines.ended;
        self.offset = next.offset;
        self.lines.ended += next.lines.ended;
        self.lines.after_return = next.lines.after_return;
        self.aggregate.merge(next.aggregate)?;
        Ok(None)
    }

    /// Lets the scanner read what it can. Gives what it consumed and how far the general reader should go.
    fn scan(&mut self, text: &[u8]) -> Result<(usize, usize), Fatal> {
        let (Some(scanner), Some(columns)) = (&mut self.scanner, &self.columns) else {
            let to = if self.columns.is_some() { text.len() } else { 1 };
            return Ok((0, to));
        };
        let mut start = Position { line: self.lines.ended + 1, byte_offset: self.offset };
        let judge = judge(self.dialect.as_deref(), self.layout.as_ref());
        let delimiter = self.options.delimiter.byte();
        let Scanned { consumed, general_to } =
            scanner.scan(text, columns, delimiter, judge, &mut self.aggregate, &mut start)?;
        self.offset = start.byte_offset;
        self.lines.ended = start.line - 1;
        // Behind scanned rows there is no LF that would belong to a CR before it.
        self.lines.after_return &= consumed == 0;
        Ok((consumed, general_to))
    }

    /// Reads records one by one up to the first record end at or behind `until` bytes. Gives the rest.
    fn read_generally<'a>(&mut self, text: &'a [u8], until: usize) -> Result<&'a [u8], Fatal> {
        let mut rest = text;
        while !rest.is_empty() {
            if self.finder.is_between_records() {
                rest = self.pass_line_ends(rest);
                if rest.is_empty() || text.len() - rest.len() >= until {
                    break;
                }
                self.record_start = Position { line: self.lines.ended + 1, byte_offset: self.offset };
            }
            match self.finder.feed(rest) {
                Found::Unfinished => {
                    self.unfinished.extend_from_slice(rest);
                    rest = self.pass(rest, rest.len());
                }
                Found::Record { content } => {
                    if self.unfinished.is_empty() {
                        self.take_record(&rest[..content], self.record_start)?;
                    } else {
                        let mut record = std::mem::take(&mut self.unfinished);
                        record.extend_from_slice(&rest[..content]);
                        self.take_record(&record, self.record_start)?;
                        record.clear();
                        self.unfinished = record;
                    }
                    rest = self.pass(rest, content);
                    self.is_within_line = true;
                    if let Some(searched) = &mut self.searched {
                        // The header was refused, and the text behind it may tell what it is.
                        searched.extend_from_slice(&rest[..rest.len().min(MAX_SEARCHED_BYTES - searched.len())]);
                        return Ok(self.pass(rest, rest.len()));
                    }
                }
                Found::TooLong { content } => {
                    let mut record = std::mem::take(&mut self.unfinished);
                    let missing = SHOWN_RECORD_BYTES.saturating_sub(record.len()).min(content);
                    record.extend_from_slice(&rest[..missing]);
                    let max_record_bytes = self.options.limits.max_record_bytes;
                    self.take_malformed(&record, self.record_start, HeaderHint::TooLong { max_record_bytes })?;
                    rest = self.pass(rest, content);
                }
                Found::StillSkipping => rest = self.pass(rest, rest.len()),
                Found::SkippedTo { skipped } => {
                    rest = self.pass(rest, skipped);
                    self.is_within_line = true;
                }
            }
        }
        Ok(rest)
    }

    /// Notes that the first `count` bytes are read. Gives the rest.
    fn pass<'a>(&mut self, text: &'a [u8], count: usize) -> &'a [u8] {
        let (read, rest) = text.split_at(count);
        self.lines.pass(read);
        self.offset += read.len() as u64;
        rest
    }

    /// Passes the line ends between two records.
    fn pass_line_ends<'a>(&mut self, text: &'a [u8]) -> &'a [u8] {
        let count = text.iter().take_while(|byte| is_line_end(**byte)).count();
        if count == 0 {
            return text;
        }
        let lines_before = self.lines.ended;
        let rest = self.pass(text, count);
        let lines = self.lines.ended - lines_before;
        let empty_lines = lines - u64::from(lines > 0 && std::mem::take(&mut self.is_within_line));
        if empty_lines > 0
            && let Some(judge) = judge(self.dialect.as_deref(), self.layout.as_ref())
            && self.columns.is_some()
        {
            self.aggregate.pass_empty_line(judge);
        }
        rest
    }

    fn take_record(&mut self, record: &[u8], start: Position) -> Result<(), Fatal> {
        let delimiter = self.options.delimiter;
        self.fields.split(record, delimiter.byte());
        let fields = &self.fields;
        let field = |index: usize| fields.get(index);
        if let Some(columns) = &self.columns {
            return match judge(self.dialect.as_deref(), self.layout.as_ref()) {
                Some(judge) => self.aggregate.take_judged(judge, fields.len(), field, record, start),
                None => self.aggregate.take_record(columns, fields.len(), field, record, start),
            };
        }
        if is_blank(fields.len(), fields.get(0)) {
            return Ok(());
        }
        if self.found.is_some() {
            self.take_found(start);
            return Ok(());
        }
        match Columns::from_header(fields.iter(), delimiter) {
            Ok(columns) => self.columns = Some(columns),
            Err(HeaderError::Missing { hint: HeaderHint::None, .. }) => {
                self.record_start = start;
                self.searched = Some(record[..record.len().min(MAX_SEARCHED_BYTES)].to_vec());
            }
            Err(error) => return Err(Fatal::bad_header(start.line, error)),
        }
        Ok(())
    }

    /// Takes the next record of the text in which a header was found: one before it, or the header itself.
    fn take_found(&mut self, start: Position) {
        let Some(reading) = self.aggregate.readings.last_mut() else { return };
        if let Some(found) = self.found.take_if(|found| found.preamble == reading.rows_preamble) {
            let HeaderSearch { layout, names, .. } = found;
            let key = names.iter().find(|(field, _)| *field == Field::CampaignId);
            let is_name = key.is_some_and(|(_, name)| is_campaign_name(name));
            reading.keyed_by = if is_name { KeyedBy::Name } else { KeyedBy::Id };
            reading.header_line = Some(start.line);
            reading.columns = names;
            self.columns = Some(layout.columns);
        } else {
            reading.rows_preamble += 1;
        }
    }

    fn take_malformed(&mut self, record: &[u8], start: Position, hint: HeaderHint) -> Result<(), Fatal> {
        if self.columns.is_none() {
            if self.found.is_some() {
                self.take_found(start);
                return Ok(());
            }
            return Err(Fatal::no_header(start.line, hint));
        }
        match judge(self.dialect.as_deref(), self.layout.as_ref()) {
            Some(judge) => self.aggregate.take_malformed(judge, record, start),
            None => self.aggregate.skip(SkipReason::MalformedRecord, record, start),
        }
    }
}

/// What judges the records of an input in a dialect.
fn judge<'a>(dialect: Option<&'a Dialect>, layout: Option<&'a Layout>) -> Option<Judge<'a>> {
    Some(Judge { dialect: dialect?, layout: layout? })
}
