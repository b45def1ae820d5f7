//! Input and systems that cannot be worked with: one clear line, exit code 1, and everything as it was before.

use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::thread;

use crate::harness::{HEADER, Run, Running, Workspace, gzip, lines, run, zstandard};

const GOOD: &str = "campaign_id,date,impressions,clicks,spend,conversions\nA,2025-01-01,100,5,1.50,1\n";
const PNG: &[u8] =
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0\x1f\x15\xc4\x89\0\0\0\nIDATx\x9cc\0\x01";

/// A place with results of an earlier run in `out`.
fn place_with_results() -> Workspace {
    let place = Workspace::new();
    place
        .run_with_input("--input - --output out --all-campaigns", (GOOD.to_owned() + "bad\n").as_bytes())
        .assert_done();
    assert_eq!(place.names("out").len(), 5);
    place
}

/// Checks that an input is refused from a file and from standard input, whether there are earlier results or not.
#[track_caller]
fn check_refused(contents: &[u8], more_arguments: &str, says: &[&str]) {
    let place = place_with_results();
    place.write("wrong.csv", contents);
    let before = place.files("out");
    for output in ["out", "new"] {
        for input in ["wrong.csv", "-"] {
            let run = place.run_with_input(&format!("--input {input} --output {output} {more_arguments}"), contents);
            run.assert_refused(says).assert_refused(&[&format!("adtally: {input}: ")]);
        }
    }
    assert_eq!(place.files("out"), before, "the earlier results have changed");
    assert!(!place.path("new").exists(), "a directory made for nothing stays");
}

#[test]
fn a_missing_file() {
    let place = place_with_results();
    let before = place.files("out");
    place.run("--input nowhere.csv --output out").assert_refused(&["nowhere.csv", "No such file"]);
    assert_eq!(place.files("out"), before);
}

#[test]
fn a_directory() {
    let place = place_with_results();
    place.run("--input out --output results").assert_refused(&["adtally: out: ", "directory"]);
    assert!(!place.path("results").exists());
}

#[test]
fn an_unreadable_file() {
    let place = Workspace::new();
    place.write("secret.csv", GOOD);
    fs::set_permissions(place.path("secret.csv"), Permissions::from_mode(0o000)).unwrap();
    if fs::read(place.path("secret.csv")).is_ok() {
        println!("skipped: permissions do not bind this user");
        return;
    }
    place.run("--input secret.csv --output out").assert_refused(&["secret.csv", "Permission denied"]);
}

#[test]
fn one_bad_input_of_several() {
    let place = place_with_results();
    place.write("good.csv", GOOD);
    place.write("empty.csv", "");
    let before = place.files("out");
    place.run("--input good.csv empty.csv --output out").assert_refused(&["adtally: empty.csv: ", "empty"]);
    place.run("--input good.csv nowhere.csv good.csv --output out").assert_refused(&["adtally: nowhere.csv: "]);
    assert_eq!(place.files("out"), before);
}

#[test]
fn nothing_to_read() {
    for contents in ["", "\n", "\r\n \t \r\n\n", "\u{feff}", "\u{feff}\n", "\"\"\n"] {
        check_refused(contents.as_bytes(), "", &["empty"]);
    }
    check_refused(b"", "--has-header false", &["empty"]);
    check_refused(&gzip(b""), "", &["empty"]);
    check_refused(&zstandard(b""), "", &["empty"]);
}

#[test]
fn something_other_than_text() {
    let noise: Vec<u8> = (0..300_000_u32).map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    for contents in [PNG, &noise, &vec![0; 70_000], b"\x1f", b"\x7fELF\x02\x01\x01\0\n"] {
        check_refused(contents, "", &["line 1"]);
    }
    check_refused(PNG, "", &["not CSV text"]);
    check_refused(&gzip(PNG), "", &["not CSV text"]);
    // As the contents are not looked into when there is no header, they are rows that do not count.
    let place = Workspace::new();
    place.run_with_input("--input - --output out --has-header false", PNG).assert_done();
    assert_eq!(place.read_json("out/stats.json")["unique_campaigns"], 0);
}

#[test]
fn another_delimiter() {
    for (delimiter, name) in [(";", "';'"), ("\t", "tabs"), ("|", "'|'")] {
        check_refused(GOOD.replace(',', delimiter).as_bytes(), "", &["line 1", name, "delimiter"]);
    }
    check_refused(GOOD.as_bytes(), "--delimiter ;", &["','", "delimiter"]);
    check_refused(GOOD.to_uppercase().replace(',', "; ").as_bytes(), "", &["line 1", "';'", "delimiter"]);
}

#[test]
fn no_header() {
    let rows = GOOD.strip_prefix(HEADER).unwrap();
    check_refused(rows.as_bytes(), "", &["line 1", "looks like data", "header"]);
    check_refused(&[b"\n\n", rows.as_bytes()].concat(), "", &["line 3", "looks like data"]);
}

#[test]
fn a_header_with_the_wrong_columns() {
    check_refused(b"campaign_id,impressions,conversions\nA,1,1\n", "", &["line 1", "columns clicks, spend"]);
    check_refused(b"campaign_id,date,impressions,clicks,cost,conversions\n", "", &["line 1", "column spend"]);
    check_refused(
        b"campaign_id,impressions,clicks,spend,conversions,Clicks\n",
        "",
        &["line 1", "clicks", "more than once"],
    );
    check_refused(b"\"campaign_id,impressions,clicks,spend,conversions\nA,1,1,1,1\n", "", &["line 1", "quote"]);
}

#[test]
fn one_very_long_line() {
    let line = vec![b'x'; 20 << 20];
    check_refused(&line, "", &["line 1", "max_record_bytes (65536)"]);
    check_refused(&gzip(&line), "", &["max_record_bytes"]);
}

/// A line that never ends is given up while it goes on; otherwise this test would not end either.
#[test]
fn an_endless_line() {
    let place = Workspace::new();
    let mut command = place.aggregate(["--input", "-", "--output", "out"]);
    let mut program = Running(command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let mut input = program.0.stdin.take().unwrap();
    let writer = thread::spawn(move || {
        loop {
            if let Err(error) = input.write_all(&[b'x'; 8192]) {
                return error.kind();
            }
        }
    });
    assert_eq!(program.0.wait().unwrap().code(), Some(1));
    assert_eq!(writer.join().unwrap(), io::ErrorKind::BrokenPipe);
    assert!(!place.path("out").exists());
}

#[test]
fn compressed_data_without_its_end() {
    let place = place_with_results();
    let before = place.files("out");
    let text = GOOD.to_owned() + &"B,2025-01-01,1,1,1,1\n".repeat(20);
    let two = |parts: [Vec<u8>; 2]| parts.concat();
    let large = GOOD.to_owned() + &lines(100_000, |number| format!("C{number},,1,1,1,1"));
    for (name, data, step) in [
        ("one.gz", gzip(text.as_bytes()), 1),
        ("two.gz", two([gzip(GOOD.as_bytes()), gzip(b"B,2025-01-01,1,1,1,1\n")]), 3),
        ("one.zst", zstandard(text.as_bytes()), 1),
        ("two.zst", two([zstandard(GOOD.as_bytes()), zstandard(b"B,2025-01-01,1,1,1,1\n")]), 3),
        ("large.gz", gzip(large.as_bytes()), 60_011),
        ("large.zst", zstandard(large.as_bytes()), 60_011),
    ] {
        place.write(name, &data);
        place.run(&format!("--input {name} --output whole")).assert_done();
        // Between two members or frames the data is whole: there is nothing to find fault with.
        let whole = [gzip(GOOD.as_bytes()).len(), zstandard(GOOD.as_bytes()).len()];
        for len in (0..data.len()).step_by(step).filter(|len| !name.starts_with("two") || !whole.contains(len)) {
            let run = if len % 2 == 0 {
                place.write("cut", &data[..len]);
                place.run("--input cut --output out")
            } else {
                place.run_with_input("--input - --output out", &data[..len])
            };
            assert_eq!(run.code, Some(1), "{len} bytes of {name}: {run:?}");
            // The very first bytes do not tell yet what it was to be.
            assert!(len < 4 || run.stderr.contains("cut off"), "{len} bytes of {name}: {run:?}");
        }
    }
    assert_eq!(place.files("out"), before);
}

#[test]
fn damaged_compressed_data() {
    for mut data in [gzip(GOOD.as_bytes()), zstd::encode_all(GOOD.as_bytes(), 1).unwrap()] {
        let trailing = [&data[..], b"more"].concat();
        check_refused(&trailing, "", &["damaged"]);
        if data[0] == 0x1f {
            // The checksum at the end.
            let last = data.len() - 5;
            data[last] ^= 1;
            check_refused(&data, "", &["damaged"]);
        }
    }
}

#[test]
fn no_place_for_the_results() {
    let place = Workspace::new();
    place.write("ads.csv", GOOD);
    place.write("file", "mine");
    place.run("--input ads.csv --output file").assert_refused(&["adtally: file: cannot be written"]);
    place.run("--input ads.csv --output file/below").assert_refused(&["adtally: file/below: cannot be written"]);
    assert_eq!(place.read("file"), "mine");
    // A directory stands where a file is to be: nothing is thrown away for it.
    let place = place_with_results();
    place.write("ads.csv", GOOD);
    fs::remove_file(place.path("out/top10_cpa.csv")).unwrap();
    fs::create_dir_all(place.path("out/top10_cpa.csv/mine")).unwrap();
    place.run("--input ads.csv --output out").assert_refused(&["top10_cpa.csv"]);
    assert!(place.path("out/top10_cpa.csv/mine").exists());
    assert!(place.names("out").iter().all(|name| !name.contains(".tmp")), "{:?}", place.names("out"));
}

/// Runs the program with `out` on a small file system of its own, with an earlier result in it. Gives what the program
/// said and what is in the directory afterwards; nothing where this user cannot have such a file system.
fn run_on_small_disk(place: &Workspace, then: &str, arguments: &str) -> Option<(Run, String)> {
    fs::create_dir_all(place.path("out")).unwrap();
    // Within a namespace a file system can be mounted without rights on the machine, and goes with the last process.
    let script = format!(
        "mount -t tmpfs -o size=64k tmpfs out || exit 99
         echo earlier > out/stats.json
         {then}
         \"$0\" aggregate {arguments}
         code=$?
         ls -A out > listing && cat out/stats.json >> listing
         exit $code"
    );
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script, env!("CARGO_BIN_EXE_adtally")]);
    command.current_dir(place.path("")).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    match command.output().map(Run::of) {
        Ok(run) if place.path("listing").exists() => Some((run, place.read("listing"))),
        other => {
            println!("skipped: no file system of one's own here: {other:?}");
            None
        }
    }
}

#[test]
fn a_full_disk() {
    let place = Workspace::new();
    let rows = lines(5000, |number| format!("campaign {number},,1,1,1,1"));
    place.write("ads.csv", HEADER.to_owned() + &rows);
    if let Some((run, listing)) = run_on_small_disk(&place, "", "--input ads.csv --all-campaigns --output out") {
        run.assert_refused(&["out/campaigns.csv", "no storage space"]);
        assert_eq!(listing, "stats.json\nearlier\n");
    }
    // In a directory made for the results.
    if let Some((run, listing)) = run_on_small_disk(&place, "", "--input ads.csv --all-campaigns --output out/new") {
        run.assert_refused(&["out/new/campaigns.csv", "no storage space"]);
        assert_eq!(listing, "stats.json\nearlier\n");
    }
    // Full before it starts.
    let fill = "head -c 200000 /dev/zero > out/filler 2> /dev/null";
    if let Some((run, listing)) = run_on_small_disk(&place, fill, "--input ads.csv --output out") {
        run.assert_refused(&["out", "no storage space"]);
        assert_eq!(listing, "filler\nstats.json\nearlier\n");
    }
}

#[test]
fn a_read_only_directory() {
    let place = Workspace::new();
    place.write("ads.csv", GOOD);
    let make_read_only = "mount -o remount,ro out || exit 99";
    if let Some((run, listing)) = run_on_small_disk(&place, make_read_only, "--input ads.csv --output out") {
        run.assert_refused(&["out", "read-only filesystem"]);
        assert_eq!(listing, "stats.json\nearlier\n");
    }
    // Where permissions bind.
    fs::create_dir(place.path("closed")).unwrap();
    fs::set_permissions(place.path("closed"), Permissions::from_mode(0o555)).unwrap();
    if fs::write(place.path("closed/test"), "").is_ok() {
        println!("skipped: permissions do not bind this user");
        return;
    }
    place.run("--input ads.csv --output closed").assert_refused(&["closed", "permission denied"]);
}

/// What is wrong with the output is told before hours are spent on the input.
#[test]
fn the_output_is_tried_first() {
    let place = Workspace::new();
    place.write("file", "mine");
    let mut command = place.aggregate(["--input", "nowhere.csv", "--output", "file"]);
    run(&mut command, b"").assert_refused(&["file: cannot be written"]);
}
