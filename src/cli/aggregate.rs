//! `adtally aggregate`: files in, reports out.
#![expect(clippy::doc_markdown, reason = "the comments on arguments are their help on the terminal")]

use std::cell::Cell;
use std::fs;
use std::io::{self, Write as _};
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use clap::{Args, value_parser};
use encoding_rs::Encoding;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::format_flags::FormatFlags;
use super::output::{Obsolete, OutputDirectory};
use super::progress::Progress;
use super::stop::Stop;
use crate::engine::report::{
    Stats, campaign_header, campaign_lines, campaign_table, list_name, rejects_pieces, rejects_table,
};
use crate::engine::{
    Aggregate, DEFAULT_MAX_REJECTS_BYTES, KeptRejects, Kernel, Limits, Metric, SkipBudget, SpreadsheetTable,
    TallyOptions, combined_leaders,
};
use crate::ingest::{Input, LocalError, LocalOptions, aggregate_local, encoding_for_label};
use crate::jobs::JobOptions;

/// Adds up CSV files of ad data per campaign and ranks the campaigns.
///
/// The files have the columns campaign_id,date,impressions,clicks,spend,conversions in any order; others are ignored.
/// Gzip and Zstandard are recognised by their first bytes, UTF-8 and UTF-16 by their byte-order mark. Rows that do not
/// make sense are skipped, counted by reason, and the first 100 of them reported. Reports of ad platforms are read as they
/// were exported with --format.
///
/// Writes top10_ctr.csv, top10_cpa.csv and stats.json, rejects.csv when rows were skipped, and campaigns.csv on request.
/// Either all of them appear or none; those of an earlier run in the same directory are replaced, and removed where this
/// run has none.
///
/// Exit codes: 0 done, 1 the data or the system refused, 2 wrong usage, 130 or 143 stopped by a signal.
#[derive(Args)]
pub(super) struct Arguments {
    /// CSV files to read as one data set, each with its own header; - is standard input
    #[arg(long, short, value_name = "FILE", num_args = 1.., required = true)]
    input: Vec<Input>,

    /// Directory for the results; made if it is not there
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,

    /// How many campaigns each list has, 1 to 1000; the files are named after it (top25_ctr.csv)
    #[arg(long, value_name = "K", default_value_t = 10, value_parser = value_parser!(u16).range(1..=1000))]
    top: u16,

    /// Also write campaigns.csv with the totals of every campaign
    #[arg(long)]
    all_campaigns: bool,

    /// Write ids and rows that spreadsheet programs would take for formulas with an apostrophe before them
    #[arg(long)]
    spreadsheet_safe: bool,

    #[command(flatten)]
    format: FormatFlags,

    /// Encoding of files without a byte-order mark: a label of the WHATWG Encoding Standard
    #[arg(long, value_name = "LABEL", default_value = "utf-8", value_parser = encoding_for_label, help_heading = "Format")]
    encoding: &'static Encoding,

    /// Whether the first row names the columns
    #[arg(long, value_name = "true|false", default_value_t = true, action = clap::ArgAction::Set, help_heading = "Format")]
    has_header: bool,

    /// Longest record; longer ones are skipped
    #[arg(long, value_name = "SIZE", default_value = "64KiB", value_parser = super::values::parse_max_record, help_heading = "Limits")]
    max_record: usize,

    /// Most different campaign ids; more are refused
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_campaigns, value_parser = super::values::parse_max_campaigns, help_heading = "Limits")]
    max_campaigns: usize,

    /// Threads that read a large file, 1 to 256; as many as there are cores if not given
    #[arg(long, value_name = "N", value_parser = super::values::parse_threads, help_heading = "Limits")]
    threads: Option<u16>,

    /// Print a line to standard error every ROWS rows, instead of a progress bar
    #[arg(long, value_name = "ROWS", value_parser = super::values::parse_any_count)]
    progress_every: Option<u64>,
}

/// Text of a table between two looks for a signal.
const TABLE_PIECE_BYTES: usize = 256 * 1024;

/// What the main thread waits for.
enum Event {
    Read(Box<Result<Aggregate, LocalError>>),
    Signal(i32),
    /// The reading thread has panicked.
    Panicked,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Stop> {
    if arguments.input.iter().filter(|input| **input == Input::Stdin).count() > 1 {
        return Err(Stop::Usage("standard input (-) can be given only once".into()));
    }
    let options = job_options(arguments)?;
    let options = local_options(arguments, &options)?;
    let started = Instant::now();
    let mut output = OutputDirectory::open(&arguments.output).map_err(Stop::Refused)?;
    let files = arguments.input.iter().filter_map(|input| match input {
        Input::Stdin => None,
        Input::File(path) => Some(path.as_path()),
    });
    if let Some(input) = output.find_input(&result_names(arguments.top), files) {
        let line = format!("{}: is an input and has the name of a result: choose another directory", input.display());
        return Err(Stop::Refused(line));
    }
    let (events_sender, events) = mpsc::channel();
    let cannot_start = |error: io::Error| Stop::Refused(format!("a thread cannot be started: {error}"));
    watch_signals(events_sender.clone()).map_err(cannot_start)?;
    let progress = Arc::new(Progress::new(expected_bytes(&arguments.input), arguments.progress_every));
    let (inputs, observer) = (arguments.input.clone(), Arc::clone(&progress));
    // On a signal the main thread returns, and this one ends with the process: it holds nothing that has to be
    // released.
    let read = move || {
        let read = catch_unwind(AssertUnwindSafe(|| aggregate_local(&inputs, &options, &*observer)));
        // Fails only when the main thread has returned because of a signal.
        let _ = events_sender.send(read.map_or(Event::Panicked, |read| Event::Read(Box::new(read))));
    };
    thread::Builder::new().spawn(read).map_err(cannot_start)?;
    let event = events.recv();
    progress.finish();
    let aggregate = match event {
        Ok(Event::Read(read)) => read.map_err(|error| Stop::Refused(error.to_string()))?,
        Ok(Event::Signal(number)) => return Err(Stop::Signal(number)),
        Ok(Event::Panicked) | Err(mpsc::RecvError) => {
            return Err(Stop::Refused("internal error while reading; please report it with the lines above".into()));
        }
    };
    let stats = Stats::new(&aggregate, started.elapsed().as_secs_f64());
    let signal = || match events.try_recv() {
        Ok(Event::Signal(number)) => Some(number),
        _ => None,
    };
    stage_results(&mut output, arguments, &aggregate, &stats, &signal)?;
    let mut obsolete = Vec::new();
    if aggregate.rejects().is_empty() {
        obsolete.push(Obsolete { name: "rejects.csv", first_line: rejects_table(&[], false).trim_end().into() });
    }
    if !arguments.all_campaigns {
        obsolete.push(Obsolete { name: "campaigns.csv", first_line: campaign_header() });
    }
    output.publish(&obsolete).map_err(Stop::Refused)?;
    report(&stats, started.elapsed().as_secs_f64());
    Ok(())
}

/// How the inputs are read.
fn job_options(arguments: &Arguments) -> Result<JobOptions, Stop> {
    let mut options = JobOptions { has_header: arguments.has_header, ..JobOptions::default() };
    arguments.format.change(&mut options).map_err(|error| Stop::Usage(error.to_string()))?;
    Ok(options)
}

fn local_options(arguments: &Arguments, options: &JobOptions) -> Result<LocalOptions, Stop> {
    let dialect = options.dialect().map_err(|error| Stop::Usage(error.to_string()))?;
    let keeps_all_rejects = options.rejects == KeptRejects::All;
    Ok(LocalOptions {
        tally: TallyOptions {
            delimiter: options.plain_delimiter(),
            has_header: arguments.has_header,
            max_skipped: options.max_skipped.and_then(SkipBudget::max_rows),
            limits: Limits { max_record_bytes: arguments.max_record, max_campaigns: arguments.max_campaigns },
            kernel: Kernel::Detect,
            max_rejects_bytes: keeps_all_rejects.then_some(DEFAULT_MAX_REJECTS_BYTES),
        },
        dialect: dialect.map(Arc::new),
        max_skipped: options.max_skipped,
        encoding: arguments.encoding,
        threads: threads(arguments),
    })
}

fn threads(arguments: &Arguments) -> NonZeroUsize {
    let wanted = arguments.threads.and_then(|threads| NonZeroUsize::new(threads.into()));
    wanted.or_else(|| thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN)
}

/// Every name that a run writes to or removes.
fn result_names(top: u16) -> Vec<String> {
    let list = |metric| list_name(metric, top);
    vec![list(Metric::Ctr), list(Metric::Cpa), "stats.json".into(), "rejects.csv".into(), "campaigns.csv".into()]
}

fn watch_signals(events: mpsc::Sender<Event>) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let watch = move || {
        for number in signals.forever() {
            if events.send(Event::Signal(number)).is_err() {
                break;
            }
        }
    };
    thread::Builder::new().spawn(watch).map(|_| ())
}

/// The size of all inputs, if all of them have one.
fn expected_bytes(inputs: &[Input]) -> Option<u64> {
    inputs
        .iter()
        .map(|input| match input {
            Input::Stdin => None,
            Input::File(path) => fs::metadata(path).ok().filter(fs::Metadata::is_file).map(|metadata| metadata.len()),
        })
        .sum()
}

/// Writes everything under temporary names, unless a signal comes.
fn stage_results(
    output: &mut OutputDirectory,
    arguments: &Arguments,
    aggregate: &Aggregate,
    stats: &Stats,
    signal: &dyn Fn() -> Option<i32>,
) -> Result<(), Stop> {
    let mut stage = |name: &str, write: &dyn Fn(&mut dyn io::Write) -> io::Result<()>| {
        output.stage(name, write).map_err(Stop::Refused)
    };
    let spreadsheet = || arguments.spreadsheet_safe.then(SpreadsheetTable::default);
    let leaders = combined_leaders(&[aggregate], arguments.top.into());
    for (metric, leaders) in [(Metric::Ctr, &leaders.by_ctr), (Metric::Cpa, &leaders.by_cpa)] {
        let table = campaign_table(leaders);
        stage(&list_name(metric, arguments.top), &|file| write_table(file, &mut spreadsheet(), table.as_bytes()))?;
    }
    stage("stats.json", &|file| {
        serde_json::to_writer_pretty(&mut *file, stats)?;
        file.write_all(b"\n")
    })?;
    if !aggregate.rejects().is_empty() {
        stage("rejects.csv", &|file| {
            let mut pieces = rejects_pieces(aggregate, arguments.input.len() > 1, TABLE_PIECE_BYTES);
            let mut spreadsheet = spreadsheet();
            pieces.try_for_each(|piece| write_table(file, &mut spreadsheet, piece.as_bytes()))
        })?;
    }
    let stopped_by = Cell::new(signal());
    if arguments.all_campaigns && stopped_by.get().is_none() {
        stage("campaigns.csv", &|file| {
            let mut campaigns = aggregate.campaigns();
            let mut spreadsheet = spreadsheet();
            write_table(file, &mut spreadsheet, campaign_header().as_bytes())?;
            loop {
                stopped_by.set(signal());
                let lines = campaign_lines(&mut campaigns, TABLE_PIECE_BYTES);
                if lines.is_empty() || stopped_by.get().is_some() {
                    return Ok(());
                }
                write_table(file, &mut spreadsheet, &lines)?;
            }
        })?;
    }
    match stopped_by.get().or_else(signal) {
        Some(number) => Err(Stop::Signal(number)),
        None => Ok(()),
    }
}

/// Writes the next rows of a table, for a spreadsheet program if that is wanted.
fn write_table(file: &mut dyn io::Write, spreadsheet: &mut Option<SpreadsheetTable>, rows: &[u8]) -> io::Result<()> {
    match spreadsheet {
        None => file.write_all(rows),
        Some(table) => file.write_all(&table.convert(rows).map_err(io::Error::other)?),
    }
}

/// The statistics on standard error.
#[expect(clippy::cast_precision_loss, reason = "rates are approximations")]
fn report(stats: &Stats, elapsed_seconds: f64) {
    let mut lines =
        vec![format!("rows_read         {}", stats.rows_read), format!("rows_skipped      {}", stats.rows_skipped)];
    lines.extend(stats.skipped.iter().map(|(reason, count)| format!("  {:<15} {count}", reason.name())));
    lines.push(format!("parse_errors      {}", stats.parse_errors));
    lines.push(format!("unique_campaigns  {}", stats.unique_campaigns));
    lines.push(format!("elapsed_seconds   {elapsed_seconds:.3}"));
    lines.push(format!("rows/s            {:.0}", stats.rows_read as f64 / elapsed_seconds));
    lines.push(format!("MB/s              {:.1}", stats.bytes_read as f64 / 1e6 / elapsed_seconds));
    if let Some(peak) = peak_memory_bytes() {
        lines.push(format!("peak memory       {:.1} MB", peak as f64 / 1e6));
    }
    let _ = writeln!(io::stderr(), "{}", lines.join("\n"));
}

/// The most memory this process has had at once, where the system tells (Linux: proc(5)).
fn peak_memory_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix("kB")?;
    Some(kilobytes.trim().parse::<u64>().ok()? * 1024)
}
