"""The page in a real browser, as people use it.

Usage: cases.py CASE HOST:PORT CHROMIUM [TOKEN]

With ADTALLY_PAGE_FILES=src/http/page, the page's files are those and not the ones in the program: nothing has to be built after a change.

Runs one case against a running server. It fails with what was expected, and prints nothing when all is well.
"""

from __future__ import annotations

import csv
import json
import os
import re
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from gate import Gate
from playwright.sync_api import Page, expect, sync_playwright

HEADER = "campaign_id,date,impressions,clicks,spend,conversions\n"
PHONE = {"width": 375, "height": 740}
PATIENCE_MILLISECONDS = 30_000


def rows(count: int, campaigns: int = 40, first: int = 0) -> str:
    """Rows with numbers that differ by campaign."""
    return "".join(
        f"CMP{number % campaigns:03},2025-04-{number % 28 + 1:02},{1000 + number % 7},{number % campaigns + number % 3},"
        f"{10 + number % campaigns * 3}.{number % 100:02},{number % 5}\n"
        for number in range(first, first + count)
    )


class Session:
    """A server, a browser and a directory for files."""

    def __init__(self, browser, address: str, token: str | None, directory: Path) -> None:
        self.browser = browser
        self.address = address
        self.token = token
        self.directory = directory
        self.problems: list[str] = []

    def page(self, address: str | None = None, **options) -> Page:
        context = self.browser.new_context(locale="en-US", base_url=f"http://{address or self.address}", **options)
        context.set_default_timeout(PATIENCE_MILLISECONDS)
        if files := os.environ.get("ADTALLY_PAGE_FILES"):
            page_file = re.compile(r"^http://[^/]+/(page/[^/?]+)?(\?.*)?$")
            context.route(page_file, lambda route: route.fulfill(path=Path(files, Path(route.request.url).name if "/page/" in route.request.url else "index.html")))
        page = context.new_page()
        # The policy refuses without a visible sign, and errors are told only to the console.
        page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        page.on("console", lambda message: self.note(message))
        return page

    def note(self, message) -> None:
        # Browsers say of every answer above 399 that a resource failed to load.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.problems.append(f"console: {message.text}")

    def file(self, name: str, text: str | bytes) -> str:
        path = self.directory / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    def get(self, path: str):
        request = urllib.request.Request(f"http://{self.address}{path}")
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        with urllib.request.urlopen(request, timeout=30) as answer:
            body = answer.read()
        return json.loads(body) if answer.headers["content-type"].startswith("application/json") else body.decode()

    def put(self, name: str, text: str) -> dict:
        request = urllib.request.Request(f"http://{self.address}/v1/jobs/{name}", text.encode(), method="PUT")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())


def is_done(page: Page) -> None:
    expect(page.locator(".title .badge")).to_have_text("Done", timeout=PATIENCE_MILLISECONDS)


def shown_list(page: Page, name: str) -> list[list[str]]:
    found = page.get_by_role("region", name=name).locator("tbody tr")
    return [[cell.strip() for cell in row.locator("th, td").all_inner_texts()] for row in found.all()]


def send_chosen(page: Page, *files: str) -> None:
    page.goto("/")
    page.locator("#files").set_input_files(list(files))
    page.get_by_role("button", name=re.compile("^Send")).click()


def job_id(page: Page) -> str:
    page.wait_for_url(re.compile("#/jobs/"))
    return page.url.rpartition("/")[2]


# -- Cases ----------------------------------------------------------------------------------------------------------------


def dropped_file_gives_the_lists_of_the_interface(session: Session) -> None:
    page = session.page()
    page.goto("/")
    expect(page.get_by_role("heading", level=1)).to_have_text("Which campaigns work?")
    text = HEADER + rows(5000)
    transfer = page.evaluate_handle(
        "text => { const data = new DataTransfer(); data.items.add(new File([text], 'dropped.csv')); return data; }", text
    )
    page.dispatch_event(".drop", "dragover", {"dataTransfer": transfer})
    expect(page.locator(".over .drop")).to_be_visible()
    page.dispatch_event(".drop", "drop", {"dataTransfer": transfer})
    expect(page.locator(".settings h2")).to_have_text("dropped.csv")
    expect(page.locator(".preview tbody tr")).to_have_count(8)
    expect(page.locator(".settings .hint").last).to_have_text("All columns are found.")
    page.get_by_role("button", name="Send it").click()
    is_done(page)
    job = session.get(f"/v1/jobs/{job_id(page)}")
    assert job["name"] == "dropped.csv" and job["progress"]["rows_read"] == 5000, job
    for name, key, show in [
        ("Highest click-through rate", "top_ctr", lambda row: f"{float(row['ctr']) * 100:.2f}%"),
        ("Lowest cost per acquisition", "top_cpa", lambda row: row["cpa"]),
    ]:
        expected = [
            [str(rank), row["campaign_id"], show(row), f"{row['total_impressions']:,}", f"{row['total_clicks']:,}",
             f"{float(row['total_spend']):,.2f}", f"{row['total_conversions']:,}"]
            for rank, row in enumerate(job[key], 1)
        ]
        assert shown_list(page, name) == expected, (shown_list(page, name), expected)
    expect(page.locator(".scatter .point")).to_have_count(40)
    with page.expect_download() as download:
        page.get_by_role("link", name="top10_ctr.csv: Highest click-through rate").click()
    saved = Path(download.value.path()).read_text()
    assert saved == session.get(job["links"]["results"]["top10_ctr.csv"]), saved
    # What is exact is one focus away.
    size = page.locator(".figures dd").last
    assert size.get_attribute("data-exact").startswith(f"{len(text):,} bytes"), size.get_attribute("data-exact")


def leaders_are_shown_while_the_file_arrives(session: Session) -> None:
    gate = Gate(session.address)
    page = session.page(gate.address)
    path = session.file("live.csv", HEADER + rows(400_000))
    page.goto("/")
    gate.hold_after(6_000_000)
    page.locator("#files").set_input_files(path)
    page.get_by_role("button", name="Send it").click()
    gate.wait_until_held()
    expect(page.locator(".title .badge")).to_have_text("Receiving")
    expect(page.get_by_role("progressbar")).to_be_visible()
    expect(page.get_by_role("region", name="Progress")).to_contain_text(re.compile(r"MB of 1\d\.\d MB · .* per second · .* left"))
    expect(page.get_by_role("region", name="Highest click-through rate").locator("tbody tr")).to_have_count(10)
    before = page.locator(".figures dd").first.get_attribute("data-exact")
    assert int(before.replace(",", "")) < 400_000, before
    gate.open()
    is_done(page)
    expect(page.locator(".figures dd").first).to_have_attribute("data-exact", "400,000")


def skipped_rows_are_told_with_line_and_reason(session: Session) -> None:
    page = session.page()
    wrong = "CMP001,2025-04-01,10,x,1.00,1\n,2025-04-01,10,1,1.00,1\n"
    send_chosen(page, session.file("rejects.csv", HEADER + rows(10) + wrong))
    is_done(page)
    section = page.get_by_role("region", name="2 rows were skipped")
    expect(section.locator("tbody tr")).to_have_count(2)
    table = session.get(f"/v1/jobs/{job_id(page)}/results/rejects.csv").splitlines()
    first = section.locator("tbody tr").first.locator("td").all_inner_texts()
    assert first[:2] == next(csv.reader(table[1:]))[:2] and first[2] == "clicks that are no whole number", first


def cancelling_ends_the_job(session: Session) -> None:
    gate = Gate(session.address)
    page = session.page(gate.address)
    page.goto("/")
    gate.hold_after(3_000_000)
    page.locator("#files").set_input_files(session.file("cancel.csv", HEADER + rows(300_000)))
    page.get_by_role("button", name="Send it").click()
    gate.wait_until_held()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".title .badge")).to_have_text("Cancelled")
    assert session.get(f"/v1/jobs/{job_id(page)}")["state"] == "cancelled"
    gate.open()


def wrong_delimiter_is_mended_from_the_page(session: Session) -> None:
    page = session.page()
    page.goto("/")
    text = (HEADER + rows(2000)).replace(",", ";")
    page.locator("#files").set_input_files(session.file("semicolons.csv", text))
    delimiter = page.get_by_label("Between columns")
    expect(delimiter).to_have_value(";")
    delimiter.select_option(",")
    expect(page.locator(".warning")).to_contain_text("Not found: campaign")
    page.get_by_role("button", name="Send it").click()
    expect(page.locator(".title .badge")).to_have_text("Failed")
    detail = session.get(f"/v1/jobs/{job_id(page)}")["error"]["detail"]
    expect(page.get_by_role("alert")).to_contain_text(detail)
    page.get_by_role("link", name="Change the settings and send again").click()
    page.get_by_label("Between columns").select_option(";")
    expect(page.locator(".settings .hint").last).to_have_text("All columns are found.")
    page.get_by_role("button", name="Send it").click()
    is_done(page)
    assert session.get(f"/v1/jobs/{job_id(page)}")["progress"]["rows_read"] == 2000


def columns_and_decimals_are_set_from_the_page(session: Session) -> None:
    page = session.page()
    page.goto("/")
    text = "Kampagne;date;impressions;Klicks;spend;conversions\n" + "A;2025-01-01;100;10;1,50;2\nB;2025-01-01;100;20;2,25;3\n" * 5
    page.locator("#files").set_input_files(session.file("german.csv", text.encode("windows-1252")))
    expect(page.get_by_label("Decimal mark")).to_have_value(",")
    expect(page.locator(".warning")).to_contain_text("Not found: campaign, clicks")
    page.get_by_label("Column 1, Kampagne").select_option("campaign_id")
    page.get_by_label("Column 4, Klicks").select_option("clicks")
    page.get_by_label("Length of the lists").fill("25")
    expect(page.locator(".settings .hint").last).to_have_text("All columns are found.")
    page.get_by_role("button", name="Send it").click()
    is_done(page)
    job = session.get(f"/v1/jobs/{job_id(page)}")
    assert [(row["campaign_id"], row["total_spend"]) for row in job["top_ctr"]] == [("B", "11.25"), ("A", "7.50")], job["top_ctr"]
    names = page.get_by_role("region", name="Downloads").locator("li a:first-of-type").all_inner_texts()
    assert names == ["top25_ctr.csv", "top25_cpa.csv", "campaigns.csv", "stats.json"], names
    expect(page.locator("pre code")).to_contain_text(job["links"]["results"]["top25_ctr.csv"])


def reports_compressed_and_pasted_rows_are_recognised(session: Session) -> None:
    import gzip

    page = session.page()
    page.goto("/")
    report = (
        'Campaign report\n"September 1, 2026 - September 2, 2026"\n'
        "Campaign status,Campaign,Campaign ID,Currency code,Day,Impr.,Clicks,Cost,Conversions\n"
        'Enabled,Brand,20811234570,USD,2026-09-01,"1,067",47,47.00,2.50\n'
        'Total: Campaigns, --, --,USD, --,"1,067",47,47.00,2.50\n'
    )
    page.locator("#files").set_input_files(session.file("report.csv.gz", gzip.compress(report.encode())))
    expect(page.get_by_label("Kind of report")).to_have_value("google_ads")
    page.get_by_role("button", name="Send it").click()
    is_done(page)
    assert session.get(f"/v1/jobs/{job_id(page)}")["top_ctr"][0]["total_conversions"] == "2.5"
    page.goto("/#/")
    page.get_by_role("button", name="Paste rows").click()
    page.get_by_label("Rows, with the names").fill(HEADER.replace(",", "\t") + "A\t2025-01-01\t100\t10\t1.50\t2\n")
    page.get_by_role("button", name="Look at them").click()
    expect(page.get_by_label("Between columns")).to_have_value("\t")
    page.get_by_role("button", name="Send it").click()
    is_done(page)
    assert session.get(f"/v1/jobs/{job_id(page)}")["top_ctr"][0]["total_spend"] == "1.50"


def several_files_become_one_job(session: Session) -> None:
    page = session.page()
    (session.directory / "other").mkdir()
    send_chosen(
        page,
        session.file("january.csv", HEADER + rows(3000)),
        session.file("february.csv", HEADER + rows(2000, first=3000)),
        session.file("other/january.csv", HEADER + rows(1000, first=5000)),
    )
    is_done(page)
    job = session.get(f"/v1/jobs/{job_id(page)}")
    assert [file["name"] for file in job["files"]] == ["january.csv", "february.csv", "january (2).csv"], job["files"]
    whole = session.put("whole", HEADER + rows(6000))
    tables = [session.get(found["links"]["results"]["campaigns.csv"]) for found in (job, whole)]
    assert tables[0] == tables[1]


def connection_that_breaks_goes_on_by_itself(session: Session) -> None:
    gate = Gate(session.address)
    page = session.page(gate.address)
    text = HEADER + rows(400_000)
    page.goto("/")
    gate.hold_after(4_000_000)
    page.locator("#files").set_input_files(session.file("cut.csv", text))
    page.get_by_role("button", name="Send it").click()
    for _ in range(2):
        gate.wait_until_held()
        gate.hold_after(4_000_000)
        gate.cut()
    gate.wait_until_held()
    gate.open()
    is_done(page)
    job = session.get(f"/v1/jobs/{job_id(page)}")
    whole = session.put("whole", text)
    assert job["progress"]["rows_read"] == 400_000, job
    tables = [session.get(found["links"]["results"]["campaigns.csv"]) for found in (job, whole)]
    assert tables[0] == tables[1]
    assert len(session.get("/v1/jobs")["jobs"]) == 2, "the upload has begun anew"


def upload_goes_on_after_a_reload(session: Session) -> None:
    gate = Gate(session.address)
    page = session.page(gate.address)
    path = session.file("reload.csv", HEADER + rows(400_000))
    other = session.file("other.csv", HEADER + rows(10))
    page.goto("/")
    gate.hold_after(4_000_000)
    page.locator("#files").set_input_files(path)
    page.get_by_role("button", name="Send it").click()
    gate.wait_until_held()
    identity = job_id(page)
    page.once("dialog", lambda dialog: dialog.accept())
    page.reload()
    gate.open()
    section = page.get_by_role("region", name="Go on with reload.csv")
    expect(section).to_contain_text("Choose the same file again")
    section.locator("input").set_input_files(other)
    expect(section.get_by_role("alert")).to_contain_text("another file")
    # The first view names it, too.
    page.goto("/#/")
    page.get_by_role("region", name="Unfinished uploads").get_by_role("link", name="reload.csv").click()
    page.get_by_role("region", name="Go on with reload.csv").locator("input").set_input_files(path)
    is_done(page)
    assert job_id(page) == identity
    assert session.get(f"/v1/jobs/{identity}")["progress"]["rows_read"] == 400_000


def broken_file_of_several_can_be_replaced_or_left_out(session: Session) -> None:
    page = session.page()
    send_chosen(
        page,
        session.file("first.csv", HEADER + rows(100)),
        session.file("broken.csv", "nonsense\n1,2\n"),
        session.file("wrong.csv", "a;b\n1;2\n"),
        session.file("last.csv", HEADER + rows(200, first=100)),
    )
    broken = page.get_by_role("region", name="broken.csv cannot be used")
    expect(broken).to_contain_text("the first row lacks the columns")
    expect(page.get_by_role("button", name="Finish it")).to_have_count(0)
    # The others were sent all the same.
    wrong = page.get_by_role("region", name="wrong.csv cannot be used")
    expect(wrong).to_be_visible()
    wrong.locator("input").set_input_files(session.file("mended.csv", HEADER + rows(50, first=300)))
    expect(wrong).to_have_count(0)
    broken.get_by_role("button", name="Leave it out").click()
    expect(broken).to_have_count(0)
    page.get_by_role("button", name="Finish it").click()
    is_done(page)
    assert session.get(f"/v1/jobs/{job_id(page)}")["progress"]["rows_read"] == 350


def several_files_are_known_before_the_first_is_sent(session: Session) -> None:
    gate = Gate(session.address)
    page = session.page(gate.address)
    files = {name: session.file(name, HEADER + rows(60_000)) for name in ("one.csv", "two.csv", "three.csv")}
    gate.hold_after(500_000)
    send_chosen(page, *files.values())
    gate.wait_until_held()
    page.once("dialog", lambda dialog: dialog.accept())
    page.reload()
    gate.cut()
    gate.open()
    for name, path in files.items():
        page.get_by_role("region", name=f"Go on with {name}").locator("input").set_input_files(path)
    is_done(page)
    assert session.get(f"/v1/jobs/{job_id(page)}")["progress"]["rows_read"] == 180_000


def file_that_has_changed_is_told(session: Session) -> None:
    page = session.page()
    path = session.file("changing.csv", HEADER + rows(100_000))
    page.goto("/")
    page.locator("#files").set_input_files(path)
    expect(page.locator(".preview tbody tr")).to_have_count(8)
    with open(path, "a") as file:
        file.write(rows(1))
    page.get_by_role("button", name="Send it").click()
    expect(page.get_by_role("alert").first).to_contain_text("changing.csv has changed on this machine")
    expect(page.get_by_role("region", name="Go on with changing.csv")).to_be_visible()


def rows_that_will_be_skipped_are_told_before_and_after(session: Session) -> None:
    page = session.page()
    page.goto("/")
    rows_with_groups = "".join(f'A{number},2025-01-01,"1,100",{number},"1,100.50",1.5\n' for number in range(30))
    page.locator("#files").set_input_files(session.file("groups.csv", HEADER + rows_with_groups))
    expect(page.get_by_label("Digits")).to_have_value("any")
    expect(page.get_by_label("Conversions may have decimals")).to_be_checked()
    expect(page.locator(".settings .hint").last).to_have_text("All columns are found.")
    page.get_by_label("Digits").select_option("none")
    expect(page.locator(".warning")).to_contain_text("30 of the first 30 rows will be skipped")
    expect(page.locator(".warning")).to_contain_text("its impressions are “1,100”")
    page.get_by_role("button", name="Send it").click()
    is_done(page)
    expect(page.get_by_text("30 of 30 rows were skipped")).to_be_visible()
    page.get_by_role("link", name="Change the settings and send again").click()
    page.get_by_label("Digits").select_option("any")
    page.get_by_role("button", name="Send it").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("groups.csv")
    expect(page.locator(".figures dd").nth(1)).to_have_attribute("data-exact", "0")
    is_done(page)
    # What has been sent with success is not offered again.
    page.goto("/#/")
    expect(page.get_by_role("heading", level=1)).to_have_text("Which campaigns work?")
    expect(page.locator(".settings")).to_have_count(0)


def what_cannot_be_read_is_told_before_it_is_sent(session: Session) -> None:
    page = session.page()
    page.goto("/")
    for name, contents, told in [
        ("empty.csv", b"", "This file is empty."),
        ("book.xlsx", b"PK\x03\x04 and so on", "This is a ZIP archive or an Excel workbook"),
    ]:
        page.locator("#files").set_input_files(session.file(name, contents))
        expect(page.locator(".warning")).to_contain_text(told)
        expect(page.get_by_role("button", name="Send it")).to_be_disabled()
    for contents, told in [
        (HEADER.replace("date", "clicks") + rows(3), "Two columns have the name “clicks”"),
        ("CMP1,2025-01-01,1,1,1,1,7\n" * 3, "Without a header, rows must have exactly these six columns"),
        (HEADER + "x" * 100_000, "All columns are found"),
        ("y" * 100_000, "The first row does not end"),
    ]:
        page.locator("#files").set_input_files(session.file("odd.csv", contents))
        if contents.startswith("CMP1"):
            page.get_by_label("The first row names the columns").uncheck()
        expect(page.locator(".settings")).to_contain_text(told)


def the_page_is_left_and_found_again(session: Session) -> None:
    """Addresses, focus, dropping elsewhere, and a service that is away for a while."""
    session.put("here.csv", HEADER + rows(50))
    page = session.page()
    focused = "document.activeElement.textContent"
    page.goto("/")
    expect(page.get_by_role("heading", level=1)).to_have_text("Which campaigns work?")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main" and "#main" not in page.url
    page.get_by_role("link", name="Jobs").click()
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    assert page.evaluate(focused) == "Jobs"
    transfer = page.evaluate_handle(
        "text => { const data = new DataTransfer(); data.items.add(new File([text], 'late.csv')); return data; }", HEADER + rows(9)
    )
    page.dispatch_event("main", "drop", {"dataTransfer": transfer})
    expect(page.locator(".settings h2")).to_have_text("late.csv")
    page.get_by_role("button", name="Discard").click()
    expect(page.get_by_role("button", name="Choose files")).to_be_focused()
    for address in ("/#/jobs/%", "/#/jobs/..%2F..%2Fopenapi.yaml%3F", "/#/elsewhere"):
        page.goto(address)
        expect(page.get_by_role("heading", level=1)).to_have_text(re.compile("cannot be shown|no such page"))
    page.route("**/v1/**", lambda route: route.abort())
    page.goto("/#/jobs")
    expect(page.get_by_role("alert")).to_contain_text("The service cannot be reached")
    page.unroute("**/v1/**")
    page.get_by_role("button", name="Try again").click()
    page.get_by_role("link", name="here.csv").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("here.csv")
    expect(page.get_by_role("heading", level=1)).to_be_focused()


def signing_in_takes_a_token(session: Session) -> None:
    page = session.page()
    page.goto("/")
    token = page.get_by_label("Token")
    token.fill("adt_wrong_token")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("the token is not valid")
    token = page.get_by_label("Token")
    token.fill(session.token)
    token.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Which campaigns work?")
    page.locator("#files").set_input_files(session.file("secret.csv", HEADER + rows(100)))
    page.get_by_role("button", name="Send it").click()
    is_done(page)
    with page.expect_download() as download:
        page.get_by_role("link", name="campaigns.csv: All campaigns").click()
    identity = job_id(page)
    assert Path(download.value.path()).read_text() == session.get(f"/v1/jobs/{identity}/results/campaigns.csv")
    assert page.evaluate("localStorage.length") == 0
    assert session.token not in page.content()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Token")).to_be_visible()
    # Another tab is not signed in.
    other = page.context.new_page()
    other.goto(f"/#/jobs/{identity}")
    expect(other.get_by_label("Token")).to_be_visible()


def jobs_are_found_and_deleted_with_undo(session: Session) -> None:
    for name in ("north.csv", "south.csv", "east.csv"):
        session.put(name, HEADER + rows(50))
    page = session.page()
    page.clock.install()
    page.goto("/#/jobs")
    listed = page.locator("table.jobs tbody tr")
    expect(listed).to_have_count(3)
    page.get_by_label("Search by name").fill("OUTH")
    expect(listed).to_have_count(1)
    expect(listed).to_contain_text("south.csv")
    page.get_by_label("Search by name").fill("")
    page.get_by_role("button", name="Delete north.csv").click()
    expect(listed).to_have_count(2)
    page.get_by_role("button", name="Undo").click()
    expect(listed).to_have_count(3)
    expect(page.get_by_role("button", name="Delete north.csv")).to_be_focused()
    page.get_by_role("button", name="Delete east.csv").click()
    expect(listed).to_have_count(2)
    assert len(session.get("/v1/jobs")["jobs"]) == 3, "it is deleted before the undo has passed"
    with page.expect_response(lambda answer: answer.request.method == "DELETE") as answer:
        page.mouse.move(0, 0)
        page.clock.fast_forward(9000)
    assert answer.value.status == 204
    assert {job["name"] for job in session.get("/v1/jobs")["jobs"]} == {"north.csv", "south.csv"}
    page.get_by_role("link", name="north.csv").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("north.csv")


def keyboard_alone_is_enough(session: Session) -> None:
    page = session.page()
    page.goto("/")
    expect(page.locator("#files")).to_be_attached()

    def tab_to(selector: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
        raise AssertionError(f"{selector} is not reached by the keyboard")

    tab_to(".drop button")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Space")
    chooser.value.set_files(session.file("keys.csv", HEADER + rows(500)))
    expect(page.locator(".settings")).to_be_visible()
    tab_to("button[type=submit]")
    page.keyboard.press("Enter")
    is_done(page)
    expect(page.locator(".scatter .point")).to_have_count(40)
    tab_to(".scatter svg")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".told")).to_contain_text("CMP")
    first = page.locator(".told").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator(".told").inner_text() != first
    tab_to("a[href*='top10_cpa.csv']")
    page.goto("/#/jobs")
    tab_to("table.jobs a")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("keys.csv")


def every_view_fits_a_phone_in_both_schemes(session: Session) -> None:
    long_name = "a_campaign_with_a_name_that_is_much_longer_than_any_phone_is_wide_" * 2
    job = session.put("phone.csv", HEADER + rows(500) + f"{long_name},2025-01-01,10,9,1.00,1\n,2025-01-01,1,1,1,1\n")
    backgrounds = set()
    for scheme in ("light", "dark"):
        page = session.page(viewport=PHONE, color_scheme=scheme)
        for view in ("/", "/#/jobs", f"/#/jobs/{job['id']}", "/#/nothing"):
            page.goto(view)
            expect(page.get_by_role("heading", level=1)).to_be_visible()
            if job["id"] in view:
                is_done(page)
            if view == "/":
                page.locator("#files").set_input_files(session.file("phone.csv", HEADER + rows(20)))
                expect(page.locator(".preview tbody tr")).to_have_count(8)
            width = page.evaluate("document.documentElement.scrollWidth")
            assert width <= PHONE["width"], (scheme, view, width)
        backgrounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(backgrounds) == 2, backgrounds


def axe_finds_nothing(session: Session) -> None:
    from axe_playwright_python.sync_playwright import Axe

    done = session.put("done.csv", HEADER + rows(500) + ",2025-01-01,1,1,1,1\n")
    try:
        session.put("failed.csv", "a;b\n1;2\n")
    except urllib.error.HTTPError as error:
        failed = json.loads(error.read())["job"].rpartition("/")[2]
    for scheme in ("light", "dark"):
        # The policy does not let a script in; axe is one.
        page = session.page(color_scheme=scheme, bypass_csp=True, reduced_motion="reduce")

        def check(what: str) -> None:
            found = Axe().run(page).response["violations"]
            told = [(entry["id"], [node["html"][:120] for node in entry["nodes"]][:3]) for entry in found]
            assert not found, (scheme, what, told)

        page.goto("/")
        expect(page.locator(".drop")).to_be_visible()
        check("send")
        page.locator("#files").set_input_files(session.file("axe.csv", HEADER + rows(20)))
        expect(page.locator(".preview tbody tr")).to_have_count(8)
        check("settings")
        page.get_by_label("Between columns").select_option(";")
        expect(page.locator(".warning")).to_be_visible()
        check("a warning")
        page.get_by_role("button", name="Discard").click()
        page.get_by_role("button", name="Paste rows").click()
        check("pasting")
        page.goto(f"/#/jobs/{done['id']}")
        expect(page.locator(".scatter .point").first).to_be_visible()
        expect(page.get_by_role("region", name="1 row was skipped").locator("tbody tr")).to_have_count(1)
        check("done")
        page.goto(f"/#/jobs/{failed}")
        expect(page.locator(".title .badge")).to_have_text("Failed")
        check("failed")
        page.goto("/#/jobs")
        expect(page.locator("table.jobs tbody tr")).to_have_count(2)
        page.get_by_role("button", name="Delete done.csv").click()
        check("jobs, with a message")
        page.get_by_role("button", name="Undo").click()
        page.goto("/#/nothing")
        check("nothing there")
        page.route("**/v1/formats", lambda route: route.fulfill(status=401, json={"type": "urn:adtally:problem:unauthorized"}))
        page.goto("/#/")
        expect(page.get_by_label("Token")).to_be_visible()
        check("sign-in")


CASES = {
    name: case
    for name, case in list(globals().items())
    if callable(case) and getattr(case, "__annotations__", {}).get("session") == "Session"
}


def main() -> None:
    name, address, chromium, *rest = sys.argv[1:]
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as directory:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        session = Session(browser, address, rest[0] if rest else None, Path(directory))
        try:
            CASES[name](session)
        finally:
            browser.close()
        if session.problems:
            sys.exit(f"the page had problems: {session.problems}")


if __name__ == "__main__":
    main()
