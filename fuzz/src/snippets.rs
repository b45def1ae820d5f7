/// What texts are made of; a comma stands for the delimiter.
const SNIPPETS: &[&[u8]] = &[
    // Plain rows.
    b"CMP001,2025-01-01,12000,340,56.78,12\n",
    b"CMP001,2025-01-01,12000,340,56.78,12\r\n",
    b"CMP002,2025-01-02,99999999,99999999,99999.99,99999999\n",
    b"CMP002,2025-01-02,7,0,3.5,0\r\n",
    b"c17,,1,2,3,4\n",
    b"c4000,,1,2,.5,4\n",
    b"c18,2025-06-30,50000,2500,123456,25\r\n",
    b"fifteen bytes..,x,1,2,3.25,4\n",
    b"sixteen bytes...,x,1,2,3.25,4\n",
    b"campaign number 160,x,1,2,3.25,4\n",
    // Every field in quotes.
    b"\"CMP001\",\"2025-01-01\",\"12000\",\"340\",\"56.78\",\"12\"\n",
    b"\"CMP003\",\"2025-01-01\",\"1\",\"2\",\"3.4\",\"5\"\r\n",
    b"\"c17\",,\"1\",2,\"3\",4\n",
    b"\"an id, longer than a key\",\"\",\"1\",\"2\",\"3.25\",\"4\"\n",
    // Rows that are read more slowly.
    b"CMP001 ,x, 1,2\t,3 ,\" 4 \"\n",
    b"\"an \"\"id\"\"\",\"a\nb\",1,2,3,4\n",
    b"CMP004,x,123456789,2,3.123456789012345,4\n",
    b"CMP004,x,9223372036854775807,4294967296,1e15,4294967295\n",
    b"CMP005,x,1,2,1234567.8,1\n",
    b"CMP005,x,1,2,123456.78,1\n",
    b"CMP005,x,1,2,1234567,1\n",
    b"CMP006,x,1,2,3,4\r",
    // Rows of the other headers.
    b"1,x,2,CMP001,4,5.25,y\n",
    b"7,x,2,\"CMP002\",4,5.5,y\r\n",
    b"2,CMP001,5.25,4,1\n",
    b"\"2\",CMP002,5.5,4,\"1\"\r\n",
    // Rows that do not count, and such as are none.
    b"CMP001,x,1,2,3\n",
    b"CMP001,x,1,2,3,4,5\n",
    b",x,1,2,3,4\n",
    b"\xff,x,1,2,3,4\n",
    b"CMP001,x,-1,2,3,4\n",
    b"CMP001,x,1,2.5,3,4\n",
    b"CMP001,x,1,2,1000000000000001,4\n",
    b"CMP001,x,1,2,3,\n",
    b"\n",
    b"\r\n",
    b"\r",
    b" \t\n",
    b"\"\"\n",
    // Starts and ends of rows and fields.
    b"CMP001,2025-01-01,",
    b"CMP00",
    b"\"CMP001\",\"x\",\"",
    b",5,1.50,1\n",
    b",5,1.50,1\r\n",
    b"\",\"5\",\"1.50\",\"1\"\n",
    b",",
    b"\",\"",
    b"\",",
    b",\"",
    b"\"",
    b"\"\"",
    b"\"\"\"",
    b"\"\n",
    b"\"\r\n",
    // Numbers and parts of them.
    b"0",
    b"1",
    b"5",
    b"9",
    b"12",
    b"340",
    b"99999999",
    b"00000000",
    b".",
    b".0",
    b".5",
    b"-",
    b"+",
    b"e",
    b"E-",
    b"e12",
    b"-0",
    b"9223372036854775808",
    b"1000000000000000",
    b"0000000000005",
    b"/",
    b":",
    // Other text.
    b" ",
    b"\t",
    b"\0",
    b"a",
    b"\xc3",
    b"\xa9",
    b"\xe2\x82\xac",
    b"\xef\xbb\xbf",
    b"campaign_id,date,impressions,clicks,spend,conversions\n",
    b"campaign_id",
    b"xxxxxxxxxxxxxxx",
    b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    // Headers of reports.
    b"Campaign ID,Campaign,Currency code,Impr.,Clicks,Cost,Conversions\n",
    b"\"CampaignId\",\"TimePeriod\",\"CurrencyCode\",\"Impressions\",\"Clicks\",\"Spend\",\"Conversions\"\r\n",
    b"Campaign ID,Row Type,Impr.,Clicks,Cost,Conversions\n",
    // Rows of reports.
    b"CMP001,x,1,2,3.50,4,EUR,purchases\n",
    b"CMP001,x,1,2,3.50,4,USD,leads\n",
    b"CMP001,x,1,2,3.50,4,\"E\"\"\"\"R\",\"a\"\"\"\"b\"\n",
    b"CMP001,x,1,2,3.50,4,\"E\"\"R\",purchases\n",
    b"CMP001,x,1,2,3.50,4,EUR,\"a\"\"b\"\n",
    // Words of 64 bytes, which is as much as is compared, with a no-break space at their end.
    b"CMP001,x,1,2,3.50,4,EUR,xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\xc2\xa0\n",
    b"CMP001,x,1,2,3.50,4,EUR,xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\xc2\xa0x\n",
    b"CMP001,x,EUR,1,2,3.50,4\n",
    b"CMP001,x,1,2,3.50,4.25\n",
    b"CMP001,x,1,2,$1.00,4\n",
    b"CMP001,x,1,2,3.50 EUR,4\n",
    b"CMP001,x,1,2,3500000,4\n",
    b"CMP001,x,1,,3.50,\n",
    b"[123456],x,1,2,3.50,4\n",
    b"1.20211E+17,x,1,2,3.50,4\n",
    b"\"a \"\"campaign\"\" of words\",x,1,2,3.50,4\n",
    b"CMP001,x,12 000,340,1 234.5,1 200\n",
    b"CMP001,x,12'000,340,1'234.50,1'200\n",
    b"CMP001,x,1,,3.50,4\n",
    b"\"CMP001\",\"x\",\"1\",\"\",\"3.50\",\" 4\"\r\n",
    b"CMP001,2025-01-01,12000,340,",
    b",12\n",
    // Sums of rows, and rows without data.
    b"Total: Campaigns,,12000,340,56.78,12\n",
    b"Overall total,,12000,340,56.78,12\r\n",
    b" --,,12000,340,56.78,12\n",
    b",,12000,340,56.78,12\n",
    b",,,,,\n",
    b"\n\n",
    b"\r\n\r\n",
];

/// The same, where a comma stands for itself.
const LITERALS: &[&[u8]] = &[
    b"\"1,234\"",
    b"\"1,234.56\"",
    b"\"1.234,56\"",
    b"\"3,50\"",
    b"1,234",
    b"1'234.5",
    b"1 234",
    b"1\xc2\xa0234",
    b"\xc2\xa0",
    b"\xe2\x80\xaf",
    b"$1.00",
    b"\xe2\x82\xac1.00",
    b" --",
    b"Total: Campaigns",
    b"\"a \"\"b, c\"\"\"",
    b"\"January 1, 2025 - January 31, 2025\"\n",
    // Rows with commas that mean different things.
    b"CMP001,x,\"12,000\",340,\"1,234.50\",\"1,200\"\n",
    b"CMP001,x,\"12.000\",340,\"1.234,50\",\"1.200\"\r\n",
    b"CMP001;x;12.000;340;1.234,50;2,25\n",
    b"CMP001;x;12,000;340;1,234.50;2.25\n",
    b"CMP001\tx\t12 000\t340\t1 234,5\t1 200\r\n",
];

/// Repetition makes texts of many blocks from few bytes; it ends here.
const MAX_TEXT_BYTES: usize = 40_000;

/// Writes the text that a program of one-byte instructions describes, and notes where it wants to be cut.
pub(crate) fn write(program: &[u8], delimiter: u8, text: &mut Vec<u8>, places: &mut Vec<usize>) {
    let start = text.len();
    let (mut line_start, mut snippet_start) = (start, start);
    let mut bytes = program.iter();
    while let Some(instruction) = bytes.next() {
        let before = text.len();
        match instruction {
            0xff => text.extend(bytes.next()),
            0xfe => places.push(before),
            // The last line, or the last snippet, up to 256 times more.
            0xf0..=0xf7 => repeat(text, line_start, 2 << (instruction - 0xf0)),
            0xe8..=0xef => repeat(text, snippet_start, 2 << (instruction - 0xe8)),
            _ => {
                let index = usize::from(*instruction) % (SNIPPETS.len() + LITERALS.len());
                match SNIPPETS.get(index) {
                    Some(snippet) => {
                        text.extend(snippet.iter().map(|byte| if *byte == b',' { delimiter } else { *byte }));
                    }
                    None => text.extend_from_slice(LITERALS[index - SNIPPETS.len()]),
                }
                snippet_start = before;
                if before == start || text[before - 1] == b'\n' {
                    line_start = before;
                }
            }
        }
        text.truncate(start + MAX_TEXT_BYTES);
    }
    places.retain(|place| *place <= text.len());
}

fn repeat(text: &mut Vec<u8>, from: usize, count: usize) {
    let repeated = text[from..].to_vec();
    let count = count.min(MAX_TEXT_BYTES / repeated.len().max(1));
    text.extend(repeated.repeat(count));
}
