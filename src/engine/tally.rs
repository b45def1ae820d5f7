//! The streaming accumulator: text in, in pieces of any size; an [`Aggregate`] out.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::aggregate::{Aggregate, Position, SHOWN_RECORD_BYTES};
use super::dialect::{Columns, Delimiter, Dialect, HeaderHint};
use super::error::Fatal;
use super::record::{Fields, Found, LastRecord, LineCounter, RecordFinder, is_blank, is_line_end};
use super::row::SkipReason;
use super::scan::{Kernel, Scanned, Scanner};

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
    /// How the scanner works. Results do not depend on it.
    pub kernel: Kernel,
}

impl Default for TallyOptions {
    fn default() -> Self {
        Self { delimiter: Delimiter::COMMA, has_header: true, limits: Limits::default(), kernel: Kernel::Detect }
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
        Self {
            options,
            dialect,
            columns: (!options.has_header).then_some(Columns::DEFAULT),
            finder: RecordFinder::new(options.delimiter.byte(), options.limits.max_record_bytes),
            unfinished: Vec::new(),
            record_start: Position::default(),
            offset: 0,
            lines: LineCounter::default(),
            aggregate: Aggregate::new(options.limits.max_campaigns),
            fields: Fields::default(),
            scanner: Scanner::new(options.kernel, options.delimiter.byte(), options.limits.max_record_bytes),
        }
    }

    /// A tally for the same file that starts at a later line start. What it finds is joined by [`Self::join`].
    ///
    /// `None` before the header has been read.
    #[must_use]
    pub fn fork(&self, offset: u64) -> Option<Self> {
        self.columns.as_ref()?;
        let mut fork = Self::new(self.options);
        fork.columns.clone_from(&self.columns);
        fork.offset = offset;
        Some(fork)
    }

    /// Bytes of text read so far, from the start of the file.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// True once all is known that a [fork](Self::fork) has to know.
    #[must_use]
    pub fn can_fork(&self) -> bool {
        self.columns.is_some()
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
        let record = std::mem::take(&mut self.unfinished);
        match self.finder.finish() {
            LastRecord::None => {}
            LastRecord::Complete => self.take_record(&record, self.record_start)?,
            LastRecord::OpenQuote => self.take_malformed(&record, self.record_start, HeaderHint::OpenQuote)?,
        }
        if self.columns.is_none() || (!self.options.has_header && self.aggregate.counters.rows_read == 0) {
            return Err(Fatal::EmptyInput);
        }
        self.aggregate.check_totals()?;
        Ok(self.aggregate)
    }

    /// Appends what `next`, a [fork](Self::fork) that started where this tally stopped, has read; or gives it back when it
    /// started inside a record, so that what it read is wrong.
    ///
    /// # Errors
    /// When there are more campaigns than allowed, or a total grows beyond what can be reported.
    pub fn join(&mut self, mut next: Self) -> Result<Option<Self>, Fatal> {
        let started_at = next.offset - next.aggregate.counters.bytes_read;
        if !self.finder.is_between_records() || started_at != self.offset {
            return Ok(Some(next));
        }
        for reject in &mut next.aggregate.rejects {
            reject.line += self.lines.ended;
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
        let Scanned { consumed, general_to } =
            scanner.scan(text, columns, self.options.delimiter.byte(), &mut self.aggregate, &mut start)?;
        self.offset = start.byte_offset;
        self.lines.ended = start.line - 1;
        // Scanned rows end with LF.
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
                Found::SkippedTo { skipped } => rest = self.pass(rest, skipped),
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

    fn pass_line_ends<'a>(&mut self, text: &'a [u8]) -> &'a [u8] {
        let count = text.iter().take_while(|byte| is_line_end(**byte)).count();
        self.pass(text, count)
    }

    fn take_record(&mut self, record: &[u8], start: Position) -> Result<(), Fatal> {
        let delimiter = self.options.delimiter;
        self.fields.split(record, delimiter.byte());
        let fields = &self.fields;
        match &self.columns {
            Some(columns) => {
                self.aggregate.take_record(columns, fields.len(), |index| fields.get(index), record, start)
            }
            None if is_blank(fields.len(), fields.get(0)) => Ok(()),
            None => {
                let columns = Columns::from_header(fields.iter(), delimiter);
                self.columns = Some(columns.map_err(|error| Fatal::bad_header(start.line, error))?);
                Ok(())
            }
        }
    }

    fn take_malformed(&mut self, record: &[u8], start: Position, hint: HeaderHint) -> Result<(), Fatal> {
        if self.columns.is_none() {
            return Err(Fatal::no_header(start.line, hint));
        }
        self.aggregate.skip(SkipReason::MalformedRecord, record, start);
        Ok(())
    }
}
