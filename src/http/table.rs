//! Tables in other forms than they are stored in: as JSON, an array with an object for every row, and for spreadsheet programs.

use std::io;

use bytes::Bytes;
use csv_async::{AsyncReaderBuilder, StringRecord};
use futures_util::{FutureExt as _, Stream, StreamExt as _, stream};
use tokio::task::spawn_blocking;

use crate::engine::SpreadsheetTable;
use crate::jobs::StoreError;

/// Columns whose values are whole numbers. Conversions may have decimals, and are text then, which keeps them exact.
const COUNTS: [&str; 5] = ["total_impressions", "total_clicks", "total_conversions", "line", "byte_offset"];

/// Columns that may be empty, which means that there is no value. Of rejects, the last row may say that more are missing: it has no place.
const OPTIONAL: [&str; 4] = ["cpa", "line", "byte_offset", "file"];

/// Turns the text of a table into JSON, piece by piece. Each piece consists of whole rows; the first one starts with the
/// names of the columns.
pub(super) fn to_json(
    pieces: impl Stream<Item = Result<Bytes, StoreError>> + Send + 'static,
) -> impl Stream<Item = Result<Bytes, StoreError>> + Send {
    let converted = convert(pieces, Table::default(), |table, piece| {
        let pending = || Err(io::Error::from(io::ErrorKind::WouldBlock).into());
        // Memory gives all it has at once.
        table.convert(piece).now_or_never().unwrap_or_else(pending)
    });
    converted.chain(stream::once(async { Ok(Bytes::from_static(b"]\n")) }))
}

/// Turns the text of a table into one that holds no formulas for spreadsheet programs, piece by piece. Pieces are as for JSON.
pub(super) fn to_spreadsheet(
    pieces: impl Stream<Item = Result<Bytes, StoreError>> + Send + 'static,
) -> impl Stream<Item = Result<Bytes, StoreError>> + Send {
    convert(pieces, SpreadsheetTable::default(), SpreadsheetTable::convert)
}

/// Converts one piece after the other, each when it is asked for.
fn convert<T: Default + Send + 'static>(
    pieces: impl Stream<Item = Result<Bytes, StoreError>> + Send + 'static,
    table: T,
    convert: fn(&mut T, &[u8]) -> csv_async::Result<Vec<u8>>,
) -> impl Stream<Item = Result<Bytes, StoreError>> + Send {
    stream::unfold((pieces.boxed(), table), move |(mut pieces, mut table)| async move {
        let piece = match pieces.next().await? {
            Ok(piece) => piece,
            Err(error) => return Some((Err(error), (pieces, table))),
        };
        // Reading and writing text takes time that the runtime's threads are not to lose.
        let converted = spawn_blocking(move || (convert(&mut table, &piece), table)).await;
        match converted {
            Ok((Ok(text), table)) => Some((Ok(Bytes::from(text)), (pieces, table))),
            Ok((Err(error), table)) => Some((Err(StoreError::Damaged(error.to_string())), (pieces, table))),
            Err(error) => Some((Err(StoreError::Damaged(error.to_string())), (pieces, T::default()))),
        }
    })
}

#[derive(Default)]
struct Table {
    /// Names of the columns as JSON; none before the first piece.
    columns: Vec<Column>,
    has_rows: bool,
}

struct Column {
    /// The name and a colon, as JSON.
    prefix: String,
    is_count: bool,
    /// Empty means that there is no value.
    is_optional: bool,
}

impl Table {
    async fn convert(&mut self, piece: &[u8]) -> csv_async::Result<Vec<u8>> {
        let mut json = Vec::with_capacity(piece.len() * 3);
        let mut reader = AsyncReaderBuilder::new().has_headers(false).create_reader(piece);
        let mut record = StringRecord::new();
        while reader.read_record(&mut record).await? {
            if self.columns.is_empty() {
                self.columns = record.iter().map(Column::new).collect();
                json.push(b'[');
                continue;
            }
            json.extend_from_slice(if self.has_rows { b",\n{" } else { b"\n{" });
            self.has_rows = true;
            for (index, (column, value)) in self.columns.iter().zip(&record).enumerate() {
                if index > 0 {
                    json.push(b',');
                }
                column.write(&mut json, value);
            }
            json.push(b'}');
        }
        Ok(json)
    }
}

impl Column {
    fn new(name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        let prefix = format!("{}:", serde_json::Value::from(name.as_str()));
        Self { prefix, is_count: COUNTS.contains(&name.as_str()), is_optional: OPTIONAL.contains(&name.as_str()) }
    }

    fn write(&self, json: &mut Vec<u8>, value: &str) {
        json.extend_from_slice(self.prefix.as_bytes());
        if self.is_optional && value.is_empty() {
            json.extend_from_slice(b"null");
        } else if self.is_count && value.bytes().all(|byte| byte.is_ascii_digit()) {
            json.extend_from_slice(value.as_bytes());
        } else {
            json.extend_from_slice(serde_json::Value::from(value).to_string().as_bytes());
        }
    }
}
