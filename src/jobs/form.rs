//! A job that a form makes: its files come one after the other in one body.

use std::collections::HashSet;
use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use tokio::runtime::Handle;

use super::board::{Stopped, cancelled};
use super::context::Presence;
use super::error::JobError;
use super::failure::{Failure, FailureKind};
use super::file_options::FileOptions;
use super::finish::{end_without_results, finish_files};
use super::live_file::Running;
use super::memory::MemoryShare;
use super::model::Job;
use super::options::JobOptions;
use super::permits::TenantPermit;
use super::receive::{FileUpload, vanished};
use super::store::{ChangedBy, EndedBy, FinishingBegun, OpenedFile};

/// A job that a form makes. It is [finished](Self::finish) or [fails](Self::fail); when it is dropped before, its sender has vanished.
pub struct FormUpload {
    presence: Presence,
    running: Arc<Running>,
    /// Of the form itself: what waits to be taken apart.
    memory: Option<MemoryShare>,
    names: HashSet<String>,
    /// The latest file, read to its end. It is recorded as complete when another one follows: the totals of a form's only file need
    /// not be stored.
    latest: Option<FileUpload>,
    has_ended: bool,
}

impl FormUpload {
    pub(super) fn new(presence: Presence, permit: TenantPermit, memory: MemoryShare) -> Self {
        let running = presence.run_with(permit);
        Self { presence, running, memory: Some(memory), names: HashSet::new(), latest: None, has_ended: false }
    }

    /// Resolves on cancel or shutdown. The byte source must poll it.
    #[must_use]
    pub fn stopped(&self) -> Stopped {
        self.presence.live().stopped(None)
    }

    /// Changes the job's options, ahead of its first file.
    ///
    /// # Errors
    /// When the store refuses, or the job has ended. The caller must [fail](Self::fail) the job with that.
    pub async fn set_options(&mut self, options: JobOptions) -> Result<(), Failure> {
        let live = self.presence.live();
        let mut job = Job::clone(&live.latest());
        job.details.request_options = Some(mem::replace(&mut job.details.options, options));
        if !self.presence.context().store.save_form(&job).await.map_err(|error| Failure::from(&error))? {
            return Err(cancelled());
        }
        live.update(|shown| {
            shown.details.options = job.details.options;
            shown.details.request_options = job.details.request_options;
        });
        Ok(())
    }

    /// Reads the next file to its end. One whose name another file has is told from it by a number.
    ///
    /// # Errors
    /// When the source fails, or the file cannot be used. The caller must [fail](Self::fail) the job with that.
    pub async fn read_file(
        &mut self,
        mut file: FileOptions,
        source: &mut (impl Stream<Item = Result<Bytes, Failure>> + Unpin),
    ) -> Result<(), Failure> {
        file.name = self.unique_name(&file.name);
        if let Some(latest) = self.latest.take() {
            latest.complete().await.map_err(JobError::into_failure)?;
        }
        let name = file.name.clone();
        let mut upload = self.open_file(file).await?;
        match upload.read_whole(source).await {
            Ok(_) => {
                self.latest = Some(upload);
                Ok(())
            }
            Err(mut failure) => {
                if failure.kind.is_about_contents() {
                    failure.detail = format!("file {name:?}: {}", failure.detail);
                }
                self.presence.live().update(|job| {
                    if let Some(file) = job.details.files.iter_mut().find(|file| file.name == name) {
                        file.error = Some(failure.clone());
                    }
                });
                // The job ends with it, unless it was interrupted.
                upload.fail(failure.clone()).await;
                Err(failure)
            }
        }
    }

    fn unique_name(&mut self, name: &str) -> String {
        let mut unique = name.to_owned();
        let mut number = 1;
        while !self.names.insert(unique.clone()) {
            number += 1;
            unique = format!("{name} ({number})");
        }
        unique
    }

    async fn open_file(&self, options: FileOptions) -> Result<FileUpload, Failure> {
        let context = self.presence.context();
        let memory = context.share_memory(0).map_err(JobError::into_failure)?;
        let pipeline = context.new_pipeline(&options.format)?;
        let file = options.file();
        let _beginning = self.presence.live().begin_writer().await;
        let (max_files, keep_open) = (context.config.max_files, context.config.keep_open);
        let opened = context.store.open_file(
            self.presence.live().owner(),
            self.presence.id(),
            &file,
            ChangedBy::ItsUpload,
            max_files,
            keep_open,
        );
        match opened.await.map_err(|error| Failure::from(&error))? {
            OpenedFile::Writer(writer) => Ok(FileUpload::begin(
                self.presence.clone(),
                writer,
                file,
                (pipeline, memory),
                Arc::clone(&self.running),
            )),
            OpenedFile::TooManyFiles => {
                let detail = format!("the form has more than {max_files} files; the limit is max_files");
                Err(FailureKind::FormTooLarge.because(detail).with_limit("max_files", max_files as u64))
            }
            OpenedFile::Complete(_)
            | OpenedFile::BeingReceived
            | OpenedFile::Waiting
            | OpenedFile::OtherFormat
            | OpenedFile::Closed(_) => Err(cancelled()),
        }
    }

    /// Ends the job with everything its files have counted. When this returns a job, it and its results are in the store for good.
    ///
    /// # Errors
    /// When the job fails after all.
    pub async fn finish(mut self) -> Result<Arc<Job>, JobError> {
        let Some(latest) = self.latest.take() else {
            return Err(self.fail(FailureKind::FormWithoutFile.because("there was no file")).await);
        };
        self.has_ended = true;
        // Nothing waits any more, and the end may need it.
        self.memory = None;
        if self.names.len() == 1 {
            return latest.finish().await;
        }
        latest.complete().await?;
        let id = self.presence.id();
        let (store, owner) = (&self.presence.context().store, self.presence.live().owner());
        let finishing = match store.begin_finishing(owner, id, ChangedBy::ItsUpload).await {
            Ok(FinishingBegun::Files(finishing)) => finishing,
            // It was cancelled or deleted first.
            Ok(_) => return Err(self.fail(cancelled()).await),
            Err(error) => return Err(self.fail(Failure::from(&error)).await),
        };
        finish_files(&self.presence, finishing).await.map_err(|failure| JobError::Failed { id, failure })
    }

    /// Ends the form, and gives the answer for its sender. When it broke off the job is an open one from now on, with the files that have
    /// come; otherwise the job ends without results.
    pub async fn fail(mut self, mut failure: Failure) -> JobError {
        self.has_ended = true;
        let id = self.presence.id();
        if end(self.presence.clone(), self.latest.take(), failure.clone()).await {
            failure
                .detail
                .push_str("; the job is open now, with the files that have come: send the others, and complete it");
        }
        JobError::Failed { id, failure }
    }
}

/// Ends a form. Gives true when its job is open now.
async fn end(presence: Presence, latest: Option<FileUpload>, failure: Failure) -> bool {
    let (context, live) = (presence.context(), presence.live());
    if failure.kind.is_interruption() {
        if let Some(latest) = latest {
            // A file that cannot be stored as complete waits for its sender; that has been logged.
            drop(latest.complete().await);
        }
        let keep_open = context.config.keep_open;
        match context.store.leave_open(presence.id(), keep_open).await {
            Ok(true) => {
                live.update(|job| {
                    job.closes_itself = false;
                    job.settle(keep_open);
                });
                return true;
            }
            // It has ended otherwise.
            Ok(false) => return false,
            Err(error) => tracing::error!(job = %presence.id(), %error, "a form that broke off is not recorded"),
        }
    } else if let Some(latest) = latest {
        // It ends the job.
        latest.fail(failure).await;
        return false;
    }
    // What cannot be recorded is tried again later.
    drop(end_without_results(context, live, EndedBy::Request, failure).await);
    false
}

impl Drop for FormUpload {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        // Without a runtime the process is ending, and the next start will say so of the job.
        if let Ok(runtime) = Handle::try_current() {
            let ended = end(self.presence.clone(), self.latest.take(), vanished());
            self.presence.context().tracker.spawn_on(ended, &runtime);
        }
    }
}
