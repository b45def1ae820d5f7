//! `adtally serve`: the service, from its start to its end.

mod arguments;
mod check;
mod directories;
mod log_lines;
mod machine_memory;
mod open_files;
mod refusals;
mod reload;
mod token_file;

use std::io::{self, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use clap::ArgMatches;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until, timeout};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::stop::Stop;
use crate::http::{Shutdown, TlsTermination, metrics_router, router, serve};
use crate::jobs::Jobs;
pub(super) use arguments::Arguments;
use arguments::LogFormat;
use directories::prepare_directory;
use log_lines::LogLines;
use open_files::allow_connections;
use refusals::{cannot_listen, cannot_listen_for_metrics, cannot_open};
use reload::Reloader;
use token_file::TokenFile;

/// Upper bounds of the duration histogram, in seconds: from answers out of memory to uploads of minutes.
const DURATION_BUCKETS: [f64; 11] = [0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0];

/// How long the store has at the end for what it has not taken yet. Without that, senders go on at an earlier place.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(700);

/// How long the threads have to end.
const THREADS_TIMEOUT: Duration = Duration::from_millis(300);

/// Serves until a signal, or only checks the settings. `given` tells where each of the arguments comes from.
pub(super) fn run(arguments: &Arguments, given: &ArgMatches) -> Result<(), Stop> {
    if arguments.check {
        return check::check(arguments, given);
    }
    start_log(arguments);
    token_file::check_listen(arguments).map_err(Stop::Refused)?;
    let token_file = arguments.token_file.as_deref().map(TokenFile::load).transpose().map_err(Stop::Refused)?;
    prepare_directory(&arguments.data_dir, "--data-dir")?;
    if let Some(directory) = &arguments.results_dir {
        prepare_directory(directory, "--results-dir")?;
    }
    let tls = arguments.load_tls().map_err(Stop::Refused)?.map(Arc::new);
    let metrics = start_metrics()?;
    let runtime = start_runtime()?;
    let result = runtime.block_on(run_service(arguments, tls, metrics, token_file));
    // Blocking work whose result is no longer needed must not delay the exit.
    runtime.shutdown_timeout(THREADS_TIMEOUT);
    result
}

async fn run_service(
    arguments: &Arguments,
    tls: Option<Arc<TlsTermination>>,
    metrics: PrometheusHandle,
    token_file: Option<TokenFile>,
) -> Result<(), Stop> {
    let no_signals = |error| Stop::Refused(format!("signals: {error}"));
    let mut signals = Signals::listen().map_err(no_signals)?;
    // SIGHUP is listened to from here on: unheard, it would end the process.
    let mut reloader = Reloader::listen().map_err(no_signals)?;
    if let (Some(tls), Some(files)) = (&tls, arguments.tls_files()) {
        let tls = Arc::clone(tls);
        let reload = move || tls.reload().map_err(|error| error.to_string());
        reloader.watch("TLS certificate and key", vec![files.certificate, files.key], reload);
    }
    let tokens = token_file.as_ref().map(|file| file.tokens().clone());
    if let Some(file) = token_file {
        let path = file.path().to_owned();
        reloader.watch("token file", vec![path], move || file.reload());
    } else if !arguments.listen.ip().to_canonical().is_loopback() {
        tracing::warn!("--insecure-no-auth: everybody who reaches the address can use the service");
    }
    let main = arguments.listen;
    let (listener, address) = listen(main, |error| cannot_listen("--listen", main, error)).await?;
    let metrics_listener = match arguments.metrics_listen {
        Some(metrics) => Some(listen(metrics, |error| cannot_listen_for_metrics(metrics, main, error)).await?),
        None => None,
    };
    let config = arguments.jobs_config();
    let (database, memory_budget_bytes) = (config.database_url.clone(), config.memory_budget_bytes);
    let jobs = Jobs::open(config).await.map_err(|error| Stop::Refused(cannot_open(&database, &error)))?;
    let shutdown = Shutdown::default();
    let scheme = if tls.is_some() { "https" } else { "http" };
    let router = router(Arc::clone(&jobs), arguments.http_config(tokens.clone()), metrics.clone());
    let mut limits = arguments.connection_limits();
    limits.max_connections = allow_connections(limits.max_connections);
    let main_server = serve(listener, router, limits, tls, shutdown.clone());
    let (metrics_listener, metrics_address) = metrics_listener.unzip();
    let metrics_server = metrics_listener.map(|listener| {
        let router = metrics_router(Arc::clone(&jobs), arguments.http_config(None), metrics.clone());
        serve(listener, router, arguments.metrics_connection_limits(), None, shutdown.clone())
    });
    let mut server = tokio::spawn(async move {
        match metrics_server {
            Some(metrics_server) => {
                tokio::join!(main_server, metrics_server);
            }
            None => main_server.await,
        }
    });
    let reloading = reloader.start();
    let expiring = tokens.map(|tokens| tokio::spawn(token_file::end_expired(tokens)));
    let upkeep = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            metrics.run_upkeep();
        }
    });
    // A closed standard output is no error.
    let _ = writeln!(io::stdout(), "listening on {scheme}://{address}");
    if let Some(address) = metrics_address {
        let _ = writeln!(io::stdout(), "metrics on http://{address}/metrics");
    }
    tracing::info!(%address, %database, memory_budget_bytes, "ready");

    let name = signals.first().await;
    let drain_timeout = arguments.drain_timeout();
    let drain_end = Instant::now() + drain_timeout;
    tracing::info!(signal = name, seconds = drain_timeout.as_secs(), "stopping; running requests may finish");
    jobs.drain();
    // A second signal stops the service at once.
    tokio::select! {
        () = jobs.drained(drain_timeout) => {}
        _ = signals.first() => shutdown.abort.cancel(),
    }
    // What is in flight is still answered.
    shutdown.stop.cancel();
    jobs.stop_uploads().await;
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
    if timeout(CLOSE_TIMEOUT, jobs.close()).await.is_err() {
        tracing::warn!("not everything could be stored in time; the next start goes on with what was stored before");
    }
    upkeep.abort();
    reloading.abort();
    if let Some(expiring) = expiring {
        expiring.abort();
    }
    tracing::info!("stopped");
    Ok(())
}

fn start_log(arguments: &Arguments) {
    let lines = tracing_subscriber::fmt::layer().with_writer(|| LogLines);
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

/// Half as many as there are cores: the network takes less than half of an upload's processor time, and parsing the rest. More of them would
/// mostly wake each other: on two cores, an upload takes an eighth less processor time with one than with two.
fn network_threads() -> usize {
    thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2))
}

fn start_runtime() -> Result<Runtime, Stop> {
    let runtime = Builder::new_multi_thread().worker_threads(network_threads()).enable_all().build();
    runtime.map_err(|error| Stop::Refused(format!("the threads cannot be started: {error}")))
}

/// Takes an address, and gives the one that it has become: port 0 takes any that is free.
async fn listen(
    address: SocketAddr,
    explain: impl FnOnce(&io::Error) -> String,
) -> Result<(TcpListener, SocketAddr), Stop> {
    let listener = TcpListener::bind(address).await.map_err(|error| Stop::Refused(explain(&error)))?;
    let address = listener.local_addr().map_err(|error| Stop::Refused(format!("the listening socket: {error}")))?;
    Ok((listener, address))
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
