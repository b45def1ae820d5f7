#!/usr/bin/env python3
"""What a large file and a large result cost the page: long tasks and memory of the browser.

    cargo build --release && python3 benches/page.py [--megabytes 1000] [--campaigns 100000]

Needs Playwright for Python and Chromium. A task longer than 200 ms, or a heap that has grown by 64 MiB, is told as a failure.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import ROOT, positive
from playwright.sync_api import sync_playwright

MAX_TASK_MILLISECONDS = 200
MAX_GROWTH_BYTES = 64 << 20
HEADER = "campaign_id,date,impressions,clicks,spend,conversions\n"
OBSERVE = """
window.longTasks = [];
new PerformanceObserver(list => longTasks.push(...list.getEntries().map(entry => entry.duration)))
  .observe({ type: "longtask", buffered: true });
"""


def write_rows(path: Path, megabytes: int, campaigns: int) -> None:
    with open(path, "w") as file:
        file.write(HEADER)
        rows = "".join(
            f"1202{number:014},2025-01-{number % 28 + 1:02},{1000 + number % 977},{number % 97},{number % 1301}.25,{number % 7}\n"
            for number in range(campaigns)
        )
        for _ in range(max(1, (megabytes << 20) // len(rows))):
            file.write(rows)


def measure(browser, address: str, file: Path) -> tuple[float, int, int, float]:
    """Gives the longest task in milliseconds, the heap before and at its most in bytes, and the seconds until all is shown."""
    context = browser.new_context(base_url=f"http://{address}")
    page = context.new_page()
    page.add_init_script(OBSERVE)
    session = context.new_cdp_session(page)
    session.send("Performance.enable")

    def heap() -> int:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return int(next(metric["value"] for metric in metrics if metric["name"] == "JSHeapUsedSize"))

    page.goto("/")
    page.locator("#files").wait_for(state="attached")
    session.send("HeapProfiler.collectGarbage")
    before = most = heap()
    begun = time.monotonic()
    page.locator("#files").set_input_files(str(file))
    page.get_by_role("button", name="Send it").click()
    while not page.locator(".scatter .point").count():
        most = max(most, heap())
        page.wait_for_timeout(100)
        if time.monotonic() - begun > 300:
            sys.exit("the job is not shown within five minutes")
    seconds = time.monotonic() - begun
    page.wait_for_timeout(500)
    session.send("HeapProfiler.collectGarbage")
    most = max(most, heap())
    longest = max(page.evaluate("longTasks"), default=0.0)
    context.close()
    return longest, before, most, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/adtally")
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    parser.add_argument("--megabytes", type=positive, default=1000)
    parser.add_argument("--campaigns", type=positive, default=100_000)
    arguments = parser.parse_args()
    is_right = True
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        files = {"large.csv": (arguments.megabytes, 1000), "campaigns.csv": (1, arguments.campaigns)}
        command = [arguments.program, "serve", "--listen", "127.0.0.1:0", "--data-dir", f"{scratch}/data"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
            try:
                address = server.stdout.readline().strip().removeprefix("listening on http://")
                browser = playwright.chromium.launch(executable_path=arguments.chromium, args=["--no-sandbox"])
                for name, shape in files.items():
                    file = Path(scratch) / name
                    write_rows(file, *shape)
                    longest, before, most, seconds = measure(browser, address, file)
                    is_right &= longest <= MAX_TASK_MILLISECONDS and most - before <= MAX_GROWTH_BYTES
                    print(
                        f"{name}: {file.stat().st_size / 1e6:,.0f} MB, {shape[1]:,} campaigns: {seconds:.1f} s, longest task {longest:.0f} ms, "
                        f"heap {before / 2**20:.1f} MiB before, {most / 2**20:.1f} MiB at the most"
                    )
                browser.close()
            finally:
                server.terminate()
    sys.exit(0 if is_right else "beyond what is wanted")


if __name__ == "__main__":
    main()
