//! What has been counted: totals, counters, and the first rows that did not count.

use serde::{Deserialize, Serialize};

use super::budget::SkipBudget;
use super::dialect::{Columns, Dialect};
use super::error::{Fatal, SkippedRow};
use super::judge::{Judge, Judged};
use super::reading::Reading;
use super::record::{MAX_TEXT_BYTES, Position, is_blank};
use super::reject_log::{RejectLog, RejectRow, SHOWN_RECORD_BYTES};
use super::row::{Row, SkipReason, read_row};
use super::shares::Shares;
use super::totals::{CampaignTotals, TableFull, Totals};

/// Skipped rows that are kept for the report.
pub const MAX_REJECTS: usize = 100;

/// Skipped rows that are reported when there are too many.
const MAX_REPORTED_REJECTS: usize = 10;

/// Counts of rows and bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Data records: neither blank lines nor headers.
    pub rows_read: u64,
    /// Bytes of text.
    pub bytes_read: u64,
    skipped: [u64; SkipReason::ALL.len()],
}

impl Counters {
    /// Data records that did not count.
    #[must_use]
    pub fn rows_skipped(&self) -> u64 {
        self.skipped.iter().sum()
    }

    /// Rows that were skipped for any other reason than their campaign id.
    #[must_use]
    pub fn parse_errors(&self) -> u64 {
        self.rows_skipped() - self.skipped[SkipReason::CampaignId as usize]
    }

    /// Skipped rows by reason; reasons without rows are left out.
    pub fn skipped(&self) -> impl Iterator<Item = (SkipReason, u64)> {
        SkipReason::ALL
            .into_iter()
            .map(|reason| (reason, self.skipped[reason as usize]))
            .filter(|(_, count)| *count > 0)
    }

    fn merge(&mut self, other: &Self) {
        self.rows_read += other.rows_read;
        self.bytes_read += other.bytes_read;
        for (mine, theirs) in self.skipped.iter_mut().zip(other.skipped) {
            *mine += theirs;
        }
    }

    /// True when a text of at most [`MAX_TEXT_BYTES`] can have given these counts.
    pub(crate) fn are_possible(&self) -> bool {
        let skipped = self.skipped.iter().try_fold(0_u64, |sum, count| sum.checked_add(*count));
        skipped.is_some_and(|skipped| skipped <= self.rows_read)
            && self.rows_read <= self.bytes_read
            && self.bytes_read <= MAX_TEXT_BYTES
    }
}

/// A row that did not count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reject {
    /// The physical line on which the record starts, from 1.
    pub line: u64,
    /// Where the record starts in the text.
    pub byte_offset: u64,
    /// The first reason that applies.
    pub reason: SkipReason,
    /// The record's first bytes, at most [`SHOWN_RECORD_BYTES`].
    pub record: Vec<u8>,
    /// The file's name; empty until it is set for a data set of several files.
    pub file: String,
}

impl Reject {
    /// True when a text of at most [`MAX_TEXT_BYTES`] can have given this reject.
    pub(crate) fn is_possible(&self) -> bool {
        let position = Position { line: self.line, byte_offset: self.byte_offset };
        position.is_possible() && self.record.len() <= SHOWN_RECORD_BYTES
    }
}

/// The result of reading one file, or of several merged.
#[derive(Clone, Debug)]
pub struct Aggregate {
    pub(crate) totals: Totals,
    pub(crate) counters: Counters,
    pub(crate) rejects: Vec<Reject>,
    /// All of them up to a limit, when that is wanted.
    pub(crate) reject_log: Option<RejectLog>,
    /// More skipped rows than these are an error, while a file is being read.
    pub(crate) max_skipped: Option<u64>,
    /// One for each file that was read in a dialect; while a file is being read in one, its own is the only one.
    pub(crate) readings: Vec<Reading>,
    /// Further campaigns, while a file is being read by several tallies that share them.
    pub(crate) shares: Option<Box<Shares>>,
}

impl Aggregate {
    /// An empty aggregate that takes at most `max_campaigns` campaigns.
    #[must_use]
    pub fn new(max_campaigns: usize) -> Self {
        Self {
            totals: Totals::new(max_campaigns),
            counters: Counters::default(),
            rejects: Vec::new(),
            reject_log: None,
            max_skipped: None,
            readings: Vec::new(),
            shares: None,
        }
    }

    /// Counts of rows and bytes.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The first skipped rows, at most [`MAX_REJECTS`].
    #[must_use]
    pub fn rejects(&self) -> &[Reject] {
        &self.rejects
    }

    /// What was found out about the files that were read in a dialect.
    #[must_use]
    pub fn readings(&self) -> &[Reading] {
        &self.readings
    }

    /// Campaigns with at least one row that counted.
    #[must_use]
    pub fn unique_campaigns(&self) -> usize {
        self.totals.len()
    }

    /// Every campaign by campaign id in ascending byte order.
    pub fn campaigns(&self) -> impl Iterator<Item = CampaignTotals<'_>> {
        self.totals.sorted_by_id().into_iter().map(|index| self.totals.campaign(index as usize))
    }

    /// Names the file in every reject that has no name yet.
    pub fn name_file(&mut self, file: &str) {
        for reject in self.rejects.iter_mut().filter(|reject| reject.file.is_empty()) {
            file.clone_into(&mut reject.file);
        }
        for reading in self.readings.iter_mut().filter(|reading| reading.file.is_empty()) {
            file.clone_into(&mut reading.file);
        }
        if let Some(log) = &mut self.reject_log {
            log.name_file(file);
        }
    }

    /// Lets go of all rejects but the first: for what shows only totals.
    pub fn forget_reject_log(&mut self) {
        self.reject_log = None;
    }

    /// Adds everything that `next`, which comes after it, has counted.
    ///
    /// # Errors
    /// When there are more campaigns than allowed, or a total grows beyond what can be reported.
    pub fn merge(&mut self, next: Self) -> Result<(), Fatal> {
        self.counters.merge(&next.counters);
        self.reject_log =
            merged_logs((self.reject_log.take(), self.rejects.as_slice()), (next.reject_log, next.rejects.as_slice()));
        self.rejects.extend(next.rejects.into_iter().take(MAX_REJECTS - self.rejects.len()));
        self.readings.extend(next.readings);
        if let (Some(mine), Some(theirs)) = (&mut self.shares, next.shares) {
            mine.join(*theirs)?;
        }
        // The smaller table is the cheaper one to take apart.
        let mut totals = next.totals;
        if totals.len() > self.totals.len() {
            std::mem::swap(&mut totals, &mut self.totals);
        }
        let max_campaigns = totals.max_campaigns().max(self.totals.max_campaigns());
        self.totals.merge(totals).map_err(|_| Fatal::TooManyCampaigns { max_campaigns })?;
        self.check_totals()
    }

    /// Ends the sharing of campaigns with other tallies, which have been joined.
    pub(crate) fn end_sharing(&mut self) -> Result<(), Fatal> {
        if let Some(shares) = self.shares.take() {
            let max_campaigns = self.totals.max_campaigns();
            let totals = std::mem::replace(&mut self.totals, Totals::new(max_campaigns));
            let all = shares.into_totals(totals);
            self.totals = all.map_err(|TableFull| Fatal::TooManyCampaigns { max_campaigns })?;
        }
        Ok(())
    }

    pub(crate) fn check_totals(&self) -> Result<(), Fatal> {
        if self.totals.overflowed() { Err(Fatal::TotalsOverflow) } else { Ok(()) }
    }

    /// Judges a whole record and counts it, or says why not. Blank lines are passed over.
    pub(crate) fn take_record<'a>(
        &mut self,
        columns: &Columns,
        field_count: usize,
        field: impl Fn(usize) -> &'a [u8],
        record: &[u8],
        start: Position,
    ) -> Result<(), Fatal> {
        if is_blank(field_count, field(0)) {
            return Ok(());
        }
        match read_row(columns, field_count, field) {
            Ok(row) => self.count(&row)?,
            Err(reason) => self.skip(reason, record, start)?,
        }
        Ok(())
    }

    /// Judges a whole record of a file in a dialect and counts it, or says why not.
    pub(crate) fn take_judged<'a>(
        &mut self,
        judge: Judge<'_>,
        field_count: usize,
        field: impl Fn(usize) -> &'a [u8],
        record: &[u8],
        start: Position,
    ) -> Result<(), Fatal> {
        let has_data = self.has_data();
        // There is one: the tally begins it with the header.
        let Self { totals, readings, .. } = self;
        let Some(reading) = readings.last_mut() else { return Ok(()) };
        let max_campaigns = totals.max_campaigns();
        let add = |row: &Row<'_>| totals.add_row(row).map_err(|_| Fatal::TooManyCampaigns { max_campaigns });
        match judge.judge(reading, has_data, field_count, field, start.line, add)? {
            Judged::Counted => self.counters.rows_read += 1,
            Judged::Skipped(reason) => self.skip(reason, record, start)?,
            Judged::NoData => {}
        }
        Ok(())
    }

    /// Passes an empty line of a file in a dialect.
    pub(crate) fn pass_empty_line(&mut self, judge: Judge<'_>) {
        let has_data = self.has_data();
        if let Some(reading) = self.readings.last_mut() {
            judge.pass_blank_line(reading, has_data);
        }
    }

    /// Notes a malformed record of a file in a dialect.
    pub(crate) fn take_malformed(&mut self, judge: Judge<'_>, record: &[u8], start: Position) -> Result<(), Fatal> {
        match self.readings.last_mut() {
            Some(reading) if reading.has_ended => judge.pass_footer(reading, None),
            _ => self.skip(SkipReason::MalformedRecord, record, start)?,
        }
        Ok(())
    }

    /// True when there are rows or totals.
    pub(crate) fn has_data(&self) -> bool {
        self.counters.rows_read > 0 || self.readings.last().is_some_and(|reading| reading.rows_total > 0)
    }

    /// Ends the reading of a file in a dialect.
    pub(crate) fn finish_reading(&mut self, dialect: &Dialect) {
        let rows_read = self.counters.rows_read;
        let rows = rows_read - self.counters.rows_skipped();
        let sums = self.totals.sum().map(|sum| (sum.impressions, sum.clicks, sum.spend, sum.conversions));
        if let Some(reading) = self.readings.last_mut() {
            reading.finish(rows_read, rows, sums.unwrap_or_default(), dialect);
        }
    }

    fn count(&mut self, row: &Row<'_>) -> Result<(), Fatal> {
        self.counters.rows_read += 1;
        let max_campaigns = self.totals.max_campaigns();
        self.totals.add_row(row).map_err(|_| Fatal::TooManyCampaigns { max_campaigns })
    }

    /// Notes a row that does not count.
    pub(crate) fn skip(
        &mut self,
        reason: SkipReason,
        record: &[u8],
        Position { line, byte_offset }: Position,
    ) -> Result<(), Fatal> {
        self.counters.rows_read += 1;
        self.counters.skipped[reason as usize] += 1;
        let record = &record[..record.len().min(SHOWN_RECORD_BYTES)];
        if self.rejects.len() < MAX_REJECTS {
            self.rejects.push(Reject { line, byte_offset, reason, record: record.to_vec(), file: String::new() });
        }
        if let Some(log) = &mut self.reject_log {
            log.push(RejectRow { position: Position { line, byte_offset }, reason, record });
        }
        match self.max_skipped {
            Some(max_skipped) if self.counters.rows_skipped() > max_skipped => {
                Err(self.too_many_skipped(max_skipped.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// Judges how many rows were skipped of all that were read.
    ///
    /// # Errors
    /// When they are too many.
    pub fn check_skipped(&self, budget: SkipBudget) -> Result<(), Fatal> {
        if budget.allows(self.counters.rows_skipped(), self.counters.rows_read) {
            return Ok(());
        }
        Err(self.too_many_skipped(budget.to_string()))
    }

    fn too_many_skipped(&self, max_skipped: String) -> Fatal {
        let first = self.rejects.iter().take(MAX_REPORTED_REJECTS).map(|reject| SkippedRow {
            line: reject.line,
            reason: reject.reason,
            record: String::from_utf8_lossy(&reject.record).into_owned(),
        });
        Fatal::TooManySkipped {
            max_skipped,
            rows_skipped: self.counters.rows_skipped(),
            rows_read: self.counters.rows_read,
            reasons: self.counters.skipped().collect(),
            first: first.collect(),
        }
    }
}

/// The log of two parts, if one of them has any. Of one that has none there are the first rejects.
fn merged_logs(
    (first, first_rejects): (Option<RejectLog>, &[Reject]),
    (next, next_rejects): (Option<RejectLog>, &[Reject]),
) -> Option<RejectLog> {
    let max_bytes = first.as_ref().or(next.as_ref())?.max_bytes();
    let mut all = first.unwrap_or_else(|| log_of(first_rejects, max_bytes));
    all.append(next.unwrap_or_else(|| log_of(next_rejects, max_bytes)));
    Some(all)
}

fn log_of(rejects: &[Reject], max_bytes: u64) -> RejectLog {
    let mut all = RejectLog::new(max_bytes);
    for reject in rejects {
        let Reject { line, byte_offset, reason, ref record, ref file } = *reject;
        let mut log = RejectLog::new(max_bytes);
        log.push(RejectRow { position: Position { line, byte_offset }, reason, record });
        log.name_file(file);
        all.append(log);
    }
    all
}
