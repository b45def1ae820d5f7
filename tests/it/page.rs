//! The page: its files, and what people do with it in a real browser.

use std::process::Command;

use crate::harness::{project_path, run};
use crate::service::Service;
use crate::tokens::Guarded;

/// The Python that has Playwright; without it, the one of this system is tried.
const PYTHON_VARIABLE: &str = "ADTALLY_PLAYWRIGHT_PYTHON";

/// The browser; without it, Debian's names are tried.
const CHROMIUM_VARIABLE: &str = "ADTALLY_CHROMIUM";

/// Runs a case of `tests/page/cases.py` against a server.
#[track_caller]
fn in_browser(case: &str, service: &Service, token: Option<&str>) {
    let python = std::env::var(PYTHON_VARIABLE).unwrap_or_else(|_| "python3".into());
    let modules = "import playwright, axe_playwright_python";
    if !Command::new(&python).args(["-c", modules]).output().is_ok_and(|output| output.status.success()) {
        println!("skipped: {python} has no Playwright with axe; {PYTHON_VARIABLE} names one that has them");
        return;
    }
    let named = std::env::var(CHROMIUM_VARIABLE).ok();
    let mut browsers = named.into_iter().chain(["chromium".into(), "chromium-browser".into()]);
    let starts = |browser: &String| Command::new(browser).arg("--version").output().is_ok_and(|it| it.status.success());
    let Some(browser) = browsers.find(starts) else {
        println!("skipped: there is no Chromium; {CHROMIUM_VARIABLE} names one");
        return;
    };
    let browser = run(Command::new("sh").args(["-c", "command -v \"$0\""]).arg(&browser), b"").stdout;
    let mut command = Command::new(python);
    command.arg(project_path("tests/page/cases.py")).args([case, service.address(), browser.trim()]).args(token);
    let run = run(&mut command, b"");
    assert_eq!(run.code, Some(0), "{}{}", run.stdout, run.stderr);
}

/// Each has a server of its own.
macro_rules! cases {
    ($($case:ident),+ $(,)?) => {
        $(#[test]
        fn $case() {
            in_browser(stringify!($case), &Service::start(), None);
        })+
    };
}

cases![
    dropped_file_gives_the_lists_of_the_interface,
    leaders_are_shown_while_the_file_arrives,
    skipped_rows_are_told_with_line_and_reason,
    cancelling_ends_the_job,
    wrong_delimiter_is_mended_from_the_page,
    columns_and_decimals_are_set_from_the_page,
    reports_compressed_and_pasted_rows_are_recognised,
    several_files_become_one_job,
    broken_file_of_several_can_be_replaced_or_left_out,
    several_files_are_known_before_the_first_is_sent,
    file_that_has_changed_is_told,
    rows_that_will_be_skipped_are_told_before_and_after,
    what_cannot_be_read_is_told_before_it_is_sent,
    the_page_is_left_and_found_again,
    connection_that_breaks_goes_on_by_itself,
    upload_goes_on_after_a_reload,
    jobs_are_found_and_deleted_with_undo,
    keyboard_alone_is_enough,
    every_view_fits_a_phone_in_both_schemes,
    axe_finds_nothing,
];

#[test]
fn signing_in_takes_a_token() {
    let (guarded, [token]) = Guarded::start([&["page"]], &[]);
    in_browser("signing_in_takes_a_token", &guarded.service, Some(&token));
}

/// The addresses of everything that a browser loads.
fn page_files(service: &Service) -> Vec<String> {
    let mut found = vec!["/".to_owned()];
    let mut read = 0;
    while read < found.len() {
        let path = found[read].clone();
        let text = service.get(&path).text().to_owned();
        for quoted in text.split('"').filter(|quoted| quoted.starts_with("/page/") || quoted.starts_with("./")) {
            let file = quoted.replacen("./", "/page/", 1);
            if !found.contains(&file) {
                found.push(file);
            }
        }
        read += 1;
    }
    found
}

#[test]
fn the_whole_page_is_small_and_every_file_is_in_the_program() {
    let service = Service::start();
    let files = page_files(&service);
    let sources = std::fs::read_dir(project_path("src/http/page")).unwrap().count();
    assert_eq!(files.len(), sources, "{files:?}");
    let mut sent = 0;
    for file in &files {
        let reply = service.send("GET", file, &[("accept-encoding", "gzip, br")], b"");
        assert_eq!((reply.status, reply.header("content-encoding")), (200, Some("gzip")), "{file}");
        sent += reply.body.len();
    }
    assert!(sent < 60_000, "{sent} bytes");
}

#[test]
fn files_of_the_page_have_strong_tags_for_each_form() {
    let service = Service::start();
    for file in ["/", "/page/app.js", "/page/style.css", "/page/icon.svg"] {
        let plain = service.send("GET", file, &[("accept-encoding", "identity")], b"");
        let packed = service.send("GET", file, &[("accept-encoding", "gzip")], b"");
        let tags = [&plain, &packed].map(|reply| reply.header("etag").unwrap().to_owned());
        assert!(tags[0] != tags[1] && tags.iter().all(|tag| tag.starts_with('"')), "{tags:?}");
        for (tag, coding) in [(&tags[0], "identity"), (&tags[1], "gzip")] {
            let again = service.send("GET", file, &[("accept-encoding", coding), ("if-none-match", tag)], b"");
            assert_eq!((again.status, again.body.len(), again.header("etag")), (304, 0, Some(tag.as_str())), "{file}");
        }
        assert_eq!(packed.header("vary").map(str::to_ascii_lowercase).as_deref(), Some("accept-encoding"), "{file}");
    }
    for wrong in ["/page/", "/page/index.html", "/page/app.js/", "/page/..%2Fmod.rs", "/page/none.js", "/page/%ff"] {
        service.get(wrong).expect_problem(404, "not_found", &[]);
    }
}

#[test]
fn the_policy_of_the_page_lets_nothing_in_from_outside() {
    let (guarded, _) = Guarded::start([&["page"]], &[]);
    for file in page_files(&guarded.service) {
        let reply = guarded.service.get(&file);
        assert_eq!(reply.status, 200, "{file} is there without a token");
        for outside in ["http://", "https://", "//cdn", "style=", "onclick=\"", "eval("] {
            let allowed = reply.text().matches("http://www.w3.org/2000/svg").count()
                + reply.text().matches("http://HOST/").count()
                + reply.text().matches("https://tus.io").count();
            let found = reply.text().matches(outside).count();
            assert!(found <= allowed, "{file} has {outside}");
        }
    }
    let policy = guarded.service.get("/").header("content-security-policy").unwrap().to_owned();
    for part in ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(guarded.service.get("/").header("cross-origin-opener-policy"), Some("same-origin"));
}
