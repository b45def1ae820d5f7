//! What differs between databases: addresses, set-up, how a transaction begins, what errors mean.

use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use sqlx::migrate::Migrator;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AnyConnection, AnyPool, AssertSqlSafe, Executor as _, Row as _};

static SQLITE_MIGRATIONS: Migrator = sqlx::migrate!("src/jobs/store/migrations/sqlite");

/// `SQLITE_FULL`, "database or disk is full" (<https://www.sqlite.org/rescode.html#full>).
const SQLITE_FULL: &str = "13";

/// `SQLITE_READONLY`, without what says that the database's file was moved (<https://www.sqlite.org/rescode.html#readonly>).
const SQLITE_READONLY: &str = "8";

/// How many pages are given back in one step. Moving a page may write two pages to the log; those of one step fit into the reserve.
const PAGES_AT_ONCE: u32 = 64;

/// A kind of database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Sqlite,
}

impl Dialect {
    /// The kind of database that an address means; the scheme of the address when there is none.
    pub(super) fn of_url(url: &str) -> Result<Self, &str> {
        let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
        if scheme == "sqlite" { Ok(Self::Sqlite) } else { Err(scheme) }
    }

    /// The file that the database is in; none for one in memory.
    pub(super) fn file_of(self, url: &str) -> Result<Option<PathBuf>, sqlx::Error> {
        match self {
            Self::Sqlite if is_in_memory(url) => Ok(None),
            Self::Sqlite => Ok(Some(url.parse::<SqliteConnectOptions>()?.get_filename().to_path_buf())),
        }
    }

    /// The address with what makes the database when it is not there.
    pub(super) fn connection_url(self, url: &str) -> String {
        match self {
            Self::Sqlite if url.contains('?') => url.to_owned(),
            Self::Sqlite => format!("{url}?mode=rwc"),
        }
    }

    /// The address with what keeps a database that is gone from being made anew.
    pub(super) fn existing_url(self, url: &str) -> String {
        match self {
            Self::Sqlite if url.contains('?') => url.replace("mode=rwc", "mode=rw"),
            Self::Sqlite => format!("{url}?mode=rw"),
        }
    }

    pub(super) fn migrator(self) -> &'static Migrator {
        match self {
            Self::Sqlite => &SQLITE_MIGRATIONS,
        }
    }

    /// Sets up a database that has just been made, before its first connection is.
    pub(super) async fn prepare_new(self, connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite => {
                let pages: i64 = connection.fetch_one("PRAGMA page_count").await?.try_get(0)?;
                if pages == 0 {
                    // Unused pages can be given back to the disk. In a database that has tables this would only be a write without effect.
                    connection.execute("PRAGMA auto_vacuum = INCREMENTAL").await?;
                }
            }
        }
        Ok(())
    }

    /// Sets up a new connection.
    pub(super) async fn prepare(self, connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
        match self {
            // Readers do not wait for the writer, and a commit is on the disk when it returns. 128 pages of the log, half a mebibyte, go to
            // the database at once: when the disk is full, the reserve must have room for those that are still in the log.
            Self::Sqlite => {
                connection
                    .execute(
                        "PRAGMA busy_timeout = 10000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                         PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY; \
                         PRAGMA journal_size_limit = 67108864; PRAGMA wal_autocheckpoint = 128",
                    )
                    .await?;
            }
        }
        Ok(())
    }

    /// Frees room for writing: what is in the log goes to the database, and the log is emptied. It gives back at least what the database
    /// grows by.
    pub(super) async fn empty_log(self, pool: &AnyPool) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite => pool.execute("PRAGMA wal_checkpoint(TRUNCATE)").await?,
        };
        Ok(())
    }

    /// Checks that what is in the log goes to the database, but for what is still being read elsewhere. Costs little when it has already.
    pub(super) async fn check_log(self, pool: &AnyPool) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite => pool.execute("PRAGMA wal_checkpoint(PASSIVE)").await?,
        };
        Ok(())
    }

    /// Gives some pages that the database does not use back to the disk, as soon as the log is emptied: others take their places. Gives
    /// false when there is nothing to give back.
    pub(super) async fn give_back_pages(self, pool: &AnyPool) -> Result<bool, sqlx::Error> {
        match self {
            Self::Sqlite => {
                let pages = async || pool.fetch_one("PRAGMA page_count").await?.try_get::<i64, _>(0);
                let before = pages().await?;
                // It gives a row for each page, and has done its work only when all have been read.
                pool.fetch_all(AssertSqlSafe(format!("PRAGMA incremental_vacuum({PAGES_AT_ONCE})"))).await?;
                Ok(pages().await? < before)
            }
        }
    }

    /// Gives the bytes that the database has in use.
    pub(super) fn stored_bytes(self) -> &'static str {
        match self {
            // <https://www.sqlite.org/pragma.html#pragfunc>
            Self::Sqlite => {
                "SELECT (page_count - freelist_count) * page_size \
                 FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
            }
        }
    }

    /// Writes something that nobody reads.
    pub(super) fn trial_write(self) -> &'static str {
        match self {
            Self::Sqlite => "PRAGMA user_version = 1",
        }
    }

    /// Begins a transaction that writes.
    pub(super) fn begin(self) -> &'static str {
        match self {
            // Without, a transaction that reads first could find out too late that another is writing.
            Self::Sqlite => "BEGIN IMMEDIATE",
        }
    }
}

/// True when what is stored at an address is gone when the process ends, or with each connection: it is in no file, or in one without a name.
pub(super) fn is_lost_at_exit(url: &str) -> bool {
    // SQLite takes a name that starts so for an address with parameters of its own; sqlx names databases in memory so.
    Dialect::of_url(url).is_ok()
        && (is_in_memory(url)
            || url.parse::<SqliteConnectOptions>().is_ok_and(|options| {
                let name = options.get_filename().as_os_str().as_encoded_bytes();
                name.is_empty() || name == b":memory:" || name.starts_with(b"file:")
            }))
}

fn is_in_memory(url: &str) -> bool {
    let (path, parameters) = url.split_once('?').unwrap_or((url, ""));
    let path = path.trim_start_matches("sqlite:").trim_start_matches("//");
    path == ":memory:" || parameters.split('&').any(|parameter| parameter == "mode=memory")
}

/// What has to be escaped in the path of an address (RFC 3986, 3.3).
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_').remove(b'~');

/// The address of a file.
pub(super) fn file_url(path: &Path) -> String {
    format!("sqlite://{}", percent_encode(path.as_os_str().as_encoded_bytes(), PATH))
}

/// True when there was no room on the disk.
pub(super) fn is_full(error: &sqlx::Error) -> bool {
    has_code(error, SQLITE_FULL)
}

/// True when the disk takes no writes.
pub(super) fn is_read_only(error: &sqlx::Error) -> bool {
    has_code(error, SQLITE_READONLY)
}

fn has_code(error: &sqlx::Error, code: &str) -> bool {
    error.as_database_error().and_then(|error| error.code().map(|found| found == code)) == Some(true)
}
