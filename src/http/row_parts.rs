//! Stored pieces of a table, cut into smaller parts of whole rows: what is made of one at a time stays small.

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _, stream};

use crate::jobs::StoreError;

/// A part ends with the first row that reaches this size.
const PART_BYTES: usize = 16 * 1024;

/// Cuts pieces of whole rows into parts of whole rows. Each is cut off when it is asked for.
pub(super) fn row_parts(
    pieces: impl Stream<Item = Result<Bytes, StoreError>> + Send + 'static,
) -> impl Stream<Item = Result<Bytes, StoreError>> + Send {
    pieces
        .map_ok(|mut piece| {
            stream::iter(std::iter::from_fn(move || {
                (!piece.is_empty()).then(|| Ok(piece.split_to(part_length(&piece))))
            }))
        })
        .try_flatten()
}

/// Where the first row that reaches the size of a part ends. A line end within quotes ends no row; a quote within quotes is doubled.
fn part_length(text: &[u8]) -> usize {
    let mut is_quoted = false;
    for (index, byte) in text.iter().enumerate() {
        match byte {
            b'"' => is_quoted = !is_quoted,
            b'\n' if !is_quoted && index + 1 >= PART_BYTES => return index + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn parts_are_small_and_of_whole_rows() {
        let row = "\"an \"\"id\"\"\nof two lines\",1\n";
        for rows in [0, 1, 5000] {
            let text = Bytes::from(row.repeat(rows));
            let pieces = stream::iter([Ok(text.clone()), Ok(text.clone())]);
            let parts: Vec<_> = row_parts(pieces).try_collect().await.unwrap();
            assert_eq!(parts.concat(), [&text[..], &text[..]].concat());
            for part in parts {
                assert!(part.len() % row.len() == 0 && part.len() < PART_BYTES + row.len(), "{}", part.len());
            }
        }
    }
}
