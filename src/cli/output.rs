//! Result files that appear whole or not at all.

use std::fs::{self, Permissions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempPath};

/// Files that are written beside their final names and take these together, at the end.
pub(super) struct OutputDirectory {
    path: PathBuf,
    /// It did not exist before.
    is_new: bool,
    staged: Vec<(TempPath, PathBuf)>,
}

/// A result of an earlier run that this one does not have.
pub(super) struct Obsolete {
    pub(super) name: &'static str,
    /// What the file starts with. A file of that name that starts otherwise is not removed.
    pub(super) first_line: String,
}

/// What could not be written.
pub(super) type OutputError = String;

impl OutputDirectory {
    /// Makes the directory if need be, and makes sure that files can be written to it.
    pub(super) fn open(path: &Path) -> Result<Self, OutputError> {
        let is_new = !path.exists();
        let output = Self { path: path.to_owned(), is_new, staged: Vec::new() };
        output.temporary().map_err(|error| describe(path, &error))?;
        Ok(output)
    }

    /// The one of the input files, if any, that results of these names would replace or remove.
    pub(super) fn find_input<'a>(
        &self,
        names: &[String],
        mut inputs: impl Iterator<Item = &'a Path>,
    ) -> Option<&'a Path> {
        let identity = |path: &Path| fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
        let targets: Vec<_> = names.iter().filter_map(|name| identity(&self.path.join(name))).collect();
        inputs.find(|input| identity(input).is_some_and(|input| targets.contains(&input)))
    }

    fn temporary(&self) -> io::Result<NamedTempFile> {
        // Another run may have removed the directory, having found it empty.
        fs::create_dir_all(&self.path)?;
        tempfile::Builder::new()
            .prefix(".adtally-")
            .suffix(".tmp")
            // As for any file a program makes; the umask takes away from it.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(&self.path)
    }

    /// Writes a file's contents, for now under another name.
    pub(super) fn stage(
        &mut self,
        name: &str,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), OutputError> {
        let target = self.path.join(name);
        let staged = self.temporary().and_then(|file| {
            let mut writer = BufWriter::with_capacity(256 * 1024, file);
            write(&mut writer)?;
            let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.as_file().sync_all()?;
            Ok(file.into_temp_path())
        });
        self.staged.push((staged.map_err(|error| describe(&target, &error))?, target));
        Ok(())
    }

    /// Gives every file its name, and removes what is obsolete.
    pub(super) fn publish(mut self, obsolete: &[Obsolete]) -> Result<(), OutputError> {
        // Checked before the first file gets its name, so that old and new results do not mix.
        let is_directory = |(_, target): &&(TempPath, PathBuf)| target.is_dir();
        if let Some((_, target)) = self.staged.iter().find(is_directory) {
            return Err(describe(target, &io::ErrorKind::IsADirectory.into()));
        }
        for (staged, target) in std::mem::take(&mut self.staged) {
            staged.persist(&target).map_err(|error| describe(&target, &error.error))?;
        }
        for Obsolete { name, first_line } in obsolete {
            let path = self.path.join(name);
            if starts_with(&path, first_line.as_bytes()) {
                fs::remove_file(&path).map_err(|error| describe(&path, &error))?;
            }
        }
        // The names, too, have to survive a power failure. Where a directory cannot be synced, that is no reason to
        // fail.
        let _ = fs::File::open(&self.path).and_then(|directory| directory.sync_all());
        self.is_new = false;
        Ok(())
    }
}

fn starts_with(path: &Path, start: &[u8]) -> bool {
    let mut found = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(start.len() as u64).read_to_end(&mut found));
    read.is_ok() && found == start
}

impl Drop for OutputDirectory {
    /// Removes the directory if this run made it and published nothing. It stays when there is something else in it.
    fn drop(&mut self) {
        self.staged.clear();
        if self.is_new {
            let _ = fs::remove_dir(&self.path);
        }
    }
}

fn describe(path: &Path, error: &io::Error) -> OutputError {
    // Errors about temporary files contain their names, which mean nothing to the user: the kind is enough.
    if error.raw_os_error().is_some() {
        format!("{}: cannot be written: {error}", path.display())
    } else {
        format!("{}: cannot be written: {}", path.display(), error.kind())
    }
}
