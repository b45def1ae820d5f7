//! The command as its users know it: flags, files, messages, exit codes, signals.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::thread;

use crate::harness::{
    HEADER, Run, Running, Workspace, adtally, gzip, lines, project_path, run, send_signal, zstandard,
};

const ROWS: &str = "A,2025-01-01,100,5,1.50,1\nB,2025-01-02,200,30,2.25,3\n";

fn with_header(rows: &str) -> String {
    HEADER.to_owned() + rows
}

/// More than the program reads at once, so that it has to tell of its progress before the end.
fn many_rows() -> String {
    with_header(&ROWS.repeat(30_000))
}

#[test]
fn a_first_run_gives_the_lists_and_the_statistics() {
    let place = Workspace::new();
    place.write("ads.csv", with_header(ROWS));
    let run = place.run("--input ads.csv --output results/of/today");
    run.assert_done();
    assert_eq!(place.names("results/of/today"), ["stats.json", "top10_cpa.csv", "top10_ctr.csv"]);
    assert_eq!(
        place.read("results/of/today/top10_ctr.csv"),
        "campaign_id,total_impressions,total_clicks,total_spend,total_conversions,CTR,CPA\n\
         B,200,30,2.25,3,0.1500,0.75\nA,100,5,1.50,1,0.0500,1.50\n"
    );
    assert_eq!(run.stdout, "");
    for name in ["rows_read", "rows_skipped", "parse_errors", "unique_campaigns", "elapsed_seconds", "rows/s", "MB/s"] {
        assert!(run.stderr.contains(name), "{name} is missing: {run:?}");
    }
    // Nobody looks at a bar that goes to a file.
    assert!(!run.stderr.contains(['\r', '\u{1b}']), "{run:?}");
    assert!(run.stderr.lines().all(|line| !line.starts_with("rows_read=")), "{run:?}");
}

#[test]
fn the_sample_that_ships_is_good_data() {
    let place = Workspace::new();
    let sample = project_path("examples/ad_data.csv");
    let run = run(place.aggregate(["--output", "out", "--input"]).arg(sample), b"");
    run.assert_done();
    let stats = place.read_json("out/stats.json");
    assert_eq!(stats["rows_skipped"], 0);
    assert!(stats["unique_campaigns"].as_u64() >= Some(10), "{stats}");
}

#[test]
fn the_statistics_on_standard_error_are_those_of_the_file() {
    let place = Workspace::new();
    let run =
        place.run_with_input("--input - --output out", with_header("A,,x,1,1,1\nA,,1,1,1,1\n,,1,1,1,1\n").as_bytes());
    let value = |name: &str| {
        let line = run.stderr.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let stats = place.read_json("out/stats.json");
    for name in ["rows_read", "rows_skipped", "parse_errors", "unique_campaigns"] {
        assert_eq!(stats[name], value(name), "{name}");
    }
    assert_eq!((&stats["skipped"]["impressions"], &stats["skipped"]["campaign_id"]), (&1.into(), &1.into()));
    assert_eq!((value("impressions"), value("campaign_id"), value("parse_errors")), (1, 1, 1));
}

#[test]
fn several_inputs_are_one_data_set() {
    let place = Workspace::new();
    place.write("one.csv", with_header("A,,1,1,1,1\nbad\n"));
    // Each has its own header, encoding mark and compression.
    place.write(
        "two.csv.gz",
        gzip(b"\xef\xbb\xbfspend,conversions,campaign_id,clicks,impressions\n1,1,B,1,x\n2,1,A,1,1\n"),
    );
    let input = with_header("\"a,b\",,1,1,1,1\nA,,1,1,\"1,5\",1\n");
    let run = place.run_with_input("--input one.csv two.csv.gz - --output out --all-campaigns", input.as_bytes());
    run.assert_done();
    assert_eq!(
        place.read("out/campaigns.csv"),
        "campaign_id,total_impressions,total_clicks,total_spend,total_conversions,CTR,CPA\n\
         A,2,2,3.00,2,1.0000,1.50\n\"a,b\",1,1,1.00,1,1.0000,1.00\n"
    );
    assert_eq!(
        place.read("out/rejects.csv"),
        "line,byte_offset,reason,record,file\n\
         3,65,column_count,bad,one.csv\n\
         2,49,impressions,\"1,1,B,1,x\",two.csv.gz\n\
         3,69,spend,\"A,,1,1,\"\"1,5\"\",1\",-\n"
    );
    let stats = place.read_json("out/stats.json");
    assert_eq!((&stats["rows_read"], &stats["rows_skipped"]), (&6.into(), &3.into()));
    // The same flag again means the same.
    place.run_with_input(
        "--input one.csv --input two.csv.gz --input - --output again --all-campaigns",
        input.as_bytes(),
    );
    assert_eq!(place.read("again/rejects.csv"), place.read("out/rejects.csv"));
}

#[test]
fn the_first_hundred_rejects_of_all_inputs_are_kept_in_order() {
    let place = Workspace::new();
    place.write("one.csv", with_header(&"x\n".repeat(70)));
    place.write("two.csv", with_header(&"y\n".repeat(70)));
    place.run("--input one.csv two.csv --output out").assert_done();
    let rejects = place.read("out/rejects.csv");
    let lines: Vec<_> = rejects.lines().skip(1).collect();
    assert_eq!(lines.len(), 100);
    assert_eq!(
        [lines[69], lines[70], lines[99]],
        ["71,192,column_count,x,one.csv", "2,54,column_count,y,two.csv", "31,112,column_count,y,two.csv"]
    );
    assert_eq!(place.read_json("out/stats.json")["rows_skipped"], 140);
}

#[test]
fn rejects_show_the_start_of_the_record() {
    let place = Workspace::new();
    let long = format!("{}\u{e9}{}", "x".repeat(199), "y".repeat(100));
    place.run_with_input("--input - --output out", with_header(&format!("a\"b\n{long}\n")).as_bytes()).assert_done();
    let rejects = place.read("out/rejects.csv");
    // The character that the cut would break is left out.
    let expected = format!(
        "line,byte_offset,reason,record\n2,54,column_count,\"a\"\"b\"\n3,58,column_count,{}\n",
        "x".repeat(199)
    );
    assert_eq!(rejects, expected);
}

#[test]
fn compressed_inputs_may_consist_of_many_parts() {
    let place = Workspace::new();
    let text = many_rows();
    let (first, second) = text.as_bytes().split_at(text.len() / 3);
    // RFC 8878, 3.1.2: a frame to be skipped, with three bytes in it.
    let skippable = b"\x50\x2a\x4d\x18\x03\0\0\0abc".to_vec();
    place.write("plain.csv", &text);
    place.write("one.gz", gzip(text.as_bytes()));
    place.write("many.gz", [gzip(first), gzip(b""), gzip(second)].concat());
    place.write("one.zst", zstandard(text.as_bytes()));
    place.write(
        "many.zst",
        [skippable.clone(), zstandard(first), skippable, zstandard(b""), zstandard(second)].concat(),
    );
    let mut results = Vec::new();
    for file in ["plain.csv", "one.gz", "many.gz", "one.zst", "many.zst"] {
        for input in [file, "-"] {
            let contents = fs::read(place.path(file)).unwrap();
            place.run_with_input(&format!("--input {input} --output out --all-campaigns"), &contents).assert_done();
            let stats = place.read_json("out/stats.json");
            results.push((place.read("out/campaigns.csv"), stats["rows_read"].clone(), stats["bytes_read"].clone()));
        }
    }
    assert_eq!(results[0].1, 60_000);
    assert_eq!(results[0].2, text.len());
    assert!(results.iter().all(|result| *result == results[0]), "{results:#?}");
}

#[test]
fn what_can_be_opened_can_be_read() {
    let place = Workspace::new();
    place.run_with_input("--input /dev/stdin --output out", with_header(ROWS).as_bytes()).assert_done();
    assert_eq!(place.read_json("out/stats.json")["rows_read"], 2);
}

#[test]
fn a_file_may_have_any_name() {
    let place = Workspace::new();
    let name = OsStr::from_bytes(b"caf\xe9,\"1\".csv");
    let path = place.path("").join(name);
    if let Err(error) = fs::write(&path, with_header("bad\n")) {
        println!("skipped: this file system wants names to be text: {error}");
        return;
    }
    run(place.aggregate(["--output", "out", "--input", "-", "--input"]).arg(name), with_header(ROWS).as_bytes())
        .assert_done();
    let rejects = place.read("out/rejects.csv");
    assert_eq!(rejects.lines().nth(1), Some("2,54,column_count,bad,\"caf\u{fffd},\"\"1\"\".csv\""));
}

#[test]
fn top_sets_the_length_and_the_names() {
    let place = Workspace::new();
    let rows = lines(40, |number| format!("C{number:02},,100,{number},1,1"));
    for top in [1, 25, 1000] {
        let out = format!("out{top}");
        let run = place.run_with_input(&format!("--input - --output {out} --top {top}"), with_header(&rows).as_bytes());
        run.assert_done();
        let lists = ["cpa", "ctr"].map(|metric| format!("top{top}_{metric}.csv"));
        assert_eq!(place.names(&out), ["stats.json".to_owned(), lists[0].clone(), lists[1].clone()]);
        for list in lists {
            assert_eq!(place.read(&format!("{out}/{list}")).lines().count(), 1 + 40.min(top));
        }
    }
}

#[test]
fn delimiters_have_names() {
    let place = Workspace::new();
    for (flag, delimiter) in [("tab", "\t"), ("\\t", "\t"), ("\t", "\t"), (";", ";"), ("|", "|"), (" ", " ")] {
        let text = with_header("A,x,1,1,1,1\n").replace(',', delimiter);
        let run = run(&mut place.aggregate(["--input", "-", "--output", "out", "--delimiter", flag]), text.as_bytes());
        assert_eq!(run.code, Some(0), "{flag:?}: {run:?}");
        assert_eq!(place.read_json("out/stats.json")["unique_campaigns"], 1, "{flag:?}");
    }
}

#[test]
fn encodings_are_declared_or_marked() {
    let place = Workspace::new();
    let text = with_header("caf\u{e9},,1,1,1,1\n");
    let utf_16 = |units: &mut dyn Iterator<Item = u16>| units.flat_map(u16::to_le_bytes).collect::<Vec<_>>();
    let latin: Vec<u8> = text.chars().map(|character| u8::try_from(u32::from(character)).unwrap()).collect();
    let marked = utf_16(&mut "\u{feff}".encode_utf16().chain(text.encode_utf16()));
    for (label, bytes) in [
        ("utf-8", text.clone().into_bytes()),
        ("Latin1", latin.clone()),
        ("windows-1252", latin),
        ("utf-16le", utf_16(&mut text.encode_utf16())),
        // A mark knows better than the flag.
        ("utf-8", marked.clone()),
        ("latin1", marked),
        ("latin1", ["\u{feff}", &text].concat().into_bytes()),
    ] {
        for (file, contents) in [("plain", bytes.clone()), ("compressed", gzip(&bytes))] {
            place.write(file, contents);
            place.run(&format!("--input {file} --output out --encoding {label}")).assert_done();
            assert!(place.read("out/top10_ctr.csv").contains("\ncaf\u{e9},1,"), "{file} as {label}");
            assert_eq!(place.read_json("out/stats.json")["bytes_read"], text.len(), "{file} as {label}");
        }
    }
}

#[test]
fn records_may_be_as_long_as_allowed() {
    let place = Workspace::new();
    let row = format!("A,{},1,1,1,1\n", "x".repeat(100));
    let len = row.len() - 1;
    for (limit, skipped) in [(len, 0), (len - 1, 1)] {
        let arguments = format!("--input - --output out --max-record {limit}");
        place.run_with_input(&arguments, with_header(&row).as_bytes()).assert_done();
        assert_eq!(place.read_json("out/stats.json")["rows_skipped"], skipped, "at most {limit} bytes");
    }
    assert_eq!(
        place.read("out/rejects.csv").lines().nth(1).unwrap().split(",\"").next(),
        Some("2,54,malformed_record")
    );
}

#[test]
fn campaigns_may_be_as_many_as_allowed() {
    let place = Workspace::new();
    let input = with_header(ROWS);
    place.run_with_input("--input - --output out --max-campaigns 2", input.as_bytes()).assert_done();
    place
        .run_with_input("--input - --output new --max-campaigns 1", input.as_bytes())
        .assert_refused(&["adtally: -: more than 1 different campaign ids", "max_campaigns"]);
    assert!(!place.path("new").exists());
}

#[test]
fn a_very_long_record_takes_little_memory() {
    let place = Workspace::new();
    let mut text = with_header("A,,1,1,1,1\n\"");
    text.push_str(&"x".repeat(40 << 20));
    text.push_str("\nB,,1,1,1,1\n");
    place.write("ads.csv", &text);
    for input in ["ads.csv --threads 3", "-"] {
        let run = place.run_with_input(&format!("--input {input} --output out"), text.as_bytes());
        run.assert_done();
        let stats = place.read_json("out/stats.json");
        assert_eq!((&stats["rows_read"], &stats["skipped"]["malformed_record"]), (&3.into(), &1.into()));
        let peak = run.stderr.lines().find_map(|line| line.strip_prefix("peak memory"));
        match peak.map(|peak| peak.trim().trim_end_matches(" MB").parse::<f64>().unwrap()) {
            Some(megabytes) => assert!(megabytes < 17.0, "{megabytes} MB"),
            None => println!("skipped: this system does not tell how much memory a process has had"),
        }
    }
}

#[test]
fn progress_is_told_in_lines_on_request() {
    let place = Workspace::new();
    let text = many_rows();
    place.write("ads.csv", &text);
    for (input, percent) in [("ads.csv", "(100%) "), ("-", "")] {
        let run = place.run_with_input(&format!("--input {input} --output out --progress-every 1"), text.as_bytes());
        run.assert_done();
        let lines: Vec<_> = run.stderr.lines().filter(|line| line.starts_with("rows_read=")).collect();
        assert!(lines.len() > 2, "{run:?}");
        let rows = |line: &str| line["rows_read=".len()..].split(' ').next().unwrap().parse::<u64>().unwrap();
        assert!(lines.windows(2).all(|pair| rows(pair[0]) < rows(pair[1])), "{lines:?}");
        let last = lines.last().unwrap();
        let expected = format!("rows_read=60000 bytes={} {percent}elapsed_seconds=", text.len());
        assert!(last.starts_with(&expected), "{expected:?}: {last}");
    }
    let run = place.run("--input ads.csv --output out --progress-every 60000");
    assert_eq!(run.stderr.lines().filter(|line| line.starts_with("rows_read=")).count(), 1, "{run:?}");
    let run = place.run("--input ads.csv --output out --progress-every 60001");
    assert_eq!(run.stderr.lines().filter(|line| line.starts_with("rows_read=")).count(), 0, "{run:?}");
}

#[test]
fn results_of_an_earlier_run_are_replaced_as_a_whole() {
    let place = Workspace::new();
    place.write("bad.csv", with_header("A,,1,1,1,1\nbad\n"));
    place.write("good.csv", with_header(ROWS));
    fs::create_dir(place.path("out")).unwrap();
    place.write("out/notes.txt", "mine");
    place.run("--input bad.csv --output out --all-campaigns").assert_done();
    let lists = ["stats.json", "top10_cpa.csv", "top10_ctr.csv"];
    assert_eq!(place.names("out"), [&["campaigns.csv", "notes.txt", "rejects.csv"][..], &lists].concat());
    place.run("--input good.csv --output out").assert_done();
    assert_eq!(place.names("out"), [&["notes.txt"][..], &lists].concat());
    assert_eq!(place.read("out/notes.txt"), "mine");
    assert_eq!(place.read_json("out/stats.json")["rows_skipped"], 0);
}

#[test]
fn files_that_are_not_results_stay() {
    let place = Workspace::new();
    place.write("ads.csv", with_header("A,,1,1,1,1\n"));
    place.write("out/campaigns.csv", "of somebody else\n");
    place.write("out/rejects.csv", "");
    place.run("--input ads.csv --output out").assert_done();
    assert_eq!(place.read("out/campaigns.csv"), "of somebody else\n");
    assert_eq!(place.read("out/rejects.csv"), "");
}

#[test]
fn an_input_is_never_replaced_by_a_result() {
    let place = Workspace::new();
    let rows = with_header("A,,1,1,1,1\nB,,x,1,1,1\n");
    for name in ["campaigns.csv", "rejects.csv", "stats.json", "top10_ctr.csv"] {
        place.write(name, &rows);
        // By another way to the same file, too.
        place.run(&format!("--input ./{name} --output .")).assert_refused(&[name, "choose another directory"]);
        assert_eq!(place.read(name), rows);
    }
}

#[test]
fn old_and_new_results_do_not_mix() {
    let place = Workspace::new();
    place.write("ads.csv", with_header("A,,1,1,1,1\n"));
    place.write("out/top10_ctr.csv", "earlier\n");
    fs::create_dir(place.path("out/top10_cpa.csv")).unwrap();
    place.run("--input ads.csv --output out").assert_refused(&["out/top10_cpa.csv", "is a directory"]);
    assert_eq!(place.read("out/top10_ctr.csv"), "earlier\n");
}

#[test]
fn results_are_files_like_any_other() {
    let place = Workspace::new();
    let mut shell = Command::new("sh");
    shell.args(["-c", "umask 027; exec \"$0\" aggregate --input - --output out", env!("CARGO_BIN_EXE_adtally")]);
    run(shell.current_dir(place.path("")), with_header(ROWS).as_bytes()).assert_done();
    for name in place.names("out") {
        let mode = fs::metadata(place.path("out").join(&name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640, "{name}");
    }
}

/// Starts the program on a pipe that does not end, waits until it has read something, and sends it a signal.
fn interrupt(place: &Workspace, signal: &str, goes_on: bool) -> Run {
    let mut command = place.aggregate("--input - --output out --progress-every 1".split(' '));
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut program = Running(pipes.spawn().unwrap());
    let mut input = program.0.stdin.take().unwrap();
    let mut messages = BufReader::new(program.0.stderr.take().unwrap());
    thread::scope(|scope| {
        let writer = scope.spawn(move || {
            let written = input.write_all(many_rows().as_bytes());
            while goes_on && input.write_all(ROWS.as_bytes()).is_ok() {}
            // Whoever gets the pipe back decides when it is closed.
            written.map(|()| input)
        });
        let mut stderr = String::new();
        messages.read_line(&mut stderr).unwrap();
        assert!(stderr.starts_with("rows_read="), "{stderr}");
        send_signal(signal, program.0.id());
        let status = program.0.wait().unwrap();
        drop(writer.join().unwrap());
        io::Read::read_to_string(&mut messages, &mut stderr).unwrap();
        Run { code: status.code(), stdout: String::new(), stderr }
    })
}

#[test]
fn an_interrupt_ends_without_results() {
    for goes_on in [true, false] {
        let place = Workspace::new();
        let run = interrupt(&place, "INT", goes_on);
        assert_eq!(run.code, Some(130), "{run:?}");
        // The reading thread may still tell of its progress behind it.
        assert!(run.stderr.contains("adtally: stopped before the end; no results were written\n"), "{run:?}");
        assert!(!place.path("out").exists(), "a directory made for nothing stays");
    }
}

#[test]
fn an_interrupt_leaves_earlier_results_alone() {
    let place = Workspace::new();
    place
        .run_with_input("--input - --output out --all-campaigns", with_header("A,,1,1,1,1\nbad\n").as_bytes())
        .assert_done();
    let before = place.files("out");
    assert_eq!(interrupt(&place, "TERM", true).code, Some(143));
    assert_eq!(place.files("out"), before);
}

/// The writing end of a pipe that nobody reads.
fn closed_pipe() -> io::PipeWriter {
    io::pipe().unwrap().1
}

#[test]
fn a_closed_pipe_is_no_panic() {
    let place = Workspace::new();
    place.write("ads.csv", with_header(ROWS));
    place.write("empty.csv", "");
    for (arguments, code) in [
        ("--input ads.csv --output out", 0),
        ("--input ads.csv --output out --progress-every 1", 0),
        ("--input empty.csv --output out", 1),
        ("--input ads.csv --output out --nonsense", 2),
        ("--help", 0),
    ] {
        let mut command = place.aggregate(arguments.split(' '));
        let status = command.stdin(Stdio::null()).stdout(closed_pipe()).stderr(closed_pipe()).status().unwrap();
        assert_eq!(status.code(), Some(code), "{arguments}");
        // Here panics could be seen.
        let output = place.aggregate(arguments.split(' ')).stdin(Stdio::null()).stdout(closed_pipe()).output().unwrap();
        let run = Run::of(output);
        assert_eq!(run.code, Some(code), "{arguments}: {run:?}");
        assert!(!run.stderr.contains("panic"), "{arguments}: {run:?}");
    }
    assert_eq!(place.names("out").len(), 3);
}

#[test]
fn no_standard_streams_at_all_are_no_panic() {
    let place = Workspace::new();
    place.write("ads.csv", with_header(ROWS));
    for (input, code) in [("ads.csv", 0), ("-", 1)] {
        let mut shell = Command::new("sh");
        shell.args(["-c", "exec \"$0\" aggregate --input \"$1\" --output out <&- >&- 2>&-"]);
        shell.args([env!("CARGO_BIN_EXE_adtally"), input]).current_dir(place.path(""));
        assert_eq!(run(&mut shell, b"").code, Some(code), "{input}");
    }
}

#[test]
fn help_names_every_flag() {
    let place = Workspace::new();
    for flag in ["--help", "-h"] {
        let help = place.run(flag);
        help.assert_done();
        for flag in [
            "--input",
            "--output",
            "--delimiter",
            "--encoding",
            "--has-header",
            "--top",
            "--threads",
            "--progress-every",
            "--max-campaigns",
            "--max-record",
            "--all-campaigns",
        ] {
            assert!(help.stdout.contains(flag), "{flag} is missing: {}", help.stdout);
        }
    }
    let help = run(adtally().arg("--help"), b"");
    assert!(help.assert_done().stdout.contains("aggregate"), "{help:?}");
    let version = run(adtally().arg("--version"), b"");
    assert_eq!(version.assert_done().stdout, format!("adtally {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_usage_is_told_from_wrong_data() {
    let place = Workspace::new();
    place.write("ads.csv", with_header(ROWS));
    let usual = "--input ads.csv --output out";
    for (arguments, part) in [
        ("", "--input"),
        ("--input ads.csv", "--output"),
        ("--output out", "--input"),
        (&format!("{usual} --top 0"), "--top"),
        (&format!("{usual} --top 1001"), "--top"),
        (&format!("{usual} --top ten"), "--top"),
        (&format!("{usual} --tops 10"), "--tops"),
        (&format!("{usual} --delimiter \""), "--delimiter"),
        (&format!("{usual} --delimiter ab"), "--delimiter"),
        (&format!("{usual} --delimiter \u{e9}"), "--delimiter"),
        (&format!("{usual} --encoding klingon"), "klingon"),
        (&format!("{usual} --has-header maybe"), "--has-header"),
        (&format!("{usual} --threads 0"), "--threads"),
        (&format!("{usual} --progress-every 0"), "--progress-every"),
        (&format!("{usual} --max-record 0"), "--max-record"),
        (&format!("{usual} --max-campaigns 0"), "--max-campaigns"),
        ("--input - - --output out", "-"),
    ] {
        place.run(arguments).assert_misused(part);
    }
    for delimiter in ["", "\n", "\r"] {
        run(&mut place.aggregate(["--input", "ads.csv", "--output", "out", "--delimiter", delimiter]), b"")
            .assert_misused("--delimiter");
    }
    run(&mut adtally(), b"").assert_misused("Usage");
    run(adtally().arg("summarise"), b"").assert_misused("summarise");
    assert!(!place.path("out").exists(), "wrong usage leaves a directory");
}
