//! Numbers with other marks than the plain ones, and what may stand around them.

use super::values::Thousands;
use crate::engine::number::{Number, Short};

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
    pub(crate) thousands: Thousands,
}

impl Notation {
    /// Reads a cell. `None` also when digits are not grouped as they have to
    /// be: one to three, then exactly three behind each mark, which is the same in all of the number.
    #[inline]
    pub(crate) fn read<N: Number>(self, cell: &[u8]) -> Option<N> {
        self.short(cell).and_then(N::of_short).or_else(|| self.read_any(cell, N::parse))
    }

    /// Reads most numbers: digits in groups or not, and decimals. `None` says nothing about validity.
    #[inline]
    fn short(self, cell: &[u8]) -> Option<Short> {
        // With marks between them, these are at most 18 digits.
        if cell.len() > 18 {
            return None;
        }
        let (mut value, mut digits, mut decimals) = (0, 0, None);
        // The mark between groups, and the digits behind it.
        let (mut mark, mut group_digits) = (0, 0);
        for byte in cell {
            match byte {
                b'0'..=b'9' => {
                    value = value * 10 + u64::from(byte - b'0');
                    digits += 1;
                    group_digits += 1;
                }
                _ if *byte == self.decimal && decimals.is_none() && (mark == 0 || group_digits == 3) => {
                    decimals = Some(digits);
                    mark = 0;
                }
                _ if decimals.is_none() && self.is_group_byte(*byte) => {
                    let is_group =
                        if mark == 0 { (1..=3).contains(&group_digits) } else { mark == *byte && group_digits == 3 };
                    if !is_group {
                        return None;
                    }
                    (mark, group_digits) = (*byte, 0);
                }
                _ => return None,
            }
        }
        let is_whole_group = mark == 0 || group_digits == 3;
        (digits > 0 && is_whole_group).then(|| (value, decimals.map_or(0, |whole| digits - whole)))
    }

    /// True for a mark of one byte between groups.
    fn is_group_byte(self, byte: u8) -> bool {
        let mark = match byte {
            b',' => Thousands::Comma,
            b'.' => Thousands::Point,
            b'\'' => Thousands::Apostrophe,
            b' ' => Thousands::Space,
            _ => return false,
        };
        self.thousands == mark || (self.thousands == Thousands::Any && byte != self.decimal)
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
                    None => (1..=3).contains(&group_digits),
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
        let (mark, bytes) = match text {
            [b',', ..] => (Thousands::Comma, 1),
            [b'.', ..] => (Thousands::Point, 1),
            [b'\'', ..] => (Thousands::Apostrophe, 1),
            [b' ', ..] => (Thousands::Space, 1),
            _ => {
                let spaces = [NO_BREAK_SPACE, NARROW_NO_BREAK_SPACE, THIN_SPACE];
                let space = spaces.into_iter().find(|space| text.starts_with(space))?;
                (Thousands::Space, space.len())
            }
        };
        let is_decimal = text.first() == Some(&self.decimal);
        let is_allowed = self.thousands == mark || (self.thousands == Thousands::Any && !is_decimal);
        is_allowed.then_some(&text[..bytes])
    }
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
        let english = Notation { decimal: b'.', thousands: Thousands::Comma };
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
        for cell in
            ["1,23", "1,2345", "1234,567", ",123", "1,234,", "1,,234", "1 234", "1.234,5", "1'234", "1,234 ", "$1"]
        {
            assert_eq!(plain(english, cell), None, "{cell}");
        }
    }

    #[test]
    fn every_style_is_read_as_it_is_written_and_no_other() {
        let german = Notation { decimal: b',', thousands: Thousands::Point };
        assert_eq!(plain(german, "1.234.567,5").as_deref(), Some("1234567.5"));
        assert_eq!((plain(german, "1.23"), plain(german, "1,234.5")), (None, None));
        let none = Notation { decimal: b',', thousands: Thousands::None };
        assert_eq!((plain(none, "1234,5").as_deref(), plain(none, "1.234")), (Some("1234.5"), None));
        let spaces = Notation { decimal: b',', thousands: Thousands::Space };
        for cell in ["18 158,5", "18\u{a0}158,5", "18\u{202f}158,5", "18\u{2009}158,5"] {
            assert_eq!(plain(spaces, cell).as_deref(), Some("18158.5"), "{cell}");
        }
        let any = Notation { decimal: b'.', thousands: Thousands::Any };
        for cell in ["1,234,567", "1 234 567", "1'234'567"] {
            assert_eq!(plain(any, cell).as_deref(), Some("1234567"), "{cell}");
        }
        assert_eq!((plain(any, "1,234'567"), plain(any, "1.234.567")), (None, Some("1.234.567".into())));
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
