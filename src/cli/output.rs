//! Result files that appear whole or not at all.

use std::fs::{self, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempPath};

/// Files that are written beside their final names and take these together, at the end.
pub(super) struct OutputDirectory {
    path: PathBuf,
    /// It did not exist before.
    is_new: bool,
    staged: Vec<(TempPath, PathBuf)>,
}

/// What could not be written.
pub(super) type OutputError = String;

impl OutputDirectory {
    /// Makes the directory if need be, and makes sure that files can be written to it.
    pub(super) fn open(path: &Path) -> Result<Self, OutputError> {
        let is_new = !path.exists();
        fs::create_dir_all(path).map_err(|error| describe(path, &error))?;
        let output = Self { path: path.to_owned(), is_new, staged: Vec::new() };
        output.temporary().map_err(|error| describe(path, &error))?;
        Ok(output)
    }

    fn temporary(&self) -> io::Result<NamedTempFile> {
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

    /// Gives every file its name, and removes files of earlier results that these ones do not have.
    pub(super) fn publish(mut self, obsolete: &[&str]) -> Result<(), OutputError> {
        for (staged, target) in std::mem::take(&mut self.staged) {
            staged.persist(&target).map_err(|error| describe(&target, &error.error))?;
        }
        for name in obsolete {
            let path = self.path.join(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(describe(&path, &error));
                }
                _ => {}
            }
        }
        // The names, too, are to survive a power failure; a directory that cannot be synced is no reason to fail.
        let _ = fs::File::open(&self.path).and_then(|directory| directory.sync_all());
        self.is_new = false;
        Ok(())
    }
}

impl Drop for OutputDirectory {
    /// Without results a new directory goes as it came. It stays when there is something in it.
    fn drop(&mut self) {
        self.staged.clear();
        if self.is_new {
            let _ = fs::remove_dir(&self.path);
        }
    }
}

fn describe(path: &Path, error: &io::Error) -> OutputError {
    format!("{}: cannot be written: {error}", path.display())
}
