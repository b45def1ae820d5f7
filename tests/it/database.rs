//! The database of a server, opened beside it.

use std::path::Path;

use adtally::jobs::Store;
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};
use tokio::runtime::{Builder, Runtime};

use crate::service::Service;

/// A connection of the test's own to a database, which a server may be using.
pub(crate) struct Database {
    runtime: Runtime,
    connection: SqliteConnection,
}

impl Database {
    /// The database of this server.
    pub(crate) fn of(service: &Service) -> Self {
        Self::open(&service.path("data").join("adtally.db"))
    }

    fn open(path: &Path) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let connection = runtime.block_on(SqliteConnection::connect(&Store::file_url(path))).unwrap();
        Self { runtime, connection }
    }

    /// Runs a statement, and gives how many rows it has changed.
    #[track_caller]
    pub(crate) fn execute(&mut self, statement: &str) -> u64 {
        let query = sqlx::query(AssertSqlSafe(statement.to_owned()));
        self.runtime.block_on(query.execute(&mut self.connection)).unwrap().rows_affected()
    }

    /// The one number that a query gives.
    #[track_caller]
    pub(crate) fn number(&mut self, query: &str) -> i64 {
        let query = sqlx::query_scalar(AssertSqlSafe(query.to_owned()));
        self.runtime.block_on(query.fetch_one(&mut self.connection)).unwrap()
    }
}
