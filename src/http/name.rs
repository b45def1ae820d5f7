//! Names of jobs and files.

use icu_properties::props::{
    BinaryProperty as _, CanonicalCombiningClass, DefaultIgnorableCodePoint, Emoji, EmojiModifier,
    EnumeratedProperty as _, ExtendedPictographic, GeneralCategory, JoiningType,
};

use crate::jobs::JobId;

/// The longest name of a job or file, in bytes of UTF-8.
pub(super) const MAX_NAME_BYTES: usize = 255;

/// The second one shows the character before it as an emoji, the first one as text.
const EMOJI_SELECTORS: [char; 2] = ['\u{fe0e}', '\u{fe0f}'];

/// A symbol without dots.
const BRAILLE_BLANK: char = '\u{2800}';

const ZERO_WIDTH_NON_JOINER: char = '\u{200c}';
const ZERO_WIDTH_JOINER: char = '\u{200d}';

/// Checks a name for a job or file.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > MAX_NAME_BYTES {
        return Err(format!("a name has 1 to {MAX_NAME_BYTES} bytes of UTF-8; this one has {}", name.len()));
    }
    if matches!(name, "." | "..") || name.contains(|c: char| c.is_control() || matches!(c, '/' | '\\')) {
        return Err(format!(
            "{name:?} cannot be a name: control characters, / and \\ are not allowed, nor are . and .."
        ));
    }
    if name.chars().all(char::is_whitespace) {
        return Err(format!("{name:?} cannot be a name: it consists of blanks"));
    }
    let is_misplaced =
        |(at, c): &(usize, char)| is_invisible(*c) && !belongs(&name[..*at], *c, &name[at + c.len_utf8()..]);
    if let Some((_, c)) = name.char_indices().find(is_misplaced) {
        return Err(format!(
            "{name:?} cannot be a name: U+{:04X} is invisible, changes the direction or the line, or is no character",
            u32::from(c)
        ));
    }
    if name.parse::<JobId>().is_ok() {
        return Err(format!("{name:?} cannot be a name: it looks like the id of a job"));
    }
    Ok(())
}

/// True for what has no shape of its own: it makes different names look the same, or one name look like another.
fn is_invisible(c: char) -> bool {
    use GeneralCategory as G;
    let is_shapeless = matches!(
        GeneralCategory::for_char(c),
        G::Control | G::Format | G::LineSeparator | G::ParagraphSeparator | G::Unassigned
    );
    is_shapeless || c == BRAILLE_BLANK || DefaultIgnorableCodePoint::for_char(c)
}

/// True where writing needs an invisible character: between letters of scripts that join them, such as Persian, behind a virama of
/// Indian scripts, and within emoji.
fn belongs(before: &str, c: char, after: &str) -> bool {
    let is_joining = |chars: &mut dyn Iterator<Item = char>| {
        let mut types = chars.map(JoiningType::for_char);
        let found = types.find(|joining| *joining != JoiningType::Transparent);
        found.is_some_and(|joining| joining != JoiningType::NonJoining)
    };
    let last = before.chars().next_back();
    let follows_virama =
        last.is_some_and(|last| CanonicalCombiningClass::for_char(last) == CanonicalCombiningClass::Virama);
    match c {
        ZERO_WIDTH_NON_JOINER => {
            follows_virama || (is_joining(&mut before.chars().rev()) && is_joining(&mut after.chars()))
        }
        ZERO_WIDTH_JOINER => {
            let is_modifier = |c: &char| EMOJI_SELECTORS.contains(c) || EmojiModifier::for_char(*c);
            let emoji = before.chars().rev().find(|c| !is_modifier(c));
            let is_pictograph = |c: Option<char>| c.is_some_and(ExtendedPictographic::for_char);
            follows_virama || (is_pictograph(emoji) && is_pictograph(after.chars().next()))
        }
        _ => EMOJI_SELECTORS.contains(&c) && last.is_some_and(Emoji::for_char),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_labels_and_never_paths() {
        for name in [
            "ad_data.csv",
            "Bericht Mai.csv",
            "caf\u{e9}",
            "...",
            &"x".repeat(255),
            // What programs of today write: no-break spaces, combining accents, right-to-left scripts, emoji.
            "Screenshot 10.00\u{202f}AM.csv",
            "cafe\u{301}",
            "\u{5d3}\u{5d5}\u{5d7}.csv",
            "\u{645}\u{6cc}\u{200c}\u{62e}\u{648}\u{627}\u{647}\u{645}.csv",
            "\u{915}\u{94d}\u{200d}\u{937}",
            "\u{1f469}\u{1f3fd}\u{200d}\u{1f4bb}",
            "\u{2764}\u{fe0f}\u{200d}\u{1f525}",
            "1\u{fe0f}\u{20e3}",
        ] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "a\\b",
            "a\nb",
            "a\r\nb",
            "a\0",
            "\u{85}",
            "a\u{2028}b",
            "a\u{2029}b",
            // Bidirectional controls: this one is shown as badexe.csv.
            "bad\u{202e}vsc.exe",
            "\u{200e}a",
            "a\u{2066}b\u{2069}",
            "\u{61c}a",
            // Zero width, or no shape.
            "ads\u{200b}.csv",
            "ads\u{200c}.csv",
            "ads\u{200d}.csv",
            "\u{200d}",
            "\u{645}\u{200c}",
            "\u{1f469}\u{200d}x",
            "a\u{fe0f}",
            "a\u{ad}b",
            "\u{feff}a",
            "\u{3164}",
            "\u{2800}",
            " ",
            "\u{3000}\u{a0}",
            "a\u{34f}b",
            "a\u{e0041}",
            "a\u{fff9}b",
            // Not assigned, no characters.
            "a\u{378}",
            "a\u{fffe}",
            "a\u{10ffff}",
            &"x".repeat(256),
            &JobId::new().to_string(),
        ] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }
}
