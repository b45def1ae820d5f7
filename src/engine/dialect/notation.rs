//! Numbers with other marks than the plain ones, and what may stand around them.
#![expect(clippy::needless_bitwise_bool, reason = "a branch here could not be predicted")]

use super::values::Thousands;
use crate::engine::short_number::{Number, Short};

/// The bytes of the spaces that are trimmed besides U+0020 and tabs: U+00A0, U+202F.
const NO_BREAK_SPACE: &[u8] = "\u{a0}".as_bytes();
const NARROW_NO_BREAK_SPACE: &[u8] = "\u{202f}".as_bytes();
const THIN_SPACE: &[u8] = "\u{2009}".as_bytes();

/// A cell without the spaces, tabs and no-break spaces around it.
#[inline(always)]
pub(crate) fn trim_wide(cell: &[u8]) -> &[u8] {
    // Nearly always there is nothing to trim.
    match cell {
        [first, .., last] if first.is_ascii_graphic() && last.is_ascii_graphic() => cell,
        [only] if only.is_ascii_graphic() => cell,
        _ => trim_spaces(cell),
    }
}

#[inline(never)]
fn trim_spaces(mut cell: &[u8]) -> &[u8] {
    loop {
        cell = match cell {
            [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] => rest,
            _ => {
                let spaces = [NO_BREAK_SPACE, NARROW_NO_BREAK_SPACE];
                let shorter = spaces.iter().find_map(|space| cell.strip_prefix(*space).or(cell.strip_suffix(*space)));
                match shorter {
                    Some(rest) => rest,
                    None => return cell,
                }
            }
        };
    }
}

/// How numbers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Notation {
    /// `.` or `,`.
    pub(crate) decimal: u8,
    thousands: Thousands,
    /// The marks of one byte between groups: a bit for each byte from U+0020 on.
    group_bytes: u16,
}

impl Notation {
    /// That of the plain contract.
    pub(crate) const PLAIN: Self = Self { decimal: b'.', thousands: Thousands::None, group_bytes: 0 };

    pub(crate) fn new(decimal: u8, thousands: Thousands) -> Self {
        let bit = |byte: u8| 1 << (byte - b' ');
        let group_bytes = match thousands {
            Thousands::None => 0,
            Thousands::Comma => bit(b','),
            Thousands::Point => bit(b'.'),
            Thousands::Apostrophe => bit(b'\''),
            Thousands::Space => bit(b' '),
            Thousands::Any => (bit(b',') | bit(b'.') | bit(b'\'') | bit(b' ')) & !bit(decimal),
        };
        Self { decimal, thousands, group_bytes }
    }

    /// Reads a cell. `None` also when digits are not grouped as they have to
    /// be: one to three and no leading zero, then exactly three behind each mark, which is the same in all of the number.
    #[inline]
    pub(crate) fn read<N: Number>(self, cell: &[u8]) -> Option<N> {
        self.short(cell).and_then(N::of_short).or_else(|| self.read_any(cell, N::parse))
    }

    /// Reads nearly all numbers: those of one to sixteen bytes without sign and exponent. `None` says nothing about validity.
    #[inline(always)]
    fn short(self, cell: &[u8]) -> Option<Short> {
        match eight_bytes(cell) {
            Some(text) => self.up_to_eight(text, cell.len()),
            None => self.up_to_sixteen(sixteen_bytes(cell)?, cell.len()),
        }
    }

    /// The same for the number of `len` bytes that a text of at least sixteen ends with.
    #[inline(always)]
    pub(crate) fn short_at_end(self, text: &[u8], len: usize) -> Option<Short> {
        let (before, last) = text.split_last_chunk()?;
        let last = u64::from_le_bytes(*last);
        match len {
            1..=8 => self.up_to_eight(with_zeros_before(last, len), len),
            9..=16 => {
                let before = with_zeros_before(u64::from_le_bytes(*before.last_chunk()?), len - 8);
                self.up_to_sixteen(u128::from(last) << 64 | u128::from(before), len)
            }
            _ => None,
        }
    }

    /// Reads a number of `len` bytes, which end the text behind zeros. It has at most one mark between groups.
    ///
    /// Without a branch as far as possible: which marks a number has cannot be predicted.
    #[inline(always)]
    fn up_to_eight(self, text: u64, len: usize) -> Option<Short> {
        let len = u32::try_from(len).ok()?;
        let marks = bytes_but_digits(text);
        let values = text ^ ZEROS;
        // The last mark may be the decimal one, and one before it a mark between groups.
        let behind = marks.leading_zeros() / 8;
        let has_point = byte_before(values, behind) == self.decimal ^ b'0';
        let (point, decimals) = if has_point { (1, behind) } else { (0, 8) };
        let (values, marks) = (without_byte(values, decimals), without_byte(marks, decimals));
        let decimals = decimals % 8;
        let behind = marks.leading_zeros() / 8;
        let group = u32::from(marks != 0);
        let digits = len - point - group;
        let mark = byte_before(values, behind) ^ b'0';
        let values = without_byte(values, behind);
        let leading = digits.wrapping_sub(decimals + 3);
        let first_digit = values >> (8 * (8 - digits) % 64) & 0xff;
        let is_grouped = self.is_group_byte(mark)
            & (behind == decimals + 3)
            & (leading.wrapping_sub(1) < 3)
            & (first_digit != 0)
            & marks.is_power_of_two();
        (digits > 0 && (group == 0) | is_grouped).then(|| (eight_digits(values), decimals))
    }

    /// Reads a number of nine to sixteen bytes, which end the text behind zeros.
    #[inline]
    fn up_to_sixteen(self, mut text: u128, len: usize) -> Option<Short> {
        let mut marks = marks_of_sixteen(text);
        let mut digits = u32::try_from(len).ok()?;
        let mut decimals = 0;
        if marks != 0 {
            let last = 15 - marks.leading_zeros() / 8;
            if byte_of_sixteen(text, last) == self.decimal {
                decimals = 15 - last;
                text = sixteen_without_byte(text, last);
                // What stood before the mark is one byte further behind now, and the mark itself is gone.
                marks = (marks & ((1 << (8 * last)) - 1)) << 8;
                digits -= 1;
            }
        }
        let (mut groups, mut mark) = (0, None);
        while marks != 0 {
            let last = 15 - marks.leading_zeros() / 8;
            let byte = byte_of_sixteen(text, last);
            let is_mark = mark.map_or_else(|| self.is_group_byte(byte), |mark| byte == mark);
            groups += 1;
            if !is_mark || last + decimals + 3 * groups != 15 {
                return None;
            }
            mark = Some(byte);
            text = sixteen_without_byte(text, last);
            marks = (marks & ((1 << (8 * last)) - 1)) << 8;
            digits -= 1;
        }
        if groups > 0 {
            let leading = digits.checked_sub(decimals + 3 * groups)?;
            if !(1..=3).contains(&leading) || byte_of_sixteen(text, 16 - digits) == b'0' {
                return None;
            }
        }
        let [first, last] = halves(text).map(|text| eight_digits(text ^ ZEROS));
        Some((first * 100_000_000 + last, decimals))
    }

    /// True for a mark of one byte between groups.
    #[inline(always)]
    pub(crate) fn is_group_byte(self, byte: u8) -> bool {
        let index = byte.wrapping_sub(b' ');
        index < 16 && self.group_bytes >> (index & 15) & 1 == 1
    }

    #[cold]
    fn read_any<T>(self, cell: &[u8], read: impl FnOnce(&[u8]) -> Option<T>) -> Option<T> {
        let mut near = [0; 64];
        if let Some(room) = near.get_mut(..cell.len()) {
            let len = self.write_plain(cell, room)?;
            return read(&room[..len]);
        }
        let mut room = vec![0; cell.len()];
        let len = self.write_plain(cell, &mut room)?;
        read(&room[..len])
    }

    /// Writes a number in the plain notation, which is not longer. Gives its length.
    fn write_plain(self, cell: &[u8], room: &mut [u8]) -> Option<usize> {
        let (mut at, mut len) = (0, 0);
        let mut push = |byte: u8| {
            room[len] = byte;
            len += 1;
        };
        if let Some(sign @ (b'+' | b'-')) = cell.first() {
            push(*sign);
            at = 1;
        }
        let (mut group_digits, mut mark) = (0, None::<&[u8]>);
        loop {
            let rest = &cell[at..];
            if let Some(digit @ b'0'..=b'9') = rest.first() {
                push(*digit);
                group_digits += 1;
                at += 1;
            } else if let Some(found) = self.group_mark(rest) {
                let is_group = match mark {
                    None => (1..=3).contains(&group_digits) && cell[at - group_digits] != b'0',
                    Some(mark) => mark == found && group_digits == 3,
                };
                if !is_group {
                    return None;
                }
                (mark, group_digits) = (Some(found), 0);
                at += found.len();
            } else {
                break;
            }
        }
        if mark.is_some() && group_digits != 3 {
            return None;
        }
        if cell.get(at) == Some(&self.decimal) {
            push(b'.');
            at += 1;
        }
        for byte in &cell[at..] {
            // The plain grammar judges what is left: decimals and an exponent.
            if !matches!(byte, b'0'..=b'9' | b'e' | b'E' | b'+' | b'-') {
                return None;
            }
            push(*byte);
        }
        Some(len)
    }

    /// The mark between groups that a text starts with.
    fn group_mark(self, text: &[u8]) -> Option<&[u8]> {
        let first = text.first()?;
        if self.is_group_byte(*first) {
            return Some(&text[..1]);
        }
        let spaces = [NO_BREAK_SPACE, NARROW_NO_BREAK_SPACE, THIN_SPACE];
        let space = spaces.into_iter().find(|space| text.starts_with(space))?;
        matches!(self.thousands, Thousands::Space | Thousands::Any).then_some(space)
    }
}

/// Zeros in all eight bytes.
const ZEROS: u64 = u64::from_le_bytes([b'0'; 8]);

/// One to eight bytes, with zeros before them, the last one highest.
#[inline(always)]
fn eight_bytes(cell: &[u8]) -> Option<u64> {
    let len = cell.len();
    let bits = match cell {
        [.., _, _, _, _] if len <= 8 => {
            // Where the two overlap, they are the same.
            let (start, end) = (cell.first_chunk()?, cell.last_chunk()?);
            u64::from(u32::from_le_bytes(*start)) << (8 * (8 - len)) | u64::from(u32::from_le_bytes(*end)) << 32
        }
        [first, .., last] if len <= 3 => {
            let middle = u64::from(cell[len / 2]);
            u64::from(*first) << (8 * (8 - len)) | middle << (8 * (8 - len + len / 2)) | u64::from(*last) << 56
        }
        [only] => u64::from(*only) << 56,
        _ => return None,
    };
    Some(with_zeros_before(bits, len))
}

/// Nine to sixteen bytes, with zeros before them, the last one highest.
#[inline(always)]
fn sixteen_bytes(cell: &[u8]) -> Option<u128> {
    if cell.len() > 16 {
        return None;
    }
    // Where the two overlap, they are the same.
    let (first, last) = (u64::from_le_bytes(*cell.first_chunk()?), u64::from_le_bytes(*cell.last_chunk()?));
    let before = with_zeros_before(first << (8 * (16 - cell.len()) % 64), cell.len() - 8);
    Some(u128::from(last) << 64 | u128::from(before))
}

/// The last one to eight bytes, and zeros in place of those before them.
#[inline(always)]
fn with_zeros_before(text: u64, len: usize) -> u64 {
    let kept = u64::MAX << (8 * (8 - len));
    text & kept | ZEROS & !kept
}

#[expect(clippy::cast_possible_truncation, reason = "the halves are what is asked for")]
#[inline(always)]
fn halves(text: u128) -> [u64; 2] {
    [text as u64, (text >> 64) as u64]
}

#[inline(always)]
fn marks_of_sixteen(text: u128) -> u128 {
    let [first, last] = halves(text).map(bytes_but_digits);
    u128::from(last) << 64 | u128::from(first)
}

#[inline(always)]
fn byte_of_sixteen(text: u128, index: u32) -> u8 {
    text.to_le_bytes()[index as usize & 15]
}

/// The bytes without one of them, and a zero before them.
#[inline(always)]
fn sixteen_without_byte(text: u128, index: u32) -> u128 {
    let before = text & ((1 << (8 * index)) - 1);
    let behind = text & (u128::MAX << (8 * index) << 8);
    before << 8 | behind | u128::from(b'0')
}

/// The highest bit of each byte that is no digit. Beside a byte above 0x89 a digit may be taken for none.
#[inline(always)]
fn bytes_but_digits(text: u64) -> u64 {
    let value = text ^ ZEROS;
    // Digits are 0 to 9 now; what is more than 9 has its highest bit set, or gets it.
    (value.wrapping_add(0x7676_7676_7676_7676) | value) & 0x8080_8080_8080_8080
}

/// The byte that has this number of bytes behind it, up to eight; 0 when that is all of them.
#[inline(always)]
fn byte_before(text: u64, behind: u32) -> u8 {
    // Two shifts: one by 64 bits would be none.
    (text << (4 * behind) << (4 * behind)).to_le_bytes()[7]
}

/// The bytes without the one that has this number of bytes behind it, and 0 before them; when that is all of them, the same.
#[inline(always)]
fn without_byte(text: u64, behind: u32) -> u64 {
    let before = u64::MAX >> (4 * behind) >> (4 * behind);
    text << 8 & before | text & !before
}

/// The number of one to eight digits that a text of at least eight bytes ends with.
#[inline(always)]
pub(crate) fn digits_at_end(text: &[u8], len: usize) -> Option<u64> {
    let digits = with_zeros_before(u64::from_le_bytes(*text.last_chunk()?), len);
    (bytes_but_digits(digits) == 0).then(|| eight_digits(digits ^ ZEROS))
}

/// The number that the values of eight digits are (Langdale and Lemire, "Parsing gigabytes of JSON per second", 2019).
#[inline(always)]
fn eight_digits(values: u64) -> u64 {
    let ones = values.wrapping_mul(10).wrapping_add(values >> 8);
    let pairs = ones & 0x00ff_00ff_00ff_00ff;
    let fours = pairs.wrapping_mul(100).wrapping_add(pairs >> 16) & 0x0000_ffff_0000_ffff;
    fours.wrapping_mul(10_000).wrapping_add(fours >> 32) & 0xffff_ffff
}

/// The decimal mark that an amount shows: it ends in the mark and one or two digits, and a group of digits would have three.
pub(crate) fn shown_decimal_mark(cell: &[u8]) -> Option<u8> {
    match cell {
        [.., mark @ (b'.' | b','), b'0'..=b'9'] | [.., mark @ (b'.' | b','), b'0'..=b'9', b'0'..=b'9'] => Some(*mark),
        _ => None,
    }
}

/// An amount without the currency sign before or behind it, and the sign. `None` when there are both, or something else.
pub(crate) fn strip_sign(cell: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let (before, rest) = cell.split_at(leading_sign(cell));
    let number = if before.is_empty() { rest } else { trim_wide(rest) };
    let (number, behind) = number.split_at(number.len() - trailing_sign(number));
    match (before.is_empty(), behind.is_empty()) {
        (true, true) => Some((number, None)),
        (false, true) => Some((number, Some(before))),
        (true, false) => Some((trim_wide(number), Some(behind))),
        (false, false) => None,
    }
}

/// Signs of one character.
const SIGNS: [&str; 6] = ["€", "£", "¥", "₹", "₩", "₽"];

/// The bytes of a currency sign that a text starts with.
fn leading_sign(text: &[u8]) -> usize {
    let capitals = text.iter().take(3).take_while(|byte| byte.is_ascii_uppercase()).count();
    if text.get(capitals) == Some(&b'$') {
        return capitals + 1;
    }
    if let Some(sign) = ["Rs.", "Rs"].into_iter().chain(SIGNS).find(|sign| text.starts_with(sign.as_bytes())) {
        return sign.len();
    }
    if capitals == 3 { 3 } else { 0 }
}

/// The bytes of a currency sign that a text ends with.
fn trailing_sign(text: &[u8]) -> usize {
    let capitals_before = |text: &[u8]| text.iter().rev().take(3).take_while(|byte| byte.is_ascii_uppercase()).count();
    if let Some(before) = text.strip_suffix(b"$") {
        return capitals_before(before) + 1;
    }
    if let Some(sign) = ["Rs.", "Rs"].into_iter().chain(SIGNS).find(|sign| text.ends_with(sign.as_bytes())) {
        return sign.len();
    }
    if capitals_before(text) == 3 { 3 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(notation: Notation, cell: &str) -> Option<String> {
        let is_plain = |plain: &[u8]| plain.iter().all(|byte| byte.is_ascii_digit() || b".+e".contains(byte));
        notation.read_any(cell.as_bytes(), |plain| String::from_utf8(plain.to_vec()).ok().filter(|_| is_plain(plain)))
    }

    #[test]
    fn groups_are_one_to_three_digits_and_then_three_each() {
        let english = Notation::new(b'.', Thousands::Comma);
        for (cell, expected) in [
            ("1,234", "1234"),
            ("12,345,678.90", "12345678.90"),
            ("1234567", "1234567"),
            ("+1,234e3", "+1234e3"),
            (".5", ".5"),
            (
                "0.123456789012345678901234567890123456789012345678901234567890123456789",
                "0.123456789012345678901234567890123456789012345678901234567890123456789",
            ),
        ] {
            assert_eq!(plain(english, cell).as_deref(), Some(expected), "{cell}");
        }
        for cell in [
            "0,123", "00,123", "1,23", "1,2345", "1234,567", ",123", "1,234,", "1,,234", "1 234", "1.234,5", "1'234",
            "1,234 ", "$1",
        ] {
            assert_eq!(plain(english, cell), None, "{cell}");
        }
    }

    #[test]
    fn every_style_is_read_as_it_is_written_and_no_other() {
        let german = Notation::new(b',', Thousands::Point);
        assert_eq!(plain(german, "1.234.567,5").as_deref(), Some("1234567.5"));
        assert_eq!((plain(german, "1.23"), plain(german, "1,234.5")), (None, None));
        let none = Notation::new(b',', Thousands::None);
        assert_eq!((plain(none, "1234,5").as_deref(), plain(none, "1.234")), (Some("1234.5"), None));
        let spaces = Notation::new(b',', Thousands::Space);
        for cell in ["18 158,5", "18\u{a0}158,5", "18\u{202f}158,5", "18\u{2009}158,5"] {
            assert_eq!(plain(spaces, cell).as_deref(), Some("18158.5"), "{cell}");
        }
        let any = Notation::new(b'.', Thousands::Any);
        for cell in ["1,234,567", "1 234 567", "1'234'567"] {
            assert_eq!(plain(any, cell).as_deref(), Some("1234567"), "{cell}");
        }
        assert_eq!((plain(any, "1,234'567"), plain(any, "1.234.567")), (None, None));
    }

    #[test]
    fn short_numbers_are_those_of_the_general_reader() {
        let alphabet = b"0123456789,.' -+e\xa0";
        let mut state = 1_u64;
        let mut draw = |end: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap() % end
        };
        let styles = [
            (b'.', Thousands::None),
            (b'.', Thousands::Comma),
            (b',', Thousands::Point),
            (b',', Thousands::Any),
            (b'.', Thousands::Any),
            (b',', Thousands::Space),
            (b'.', Thousands::Apostrophe),
        ];
        let (mut found, mut cases) = (0, 0);
        while cases < 400_000 {
            let length = draw(19);
            // Mostly digits and two kinds of marks.
            let cell: Vec<u8> =
                (0..length).map(|_| alphabet[if draw(6) == 0 { draw(alphabet.len()) } else { draw(12) }]).collect();
            let (decimal, thousands) = styles[draw(styles.len())];
            let notation = Notation::new(decimal, thousands);
            if let Some((value, decimals)) = notation.short(&cell) {
                let scaled = notation.read_any(&cell, |plain| {
                    let text = std::str::from_utf8(plain).ok()?;
                    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
                    let value: u64 = format!("{whole}{rest}").parse().ok()?;
                    Some((value, u32::try_from(rest.len()).ok()?))
                });
                assert_eq!(scaled, Some((value, decimals)), "{:?} {notation:?}", String::from_utf8_lossy(&cell));
                found += 1;
            }
            cases += 1;
        }
        assert!(found > 50_000, "{found}");
    }

    #[test]
    fn an_amount_shows_its_decimal_mark_or_not() {
        for (cell, mark) in [("1.62", Some(b'.')), ("2473,94", Some(b',')), ("12,5", Some(b',')), (".22", Some(b'.'))] {
            assert_eq!(shown_decimal_mark(cell.as_bytes()), mark, "{cell}");
        }
        for cell in ["12", "1.234", "12,345", "1.2345", "", " --", "12."] {
            assert_eq!(shown_decimal_mark(cell.as_bytes()), None, "{cell}");
        }
    }

    #[test]
    fn one_currency_sign_is_taken_away() {
        for (cell, number, sign) in [
            ("$0.17", "0.17", "$"),
            ("Rs.201.68", "201.68", "Rs."),
            ("CA$ 1,234.50", "1,234.50", "CA$"),
            ("1,5 €", "1,5", "€"),
            ("236,86\u{a0}EUR", "236,86", "EUR"),
            ("EUR236", "236", "EUR"),
            ("12MX$", "12", "MX$"),
        ] {
            let expected = Some((number.as_bytes(), Some(sign.as_bytes())));
            assert_eq!(strip_sign(cell.as_bytes()), expected, "{cell}");
        }
        assert_eq!(strip_sign(b"12.5"), Some((&b"12.5"[..], None)));
        assert_eq!(strip_sign("$12€".as_bytes()), None);
    }

    #[test]
    fn no_break_spaces_are_trimmed() {
        assert_eq!(trim_wide("\u{a0} \t--\u{202f} ".as_bytes()), b"--");
        assert_eq!(trim_wide(" \u{a0}".as_bytes()), b"");
    }
}
