#!/usr/bin/env python3
"""Many uploads of many campaigns at once: how much memory the service takes, and what it answers.

    cargo build --release && python3 benches/memory.py [--uploads 256] [--campaigns 1000000] [--budget 1GiB]

Each upload has campaigns of its own. Every answer has to be 201 with exact totals, or 503 `memory_budget` with `Retry-After`.
The tables of all campaigns are compared row by row afterwards.
"""

import argparse
import collections
import http.client
import json
import pathlib
import subprocess
import tempfile
import threading

ROWS_AT_ONCE = 5000


def rows(upload, campaigns):
    yield b"campaign_id,date,impressions,clicks,spend,conversions\n"
    for first in range(0, campaigns, ROWS_AT_ONCE):
        numbers = range(first, min(campaigns, first + ROWS_AT_ONCE))
        yield "".join(f"{upload:x}c{number},2025-01-01,10,1,1.50,1\n" for number in numbers).encode()


def send(address, upload, campaigns):
    """Gives what the upload came to."""
    connection = http.client.HTTPConnection(address, timeout=3600)
    try:
        try:
            connection.request("PUT", f"/v1/jobs/u{upload}", rows(upload, campaigns), {"Transfer-Encoding": "chunked"}, encode_chunked=True)
        except OSError:
            # The answer may have come before the last byte.
            pass
        answer = connection.getresponse()
        document = json.load(answer)
    except (OSError, http.client.HTTPException) as error:
        return f"no answer: {error!r}"
    if answer.status == 201:
        is_right = document["stats"]["unique_campaigns"] == document["stats"]["rows_read"] == campaigns
        return "right" if is_right else "WRONG"
    problem = document["type"].rsplit(":", 1)[-1]
    has_hint = answer.getheader("Retry-After") is not None
    return f"{answer.status} {problem}" + ("" if has_hint else " without Retry-After")


def has_right_table(address, upload, campaigns):
    """Compares the table of an upload that has succeeded."""
    connection = http.client.HTTPConnection(address, timeout=3600)
    connection.request("GET", f"/v1/jobs/u{upload}/results/campaigns.csv")
    names, *table = connection.getresponse().read().decode().splitlines()
    expected = {f"{upload:x}c{number},10,1,1.50,1,0.1000,1.50" for number in range(campaigns)}
    return names.startswith("campaign_id,") and len(table) == campaigns and set(table) == expected


def resident_kib(process, field):
    for line in pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="target/release/adtally")
    parser.add_argument("--uploads", type=int, default=256)
    parser.add_argument("--campaigns", type=int, default=1_000_000)
    parser.add_argument("--budget", default="1GiB")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        command = [arguments.program, "serve", "--listen", "127.0.0.1:0", "--data-dir", directory, "--memory-budget", arguments.budget]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            try:
                address = process.stdout.readline().strip().removeprefix("listening on http://")
                idle = resident_kib(process, "VmRSS")
                answers = collections.Counter()
                right = []

                def run(upload):
                    answer = send(address, upload, arguments.campaigns)
                    answers[answer] += 1
                    if answer == "right":
                        right.append(upload)

                threads = [threading.Thread(target=run, args=(upload,)) for upload in range(arguments.uploads)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                is_alive = process.poll() is None
                peak = resident_kib(process, "VmHWM")
                wrong = [upload for upload in right if not has_right_table(address, upload, arguments.campaigns)]
                print(f"{arguments.uploads} uploads of {arguments.campaigns} campaigns, budget {arguments.budget}")
                for answer, count in answers.most_common():
                    print(f"  {count:4} {answer}")
                print(f"  resident: {idle / 1024:.0f} MiB at the start, {peak / 1024:.0f} MiB at the peak, "
                      f"{resident_kib(process, 'VmRSS') / 1024:.0f} MiB at the end; alive: {is_alive}")
                print(f"  tables: {len(right) - len(wrong)} compared and right, wrong: {wrong}")
            finally:
                process.terminate()


if __name__ == "__main__":
    main()
