#!/usr/bin/env python3
"""Runs adtally and other tools over the same report of Google Ads, in turn, and compares time, memory and totals.

    python3 benches/reports.py --write              # 1 GB, five rounds, written to docs/benchmarks.md
    python3 benches/reports.py --bytes 100000000 --runs 1       # a quick look
    python3 benches/reports.py --without-adtally                # the other tools only, without the release build
    python3 benches/reports.py --peer duckdb FILE OUTPUT_DIR    # one other tool, once

A report is not a plain table: two lines stand before its header, counts of 1,000 and more are grouped, conversions are
fractions, and rows of totals follow the others. Each tool gives the totals of all campaigns, which must be the same.
Files, virtual environment and needs are those of compare.py.
"""

# Other modules are imported where they are needed: with --peer, the start of this script is part of what is measured.
import os
import sys
from pathlib import Path

from common import (
    HERE,
    ROOT,
    Failure,
    build,
    choices,
    enter_venv,
    fill_page_cache,
    own_version,
    positive,
    rustc_version,
    say,
    seconds_text,
    surroundings,
    warn_if_busy,
    write_document,
)

BEGIN, END = "<!-- reports:begin -->", "<!-- reports:end -->"

PEERS = ("duckdb", "polars")
TOOLS = ("adtally", *PEERS, "cat")

# What a row of the generator takes on average, with 50 campaigns.
BYTES_PER_ROW = 103.5
DEFAULT_BYTES = 1_000_000_000
# Small enough for Python itself to sum up.
SAMPLE_ROWS = 5_000


def run_peer(arguments):
    """The body of one measured process: `--peer NAME FILE OUTPUT_DIR [--threads N]`."""
    import argparse

    import peers

    parser = argparse.ArgumentParser(prog="reports.py --peer")
    parser.add_argument("name", choices=PEERS)
    parser.add_argument("file")
    parser.add_argument("output")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    if not os.path.isfile(options.file):
        raise Failure(f"{options.file}: no such file")
    peers.REPORT_PEERS[options.name](options.file, options.output, options.threads)


def command_for(tool, path, output, options, binaries):
    if tool == "adtally":
        command = [binaries / "adtally", "aggregate", "--format", "google_ads", "--input", path, "--output", output]
        return [*command, "--all-campaigns", "--threads", options.threads]
    if tool == "cat":
        return ["cat", path]
    return [sys.executable, HERE / "reports.py", "--peer", tool, path, output, "--threads", options.threads]


def whole(number):
    """A number that has to be an integer; anything else would be an error of rounding."""
    if number != int(number):
        raise Failure(f"{number} is not a whole number")
    return int(number)


def totals_of(tool, output):
    """What a tool wrote: by id the impressions, clicks, cents and hundredths of conversions."""
    import csv
    from decimal import Decimal

    if tool == "adtally":
        with open(output / "campaigns.csv", encoding="utf-8", newline="") as file:
            return {
                row["campaign_id"]: (
                    int(row["total_impressions"]),
                    int(row["total_clicks"]),
                    whole(100 * Decimal(row["total_spend"])),
                    whole(100 * Decimal(row["total_conversions"])),
                )
                for row in csv.DictReader(file)
            }
    with open(output / "totals.csv", encoding="utf-8", newline="") as file:
        return {name: tuple(map(int, values)) for name, *values in csv.reader(file)}


def totals_by_hand(path):
    """The same from a small file, in the slow and plain way."""
    import csv
    from decimal import Decimal

    totals = {}
    with open(path, encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        header = next(row for row in rows if "Campaign ID" in row)
        places = [header.index(name) for name in ("Impr.", "Clicks", "Cost", "Conversions")]
        for row in rows:
            name = row[header.index("Campaign ID")]
            # No campaign's status begins like this.
            if row[0].startswith("Total: "):
                continue
            values = (Decimal(row[place].replace(",", "")) for place in places)
            totals[name] = [sum(pair) for pair in zip(totals.get(name, [0] * 4), values, strict=True)]
    return {
        name: (whole(impressions), whole(clicks), whole(100 * spend), whole(100 * conversions))
        for name, (impressions, clicks, spend, conversions) in totals.items()
    }


def sums_in_the_file(path):
    """What the report itself says of all its campaigns, in the row before the last."""
    import csv
    from decimal import Decimal

    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        row = next(csv.reader([file.read().decode(errors="replace").splitlines()[-2]]))
    if row[0] != "Total: Campaigns":
        raise Failure(f"{path.name} does not end with rows of totals")
    impressions, clicks, spend, conversions = (Decimal(row[place].replace(",", "")) for place in (5, 6, 9, 11))
    return whole(impressions), whole(clicks), whole(100 * spend), whole(100 * conversions)


class Cell:
    """All runs of one tool."""

    def __init__(self):
        self.runs = []
        self.problem = None
        # The same in every run.
        self.totals = None

    def median(self):
        import statistics

        return statistics.median(run.seconds for run in self.runs)

    def measured(self):
        return bool(self.runs) and self.problem is None


def measure_once(runner, tool, path, scratch, options, binaries):
    """Runs a tool; returns its measurement and its totals."""
    import shutil

    output = scratch / "output"
    shutil.rmtree(output, ignore_errors=True)
    run = runner.run(command_for(tool, path, output, options, binaries))
    totals = None
    if run.problem is not None:
        # The tables tell of the file, not of where it lies on this machine.
        run.problem = run.problem.replace(f"{path.parent}/", "")
    elif tool != "cat":
        try:
            totals = totals_of(tool, output)
        except (OSError, ValueError, KeyError, ArithmeticError, Failure) as error:
            run.problem = f"its totals cannot be read: {type(error).__name__}: {error}"
    return run, totals


def check_sample(runner, scratch, options, binaries):
    """Runs everything once over a small file: loads the programs and finds out early who counts differently."""
    sample = scratch / "sample.csv"
    generate(sample, SAMPLE_ROWS, options)
    expected = totals_by_hand(sample)
    for tool in options.tools:
        run, totals = measure_once(runner, tool, sample, scratch, options, binaries)
        if run.problem is not None:
            raise Failure(f"{tool} does not work here: {run.problem}")
        if totals is not None and totals != expected:
            raise Failure(f"the totals of {tool} for a small sample are wrong")


def generate(path, rows, options):
    """Makes a report; it appears whole or not at all."""
    import subprocess

    # The generator is fast enough without the release build, which takes minutes where nothing else needs it.
    command = ["cargo", "run", *([] if options.without_adtally else ["--release"]), "--quiet"]
    command += ["--example", "generate_ads", "--", "--report", "google_ads", "--rows", str(rows)]
    command += ["--campaigns", str(options.campaigns), "--seed", str(options.seed)]
    part = path.with_name(path.name + ".part")
    try:
        with open(part, "wb") as output:
            if subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output).returncode != 0:
                raise Failure(f"this failed: {' '.join(command)}")
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)


def make_report(options):
    """Makes the file if it is not there. Its name has in it what it depends on."""
    rows = max(1, round(options.bytes / BYTES_PER_ROW))
    directory = options.data.absolute()
    path = directory / f"google_ads-{rows}-{options.campaigns}-{options.seed}.csv"
    if not path.exists():
        say(f"making {path.name}")
        directory.mkdir(parents=True, exist_ok=True)
        generate(path, rows, options)
    return path, rows


def measure(runner, path, scratch, options, binaries):
    """Runs all tools in turn, round by round, so that a change of the machine's mood hits all of them."""
    cells = {tool: Cell() for tool in options.tools}
    fill_page_cache(path)
    for turn in range(options.runs):
        shift = turn % len(options.tools)
        for tool in options.tools[shift:] + options.tools[:shift]:
            cell = cells[tool]
            if cell.problem:
                continue
            run, totals = measure_once(runner, tool, path, scratch, options, binaries)
            if run.problem is None and cell.runs and totals != cell.totals:
                run.problem = "not the same totals in every run"
            say(f"{turn + 1}/{options.runs}: {tool} {run.seconds:.2f} s" + (f", {run.problem}" if run.problem else ""))
            cell.problem = run.problem
            cell.totals = totals
            cell.runs.append(run)
    return cells


def find_faults(path, cells):
    """Compares all totals with each other, and their sums with those that the file has at its end."""
    faults = [f"{tool} failed: {cell.problem}" for tool, cell in cells.items() if cell.problem]
    totals = {tool: cell.totals for tool, cell in cells.items() if cell.measured() and cell.totals is not None}
    sums = sums_in_the_file(path)
    for tool, found in totals.items():
        if tuple(map(sum, zip(*found.values(), strict=True))) != sums:
            faults.append(f"the totals of {tool} do not add up to those in the file")
        elif found != next(iter(totals.values())):
            faults.append(f"the totals of {tool} are not those of {next(iter(totals))}")
    return faults


def table(cells):
    import statistics

    own = cells.get("adtally")
    reference = own if own and own.measured() else None
    # Against each other, where adtally is left out.
    totals = [cell.totals for cell in cells.values() if cell.measured() and cell.totals is not None]
    expected = reference.totals if reference else totals[0] if totals else None
    lines = [
        "| tool | median s | best s | / adtally | CPU s | peak MiB | totals |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    notes = []
    for tool, cell in cells.items():
        label = "`cat FILE > /dev/null`" if tool == "cat" else tool
        if not cell.measured():
            lines.append(f"| {label} |{' – |' * 6}")
            notes.append(f"{label}: failed, {cell.problem}.")
            continue
        cpu = statistics.median(run.cpu_seconds for run in cell.runs)
        peak = max(run.peak_bytes for run in cell.runs) / 2**20
        ratio = f"{cell.median() / reference.median():.2f}" if reference else "–"
        same = "–" if cell.totals is None else "same" if cell.totals == expected else "DIFFERENT"
        times = [cell.median(), min(run.seconds for run in cell.runs)]
        columns = [label, *map(seconds_text, times), ratio, seconds_text(cpu), f"{peak:,.1f}", same]
        lines.append(f"| {' | '.join(columns)} |")
    if notes:
        lines += ["", " ".join(notes)]
    return lines


def conditions(options):
    """What was measured and how."""
    import platform
    from importlib import metadata

    versions = [
        f"adtally {own_version()}",
        f"DuckDB {metadata.version('duckdb')}",
        f"Polars {metadata.version('polars')} (streaming)",
        f"Python {platform.python_version()}",
        rustc_version(),
    ]
    if options.without_adtally:
        versions = versions[1:]
    return [
        surroundings(versions),
        "",
        f"Whole processes from start to exit, {options.threads} threads each, page cache warm, all tools in turn and "
        f"{options.runs} {'rounds' if options.runs > 1 else 'round'}. Each tool skips the lines before the header, "
        "reads grouped numbers, leaves out the rows of totals and writes impressions, clicks, spend and conversions of "
        "all campaigns, exactly; *same* means that they are equal. Of several ways to tell the others how to read the "
        "file, these are the fastest. CPU is user and system time (median), peak the largest resident memory of any "
        "run. The floor is what only reading the file takes: the last line.",
    ]


def document_block(path, rows, cells, options):
    size = path.stat().st_size / 1e6
    lines = [BEGIN, *conditions(options), ""]
    lines += [f"### A report of Google Ads: {options.campaigns:,} campaigns, {rows:,} rows, {size:,.0f} MB", ""]
    lines += table(cells)
    repeat = ["python3", "benches/reports.py", "--runs", str(options.runs)]
    for name, usual in (("bytes", DEFAULT_BYTES), ("campaigns", 50), ("seed", 1), ("threads", 2)):
        if getattr(options, name) != usual:
            repeat += [f"--{name}", str(getattr(options, name))]
    if options.without_adtally:
        repeat.append("--without-adtally")
    lines += ["", "To repeat it:", "", "```", " ".join(repeat), "```", END]
    return "\n".join(lines) + "\n"


def parse_arguments():
    import argparse

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bytes", type=positive, default=DEFAULT_BYTES, help="size of the file, about (default 1 GB)")
    parser.add_argument("--campaigns", type=positive, default=50, help="campaigns in the file (default 50)")
    parser.add_argument("--seed", type=positive, default=1, help="seed of the generator (default 1)")
    parser.add_argument("--runs", type=positive, default=5, help="rounds (default 5)")
    parser.add_argument("--threads", type=positive, default=2, help="threads for each tool (default 2)")
    parser.add_argument("--tools", type=choices(TOOLS), default=list(TOOLS), help=f"some of {','.join(TOOLS)}")
    parser.add_argument(
        "--without-adtally", action="store_true", help="the other tools only, without the release build"
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=HERE / "data",
        help="directory of the file, which is reused (default benches/data)",
    )
    parser.add_argument(
        "--limit", type=positive, default=300, metavar="SECONDS", help="stop a run that takes longer (default 300)"
    )
    parser.add_argument("--write", action="store_true", help="write the table to docs/benchmarks.md as well")
    options = parser.parse_args()
    if options.without_adtally:
        options.tools = [tool for tool in options.tools if tool != "adtally"]
    # What is left out one way is left out the other way too.
    options.without_adtally = "adtally" not in options.tools
    if not options.tools:
        parser.error("no tool is left")
    return options


def compare():
    import tempfile

    # The one class of compare.py that is needed; --peer does without it.
    from compare import Runner

    options = parse_arguments()
    # Without compiled modules every Python process would start more slowly than it does for its users.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    enter_venv("reports.py")
    warn_if_busy()
    binaries = None if options.without_adtally else build("generate_ads")
    with tempfile.TemporaryDirectory(prefix="adtally-reports-") as scratch_name:
        scratch = Path(scratch_name)
        runner = Runner(scratch, options.limit)
        path, rows = make_report(options)
        check_sample(runner, scratch, options, binaries)
        # A new file is on its way to the disk for a while, which would slow down the first runs.
        os.sync()
        cells = measure(runner, path, scratch, options, binaries)
        block = document_block(path, rows, cells, options)
    print(block, end="")
    if options.write:
        write_document(block, BEGIN, END)
    faults = find_faults(path, cells)
    if faults:
        raise Failure("\n       ".join(faults))


def main():
    try:
        if sys.argv[1:2] == ["--peer"]:
            enter_venv("reports.py")
            run_peer(sys.argv[2:])
        else:
            compare()
    except Failure as failure:
        sys.exit(f"error: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
