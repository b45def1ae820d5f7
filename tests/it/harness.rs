//! What the tests share: running the program, finding test data, and results that can be compared.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use adtally::engine::report::campaign_table;
use adtally::engine::{Aggregate, Fatal, Kernel, Metric, SkipReason, Tally, TallyOptions};
use tempfile::TempDir;

/// The columns in their usual order, as a header line.
pub(crate) const HEADER: &str = "campaign_id,date,impressions,clicks,spend,conversions\n";

/// Every way in which the engine can look for rows.
pub(crate) const KERNELS: [Kernel; 3] = [Kernel::Detect, Kernel::Portable, Kernel::Off];

/// A place inside the project.
pub(crate) fn project_path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

/// The program, not yet started.
pub(crate) fn adtally() -> Command {
    Command::new(env!("CARGO_BIN_EXE_adtally"))
}

/// Sends a signal to a process. The shell does it: small images have no program `kill`.
#[track_caller]
pub(crate) fn send_signal(signal: &str, process_id: u32) {
    let status = Command::new("sh").arg("-c").arg(format!("kill -{signal} {process_id}")).status().unwrap();
    assert!(status.success(), "{status}");
}

/// An example program of this project. Cargo puts it beside the directory in which this test program lies, and builds it
/// whenever all tests are built.
pub(crate) fn example(name: &str) -> Command {
    let this_program = std::env::current_exe().unwrap();
    let profile_directory = this_program.parent().and_then(Path::parent).unwrap();
    let program = profile_directory.join("examples").join(name).with_extension(std::env::consts::EXE_EXTENSION);
    assert!(program.is_file(), "{} is not built: run `cargo build --examples` first", program.display());
    Command::new(program)
}

/// What a finished program left.
#[derive(Debug)]
pub(crate) struct Run {
    /// `None` when a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("programs speak UTF-8");
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Checks that the program was content.
    #[track_caller]
    pub(crate) fn assert_done(&self) -> &Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// Checks that the program refused with one line that says all of this, and nothing else.
    #[track_caller]
    pub(crate) fn assert_refused(&self, says: &[&str]) -> &Self {
        assert_eq!(self.code, Some(1), "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "one line is enough: {self:?}");
        assert_eq!(self.stdout, "", "{self:?}");
        for part in says {
            assert!(self.stderr.contains(part), "{part:?} is missing: {self:?}");
        }
        self
    }

    /// Checks that the program did not understand its arguments, and says so naming `part`.
    #[track_caller]
    pub(crate) fn assert_misused(&self, part: &str) -> &Self {
        assert_eq!(self.code, Some(2), "{self:?}");
        assert!(self.stderr.contains(part), "{part:?} is missing: {self:?}");
        self
    }
}

/// Runs a program to its end with these bytes on its standard input.
pub(crate) fn run(command: &mut Command, input: &[u8]) -> Run {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let output = thread::scope(|scope| {
        scope.spawn(move || {
            // A program may well end before it has read everything.
            if let Err(error) = pipe.write_all(input) {
                assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
            }
        });
        child.wait_with_output().unwrap()
    });
    Run::of(output)
}

/// A running program that does not outlive its test.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An empty directory, gone when the test ends.
pub(crate) struct Workspace(TempDir);

impl Workspace {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Makes a file, and the directory it is in.
    pub(crate) fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }

    /// `adtally aggregate` with these arguments, started here; not yet started.
    pub(crate) fn aggregate<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = adtally();
        command.arg("aggregate").args(arguments).current_dir(self.0.path());
        command
    }

    /// Runs `adtally aggregate` with these arguments, separated by spaces, and nothing on its standard input.
    pub(crate) fn run(&self, arguments: &str) -> Run {
        self.run_with_input(arguments, b"")
    }

    /// The same with something on its standard input.
    pub(crate) fn run_with_input(&self, arguments: &str, input: &[u8]) -> Run {
        run(&mut self.aggregate(arguments.split_whitespace()), input)
    }

    /// Every file in a directory with its contents; nothing when there is no such directory.
    pub(crate) fn files(&self, directory: &str) -> BTreeMap<String, String> {
        match fs::read_dir(self.path(directory)) {
            Ok(entries) => entries
                .map(|entry| {
                    let entry = entry.unwrap();
                    let contents = fs::read(entry.path()).unwrap_or_else(|error| error.to_string().into());
                    (entry.file_name().into_string().unwrap(), String::from_utf8(contents).unwrap())
                })
                .collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => panic!("{directory}: {error}"),
        }
    }

    /// The names of the files in a directory, in alphabetical order.
    pub(crate) fn names(&self, directory: &str) -> Vec<String> {
        self.files(directory).into_keys().collect()
    }

    /// A file's contents as text.
    #[track_caller]
    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// A file's contents as JSON.
    #[track_caller]
    pub(crate) fn read_json(&self, name: &str) -> serde_json::Value {
        serde_json::from_str(&self.read(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }
}

/// So many lines, each made from its number.
pub(crate) fn lines(count: u32, line: impl Fn(u32) -> String) -> String {
    (0..count).fold(String::new(), |text, number| text + &line(number) + "\n")
}

/// Data as one gzip member.
pub(crate) fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// Data as one Zstandard frame.
pub(crate) fn zstandard(data: &[u8]) -> Vec<u8> {
    zstd::encode_all(data, 1).unwrap()
}

/// Bytes that a failed test shows as text.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

/// A row that did not count, as a result tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Skipped {
    pub(crate) line: u64,
    pub(crate) byte_offset: u64,
    pub(crate) reason: SkipReason,
    pub(crate) record: Bytes,
}

/// All that an input results in, without the times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) bytes_read: u64,
    pub(crate) rows_read: u64,
    pub(crate) rows_skipped: u64,
    pub(crate) parse_errors: u64,
    pub(crate) unique_campaigns: usize,
    pub(crate) skipped: BTreeMap<SkipReason, u64>,
    pub(crate) rejects: Vec<Skipped>,
    /// The three tables; the lists have ten campaigns.
    pub(crate) campaigns: String,
    pub(crate) top_ctr: String,
    pub(crate) top_cpa: String,
}

impl Outcome {
    pub(crate) fn of(aggregate: &Aggregate) -> Self {
        let campaigns: Vec<_> = aggregate.campaigns().collect();
        let counters = aggregate.counters();
        Self {
            bytes_read: counters.bytes_read,
            rows_read: counters.rows_read,
            rows_skipped: counters.rows_skipped(),
            parse_errors: counters.parse_errors(),
            unique_campaigns: aggregate.unique_campaigns(),
            skipped: counters.skipped().collect(),
            rejects: aggregate
                .rejects()
                .iter()
                .map(|reject| Skipped {
                    line: reject.line,
                    byte_offset: reject.byte_offset,
                    reason: reject.reason,
                    record: Bytes(reject.record.clone()),
                })
                .collect(),
            campaigns: campaign_table(&campaigns),
            top_ctr: campaign_table(&aggregate.leaders(Metric::Ctr, 10)),
            top_cpa: campaign_table(&aggregate.leaders(Metric::Cpa, 10)),
        }
    }
}

/// What the engine makes of a text that comes in these pieces.
pub(crate) fn tally<'a>(options: TallyOptions, pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Aggregate, Fatal> {
    let mut tally = Tally::new(options);
    for piece in pieces {
        tally.push(piece)?;
    }
    tally.finish()
}

/// The outcome of a text that comes in these pieces.
pub(crate) fn outcome<'a>(options: TallyOptions, pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Outcome, Fatal> {
    tally(options, pieces).map(|aggregate| Outcome::of(&aggregate))
}
