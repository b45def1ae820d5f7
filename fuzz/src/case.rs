use std::sync::LazyLock;

use adtally::engine::{Delimiter, Kernel, Limits, TallyOptions};

use crate::snippets;

/// Numbers, points and spaces are allowed as delimiters, at odds with what stands between them.
const DELIMITERS: &[u8] = b",,,,,,;\t|;\t|. 5e-\x01";

/// More campaigns than the scanner looks up one by one.
static MANY_CAMPAIGNS: LazyLock<String> = LazyLock::new(|| {
    // Every sixteenth id is longer than a key.
    let id = |number| if number % 16 == 0 { format!("campaign number {number}") } else { format!("c{number}") };
    (0..4_150).map(|number| format!("{},,{number},1,.5,1\n", id(number))).collect()
});

/// A text, how to read it, and where to cut it.
///
/// A fuzzer's first eight bytes are choices, the others make the text: as they are, or as a program for
/// [`snippets::write`].
#[derive(Debug)]
pub struct Case {
    pub text: Vec<u8>,
    pub options: TallyOptions,
    /// Where the text is to be cut, ascending.
    pub places: Vec<usize>,
    /// For further choices.
    pub cuts: Cuts,
}

impl Case {
    /// `None` when the bytes are too few.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let (choices, body) = bytes.split_first_chunk::<8>()?;
        let [delimiter, start, limit, limit_detail, form, scale, seed @ ..] = *choices;
        let delimiter = DELIMITERS[usize::from(delimiter) % DELIMITERS.len()];
        let (has_header, header) = header(start);
        let mut text = with_delimiter(header, delimiter);
        if start >> 3 == 31 {
            text.extend(with_delimiter(MANY_CAMPAIGNS.as_bytes(), delimiter));
        }
        let mut places = Vec::new();
        if form % 4 == 0 {
            text.extend_from_slice(body);
        } else {
            snippets::write(body, delimiter, &mut text, &mut places);
        }
        let mut cuts = Cuts::new(scale, seed);
        places.extend(cuts.places(text.len()));
        places.sort_unstable();
        let options = TallyOptions {
            delimiter: Delimiter::try_from(delimiter).ok()?,
            has_header,
            limits: limits(limit, limit_detail.into()),
            ..TallyOptions::default()
        };
        Some(Self { text, options, places, cuts })
    }

    /// The text, cut.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let starts = [0].into_iter().chain(self.places.iter().copied());
        let ends = self.places.iter().copied().chain([self.text.len()]);
        starts.zip(ends).map(|(start, end)| &self.text[start..end])
    }

    /// The options with another kernel.
    pub fn with_kernel(&self, kernel: Kernel) -> TallyOptions {
        TallyOptions { kernel, ..self.options }
    }
}

/// Whether there is a header, and what stands at the start of the text. The last of them leaves the header to the text.
fn header(choice: u8) -> (bool, &'static [u8]) {
    match choice % 8 {
        0..=2 => (true, b"campaign_id,date,impressions,clicks,spend,conversions\n"),
        3 => (true, b"campaign_id,date,impressions,clicks,spend,conversions\r\n"),
        4 => (true, b"impressions,note,clicks,campaign_id,conversions,spend,other\n"),
        5 => (true, b"\n \t\r\n\" CLICKS\",Campaign_ID,spend ,conversions,\"impressions\"\r"),
        6 => (false, b""),
        _ => (true, b""),
    }
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
