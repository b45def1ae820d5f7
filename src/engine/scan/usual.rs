//! Reading usual rows off the marks of a window, in whichever notation and columns an input has.
//!
//! A row is usual when its campaign is in the table, its numbers are short ones, and its currency is the one that was seen
//! before. The judge of every kind of row would count it, too, and note nothing about it.

use super::instructions::{Cell, Instructions, NumberForm};
use super::marks::Separators;
use super::nearly_plain::NearlyPlain;
use super::window::{FIRST_BYTES, Window};
use crate::engine::dialect::{Columns, ConversionDigits, Dialect, SpendUnit, TotalsRule, ZeroIfEmpty};
use crate::engine::judge::Judge;
use crate::engine::key::Key;
use crate::engine::lookup::Lookup;
use crate::engine::number::Spend;
use crate::engine::reading::{MAX_WORD_BYTES, Reading};
use crate::engine::short_number::{Count, DecimalConversions, Micros, Number, Short};
use crate::engine::sums::Fine;

/// A set of bytes.
pub(super) struct ByteSet([bool; 256]);

impl ByteSet {
    pub(super) const NONE: Self = Self([false; 256]);

    /// The first bytes of what may stand in place of the campaign id in a row of totals.
    pub(super) fn starting_totals(dialect: &Dialect) -> Self {
        let mut set = [false; 256];
        if let TotalsRule::Labels(labels) = &dialect.totals {
            set[usize::from(b'-')] = true;
            for word in labels.iter().map(String::as_str).chain(dialect.no_value().iter().copied()) {
                match word.as_bytes().first() {
                    // It stands for a number.
                    Some(b'#') => set = [true; 256],
                    Some(first) => set[usize::from(*first)] = true,
                    None => {}
                }
            }
        }
        Self(set)
    }

    #[inline(always)]
    fn has(&self, byte: u8) -> bool {
        self.0[usize::from(byte)]
    }
}

/// A word that is looked for in every row.
struct Word<'a> {
    bytes: &'a [u8],
    /// Its first eight bytes, and zeros.
    start: u64,
}

impl<'a> Word<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let start = bytes.iter().take(8).rev().fold(0, |start, byte| start << 8 | u64::from(*byte));
        Self { bytes, start }
    }

    #[inline(always)]
    fn is_in<I: Instructions>(&self, text: &[u8], cell: Cell) -> bool {
        let len = self.bytes.len();
        let [start, _] = I::load_16(text, cell.start);
        cell.len() == len
            && start & FIRST_BYTES[len.min(8)].0 == self.start
            && (len <= 8 || cell.of(text) == self.bytes)
    }
}

/// What may stand around the contents of fields: nothing, blanks, or quotes with blanks inside them.
pub(super) const NOTHING: u8 = 0;
pub(super) const BLANKS: u8 = 1;
pub(super) const QUOTES_AND_BLANKS: u8 = 2;

/// What the usual rows of an input have in common.
pub(super) struct Usual<'a> {
    columns: &'a Columns,
    form: NumberForm,
    conversions: ConversionDigits,
    spend_unit: SpendUnit,
    zero_if_empty: ZeroIfEmpty,
    currency_columns: &'a [usize],
    indicator_column: Option<usize>,
    starting_totals: &'a ByteSet,
    /// What stands in all columns of currencies.
    currency: Word<'a>,
    /// What stands in the column that tells what the conversions count, if there is one.
    indicator: Word<'a>,
}

impl<'a> Usual<'a> {
    /// Those of an input in the plain contract, in whichever columns.
    pub(super) fn plain(columns: &'a Columns, no_totals: &'a ByteSet) -> Self {
        Self {
            columns,
            form: NumberForm::PLAIN,
            conversions: ConversionDigits::Whole,
            spend_unit: SpendUnit::One,
            zero_if_empty: ZeroIfEmpty::default(),
            currency_columns: &[],
            indicator_column: None,
            starting_totals: no_totals,
            currency: Word::new(b""),
            indicator: Word::new(b""),
        }
    }

    /// Those of an input in a dialect; `None` while no row is usual.
    pub(super) fn in_dialect(judge: Judge<'a>, reading: &'a Reading, starting_totals: &'a ByteSet) -> Option<Self> {
        let notation = judge.notation(reading).filter(|_| !reading.has_ended)?;
        // A word that was cut may stand for several cells, and one with quotes is written otherwise than it is kept.
        let is_whole = |word: &&[u8]| word.len() < MAX_WORD_BYTES && !word.contains(&b'"');
        let currency = match &reading.currency {
            Some(seen) => Some(seen.word.as_bytes()).filter(is_whole)?,
            None if judge.layout.currency.is_empty() => &[],
            None => return None,
        };
        let indicator = match &reading.indicators.0 {
            Some(seen) => Some(seen.word.as_bytes()).filter(is_whole)?,
            None if judge.layout.result_indicator.is_none() => &[],
            None => return None,
        };
        let &Dialect { conversions, spend_unit, zero_if_empty, .. } = judge.dialect;
        Some(Self {
            columns: &judge.layout.columns,
            form: NumberForm::new(notation),
            conversions,
            spend_unit,
            zero_if_empty,
            currency_columns: &judge.layout.currency,
            indicator_column: judge.layout.result_indicator,
            starting_totals,
            currency: Word::new(currency),
            indicator: Word::new(indicator),
        })
    }

    /// Where its fields are. A constant for `PLAIN` rows, so that their places need no bounds checks.
    #[inline(always)]
    fn columns<const PLAIN: bool>(&self) -> &Columns {
        if PLAIN { &Columns::DEFAULT } else { self.columns }
    }

    /// Adds a row to its campaign. `None` when it is not usual: then nothing is added. With `PLAIN` it has the usual columns and
    /// nothing that only dialects have; around its fields stands what `AROUND` says.
    #[inline(always)]
    fn add<I: Instructions, const PLAIN: bool, const AROUND: u8>(
        &self,
        window: &Window<'_>,
        row: &impl SeparatedRow,
        lookup: &mut Lookup<'_>,
    ) -> Option<()> {
        let text = window.text;
        let &Columns { impressions, clicks, spend, conversions, .. } = self.columns::<PLAIN>();
        let cells = [impressions, clicks, spend, conversions].map(|column| row.field::<AROUND>(text, column));
        // Each way is written out to its end: where they met, numbers would leave their register.
        if PLAIN && let Some(nearly_plain) = NearlyPlain::of(text, cells) {
            let fine = nearly_plain.fine();
            if let Some(lanes) = nearly_plain.lanes::<I>(text, row.start()) {
                let campaign = self.campaign::<I, PLAIN, AROUND>(window, row, lookup)?;
                lookup.add_fine(campaign, fine)?;
                lookup.add(campaign, lanes);
                return Some(());
            }
            if let Some(numbers) = nearly_plain.long::<I>(text, row.start()) {
                let campaign = self.campaign::<I, PLAIN, AROUND>(window, row, lookup)?;
                return lookup.add_numbers(campaign, numbers, fine);
            }
        }
        let (numbers, fine) = self.numbers::<I, PLAIN>(text, cells)?;
        let campaign = self.campaign::<I, PLAIN, AROUND>(window, row, lookup)?;
        lookup.add_numbers(campaign, numbers, fine)
    }

    /// The campaign of a row of which nothing has to be noted, if it is in the table.
    #[inline(always)]
    fn campaign<I: Instructions, const PLAIN: bool, const AROUND: u8>(
        &self,
        window: &Window<'_>,
        row: &impl SeparatedRow,
        lookup: &Lookup<'_>,
    ) -> Option<usize> {
        let text = window.text;
        let id = row.field::<AROUND>(text, self.columns::<PLAIN>().campaign_id);
        // In the table, a quote stands for itself.
        if !PLAIN && self.is_noted::<I, AROUND>(row, text, id)
            || AROUND == QUOTES_AND_BLANKS && window.has_doubled_quotes(id.start, id.end)
        {
            return None;
        }
        // All else that is asked of an id is true for every id in the table.
        if let Some((low, high)) = FIRST_BYTES.get(id.len()) {
            let [first, second] = I::load_16(text, id.start);
            let key = Key::short(first & low, second & high, id.len());
            lookup.find_short(key, lookup.hash(key))
        } else {
            lookup.find_id(id.of(text))
        }
    }

    /// True when the judge would note something about the row: totals, another currency, another kind of results.
    #[inline(always)]
    fn is_noted<I: Instructions, const AROUND: u8>(&self, row: &impl SeparatedRow, text: &[u8], id: Cell) -> bool {
        self.starting_totals.has(text[id.start])
            || !self
                .currency_columns
                .iter()
                .all(|column| self.currency.is_in::<I>(text, row.field::<AROUND>(text, *column)))
            || !self
                .indicator_column
                .is_none_or(|column| self.indicator.is_in::<I>(text, row.field::<AROUND>(text, column)))
    }

    /// The numbers of a row, when all of them are short: impressions, clicks, cents and conversions, and what is finer.
    #[inline(always)]
    fn numbers<I: Instructions, const PLAIN: bool>(&self, text: &[u8], cells: [Cell; 4]) -> Option<([u64; 4], Fine)> {
        // Constants, so that nothing is asked at run time that only dialects have.
        let (form, zero_if_empty, spend_unit, conversion_digits) = if PLAIN {
            (&NumberForm::PLAIN, [false; 4], SpendUnit::One, ConversionDigits::Whole)
        } else {
            let zero_if_empty = [false, self.zero_if_empty.clicks, false, self.zero_if_empty.conversions];
            (&self.form, zero_if_empty, self.spend_unit, self.conversions)
        };
        let [impressions, clicks, spend, conversions] = shorts::<I>(text, cells, form, zero_if_empty)?;
        let (Count(impressions), Count(clicks)) = (Count::of_short(impressions)?, Count::of_short(clicks)?);
        let (cents, spend) = match spend_unit {
            SpendUnit::One => Spend::of_short(spend)?.split(),
            SpendUnit::Micros => Micros::of_short(spend)?.0.split(),
        };
        let (conversions, conversion_units) = match conversion_digits {
            ConversionDigits::Whole => (Count::of_short(conversions)?.0, 0),
            ConversionDigits::Decimal => {
                let DecimalConversions(whole, units) = DecimalConversions::of_short(conversions)?;
                (whole, units)
            }
        };
        Some(([impressions, clicks, cents, conversions], Fine { spend, conversion_units }))
    }
}

/// Four short numbers, of which those may be empty for zero that are said to.
#[inline(always)]
fn shorts<I: Instructions>(
    text: &[u8],
    cells: [Cell; 4],
    form: &NumberForm,
    zero_if_empty: [bool; 4],
) -> Option<[Short; 4]> {
    let are_zero = |index: usize| zero_if_empty[index] && cells[index].len() == 0;
    if !(0..4).any(are_zero) {
        return I::short_numbers(text, cells, form);
    }
    let mut shorts = [(0, 0); 4];
    for index in (0..4).filter(|index| !are_zero(*index)) {
        shorts[index] = form.notation.short_at_end(&text[..cells[index].end], cells[index].len())?;
    }
    Some(shorts)
}

/// Where the rows of a window are read.
pub(super) struct Cursor<'a> {
    separators: &'a Separators,
    /// Where the next row starts.
    pub(super) start: usize,
    /// Separators and row ends before it.
    passed: usize,
    passed_row_ends: usize,
}

impl<'a> Cursor<'a> {
    /// Before the row that starts there.
    pub(super) fn at(start: usize, separators: &'a Separators) -> Self {
        let before = |positions: &[u16]| positions.partition_point(|position| usize::from(*position) < start);
        let (passed, passed_row_ends) = (before(&separators.all), before(&separators.row_ends));
        Self { separators, start, passed, passed_row_ends }
    }

    /// Where the next row ends; `None` when it is not whole.
    #[inline(always)]
    pub(super) fn row_end(&self) -> Option<usize> {
        self.separators.row_ends.get(self.passed_row_ends).map(|end| usize::from(*end))
    }

    /// Passes the next row, which ends there.
    pub(super) fn pass(&mut self, end: usize) {
        let fields = self.separators.all[self.passed..].iter().take_while(|place| usize::from(**place) <= end);
        self.passed += fields.count();
        self.passed_row_ends += 1;
        self.start = end + 1;
    }

    /// The next row, when it has this number of fields.
    #[inline(always)]
    fn row_of(&self, fields: usize, text: &[u8]) -> Option<ListedRow<'a>> {
        let edges = self.separators.all.with_one_before(self.passed)?.get(..=fields)?;
        let end = edges[fields];
        // Before the end of this row there is no other.
        if *self.separators.row_ends.get(self.passed_row_ends)? != end {
            return None;
        }
        let end = usize::from(end);
        Some(ListedRow { edges, contents_end: end - return_before(text, self.start, end) })
    }
}

/// Counts usual rows up to the first that is another. Gives their number.
#[inline(always)]
pub(super) fn add_usual_rows<I: Instructions, const AROUND: u8>(
    window: &Window<'_>,
    usual: &Usual<'_>,
    cursor: &mut Cursor<'_>,
    mut lookup: Lookup<'_>,
) -> u64 {
    let fields = usual.columns.count;
    let mut count = 0;
    while let Some(row) = cursor.row_of(fields, window.text) {
        if usual.add::<I, false, AROUND>(window, &row, &mut lookup).is_none() {
            break;
        }
        cursor.start = row.end() + 1;
        cursor.passed += fields;
        cursor.passed_row_ends += 1;
        count += 1;
    }
    count
}

/// Counts usual rows in the plain contract and in the usual columns up to the first that is another. Gives their number; `start` moves on
/// with them.
#[inline(always)]
pub(super) fn add_spelled_rows<I: Instructions, const AROUND: u8>(
    window: &Window<'_>,
    usual: &Usual<'_>,
    start: &mut usize,
    mut lookup: Lookup<'_>,
) -> u64 {
    let mut count = 0;
    while let Some(row) = MarkedRow::at(*start, window) {
        if usual.add::<I, true, AROUND>(window, &row, &mut lookup).is_none() {
            break;
        }
        *start = row.end + 1;
        count += 1;
    }
    count
}

/// A row and its separators.
trait SeparatedRow {
    fn start(&self) -> usize;

    /// A field with everything that stands around its contents.
    fn whole_field(&self, column: usize) -> Cell;

    /// The contents of a field, around which nothing else stands than `AROUND` says.
    #[inline(always)]
    fn field<const AROUND: u8>(&self, text: &[u8], column: usize) -> Cell {
        let Cell { start, end } = self.whole_field(column);
        if AROUND == NOTHING {
            return Cell { start, end };
        }
        // A quoted field ends with its closing quote. Not a branch: which fields are quoted cannot be predicted.
        let quote = if AROUND == BLANKS { 0 } else { usize::from(text[start] == b'"') };
        trimmed(text, Cell { start: start + quote, end: end - quote })
    }
}

/// A row whose separators are in a list.
struct ListedRow<'a> {
    /// Positions in the window, modulo 2^16: of the byte before the row, of its delimiters, and of its line end.
    edges: &'a [u16],
    /// Where its last field ends.
    contents_end: usize,
}

impl ListedRow<'_> {
    /// The position of the line end.
    #[inline(always)]
    fn end(&self) -> usize {
        usize::from(self.edges[self.edges.len() - 1])
    }
}

impl SeparatedRow for ListedRow<'_> {
    #[inline(always)]
    fn start(&self) -> usize {
        usize::from(self.edges[0].wrapping_add(1))
    }

    #[inline(always)]
    fn whole_field(&self, column: usize) -> Cell {
        let start = usize::from(self.edges[column].wrapping_add(1));
        let end = if column + 2 == self.edges.len() { self.contents_end } else { usize::from(self.edges[column + 1]) };
        Cell { start, end }
    }
}

/// A row with six fields.
struct MarkedRow {
    start: usize,
    /// Where each field ends, relative to the start.
    field_ends: [usize; 6],
    /// The position of the line end.
    end: usize,
}

impl MarkedRow {
    /// The row that starts there, if it has six fields.
    #[inline(always)]
    fn at(start: usize, window: &Window<'_>) -> Option<Self> {
        let mut field_ends = if let Some(near) = window.six_separators::<false>(start) {
            near
        } else {
            let mut separators = [0; 6];
            window.find_separators(start, &mut separators).then_some(separators)?
        };
        let end = start + field_ends[5];
        field_ends[5] -= return_before(window.text, start, end);
        Some(Self { start, field_ends, end })
    }
}

impl SeparatedRow for MarkedRow {
    #[inline(always)]
    fn start(&self) -> usize {
        self.start
    }

    #[inline(always)]
    fn whole_field(&self, column: usize) -> Cell {
        let before = if column == 0 { 0 } else { self.field_ends[column - 1] + 1 };
        Cell { start: self.start + before, end: self.start + self.field_ends[column] }
    }
}

/// One when there is a CR before the line end of the row that starts there.
#[inline(always)]
fn return_before(text: &[u8], start: usize, end: usize) -> usize {
    usize::from(end > start && text[end - 1] == b'\r')
}

/// A cell without the blanks around it.
#[inline(always)]
fn trimmed(text: &[u8], Cell { mut start, mut end }: Cell) -> Cell {
    let is_blank = |byte: u8| byte == b' ' || byte == b'\t';
    // Most texts have no blanks here, and some have one in every field. So branches are predicted, and nothing waits for these bytes.
    while end > start && is_blank(text[start]) {
        start += 1;
    }
    while end > start && is_blank(text[end - 1]) {
        end -= 1;
    }
    Cell { start, end }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::dialect::{Notation, Thousands};
    use crate::engine::scan::portable::Portable;

    /// Four cells, each behind a few bytes that belong to no number.
    fn text_of(cells: &[String; 4]) -> (Vec<u8>, [Cell; 4]) {
        let mut text = b"0123456789,.345\"".to_vec();
        let places = cells.each_ref().map(|cell| {
            text.extend(b"9,\"");
            let start = text.len();
            text.extend(cell.as_bytes());
            Cell { start, end: text.len() }
        });
        text.extend([b'7'; 16]);
        (text, places)
    }

    #[test]
    fn four_short_numbers_are_those_that_are_read_one_by_one() {
        let mut state = 1_u64;
        let mut draw = |end: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap() % end
        };
        let notations = [
            Notation::new(b'.', Thousands::None),
            Notation::new(b'.', Thousands::Comma),
            Notation::new(b',', Thousands::Point),
            Notation::new(b',', Thousands::Any),
            Notation::new(b'.', Thousands::Any),
        ];
        let mut found = 0;
        for _ in 0..200_000 {
            let form = NumberForm::new(notations[draw(notations.len())]);
            // Three are read, so that it depends on the fourth.
            let other = draw(4);
            let cells = std::array::from_fn(|index| match (index == other, draw(4)) {
                (true, 0) => (0..=draw(17))
                    .map(|_| ['0', '1', '9', ',', '.', '\'', ' ', '-', '\0', '/', ':'][draw(11)])
                    .collect(),
                (true, 1) => format!("{},{:03}.{}", draw(1001), draw(1000), draw(100)),
                (true, 2) => format!("{}.{:03},{:02}", draw(1001), draw(1000), draw(100)),
                (true, _) => format!("{}{}{}", draw(1000), ["", ",", "."][draw(3)], draw(10_000)),
                (false, _) => draw(100_000_000).to_string(),
            });
            let (text, places) = text_of(&cells);
            let short = |cell: Cell| form.notation.short_at_end(&text[..cell.end], cell.len());
            let expected = places.map(short);
            let expected = expected.iter().all(Option::is_some).then(|| expected.map(Option::unwrap_or_default));
            assert_eq!(Portable::short_numbers(&text, places, &form), expected, "{cells:?}");
            #[cfg(target_arch = "x86_64")]
            if let Some(available) = crate::engine::scan::avx2::Available::detect() {
                assert_eq!(available.short_numbers(&text, places, &form), expected, "{cells:?}");
            }
            found += u32::from(expected.is_some());
        }
        assert!((50_000..150_000).contains(&found), "{found}");
    }
}
