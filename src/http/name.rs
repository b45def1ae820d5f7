//! Names of jobs and files.

use crate::jobs::JobId;

/// The longest name of a job or file, in bytes of UTF-8.
pub(super) const MAX_NAME_BYTES: usize = 255;

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
    if name.parse::<JobId>().is_ok() {
        return Err(format!("{name:?} cannot be a name: it looks like the id of a job"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_labels_and_never_paths() {
        for name in ["ad_data.csv", "Bericht Mai.csv", "caf\u{e9}", "...", &"x".repeat(255)] {
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
            &"x".repeat(256),
            &JobId::new().to_string(),
        ] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }
}
