//! Starting the service, or being told why it does not start; asking whether it is ready.

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use crate::harness::{Run, Workspace, adtally, run};
use crate::senders::csv;
use crate::service::Service;

/// Tries to start a server that is to refuse; one that does not is ended. It would listen on a port that the system
/// chooses.
fn serve(arguments: &[&str]) -> Run {
    let mut command = adtally();
    command.arg("serve").args(arguments);
    if !arguments.contains(&"--listen") {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    let mut server = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    if !line.is_empty() {
        server.kill().unwrap();
    }
    Run { stdout: line, ..Run::of(server.wait_with_output().unwrap()) }
}

/// Checks that it refused, and that the last line says all of this. Before it may be what it logged.
#[track_caller]
fn assert_refused(run: &Run, says: &[&str]) {
    assert_eq!(run.code, Some(1), "{run:?}");
    assert_eq!(run.stdout, "", "it does not listen: {run:?}");
    let last = run.stderr.lines().last().unwrap_or_default();
    assert!(last.starts_with("adtally: "), "{run:?}");
    for part in says {
        assert!(last.contains(part), "{part:?} is missing: {run:?}");
    }
}

#[test]
fn directories_are_made_when_they_are_not_there() {
    let place = Workspace::new();
    let (data, results) = (place.path("a/b/data"), place.path("c/results"));
    let mut command = adtally();
    command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(&data).arg("--results-dir").arg(&results);
    let mut server = crate::harness::Running(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("listening on http://127.0.0.1:"), "{line}");
    assert!(data.join("adtally.db").is_file() && results.is_dir());
}

#[test]
fn directories_that_are_files_or_cannot_be_written() {
    let place = Workspace::new();
    place.write("file", "");
    let path = |name: &str| place.path(name).to_str().unwrap().to_owned();
    let good = path("good");
    for (flag, arguments) in [
        ("--data-dir", ["--data-dir", &path("file"), "--results-dir", &good]),
        ("--data-dir", ["--data-dir", &path("file/below"), "--results-dir", &good]),
        ("--results-dir", ["--data-dir", &good, "--results-dir", &path("file")]),
    ] {
        assert_refused(&serve(&arguments), &[flag, "file", "cannot be written"]);
    }
    assert_eq!(fs::read(place.path("file")).unwrap(), b"");
    // The name of the database is taken by a directory.
    fs::create_dir_all(place.path("taken/adtally.db")).unwrap();
    assert_refused(&serve(&["--data-dir", &path("taken")]), &["adtally.db", "database"]);
    // Or by something that is none.
    place.write("other/adtally.db", "no database, but long enough to be looked at as if it were one: ".repeat(50));
    assert_refused(&serve(&["--data-dir", &path("other")]), &["adtally.db", "not a database"]);
    fs::create_dir(place.path("locked")).unwrap();
    fs::set_permissions(place.path("locked"), Permissions::from_mode(0o500)).unwrap();
    if fs::write(place.path("locked/probe"), "").is_ok() {
        println!("skipped: running as root");
        return;
    }
    assert_refused(&serve(&["--data-dir", &path("locked")]), &["--data-dir", "permission denied", "mode 500"]);
    assert_refused(&serve(&["--data-dir", &path("locked/below")]), &["--data-dir", "permission denied", "mode 500"]);
}

#[test]
fn a_port_that_is_taken() {
    let place = Workspace::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let data = place.path("data");
    let run = serve(&["--listen", &address, "--data-dir", data.to_str().unwrap()]);
    assert_refused(&run, &[&address, "another program listens there", "--listen"]);
    assert!(!data.join("adtally.db").exists(), "a server that does not start leaves the database alone");
}

#[test]
fn an_address_that_this_machine_does_not_have() {
    let place = Workspace::new();
    let data = place.path("data");
    // RFC 5737: for documentation only.
    let run = serve(&["--listen", "192.0.2.1:0", "--insecure-no-auth", "--data-dir", data.to_str().unwrap()]);
    assert_refused(&run, &["192.0.2.1", "does not have that address"]);
}

#[test]
fn databases_that_are_not_known() {
    let place = Workspace::new();
    let data = place.path("data");
    let data = data.to_str().unwrap();
    for url in ["mysql://localhost/adtally", "adtally.db", "", "sqlite"] {
        assert_refused(&serve(&["--data-dir", data, "--database-url", url]), &["sqlite://PATH"]);
    }
    let run = serve(&["--data-dir", data, "--database-url", "mysql://user:sesame@localhost/adtally"]);
    assert_refused(&run, &["sqlite://PATH"]);
    assert!(!run.stderr.contains("sesame"), "a password is in the message: {run:?}");
    let missing = format!("sqlite://{data}/no/such/place/adtally.db");
    assert_refused(&serve(&["--data-dir", data, "--database-url", &missing]), &["no/such/place", "database"]);
}

#[test]
fn arguments_that_are_none() {
    serve(&["--no-such-option"]).assert_misused("--no-such-option");
    serve(&["something"]).assert_misused("something");
    for (flag, value) in [
        ("--listen", "nowhere"),
        ("--listen", "127.0.0.1"),
        ("--listen", "127.0.0.1:99999"),
        ("--max-upload", "0"),
        ("--max-upload", "1e9"),
        ("--max-text", "0"),
        ("--max-decompression-ratio", "0"),
        ("--max-record", "0"),
        ("--max-campaigns", "0"),
        ("--max-form-parts", "0"),
        ("--max-concurrent-uploads", "0"),
        ("--max-connections", "0"),
        ("--parser-threads", "0"),
        ("--parser-threads", "257"),
        ("--idle-timeout", "0s"),
        ("--header-timeout", "0s"),
        ("--keep-finished", "0s"),
        ("--drain-timeout", "31536001s"),
        ("--log-format", "xml"),
        ("--log-level", "loud"),
    ] {
        serve(&[flag, value]).assert_misused(flag);
    }
}

#[test]
fn every_option_can_be_an_environment_variable() {
    let mut command = adtally();
    command.args(["serve", "--listen", "127.0.0.1:0"]).env("ADTALLY_MAX_UPLOAD", "none");
    run(&mut command, b"").assert_misused("--max-upload");
    for flag in ["max-upload", "max-open-jobs", "token-file"] {
        let variable = format!("ADTALLY_{}", flag.replace('-', "_").to_uppercase());
        let refused = run(adtally().args(["serve", "--check"]).env(&variable, ""), b"");
        refused.assert_misused(&format!("{variable} is empty")).assert_misused(&format!("--{flag}"));
    }
    assert!(!run(adtally().args(["serve", "--max-upload", ""]), b"").stderr.contains("is empty"));
    let help = run(adtally().args(["serve", "--help"]), b"").stdout;
    let flags = help.lines().filter(|line| line.trim_start().starts_with("--"));
    let flags = flags.filter_map(|line| line.split_whitespace().next());
    for flag in flags.filter(|flag| !["--help", "--check"].contains(flag)) {
        let variable = format!("ADTALLY_{}", flag.trim_start_matches("--").replace('-', "_").to_uppercase());
        assert!(help.contains(&format!("[env: {variable}=")), "{flag} has no variable {variable}");
    }
}

#[test]
fn a_check_prints_every_setting_with_where_it_comes_from() {
    let place = Workspace::new();
    let data = place.path("data");
    let mut command = adtally();
    command.args(["serve", "--check", "--listen", "127.0.0.1:0", "--idle-timeout", "90s"]);
    command
        .env("ADTALLY_DATA_DIR", &data)
        .env("ADTALLY_MAX_UPLOAD", "2GiB")
        .env("ADTALLY_MAX_CONCURRENT_UPLOADS", "77")
        .env("ADTALLY_CORS_ORIGIN", "https://a.example,https://b.example");
    let checked = run(&mut command, b"");
    assert_eq!((checked.code, &*checked.stderr), (Some(0), ""), "{checked:?}");
    let cores = std::thread::available_parallelism().unwrap().to_string();
    let database = format!("sqlite://{}", data.join("adtally.db").display());
    let settings: Vec<Vec<_>> = checked
        .stdout
        .lines()
        .map(|line| line.split("  ").filter(|text| !text.is_empty()).map(str::trim).collect())
        .collect();
    for setting in [
        ["--listen", "127.0.0.1:0", "command line"],
        ["--idle-timeout", "90s", "command line"],
        ["--data-dir", data.to_str().unwrap(), "ADTALLY_DATA_DIR"],
        ["--max-upload", "2GiB", "ADTALLY_MAX_UPLOAD"],
        ["--cors-origin", "https://a.example,https://b.example", "ADTALLY_CORS_ORIGIN"],
        ["--max-text", "256GiB", "default"],
        ["--results-dir", "-", "not set"],
        ["--max-stored-per-tenant", "-", "not set"],
        ["--max-connections-per-tenant", "-", "not set"],
        ["--parser-threads", &cores, "default (as many as there are cores)"],
        ["--max-open-jobs-per-tenant", "1000", "default (--max-open-jobs)"],
        ["--max-uploads-per-tenant", "77", "default (--max-concurrent-uploads)"],
        ["--max-downloads-per-tenant", "256", "default (--max-concurrent-downloads)"],
        ["--database-url", &database, "default (a file in --data-dir)"],
    ] {
        assert!(settings.iter().any(|row| row[..] == setting), "{setting:?} is missing: {checked:?}");
    }
    let budget = settings.iter().find(|row| row[0] == "--memory-budget").unwrap();
    assert_eq!(budget[2], "default (a share of the machine's memory)");
    assert!(budget[1].ends_with("iB"), "{budget:?}");
    let help = run(adtally().args(["serve", "--help"]), b"").stdout;
    let flags = help.lines().filter_map(|line| line.split_whitespace().next()).filter(|word| word.starts_with("--"));
    for flag in flags.filter(|flag| *flag != "--check" && *flag != "--help") {
        assert!(settings.iter().any(|row| row[0] == flag), "{flag} is missing: {checked:?}");
    }
    assert!(!data.exists(), "a check leaves the disk alone");
}

#[test]
fn a_check_passes_with_relative_directories_that_are_still_to_be_made() {
    let place = Workspace::new();
    let check = |arguments: &[&str]| {
        let mut command = adtally();
        command.args(["serve", "--check", "--listen", "127.0.0.1:0"]).args(arguments);
        command.current_dir(place.path(".")).env_remove("ADTALLY_DATA_DIR");
        run(&mut command, b"")
    };
    for arguments in [&[][..], &["--data-dir", "a/b", "--results-dir", "c"], &["--data-dir", "."]] {
        let checked = check(arguments);
        assert_eq!((checked.code, &*checked.stderr), (Some(0), ""), "{checked:?}");
    }
    assert_eq!(fs::read_dir(place.path(".")).unwrap().count(), 0, "a check leaves the disk alone");
}

#[test]
fn a_database_that_would_not_last_is_wrong_usage() {
    let place = Workspace::new();
    let (path, data) = (place.path("adtally.db"), place.path("data"));
    let in_memory = format!("sqlite://{}?mode=memory", path.display());
    for url in [
        "sqlite:",
        "sqlite://",
        "sqlite://?mode=rwc",
        "sqlite::memory:",
        "sqlite://:memory:",
        "sqlite:file:a",
        &in_memory,
    ] {
        for check in [&["--check"][..], &[]] {
            let mut command = adtally();
            command.args(["serve", "--listen", "127.0.0.1:0", "--database-url", url]).args(check);
            let refused = run(command.arg("--data-dir").arg(&data), b"");
            refused.assert_misused("expected sqlite://PATH");
        }
    }
}

#[test]
fn two_servers_on_one_address_and_port_are_named() {
    let place = Workspace::new();
    let data = place.path("data");
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for (main, metrics) in [("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "0.0.0.0")] {
        let [main, metrics] = [main, metrics].map(|address| format!("{address}:{port}"));
        for check in [&["--check"][..], &[]] {
            let mut command = adtally();
            command.args(["serve", "--listen", &main, "--metrics-listen", &metrics]).args(check);
            let refused = run(command.arg("--data-dir").arg(&data), b"");
            assert_eq!(refused.code, Some(1), "{refused:?}");
            let expected = format!("--metrics-listen {metrics}: --listen {main} has this address and port");
            assert!(refused.stderr.contains(&expected), "{refused:?}");
        }
    }
    let check = ["serve", "--check", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--data-dir"];
    assert_eq!(run(adtally().args(check).arg(&data), b"").code, Some(0), "both take a free port");
}

#[test]
fn a_check_names_everything_that_would_refuse_the_start() {
    let place = Workspace::new();
    place.write("file", "");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let path = |name: &str| place.path(name).to_str().unwrap().to_owned();
    let check = |arguments: &[&str]| run(adtally().args(["serve", "--check"]).args(arguments), b"");
    let url = "mysql://user:sesame@localhost/adtally";
    let (data, results) = (path("file"), path("file/below"));
    let arguments = ["--listen", &address, "--data-dir", &data, "--results-dir", &results, "--database-url", url];
    let checked = check(&arguments);
    assert_eq!(checked.code, Some(1), "{checked:?}");
    for part in ["the 4 reasons above", "--data-dir", "--results-dir", "another program listens there", "sqlite://PATH"]
    {
        assert!(checked.stderr.contains(part), "{part:?} is missing: {checked:?}");
    }
    assert!(!format!("{checked:?}").contains("sesame"), "a password is shown: {checked:?}");
    // A database that another process uses.
    let service = Service::start();
    let data = service.path("data");
    let checked = check(&["--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()]);
    assert_eq!(checked.code, Some(1), "{checked:?}");
    assert!(
        checked.stderr.contains("adtally.db.lock") && checked.stderr.contains("for the reason above"),
        "{checked:?}"
    );
}

#[test]
fn health_is_checked_from_outside() {
    let check = |arguments: &[&str]| run(adtally().arg("healthcheck").args(arguments), b"");
    let service = Service::start();
    let ready = check(&["--listen", service.address()]);
    assert_eq!((ready.code, &*ready.stdout, &*ready.stderr), (Some(0), "", ""), "{ready:?}");
    let port = service.address().rsplit(':').next().unwrap();
    assert_eq!(check(&["--listen", &format!("0.0.0.0:{port}")]).code, Some(0), "what listens everywhere is asked here");
    let mut command = adtally();
    assert_eq!(run(command.arg("healthcheck").env("ADTALLY_LISTEN", service.address()), b"").code, Some(0));
    // Nobody listens there any more.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    check(&["--listen", &address]).assert_refused(&[&address, "does not answer"]);
    // Somebody else does.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || drop(listener.accept()));
    let run = check(&["--listen", &address]);
    assert_eq!(run.code, Some(1), "{run:?}");
    check(&["--listen", "nowhere"]).assert_misused("--listen");
}

/// Many shells give a program a thousand open files, and the system allows more.
#[cfg(target_os = "linux")]
#[test]
fn open_files_are_allowed_as_far_as_connections_need_them() {
    let open_files = |service: &Service| {
        let limits = fs::read_to_string(format!("/proc/{}/limits", service.process_id())).unwrap();
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
        line.split_whitespace().next().unwrap().to_owned()
    };
    let mut service = Service::prepare(&["--max-connections", "200"]);
    service.launch_in_shell("ulimit -Sn 64");
    assert_eq!(open_files(&service), "328");
    assert!(!service.log().contains("too few open files"), "{}", service.log());
    // With less than it needs there are fewer connections: those that wait hold nothing up.
    let mut service = Service::prepare(&["--header-timeout", "1s"]);
    service.launch_in_shell("ulimit -n 144");
    service.wait_for_log("too few open files", 1);
    assert!(service.log().contains("connections=16"), "{}", service.log());
    let silent: Vec<_> = (0..40).map(|_| service.connect()).collect();
    service.put("/v1/jobs/beside", &csv(100)).expect(201);
    drop(silent);
}
