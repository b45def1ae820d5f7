//! `adtally serve`: the service.
#![expect(clippy::doc_markdown, reason = "the comments on arguments are their help on the terminal")]

use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use clap::{Args, ValueEnum, value_parser};
use jiff::SignedDuration;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};
use tracing_subscriber::filter::{LevelFilter, ParseError, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::stop::Stop;
use crate::engine::Limits;
use crate::http::{ConnectionLimits, HttpConfig, Shutdown, router, serve};
use crate::ingest::PipelineOptions;
use crate::jobs::{Jobs, JobsConfig, Store, StoreError};

/// The database's file in the data directory.
const DATABASE_FILE: &str = "adtally.db";

/// The most header fields of a request.
const MAX_HEADER_FIELDS: usize = 100;

/// Requests at once on a connection of HTTP/2.
const MAX_STREAMS: u32 = 100;

/// Upper bounds of the duration histogram, in seconds: from answers out of memory to uploads of minutes.
const DURATION_BUCKETS: [f64; 11] = [0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0];

/// Serves HTTP: takes uploads, aggregates them while they arrive, and keeps the results.
///
/// Prints the address it listens on to standard output; logs go to standard error. SIGTERM and Ctrl-C stop it: new uploads
/// are refused; running uploads and downloads have --drain-timeout-seconds to finish.
///
/// Exit codes: 0 stopped as asked, 1 the system refused, 2 wrong usage.
#[derive(Args)]
pub(super) struct Arguments {
    /// Address to listen on; port 0 takes any that is free
    #[arg(long, env = "ADTALLY_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,

    /// Directory of the database; made if it is not there
    #[arg(long, env = "ADTALLY_DATA_DIR", value_name = "DIR", default_value = "data", help_heading = "Storage")]
    data_dir: PathBuf,

    /// Directory in which results also appear as files, JOB_ID/top10_ctr.csv and so on
    #[arg(long, env = "ADTALLY_RESULTS_DIR", value_name = "DIR", help_heading = "Storage")]
    results_dir: Option<PathBuf>,

    /// Database: sqlite://PATH; a file in the data directory if not given
    #[arg(long, env = "ADTALLY_DATABASE_URL", value_name = "URL", help_heading = "Storage")]
    database_url: Option<String>,

    /// How long a job is kept after it has ended
    #[arg(long, env = "ADTALLY_KEEP_FINISHED_SECONDS", value_name = "SECONDS", default_value_t = 7 * 24 * 3600,
        value_parser = value_parser!(i64).range(1..=MAX_SECONDS), help_heading = "Storage")]
    keep_finished_seconds: i64,

    /// How long an open job is kept while no file of it is received
    #[arg(long, env = "ADTALLY_KEEP_OPEN_SECONDS", value_name = "SECONDS", default_value_t = 24 * 3600,
        value_parser = value_parser!(i64).range(1..=MAX_SECONDS), help_heading = "Storage")]
    keep_open_seconds: i64,

    /// Most bytes of an upload, as they are sent
    #[arg(long, env = "ADTALLY_MAX_UPLOAD_BYTES", value_name = "BYTES", default_value_t = 64 << 30,
        value_parser = value_parser!(u64).range(1..=MAX_BYTES), help_heading = "Limits")]
    max_upload_bytes: u64,

    /// Most bytes that may come out of decompression
    #[arg(long, env = "ADTALLY_MAX_TEXT_BYTES", value_name = "BYTES",
        default_value_t = PipelineOptions::default().max_text_bytes,
        value_parser = value_parser!(u64).range(1..=MAX_BYTES), help_heading = "Limits")]
    max_text_bytes: u64,

    /// How many times more bytes may come out of decompression than went in; the first 64 MiB are free
    #[arg(long, env = "ADTALLY_MAX_DECOMPRESSION_RATIO", value_name = "N",
        default_value_t = PipelineOptions::default().max_decompression_ratio,
        value_parser = value_parser!(u64).range(1..), help_heading = "Limits")]
    max_decompression_ratio: u64,

    /// Longest record in bytes; longer ones are skipped
    #[arg(long, env = "ADTALLY_MAX_RECORD_BYTES", value_name = "BYTES",
        default_value_t = Limits::default().max_record_bytes, value_parser = super::values::parse_max_record_bytes,
        help_heading = "Limits")]
    max_record_bytes: usize,

    /// Most different campaign ids of a job; more are refused. Each takes about 60 bytes of memory
    #[arg(long, env = "ADTALLY_MAX_CAMPAIGNS", value_name = "N", default_value_t = 2_000_000,
        value_parser = super::values::parse_max_campaigns, help_heading = "Limits")]
    max_campaigns: usize,

    /// Most parts of a form
    #[arg(long, env = "ADTALLY_MAX_FORM_PARTS", value_name = "N", default_value_t = 64,
        value_parser = super::values::parse_count, help_heading = "Limits")]
    max_form_parts: usize,

    /// Most files of an open job
    #[arg(long, env = "ADTALLY_MAX_FILES", value_name = "N", default_value_t = 1000,
        value_parser = super::values::parse_count, help_heading = "Limits")]
    max_files: usize,

    /// Most open jobs at once; more are refused with 503
    #[arg(long, env = "ADTALLY_MAX_OPEN_JOBS", value_name = "N", default_value_t = 1000,
        value_parser = value_parser!(u64).range(1..), help_heading = "Limits")]
    max_open_jobs: u64,

    /// Most uploads at once; more are refused with 503
    #[arg(long, env = "ADTALLY_MAX_CONCURRENT_UPLOADS", value_name = "N", default_value_t = 256,
        value_parser = super::values::parse_count, help_heading = "Limits")]
    max_concurrent_uploads: usize,

    /// Most connections at once; more wait
    #[arg(long, env = "ADTALLY_MAX_CONNECTIONS", value_name = "N", default_value_t = 10_000,
        value_parser = super::values::parse_count, help_heading = "Limits")]
    max_connections: usize,

    /// Threads that parse, 1 to 256; as many as there are cores if not given
    #[arg(long, env = "ADTALLY_PARSER_THREADS", value_name = "N", value_parser = value_parser!(u16).range(1..=256),
        help_heading = "Limits")]
    parser_threads: Option<u16>,

    /// Longest time from one request to the end of the next one's head
    #[arg(long, env = "ADTALLY_HEADER_TIMEOUT_SECONDS", value_name = "SECONDS", default_value_t = 15,
        value_parser = value_parser!(u64).range(1..=MAX_TIMEOUT_SECONDS), help_heading = "Times")]
    header_timeout_seconds: u64,

    /// Longest silence of the sender of an upload
    #[arg(long, env = "ADTALLY_IDLE_TIMEOUT_SECONDS", value_name = "SECONDS", default_value_t = 60,
        value_parser = value_parser!(u64).range(1..=MAX_TIMEOUT_SECONDS), help_heading = "Times")]
    idle_timeout_seconds: u64,

    /// How long the sender of a refused upload is listened to, so that it gets to read why
    #[arg(long, env = "ADTALLY_LINGER_TIMEOUT_SECONDS", value_name = "SECONDS", default_value_t = 30,
        value_parser = value_parser!(u64).range(0..=MAX_TIMEOUT_SECONDS), help_heading = "Times")]
    linger_timeout_seconds: u64,

    /// How long running uploads and downloads may go on when the service is told to stop
    #[arg(long, env = "ADTALLY_DRAIN_TIMEOUT_SECONDS", value_name = "SECONDS", default_value_t = 30,
        value_parser = value_parser!(u64).range(0..=MAX_TIMEOUT_SECONDS), help_heading = "Times")]
    drain_timeout_seconds: u64,

    /// Form of the log on standard error
    #[arg(long, env = "ADTALLY_LOG_FORMAT", value_name = "text|json", default_value = "text", help_heading = "Log")]
    log_format: LogFormat,

    /// What is logged: error, warn, info, debug or trace, also for parts of the program (info,sqlx=debug)
    #[arg(
        long,
        env = "ADTALLY_LOG_LEVEL",
        value_name = "LEVEL",
        default_value = "info,sqlx=warn", value_parser = parse_log_level,
        help_heading = "Log"
    )]
    log_level: Targets,
}

/// A bare word that is no level would be taken for a part of the program.
fn parse_log_level(text: &str) -> Result<Targets, String> {
    let levels = text.split(',').map(|directive| directive.rsplit('=').next().unwrap_or_default());
    if let Some(other) = levels.into_iter().find(|level| level.parse::<LevelFilter>().is_err()) {
        return Err(format!("{other:?}: expected error, warn, info, debug, trace or off"));
    }
    text.parse().map_err(|error: ParseError| error.to_string())
}

/// A year: longer time-outs are a mistake.
const MAX_TIMEOUT_SECONDS: u64 = 365 * 24 * 3600;

/// A hundred years.
const MAX_SECONDS: i64 = 100 * 365 * 24 * 3600;

/// A pebibyte: the engine counts no further.
const MAX_BYTES: u64 = 1 << 50;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Stop> {
    start_log(arguments);
    prepare_directory(&arguments.data_dir, "--data-dir")?;
    if let Some(directory) = &arguments.results_dir {
        prepare_directory(directory, "--results-dir")?;
    }
    let metrics = start_metrics()?;
    let runtime = start_runtime()?;
    let result = runtime.block_on(run_service(arguments, metrics));
    // Work without a receiver must not hold the process back.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

async fn run_service(arguments: &Arguments, metrics: PrometheusHandle) -> Result<(), Stop> {
    let mut signals = Signals::listen().map_err(|error| Stop::Refused(format!("signals: {error}")))?;
    let listener =
        TcpListener::bind(arguments.listen).await.map_err(|error| cannot_listen(arguments.listen, &error))?;
    let address = listener.local_addr().map_err(|error| Stop::Refused(format!("the listening socket: {error}")))?;
    let config = jobs_config(arguments);
    let database = config.database_url.clone();
    let jobs = Jobs::open(config).await.map_err(|error| match error {
        StoreError::UnknownDatabase { .. } => Stop::Refused(format!("--database-url: {error}")),
        error => Stop::Refused(format!("{database}: {error}")),
    })?;
    let http = HttpConfig {
        max_upload_bytes: arguments.max_upload_bytes,
        max_form_parts: arguments.max_form_parts,
        idle_timeout: Duration::from_secs(arguments.idle_timeout_seconds),
        linger_timeout: Duration::from_secs(arguments.linger_timeout_seconds),
    };
    let limits = ConnectionLimits {
        max_connections: arguments.max_connections,
        header_timeout: Duration::from_secs(arguments.header_timeout_seconds),
        max_header_fields: MAX_HEADER_FIELDS,
        max_streams: MAX_STREAMS,
    };
    let shutdown = Shutdown::default();
    let router = router(Arc::clone(&jobs), http, metrics.clone());
    let mut server = tokio::spawn(serve(listener, router, limits, shutdown.clone()));
    let upkeep = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            metrics.run_upkeep();
        }
    });
    // A closed standard output is no error.
    let _ = writeln!(io::stdout(), "listening on http://{address}");
    tracing::info!(%address, %database, "ready");

    let name = signals.first().await;
    let drain_timeout = Duration::from_secs(arguments.drain_timeout_seconds);
    let drain_end = Instant::now() + drain_timeout;
    tracing::info!(signal = name, seconds = arguments.drain_timeout_seconds, "stopping; running requests may finish");
    jobs.drain();
    // A second signal means: at once.
    tokio::select! {
        () = jobs.drained(drain_timeout) => {}
        _ = signals.first() => shutdown.abort.cancel(),
    }
    jobs.stop_uploads().await;
    shutdown.stop.cancel();
    // Uploads have ended; downloads may go on.
    tokio::select! {
        _ = &mut server => {}
        () = sleep_until(drain_end) => {}
        _ = signals.first() => {}
        () = shutdown.abort.cancelled() => {}
    }
    shutdown.abort.cancel();
    if !server.is_finished() {
        // A panic there has been logged already.
        drop(server.await);
    }
    jobs.close().await;
    upkeep.abort();
    tracing::info!("stopped");
    Ok(())
}

fn jobs_config(arguments: &Arguments) -> JobsConfig {
    let database_url =
        arguments.database_url.clone().unwrap_or_else(|| Store::file_url(&arguments.data_dir.join(DATABASE_FILE)));
    let parser_threads = arguments.parser_threads.and_then(|threads| NonZeroUsize::new(threads.into()));
    JobsConfig {
        database_url,
        results_dir: arguments.results_dir.clone(),
        parser_threads: parser_threads.or_else(|| thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN),
        max_concurrent_uploads: arguments.max_concurrent_uploads,
        limits: Limits { max_record_bytes: arguments.max_record_bytes, max_campaigns: arguments.max_campaigns },
        max_text_bytes: arguments.max_text_bytes,
        max_decompression_ratio: arguments.max_decompression_ratio,
        keep_finished: SignedDuration::from_secs(arguments.keep_finished_seconds),
        keep_open: SignedDuration::from_secs(arguments.keep_open_seconds),
        max_open_jobs: arguments.max_open_jobs,
        max_files: arguments.max_files,
    }
}

fn start_log(arguments: &Arguments) {
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let registry = tracing_subscriber::registry().with(arguments.log_level.clone());
    match arguments.log_format {
        LogFormat::Text => registry.with(lines.with_ansi(io::stderr().is_terminal()).with_target(false)).init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).init(),
    }
}

fn start_metrics() -> Result<PrometheusHandle, Stop> {
    let failed = |error: &dyn std::fmt::Display| Stop::Refused(format!("metrics: {error}"));
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &DURATION_BUCKETS)
        .map_err(|error| failed(&error))?
        .install_recorder()
        .map_err(|error| failed(&error))
}

fn start_runtime() -> Result<Runtime, Stop> {
    let runtime = Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| Stop::Refused(format!("the threads cannot be started: {error}")))
}

/// Makes a directory if need be, and makes sure that files can be written to it.
fn prepare_directory(path: &Path, flag: &str) -> Result<(), Stop> {
    let refused = |error: io::Error| Stop::Refused(format!("{flag} {}: {}", path.display(), explain(path, &error)));
    fs::create_dir_all(path).map_err(refused)?;
    tempfile::tempfile_in(path).map(drop).map_err(refused)
}

/// What a person has to change.
fn explain(path: &Path, error: &io::Error) -> String {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return format!("files cannot be written there: {error}");
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let id = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        // Real, effective, saved, file system: proc(5).
        line.split_whitespace().nth(1).map(str::to_owned)
    };
    let who = match (id("Uid:"), id("Gid:")) {
        (Some(user), Some(group)) => format!("user id {user}, group id {group}"),
        _ => "the user that runs adtally".into(),
    };
    let existing = path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(path);
    let owner = fs::metadata(existing).map_or_else(
        |_| String::new(),
        |metadata| format!("; it belongs to user id {}, mode {:o}", metadata.uid(), metadata.mode() & 0o7777),
    );
    format!("permission denied: {who} must be able to write to {}{owner}", existing.display())
}

fn cannot_listen(address: SocketAddr, error: &io::Error) -> Stop {
    let reason = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program listens there: stop it, or choose another port with --listen".into()
        }
        io::ErrorKind::PermissionDenied => "permission denied: ports below 1024 are reserved; choose another".into(),
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address".into(),
        _ => error.to_string(),
    };
    Stop::Refused(format!("--listen {address}: {reason}"))
}

/// The signals that stop the service.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn first(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
