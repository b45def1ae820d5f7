//! Results as files for people: a directory for each job that succeeded, there as a whole or not at all.
//!
//! The store is what counts. What is missing here, because it could not be written or the server fell, is written at the
//! next start.

use std::io;
use std::path::{Path, PathBuf};

use tokio::fs;
use tokio::io::AsyncWriteExt as _;

use super::model::JobId;

/// The directory that the jobs' directories are in.
#[derive(Clone, Debug)]
pub(super) struct ResultsDir(PathBuf);

/// A job's directory that is being written.
pub(super) struct Staged {
    staged: PathBuf,
    target: PathBuf,
}

impl ResultsDir {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// True when the job's results are there.
    pub(super) async fn has(&self, id: JobId) -> bool {
        fs::try_exists(self.path_of(id)).await.unwrap_or(false)
    }

    fn path_of(&self, id: JobId) -> PathBuf {
        self.0.join(id.to_string())
    }

    fn staged_path_of(&self, id: JobId) -> PathBuf {
        self.0.join(format!(".{id}.tmp"))
    }

    /// Begins a job's directory.
    pub(super) async fn stage(&self, id: JobId) -> io::Result<Staged> {
        let staged = self.staged_path_of(id);
        remove_if_there(&staged).await?;
        fs::create_dir_all(&staged).await?;
        Ok(Staged { staged, target: self.path_of(id) })
    }

    /// Removes a job's directory.
    pub(super) async fn remove(&self, id: JobId) -> io::Result<()> {
        remove_if_there(&self.path_of(id)).await
    }

    /// Removes what is left of an attempt to write a job's directory.
    pub(super) async fn remove_staged(&self, id: JobId) -> io::Result<()> {
        remove_if_there(&self.staged_path_of(id)).await
    }

    /// The jobs that have a directory, whole or staged. Everything else in the directory belongs to others.
    pub(super) async fn jobs(&self) -> io::Result<Vec<JobId>> {
        let mut entries = fs::read_dir(&self.0).await?;
        let mut jobs = Vec::new();
        while let Some(entry) = entries.next_entry().await? {
            let name = entry.file_name();
            let name = name.to_str().unwrap_or_default();
            let staged = name.strip_prefix('.').and_then(|name| name.strip_suffix(".tmp"));
            let name = staged.unwrap_or(name);
            jobs.extend(name.parse::<JobId>().ok().filter(|id| id.is_made_here() && id.to_string() == name));
        }
        Ok(jobs)
    }
}

impl Staged {
    /// Begins a file.
    pub(super) async fn create(&self, name: &str) -> io::Result<fs::File> {
        fs::File::create(self.staged.join(name)).await
    }

    /// Ends a file.
    pub(super) async fn close(mut file: fs::File) -> io::Result<()> {
        file.flush().await?;
        file.sync_all().await
    }

    /// Gives the directory its name.
    pub(super) async fn publish(self) -> io::Result<()> {
        fs::rename(&self.staged, &self.target).await
    }

    /// Gives up.
    pub(super) async fn discard(self) {
        // It stays under a name that no result has, and is written over at the next try.
        drop(remove_if_there(&self.staged).await);
    }
}

async fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
