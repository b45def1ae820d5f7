//! Files that are read again while the service runs: when they change, and on SIGHUP.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval};

/// How often the files are looked at.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Reads files anew; an error says what is wrong with them. It runs on a thread that may block.
type Load = Box<dyn FnMut() -> Result<(), String> + Send>;

/// Keeps what was read from files in step with them. Without any files it makes SIGHUP harmless.
pub(super) struct Reloader {
    hangup: Signal,
    sources: Vec<Source>,
}

/// Files that are read together.
struct Source {
    /// What they are, for the log.
    name: &'static str,
    paths: Vec<PathBuf>,
    load: Load,
    /// The files as they were when they were read last.
    loaded: Vec<Option<Version>>,
    /// The files as they were at the last look.
    seen: Vec<Option<Version>>,
    /// What was wrong with them when they were read last.
    error: Option<String>,
}

/// What changes when a file is written, or when another one takes its name. Links are followed: certbot and Kubernetes change them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Reloader {
    /// Listens for SIGHUP from now on.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self { hangup: signal(SignalKind::hangup())?, sources: Vec::new() })
    }

    /// Adds files that have been read already. `load` reads them again: what it cannot use it must leave unused. It blocks.
    pub(super) fn watch(
        &mut self,
        name: &'static str,
        paths: Vec<PathBuf>,
        load: impl FnMut() -> Result<(), String> + Send + 'static,
    ) {
        let loaded = versions(&paths);
        let (load, seen): (Load, _) = (Box::new(load), loaded.clone());
        self.sources.push(Source { name, paths, load, loaded, seen, error: None });
    }

    /// Begins to watch. The task ends when it is aborted.
    pub(super) fn start(self) -> JoinHandle<()> {
        let Self { mut hangup, mut sources } = self;
        tokio::spawn(async move {
            let mut ticks = interval(POLL_INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                let is_asked_for = tokio::select! {
                    _ = hangup.recv() => true,
                    _ = ticks.tick(), if !sources.is_empty() => false,
                };
                let looked = spawn_blocking(move || {
                    for source in &mut sources {
                        source.look(is_asked_for);
                    }
                    sources
                });
                match looked.await {
                    Ok(looked) => sources = looked,
                    Err(error) => return tracing::error!(%error, "files are no longer watched"),
                }
            }
        })
    }
}

impl Source {
    /// Reads the files if that was asked for, or if they have changed and have been at rest since the last look: two files cannot be
    /// replaced at once. Files that could not be used are tried again.
    fn look(&mut self, is_asked_for: bool) {
        let now = versions(&self.paths);
        let is_at_rest = now == self.seen;
        self.seen.clone_from(&now);
        let has_changed = is_at_rest && (now != self.loaded || self.error.is_some());
        if !is_asked_for && !has_changed {
            return;
        }
        // As they were before they were read: a change meanwhile is seen the next time.
        self.loaded = now;
        match (self.load)() {
            Ok(()) => {
                tracing::info!(what = self.name, "read again");
                self.error = None;
            }
            Err(error) => {
                if is_asked_for || self.error.as_ref() != Some(&error) {
                    tracing::error!(what = self.name, %error, "cannot be used; what was read before stays in use");
                }
                self.error = Some(error);
            }
        }
    }
}

fn versions(paths: &[PathBuf]) -> Vec<Option<Version>> {
    let version = |path: &PathBuf| {
        let metadata = fs::metadata(path).ok()?;
        Some(Version {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    };
    paths.iter().map(version).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A source of one file whose contents are read into a list; `bad` cannot be used.
    fn source(path: PathBuf) -> (Source, Arc<Mutex<Vec<String>>>) {
        let read = Arc::new(Mutex::new(Vec::new()));
        let (paths, texts) = (vec![path.clone()], Arc::clone(&read));
        let load = move || {
            let text = fs::read_to_string(&path).map_err(|error| error.to_string())?;
            texts.lock().map_err(|error| error.to_string())?.push(text.clone());
            if text == "bad" { Err("it is bad".to_owned()) } else { Ok(()) }
        };
        let (loaded, seen) = (versions(&paths), versions(&paths));
        (Source { name: "test", paths, load: Box::new(load), loaded, seen, error: None }, read)
    }

    #[test]
    fn files_are_read_once_they_have_changed_and_are_at_rest() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "one").unwrap();
        let (mut source, read) = source(path.clone());
        let mut looks = |times: usize, is_asked_for: bool| {
            for _ in 0..times {
                source.look(is_asked_for);
            }
            std::mem::take(&mut *read.lock().unwrap())
        };
        assert_eq!(looks(3, false), Vec::<String>::new());
        assert_eq!(looks(1, true), ["one"]);
        // Another file takes the name.
        fs::write(directory.path().join("new"), "two").unwrap();
        fs::rename(directory.path().join("new"), &path).unwrap();
        assert_eq!(looks(1, false), Vec::<String>::new(), "it has just changed");
        assert_eq!(looks(3, false), ["two"]);
        // What cannot be used is tried again.
        fs::write(&path, "bad").unwrap();
        assert_eq!(looks(3, false), ["bad", "bad"]);
        fs::remove_file(&path).unwrap();
        assert_eq!(looks(3, false), Vec::<String>::new());
        fs::write(&path, "three").unwrap();
        assert_eq!(looks(4, false), ["three"]);
    }
}
