"""Makes the README's pictures of the page, on a real run.

    cargo build --release && python3 tests/page/screenshots.py docs/images

Needs Playwright for Python and Chromium. The last of the file is held back, so that a job is shown while it arrives.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random

from gate import Gate
from playwright.sync_api import expect, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
RELEASE = ROOT / "target/release"
ROWS = 500_000
CAMPAIGNS = 600


def rows():
    """Rows of campaigns that differ as real ones do: a few large ones, many small ones."""
    random = Random(7)
    campaigns = [
        (f"{random.choice(['brand', 'search', 'video', 'shop', 'app'])}-{number:03}",
         random.lognormvariate(5, 1), random.lognormvariate(-3.9, 0.5), random.lognormvariate(-0.3, 0.4), random.lognormvariate(-3, 0.6))
        for number in range(CAMPAIGNS)
    ]
    for number in range(ROWS):
        name, size, rate, price, success = campaigns[int(CAMPAIGNS * random.random() ** 2)]
        impressions = int(random.expovariate(1 / size)) + 20
        clicks = min(impressions, int(impressions * rate * random.uniform(0.5, 1.5)))
        conversions = int(clicks * success + random.random())
        yield f"{name},2026-{number % 12 + 1:02}-{number % 28 + 1:02},{impressions},{clicks},{clicks * price:.2f},{conversions}\n".encode()


def main() -> None:
    images = Path(sys.argv[1])
    images.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        data = Path(scratch) / "ad_data.csv"
        with open(data, "wb") as file:
            file.write(b"campaign_id,date,impressions,clicks,spend,conversions\n")
            file.writelines(rows())
        command = [RELEASE / "adtally", "serve", "--listen", "127.0.0.1:0", "--data-dir", f"{scratch}/data"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
            try:
                address = server.stdout.readline().strip().removeprefix("listening on http://")
                gate = Gate(address)
                browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
                wide = {"viewport": {"width": 1280, "height": 900}, "locale": "en-US", "reduced_motion": "reduce"}
                page = browser.new_page(**wide, base_url=f"http://{gate.address}")
                page.goto("/")
                page.locator("#files").set_input_files(str(data))
                expect(page.locator(".preview tbody tr")).to_have_count(8)
                page.screenshot(path=images / "send.png")
                gate.hold_after(data.stat().st_size * 2 // 3)
                page.get_by_role("button", name="Send it").click()
                gate.wait_until_held()
                expect(page.get_by_role("region", name="Highest click-through rate").locator("tbody tr")).to_have_count(10)
                page.wait_for_timeout(1000)
                page.screenshot(path=images / "watch.png")
                gate.open()
                expect(page.locator(".scatter .point").first).to_be_visible()
                job = page.url.partition("#")[2]
                for name, view in {
                    "read.png": wide,
                    "phone_dark.png": {**wide, "viewport": {"width": 375, "height": 740}, "color_scheme": "dark"},
                }.items():
                    shown = browser.new_page(**view, base_url=f"http://{address}")
                    shown.goto(f"/#{job}")
                    expect(shown.locator(".scatter .point").first).to_be_visible()
                    shown.screenshot(path=images / name, full_page=name == "read.png")
                browser.close()
            finally:
                server.terminate()


if __name__ == "__main__":
    main()
