use std::sync::{Arc, LazyLock};

use adtally::engine::{
    Delimiter, DelimiterChoice, Dialect, DialectOptions, Field, Format, Kernel, Limits, Tally, TallyOptions,
};

use crate::snippets;

/// Numbers, points and spaces are allowed as delimiters, at odds with what stands between them.
const DELIMITERS: &[u8] = b",,,,,,;\t|;\t|. 5e-\x01";

/// More campaigns than the scanner looks up one by one.
static MANY_CAMPAIGNS: LazyLock<String> = LazyLock::new(|| {
    // Every sixteenth id is longer than a key.
    let id = |number| if number % 16 == 0 { format!("campaign number {number}") } else { format!("c{number}") };
    (0..4_150).map(|number| format!("{},,{number},1,.5,1\n", id(number))).collect()
});

/// The bytes that are choices.
const CHOICES: usize = 11;

/// Options of dialects, beside those of the presets.
const OPTION_SETS: [&[(&str, &str)]; 14] = [
    &[("decimal", ","), ("thousands", ".")],
    &[("decimal", "auto"), ("conversions", "decimal")],
    &[("decimal", "auto"), ("currency", "strip"), ("totals", "Total:")],
    &[("thousands", ","), ("currency", "strip")],
    &[("thousands", "space"), ("decimal", ","), ("conversions", "decimal")],
    &[("thousands", "'"), ("zero_if_empty", "clicks")],
    &[("thousands", "any"), ("spend_unit", "micros")],
    &[("zero_if_empty", "clicks,conversions"), ("totals", "Total:|Overall total"), ("conversions", "decimal")],
    &[("end", "blank_line"), ("totals", "")],
    &[("end", "blank_line"), ("header", "find"), ("decimal", "auto"), ("currency", "strip")],
    &[("id_brackets", "true"), ("totals", "none"), ("header", "find")],
    &[("columns", "campaign_id:Campaign ID|campaign_id;spend:Cost|spend"), ("header", "find"), ("decimal", "auto")],
    &[("format", "google_ads"), ("currency", "strip"), ("end", "blank_line")],
    &[("format", "microsoft_ads"), ("end", "file"), ("decimal", "auto")],
];

/// Bytes in which the engine looks for a header. It reads no row before it has these, or the whole text.
const SEARCHED_BYTES: usize = 64 * 1024;

/// A text, how to read it, and where to cut it.
///
/// A fuzzer's first [`CHOICES`] bytes are choices, the others make the text: as they are, or as a program for
/// [`snippets::write`].
#[derive(Debug)]
pub struct Case {
    pub text: Vec<u8>,
    pub options: TallyOptions,
    pub dialect: Option<Arc<Dialect>>,
    /// Where the text is to be cut, ascending.
    pub places: Vec<usize>,
    /// For further choices.
    pub cuts: Cuts,
}

impl Case {
    /// `None` when the bytes are too few.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let (choices, body) = bytes.split_first_chunk::<CHOICES>()?;
        let [delimiter, start, limit, limit_detail, form, scale, dialect, skipped, padding, seed @ ..] = *choices;
        let dialect_options = dialect_options(dialect);
        let (has_header, header) = match dialect_options.format {
            Some(format) => (true, format_header(format, start)),
            None => header(start),
        };
        let byte = DELIMITERS[usize::from(delimiter) % DELIMITERS.len()];
        let delimiter = Delimiter::try_from(byte).ok()?;
        let dialect = new_dialect(&dialect_options, dialect, delimiter, has_header);
        let mut text = with_delimiter(&header, byte);
        if start >> 3 == 31 {
            text.extend(with_delimiter(MANY_CAMPAIGNS.as_bytes(), byte));
        }
        if padding >> 7 == 1 && dialect.is_some() {
            pad(&mut text, byte, padding & 0x7f);
        }
        let mut places = Vec::new();
        if form % 4 == 0 {
            text.extend_from_slice(body);
        } else {
            snippets::write(body, byte, &mut text, &mut places);
        }
        let mut cuts = Cuts::new(scale, seed);
        places.extend(cuts.places(text.len()));
        places.sort_unstable();
        let options = TallyOptions {
            delimiter,
            has_header,
            limits: limits(limit, limit_detail.into()),
            max_skipped: max_skipped(skipped % 16),
            max_rejects_bytes: max_rejects_bytes(skipped >> 4),
            ..TallyOptions::default()
        };
        Some(Self { text, options, dialect, places, cuts })
    }

    /// The same text in the plain contract, without the limits that version 1 did not have.
    #[must_use]
    pub fn in_plain_contract(self) -> Self {
        let options = TallyOptions { max_skipped: None, max_rejects_bytes: None, ..self.options };
        Self { options, dialect: None, ..self }
    }

    /// The text, cut.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let starts = [0].into_iter().chain(self.places.iter().copied());
        let ends = self.places.iter().copied().chain([self.text.len()]);
        starts.zip(ends).map(|(start, end)| &self.text[start..end])
    }

    /// A tally for the text, with this kernel.
    pub fn tally(&self, kernel: Kernel) -> Tally {
        Tally::in_dialect(TallyOptions { kernel, ..self.options }, self.dialect.clone())
    }
}

/// Those of a preset or of a set; none for a quarter of the choices.
fn dialect_options(choice: u8) -> DialectOptions {
    let mut options = DialectOptions::default();
    let Some(index) = usize::from(choice & 0x7f).checked_sub(32) else { return options };
    let formats: Vec<_> = Format::all().collect();
    let index = index % (formats.len() + OPTION_SETS.len());
    if let Some(format) = formats.get(index) {
        options.format = Some(*format);
        return options;
    }
    for (name, value) in OPTION_SETS[index - formats.len()] {
        assert_eq!(options.set(name, value), Ok(true), "{name}={value}");
    }
    options
}

/// The dialect of these options. With the highest bit of the choice, the engine finds out the delimiter.
fn new_dialect(options: &DialectOptions, choice: u8, delimiter: Delimiter, has_header: bool) -> Option<Arc<Dialect>> {
    let delimiter = if choice >> 7 == 1 { DelimiterChoice::Auto } else { DelimiterChoice::Fixed(delimiter) };
    // Some options need a header.
    let dialect = Dialect::new(options, Some(delimiter), has_header)
        .or_else(|_| Dialect::new(options, Some(delimiter), true))
        .unwrap_or_else(|conflict| panic!("{conflict}"));
    dialect.map(Arc::new)
}

/// The start of a report of this format: its header, perhaps behind other lines. For two choices in eight the header is left to
/// the text.
fn format_header(format: Format, choice: u8) -> Vec<u8> {
    let name = |field| {
        let mut names = format.definition().names_of(field);
        if choice & 1 == 0 { names.next() } else { names.last() }
    };
    let line = Field::ALL.map(|field| name(field).unwrap_or_default()).join(",").replace('*', "EUR");
    let header = match choice % 8 {
        0 | 1 => line + "\n",
        2 => line + "\r\n",
        3 => format!("A report\n\n\"1, 2\"\n{line}\n"),
        4 | 5 => line + ",Currency code,Result indicator\n",
        _ => String::new(),
    };
    header.into_bytes()
}

/// Adds a long row, so that the engine has enough text to look for a header `distance` times four bytes behind that row. Its
/// spend has a point for an even distance, else a comma.
fn pad(text: &mut Vec<u8>, delimiter: u8, distance: u8) {
    text.extend(with_delimiter(b"CMP000,", delimiter));
    let spend: &[u8] = if distance & 1 == 0 { b"0.5" } else { b"\"0,5\"" };
    let end = [&with_delimiter(b",1,2,", delimiter), spend, &with_delimiter(b",1\n", delimiter)].concat();
    let padded_bytes = SEARCHED_BYTES - usize::from(distance) * 4 - end.len();
    if text.len() < padded_bytes {
        text.resize(padded_bytes, b'x');
    }
    text.extend(end);
}

/// Mostly no limit, else one of up to 127 rows.
fn max_skipped(choice: u8) -> Option<u64> {
    choice.checked_sub(8).map(|power| (1 << power) - 1)
}

/// Often only the first rejects, else a limit from less than one row up to more than any text has.
fn max_rejects_bytes(choice: u8) -> Option<u64> {
    choice.checked_sub(6).map(|power| 16 << (2 * power))
}

/// Whether there is a header, and what stands at the start of the text. The last of them leaves the header to the text.
fn header(choice: u8) -> (bool, Vec<u8>) {
    let (has_header, header): (_, &[u8]) = match choice % 8 {
        0..=2 => (true, b"campaign_id,date,impressions,clicks,spend,conversions\n"),
        3 => (true, b"campaign_id,date,impressions,clicks,spend,conversions\r\n"),
        4 => (true, b"impressions,note,clicks,campaign_id,conversions,spend,other\n"),
        5 => (true, b"\n \t\r\n\" CLICKS\",Campaign_ID,spend ,conversions,\"impressions\"\r"),
        6 => (false, b""),
        _ => (true, b""),
    };
    (has_header, header.to_vec())
}

/// Mostly the usual limits. With less than 8 KiB for a record the scanner is not used.
fn limits(choice: u8, detail: usize) -> Limits {
    let usual = Limits::default();
    let max_record_bytes = match choice % 16 {
        0..=10 => usual.max_record_bytes,
        11 | 12 => 8192 + detail,
        13 => 8192 - detail,
        _ => detail,
    };
    Limits { max_record_bytes, max_campaigns: if choice >> 4 == 15 { detail % 8 } else { usual.max_campaigns } }
}

fn with_delimiter(text: &[u8], delimiter: u8) -> Vec<u8> {
    text.iter().map(|byte| if *byte == b',' { delimiter } else { *byte }).collect()
}

/// Random choices that a seed decides.
#[derive(Clone, Debug)]
pub struct Cuts {
    scale: u8,
    state: u32,
}

impl Cuts {
    pub fn new(scale: u8, seed: [u8; 2]) -> Self {
        Self { scale, state: u16::from_le_bytes(seed).into() }
    }

    /// One of so many.
    pub fn choose(&mut self, count: usize) -> usize {
        // Numerical Recipes' linear congruential generator, whose upper half is random enough.
        self.state = self.state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.state >> 16) as usize % count
    }

    /// The length of the next piece: from always one byte to a few ten thousand.
    pub fn length(&mut self) -> usize {
        let longest = 1 << (self.scale % 16);
        1 + self.choose(longest)
    }

    fn places(&mut self, len: usize) -> Vec<usize> {
        let mut places = Vec::new();
        let mut place = self.length();
        while place < len {
            places.push(place);
            place += self.length();
        }
        places
    }
}
