//! The flags and environment variables of `adtally serve`, and the settings they are for the parts of the service.
#![expect(clippy::doc_markdown, reason = "the comments on arguments are their help on the terminal")]

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};
use jiff::SignedDuration;
use tracing_subscriber::filter::{LevelFilter, ParseError, Targets};

use super::machine_memory::{default_memory_budget, parse_memory_budget};
use crate::cli::values;
use crate::engine::Limits;
use crate::http::{AllowedHost, ConnectionLimits, CorsOrigin, HttpConfig, TlsFiles, TlsTermination, Tokens};
use crate::ingest::PipelineOptions;
use crate::jobs::{JobsConfig, OpenJobLimits, Store};

/// The database's file in the data directory.
const DATABASE_FILE: &str = "adtally.db";

/// The most header fields of a request.
const MAX_HEADER_FIELDS: usize = 100;

/// Requests at once on a connection of HTTP/2.
const MAX_STREAMS: u32 = 100;

/// Connections at once to the address for metrics: it has few users.
const MAX_METRICS_CONNECTIONS: usize = 32;

/// Serves HTTP: takes uploads, aggregates them while they arrive, and keeps the results.
///
/// Prints the address it listens on to standard output; logs go to standard error. SIGTERM and Ctrl-C stop it: new uploads
/// are refused; running uploads and downloads have --drain-timeout to finish.
///
/// Exit codes: 0 stopped as asked, 1 the system refused, 2 wrong usage.
#[derive(Args)]
pub(in crate::cli) struct Arguments {
    /// Address to listen on; port 0 takes any that is free
    #[arg(long, env = "ADTALLY_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub(super) listen: SocketAddr,

    /// Print every setting with where it comes from, and why the service would not start, instead of starting it
    #[arg(long)]
    pub(super) check: bool,

    /// File that says whose tokens are taken, one line each; `adtally token` makes them. Read again when it changes, and on SIGHUP
    #[arg(long, env = "ADTALLY_TOKEN_FILE", value_name = "FILE", help_heading = "Access")]
    pub(super) token_file: Option<PathBuf>,

    /// Let everybody who reaches --listen use the service, also from other machines; of no effect with --token-file
    #[arg(long, env = "ADTALLY_INSECURE_NO_AUTH", value_parser = BoolishValueParser::new(), help_heading = "Access")]
    pub(super) insecure_no_auth: bool,
    /// Certificate in PEM, with those of the authorities between it and a root: the service speaks TLS then. Needs --tls-key
    #[arg(long, env = "ADTALLY_TLS_CERT", value_name = "PATH", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// Private key of the certificate in PEM, not encrypted. Both files are read again when they change, and on SIGHUP
    #[arg(long, env = "ADTALLY_TLS_KEY", value_name = "PATH", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Address for /metrics, without TLS and without tokens; --listen has none then
    #[arg(long, env = "ADTALLY_METRICS_LISTEN", value_name = "ADDRESS")]
    pub(super) metrics_listen: Option<SocketAddr>,

    /// Origin whose pages may use the interface from a browser, such as https://ads.example.com; several are separated by commas
    #[arg(long = "cors-origin", env = "ADTALLY_CORS_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    cors_origins: Vec<CorsOrigin>,

    /// Name under which the service may be reached, such as ads.example.com, or * for any; several are separated by commas. Requests to other
    /// names are refused; addresses and localhost are always allowed. Any name is allowed if none is given and --listen is no loopback address
    #[arg(long = "allowed-host", env = "ADTALLY_ALLOWED_HOST", value_name = "NAME", value_delimiter = ',')]
    allowed_hosts: Vec<AllowedHost>,

    /// Directory of the database; made if it is not there
    #[arg(long, env = "ADTALLY_DATA_DIR", value_name = "DIR", default_value = "data", help_heading = "Storage")]
    pub(super) data_dir: PathBuf,

    /// Directory in which results also appear as files, JOB_ID/top10_ctr.csv and so on
    #[arg(long, env = "ADTALLY_RESULTS_DIR", value_name = "DIR", help_heading = "Storage")]
    pub(super) results_dir: Option<PathBuf>,

    /// Database: sqlite://PATH; a file in the data directory if not given
    #[arg(long, env = "ADTALLY_DATABASE_URL", value_name = "URL", value_parser = parse_database_url,
        help_heading = "Storage")]
    pub(super) database_url: Option<String>,

    /// How long a job is kept after it has ended
    #[arg(long, env = "ADTALLY_KEEP_FINISHED", value_name = "DURATION", default_value = "7d",
        value_parser = values::parse_duration, help_heading = "Storage")]
    keep_finished: Duration,

    /// How long an open job is kept while no file of it is received
    #[arg(long, env = "ADTALLY_KEEP_OPEN", value_name = "DURATION", default_value = "24h",
        value_parser = values::parse_duration, help_heading = "Storage")]
    keep_open: Duration,

    /// The least time between two checkpoints of a file that is being received; they also take at most a fiftieth of its time (a tenth with
    /// many campaigns). After a crash its sender goes on at the last one.
    #[arg(long, env = "ADTALLY_CHECKPOINT_INTERVAL", value_name = "DURATION", default_value = "5s",
        value_parser = values::parse_timeout_or_zero)]
    checkpoint_interval: Duration,

    /// Largest upload, as it is sent
    #[arg(long, env = "ADTALLY_MAX_UPLOAD", value_name = "SIZE", default_value = "64GiB",
        value_parser = values::parse_size, help_heading = "Limits")]
    max_upload: u64,

    /// Largest upload after decompression
    #[arg(long, env = "ADTALLY_MAX_TEXT", value_name = "SIZE", default_value = "256GiB",
        value_parser = values::parse_size, help_heading = "Limits")]
    max_text: u64,

    /// How many times more bytes may come out of decompression than went in; the first 64 MiB are free
    #[arg(long, env = "ADTALLY_MAX_DECOMPRESSION_RATIO", value_name = "N",
        default_value_t = PipelineOptions::default().max_decompression_ratio,
        value_parser = values::parse_any_count, help_heading = "Limits")]
    max_decompression_ratio: u64,

    /// Longest record; longer ones are skipped
    #[arg(long, env = "ADTALLY_MAX_RECORD", value_name = "SIZE", default_value = "64KiB",
        value_parser = values::parse_max_record, help_heading = "Limits")]
    max_record: usize,

    /// Most different campaign ids of a job; more are refused. Each takes about 60 bytes of memory
    #[arg(long, env = "ADTALLY_MAX_CAMPAIGNS", value_name = "N", default_value_t = 2_000_000,
        value_parser = values::parse_max_campaigns, help_heading = "Limits")]
    max_campaigns: usize,

    /// Most skipped rows, in bytes, that are kept of a job that keeps all of them; rejects.csv says when there were more
    #[arg(long, env = "ADTALLY_MAX_REJECTS", value_name = "SIZE", default_value = "64MiB",
        value_parser = values::parse_size_or_zero, help_heading = "Limits")]
    max_rejects: u64,

    /// Most parts of a form
    #[arg(long, env = "ADTALLY_MAX_FORM_PARTS", value_name = "N", default_value_t = 64,
        value_parser = values::parse_count, help_heading = "Limits")]
    max_form_parts: usize,

    /// Most files of an open job
    #[arg(long, env = "ADTALLY_MAX_FILES", value_name = "N", default_value_t = 1000,
        value_parser = values::parse_count, help_heading = "Limits")]
    max_files: usize,

    /// Most open jobs at once; more are refused with 503
    #[arg(long, env = "ADTALLY_MAX_OPEN_JOBS", value_name = "N", default_value_t = 1000,
        value_parser = values::parse_any_count, help_heading = "Limits")]
    max_open_jobs: u64,

    /// Most open jobs of one tenant at once; more are refused with 503. As many as --max-open-jobs if not given
    #[arg(long, env = "ADTALLY_MAX_OPEN_JOBS_PER_TENANT", value_name = "N", value_parser = values::parse_any_count,
        help_heading = "Limits")]
    max_open_jobs_per_tenant: Option<u64>,

    /// Most room that the database may use; new jobs and files are refused with 507 then
    #[arg(long, env = "ADTALLY_MAX_STORED", value_name = "SIZE", default_value = "64GiB",
        value_parser = values::parse_size, help_heading = "Limits")]
    max_stored: u64,

    /// Most room that the jobs of one tenant may use in the database; it gets no new jobs and files with 507 then. No limit but --max-stored if
    /// not given
    #[arg(long, env = "ADTALLY_MAX_STORED_PER_TENANT", value_name = "SIZE", value_parser = values::parse_size,
        help_heading = "Limits")]
    max_stored_per_tenant: Option<u64>,

    /// Room that stays free on the database's disk: with less, new jobs and files are refused with 507
    #[arg(long, env = "ADTALLY_DISK_RESERVE", value_name = "SIZE", default_value = "64MiB",
        value_parser = values::parse_size_or_zero, help_heading = "Limits")]
    disk_reserve: u64,

    /// Most uploads at once; more are refused with 503
    #[arg(long, env = "ADTALLY_MAX_CONCURRENT_UPLOADS", value_name = "N", default_value_t = 256,
        value_parser = values::parse_count, help_heading = "Limits")]
    max_concurrent_uploads: usize,

    /// Most uploads of one tenant at once; more are refused with 503. As many as --max-concurrent-uploads if not given
    #[arg(long, env = "ADTALLY_MAX_UPLOADS_PER_TENANT", value_name = "N", value_parser = values::parse_count,
        help_heading = "Limits")]
    max_uploads_per_tenant: Option<usize>,

    /// Most results that are sent at once; more are refused with 503
    #[arg(long, env = "ADTALLY_MAX_CONCURRENT_DOWNLOADS", value_name = "N", default_value_t = 256,
        value_parser = values::parse_count, help_heading = "Limits")]
    max_concurrent_downloads: usize,

    /// Most results that are sent at once to one tenant; more are refused with 503. As many as --max-concurrent-downloads if not given
    #[arg(long, env = "ADTALLY_MAX_DOWNLOADS_PER_TENANT", value_name = "N", value_parser = values::parse_count,
        help_heading = "Limits")]
    max_downloads_per_tenant: Option<usize>,

    /// Memory that all uploads together may take, and what becomes of them; 60 % of what the machine or the container has if not given.
    /// When it runs out, the youngest upload is interrupted
    #[arg(long, env = "ADTALLY_MEMORY_BUDGET", value_name = "SIZE", value_parser = parse_memory_budget,
        help_heading = "Limits")]
    memory_budget: Option<u64>,

    /// Most connections at once; more wait
    #[arg(long, env = "ADTALLY_MAX_CONNECTIONS", value_name = "N", default_value_t = 10_000,
        value_parser = values::parse_count, help_heading = "Limits")]
    max_connections: usize,

    /// Most connections of one tenant at once; requests on more are refused with 503. No limit but --max-connections if not given
    #[arg(long, env = "ADTALLY_MAX_CONNECTIONS_PER_TENANT", value_name = "N", value_parser = values::parse_count,
        help_heading = "Limits")]
    max_connections_per_tenant: Option<usize>,

    /// Most requests of one tenant in a second, and at once; more are refused with 429; 0 is no limit
    #[arg(long, env = "ADTALLY_MAX_REQUEST_RATE", value_name = "N", default_value_t = 1000,
        value_parser = values::parse_rate, help_heading = "Limits")]
    max_request_rate: u32,

    /// Threads that parse, 1 to 256; as many as there are cores if not given
    #[arg(long, env = "ADTALLY_PARSER_THREADS", value_name = "N", value_parser = values::parse_threads,
        help_heading = "Limits")]
    parser_threads: Option<u16>,

    /// Longest time from one request to the end of the next one's head
    #[arg(long, env = "ADTALLY_HEADER_TIMEOUT", value_name = "DURATION", default_value = "15s",
        value_parser = values::parse_timeout, help_heading = "Times")]
    header_timeout: Duration,

    /// Longest silence of the sender of an upload
    #[arg(long, env = "ADTALLY_IDLE_TIMEOUT", value_name = "DURATION", default_value = "60s",
        value_parser = values::parse_timeout, help_heading = "Times")]
    idle_timeout: Duration,

    /// Fewest bytes of an upload that may come in a second, while they are waited for; 0 is no limit
    #[arg(long, env = "ADTALLY_MIN_RECEIVE_RATE", value_name = "SIZE", default_value = "1KiB",
        value_parser = values::parse_size_or_zero, help_heading = "Times")]
    min_receive_rate: u64,

    /// How long an upload may be waited for beyond what --min-receive-rate allows for its bytes
    #[arg(long, env = "ADTALLY_RECEIVE_GRACE", value_name = "DURATION", default_value = "60s",
        value_parser = values::parse_timeout, help_heading = "Times")]
    receive_grace: Duration,

    /// Longest time in which a client takes nothing of an answer that is being sent
    #[arg(long, env = "ADTALLY_WRITE_TIMEOUT", value_name = "DURATION", default_value = "60s",
        value_parser = values::parse_timeout, help_heading = "Times")]
    write_timeout: Duration,

    /// How long the rest of a refused upload is read, so that its sender receives the answer
    #[arg(long, env = "ADTALLY_LINGER_TIMEOUT", value_name = "DURATION", default_value = "30s",
        value_parser = values::parse_timeout_or_zero, help_heading = "Times")]
    linger_timeout: Duration,

    /// How long running uploads and downloads may go on when the service is told to stop
    #[arg(long, env = "ADTALLY_DRAIN_TIMEOUT", value_name = "DURATION", default_value = "30s",
        value_parser = values::parse_timeout_or_zero, help_heading = "Times")]
    drain_timeout: Duration,

    /// Form of the log on standard error
    #[arg(long, env = "ADTALLY_LOG_FORMAT", value_name = "text|json", default_value = "text", help_heading = "Log")]
    pub(super) log_format: LogFormat,

    /// What is logged: error, warn, info, debug or trace, also for parts of the program (info,sqlx=debug)
    #[arg(
        long,
        env = "ADTALLY_LOG_LEVEL",
        value_name = "LEVEL",
        default_value = "info,sqlx=warn", value_parser = parse_log_level,
        help_heading = "Log"
    )]
    pub(super) log_level: Targets,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    Text,
    Json,
}

/// Without this check an unknown bare word would be taken for the name of a part of the program.
fn parse_log_level(text: &str) -> Result<Targets, String> {
    let levels = text.split(',').map(|directive| directive.rsplit('=').next().unwrap_or_default());
    if let Some(other) = levels.into_iter().find(|level| level.parse::<LevelFilter>().is_err()) {
        return Err(format!("{other:?}: expected error, warn, info, debug, trace or off"));
    }
    text.parse().map_err(|error: ParseError| error.to_string())
}

/// Addresses of other kinds of databases are refused when they are opened, without showing them: they may have passwords.
fn parse_database_url(text: &str) -> Result<String, String> {
    if Store::is_lost_at_exit(text) {
        return Err("expected sqlite://PATH with the path of a file: a database in memory keeps no jobs".into());
    }
    Ok(text.to_owned())
}

impl Arguments {
    /// Settings of the jobs and their store.
    pub(super) fn jobs_config(&self) -> JobsConfig {
        let database_url =
            self.database_url.clone().unwrap_or_else(|| Store::file_url(&self.data_dir.join(DATABASE_FILE)));
        let parser_threads = self.parser_threads.and_then(|threads| NonZeroUsize::new(threads.into()));
        JobsConfig {
            database_url,
            results_dir: self.results_dir.clone(),
            parser_threads: parser_threads
                .or_else(|| thread::available_parallelism().ok())
                .unwrap_or(NonZeroUsize::MIN),
            memory_budget_bytes: self.memory_budget.unwrap_or_else(default_memory_budget),
            max_concurrent_uploads: self.max_concurrent_uploads,
            max_uploads_per_tenant: self.max_uploads_per_tenant.unwrap_or(self.max_concurrent_uploads),
            limits: Limits { max_record_bytes: self.max_record, max_campaigns: self.max_campaigns },
            max_rejects_bytes: self.max_rejects,
            max_text_bytes: self.max_text,
            max_decompression_ratio: self.max_decompression_ratio,
            keep_finished: SignedDuration::try_from(self.keep_finished).unwrap_or(SignedDuration::MAX),
            keep_open: SignedDuration::try_from(self.keep_open).unwrap_or(SignedDuration::MAX),
            checkpoint_interval: self.checkpoint_interval,
            open_jobs: OpenJobLimits {
                max_open_jobs: self.max_open_jobs,
                max_open_jobs_per_tenant: self.max_open_jobs_per_tenant.unwrap_or(self.max_open_jobs),
            },
            max_stored_bytes: self.max_stored,
            max_stored_bytes_per_tenant: self.max_stored_per_tenant,
            disk_reserve_bytes: self.disk_reserve,
            max_files: self.max_files,
        }
    }

    /// Limits on what requests may do.
    pub(super) fn http_config(&self, tokens: Option<Tokens>) -> HttpConfig {
        HttpConfig {
            max_upload_bytes: self.max_upload,
            max_form_parts: self.max_form_parts,
            idle_timeout: self.idle_timeout,
            min_receive_rate: self.min_receive_rate,
            receive_grace: self.receive_grace,
            max_concurrent_downloads: self.max_concurrent_downloads,
            max_downloads_per_tenant: self.max_downloads_per_tenant.unwrap_or(self.max_concurrent_downloads),
            max_request_rate: NonZeroU32::new(self.max_request_rate),
            max_connections_per_tenant: self.max_connections_per_tenant,
            linger_timeout: self.linger_timeout,
            cors_origins: self.cors_origins.clone(),
            tokens,
            allowed_hosts: self.allowed_hosts(),
            serves_metrics: self.metrics_listen.is_none(),
        }
    }

    /// The names under which the service may be reached. Pages can make browsers of this machine reach a loopback address under any name, so there
    /// they are checked even if none is given.
    fn allowed_hosts(&self) -> Option<Vec<AllowedHost>> {
        let are_checked = self.listen.ip().to_canonical().is_loopback() || !self.allowed_hosts.is_empty();
        are_checked.then(|| self.allowed_hosts.clone())
    }

    /// The files of certificate and key. None: the service speaks no TLS.
    pub(super) fn tls_files(&self) -> Option<TlsFiles> {
        let (certificate, key) = (self.tls_cert.clone()?, self.tls_key.clone()?);
        Some(TlsFiles { certificate, key })
    }

    /// Reads the files of certificate and key, if they are given.
    pub(super) fn load_tls(&self) -> Result<Option<TlsTermination>, String> {
        let loaded = self.tls_files().map(TlsTermination::load).transpose();
        loaded.map_err(|error| format!("--tls-cert, --tls-key: {error}"))
    }

    /// Limits on connections.
    pub(super) fn connection_limits(&self) -> ConnectionLimits {
        ConnectionLimits {
            max_connections: self.max_connections,
            header_timeout: self.header_timeout,
            write_timeout: self.write_timeout,
            max_header_fields: MAX_HEADER_FIELDS,
            max_streams: MAX_STREAMS,
        }
    }

    /// Limits on connections to the address for metrics.
    pub(super) fn metrics_connection_limits(&self) -> ConnectionLimits {
        ConnectionLimits { max_connections: MAX_METRICS_CONNECTIONS, ..self.connection_limits() }
    }

    /// How long running uploads and downloads may go on once the service is told to stop.
    pub(super) fn drain_timeout(&self) -> Duration {
        self.drain_timeout
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::engine::DEFAULT_MAX_REJECTS_BYTES;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn the_defaults_are_those_of_the_parts_they_are_for() {
        let Command { arguments } = Command::parse_from(["serve"]);
        let config = arguments.jobs_config();
        let pipeline = PipelineOptions::default();
        assert_eq!(config.limits.max_record_bytes, Limits::default().max_record_bytes);
        assert_eq!(config.max_rejects_bytes, DEFAULT_MAX_REJECTS_BYTES);
        assert_eq!(config.max_text_bytes, pipeline.max_text_bytes);
        assert_eq!(config.max_decompression_ratio, pipeline.max_decompression_ratio);
    }
}
