#!/usr/bin/env python3
"""Runs adtally and other tools over the same files, in turn, and compares time, memory and results.

    python3 benches/compare.py                      # the whole comparison, written to docs/benchmarks.md
    python3 benches/compare.py --rows 1000000 --runs 1 --no-write       # a quick look
    python3 benches/compare.py --peer duckdb FILE OUTPUT_DIR            # one other tool, once

It makes its own virtual environment and data files beside itself (6 GB at full size), builds the release
binary, and needs Linux, Python 3.11 or newer and cargo. Every run is a whole process, from start to exit, with the
input in the page cache.
"""

# Other modules are imported where they are needed: with --peer, the start of this script is part of what is measured.
import os
import sys
from pathlib import Path

from common import (
    FILES,
    FULL_ROWS,
    HERE,
    REPORTS,
    ROOT,
    TRUTH,
    Failure,
    build,
    choices,
    crate_version,
    data_directory,
    enter_venv,
    fill_page_cache,
    make_file,
    own_version,
    positive,
    read_reports,
    rustc_version,
    say,
    seconds_text,
    surroundings,
    warn_if_busy,
    write_document,
)

BEGIN, END = "<!-- compare:begin -->", "<!-- compare:end -->"

PYTHON_PEERS = ("duckdb", "polars", "chdb", "pandas")
TOOLS = ("adtally", *PYTHON_PEERS, "csv-async", "cat")

LEFT_OUT = {("csv-async", "gz"): "it reads no compressed files", ("csv-async", "zst"): "it reads no compressed files"}


def run_peer(arguments):
    """The body of one measured process: `--peer NAME FILE OUTPUT_DIR [--threads N] [--tolerant]`."""
    import argparse

    import peers

    parser = argparse.ArgumentParser(prog="compare.py --peer")
    parser.add_argument("name", choices=PYTHON_PEERS)
    parser.add_argument("file")
    parser.add_argument("output")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tolerant", action="store_true", help="skip bad rows instead of giving up")
    options = parser.parse_args(arguments)
    if not os.path.isfile(options.file):
        raise Failure(f"{options.file}: no such file")
    peers.PEERS[options.name](options.file, options.output, options.threads, options.tolerant)


class Measurement:
    """What one run of one tool took."""

    def __init__(self, seconds, cpu_seconds, peak_bytes, problem):
        self.seconds = seconds
        self.cpu_seconds = cpu_seconds
        self.peak_bytes = peak_bytes
        self.problem = problem


class Runner:
    """Runs commands one at a time and measures each by itself.

    The kernel counts the memory of the process that starts a program as that program's, if it was larger: started
    from here, every program would seem to need at least what Python needs. So a small shell forks in the background
    and leaves; as the "subreaper" this process then inherits the copy, which becomes the program at the word "go".
    """

    SHELL = """
        errors=$1; shift; exec 3<&0
        { read -r go && exec "$@" </dev/null 3<&-; } <&3 >/dev/null 2>"$errors" &
        echo $!
    """
    PR_SET_CHILD_SUBREAPER = 36

    def __init__(self, scratch, limit_seconds):
        import ctypes
        import signal

        if sys.platform != "linux" or ctypes.CDLL(None).prctl(self.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
            raise Failure("measuring the memory of other processes needs Linux")
        self.errors = scratch / "errors.txt"
        self.limit_seconds = limit_seconds
        self.pid = None
        self.late = False
        signal.signal(signal.SIGALRM, self.stop_late)

    def stop_late(self, _signal, _frame):
        self.late = True
        self.kill()

    def kill(self):
        import contextlib
        import signal

        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def run(self, command):
        import signal
        import subprocess
        import time

        self.late = False
        command = [str(word) for word in command]
        ready, go = os.pipe()
        try:
            shell = ["/bin/sh", "-c", self.SHELL, "sh", str(self.errors), *command]
            started = subprocess.run(shell, stdin=ready, stdout=subprocess.PIPE, check=True)
            self.pid = int(started.stdout)
            signal.alarm(self.limit_seconds)
            start = time.monotonic()
            os.write(go, b"go\n")
            _, status, usage = os.wait4(self.pid, 0)
            seconds = time.monotonic() - start
        except BaseException:
            self.kill()
            raise
        finally:
            signal.alarm(0)
            self.pid = None
            os.close(ready)
            os.close(go)
        problem = None
        if self.late:
            problem = f"stopped after {self.limit_seconds} s"
        elif status != 0:
            code = os.waitstatus_to_exitcode(status)
            lines = self.errors.read_text(errors="replace").strip().splitlines()
            ended = f"exit code {code}" if code >= 0 else f"signal {-code}"
            problem = f"{ended}: {lines[-1].strip()[:200]}" if lines else ended
        return Measurement(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, problem)


def floor_program(name):
    """What reads a file, or unpacks it, and does nothing else."""
    return {"gz": ["gzip", "-dc"], "zst": ["zstd", "-dcq"]}.get(name, ["cat"])


def command_for(tool, name, path, output, options, binaries):
    """The command line of one run, or a Failure that says why there is none."""
    import shutil

    if (tool, name) in LEFT_OUT:
        raise Failure(LEFT_OUT[tool, name])
    if tool == "adtally":
        return [binaries / "adtally", "aggregate", "--input", path, "--output", output, "--threads", options.threads]
    if tool == "csv-async":
        return [binaries / "examples/csv_async_baseline", path, output]
    if tool == "cat":
        program = floor_program(name)
        if shutil.which(program[0]) is None:
            raise Failure(f"{program[0]} is not installed")
        return [*program, path]
    command = [sys.executable, HERE / "compare.py", "--peer", tool, path, output, "--threads", options.threads]
    return command + ["--tolerant"] if name == "bad1" else command


class Cell:
    """All runs of one tool over one file."""

    def __init__(self):
        self.runs = []
        self.problem = None
        self.left_out = None
        # The contents of the report files, the same in every run.
        self.reports = None

    def median(self):
        import statistics

        return statistics.median(run.seconds for run in self.runs)

    def measured(self):
        return bool(self.runs) and self.problem is None


def measure_once(runner, tool, name, path, scratch, options, binaries):
    """Runs a tool; returns its measurement and the reports it wrote."""
    import shutil

    output = scratch / "output"
    shutil.rmtree(output, ignore_errors=True)
    run = runner.run(command_for(tool, name, path, output, options, binaries))
    if run.problem is not None:
        # The tables tell of the file, not of where it lies on this machine.
        run.problem = run.problem.replace(f"{path.parent}/", "")
    reports = None if tool == "cat" else read_reports(output)
    if run.problem is None and tool != "cat" and reports is None:
        run.problem = f"it did not write {' and '.join(REPORTS)}"
    return run, reports


def warm_up(runner, scratch, options, binaries):
    """Runs everything once over a small file: loads the programs and finds out early what does not work."""
    sample = scratch / "sample.csv"
    sample.write_bytes((ROOT / "examples/ad_data.csv").read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
    known = {}
    for tool in options.peers:
        run, reports = measure_once(runner, tool, "plain", sample, scratch, options, binaries)
        if run.problem is not None:
            raise Failure(f"{tool} does not work here: {run.problem}")
        if reports is not None:
            known[tool] = reports
    if len(set(known.values())) > 1:
        raise Failure(f"not the same reports for a small sample: {', '.join(known)}")


def measure_file(runner, name, path, scratch, options, binaries):
    """Runs all tools in turn, round by round, so that a change of the machine's mood hits all of them."""
    cells = {tool: Cell() for tool in options.peers}
    fill_page_cache(path)
    for turn in range(options.runs):
        shift = turn % len(options.peers)
        for tool in options.peers[shift:] + options.peers[:shift]:
            cell = cells[tool]
            slow = bool(cell.runs) and cell.runs[0].seconds > options.slow
            if cell.problem or cell.left_out or slow:
                continue
            try:
                run, reports = measure_once(runner, tool, name, path, scratch, options, binaries)
            except Failure as reason:
                cell.left_out = str(reason)
                say(f"{name}: {tool} left out: {reason}")
                continue
            say(
                f"{name} {turn + 1}/{options.runs}: {tool} {run.seconds:.2f} s"
                + (f", {run.problem}" if run.problem else "")
            )
            if run.problem is None and cell.runs and reports != cell.reports:
                run.problem = "not the same reports in every run"
            cell.problem = run.problem
            cell.reports = reports
            cell.runs.append(run)
    return cells


def find_faults(results, options):
    """Compares all reports with those of the first tool, and with the published ones where they are known."""
    faults = []
    for name, (_, cells) in results.items():
        truth = read_reports(TRUTH) if options.rows == FULL_ROWS and not name.startswith("m1") else None
        expected, whose = truth, "the published results" if truth else "the others"
        for tool, cell in cells.items():
            if cell.problem:
                faults.append(f"{name}: {tool} failed: {cell.problem}")
            elif cell.reports is not None:
                expected = expected or cell.reports
                if cell.reports != expected:
                    faults.append(f"{name}: the reports of {tool} are not those of {whose}")
    return faults


def table(name, path, cells, options):
    import statistics

    _, what, _, _ = FILES[name]
    reference = cells.get("adtally")
    expected = reference.reports if reference and reference.measured() else None
    lines = [
        f"### {path.name}: {what}, {path.stat().st_size / 1e6:,.0f} MB",
        "",
        "| tool | median s | best s | / adtally | CPU s | peak MiB | reports |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    notes = []
    for tool, cell in cells.items():
        label = f"`{' '.join(floor_program(name))} FILE > /dev/null`" if tool == "cat" else tool
        if not cell.measured():
            lines.append(f"| {label} | – | – | – | – | – | – |")
            reason = f"failed, {cell.problem}" if cell.problem else f"left out, {cell.left_out}"
            notes.append(f"{label}: {reason}.")
            continue
        if len(cell.runs) < options.runs:
            notes.append(f"{label}: one run only, because it takes more than {options.slow:g} s.")
        cpu = statistics.median(run.cpu_seconds for run in cell.runs)
        peak = max(run.peak_bytes for run in cell.runs) / 2**20
        ratio = f"{cell.median() / reference.median():.2f}" if expected else "–"
        same = "–"
        if cell.reports is not None and expected is not None:
            same = "same" if cell.reports == expected else "DIFFERENT"
        times = [cell.median(), min(run.seconds for run in cell.runs)]
        columns = [label, *map(seconds_text, times), ratio, seconds_text(cpu), f"{peak:,.1f}", same]
        lines.append(f"| {' | '.join(columns)} |")
    if notes:
        lines += ["", " ".join(notes)]
    return lines


def overview(results):
    """One line per file: adtally beside its fastest rival, the floor and its own time for the plain file."""

    def median(name, tool):
        cell = results[name][1].get(tool) if name in results else None
        return cell.median() if cell and cell.measured() else None

    lines = [
        "| file | adtally s | fastest other tool | adtally is faster by | adtally / floor | adtally / plain file |",
        "| --- | ---: | --- | ---: | ---: | ---: |",
    ]
    plain = median("plain", "adtally")
    for name, (path, _) in results.items():
        own, floor = median(name, "adtally"), median(name, "cat")
        if own is None:
            continue
        # csv-async is not in this race: it is a library, the others are what one would use instead.
        rivals = [(seconds, tool) for tool in PYTHON_PEERS if (seconds := median(name, tool)) is not None]
        rival = "– | –"
        if rivals:
            seconds, tool = min(rivals)
            rival = f"{tool}, {seconds_text(seconds)} s | {seconds / own:.1f} times"
        against = [f"{own / other:.2f}" if other else "–" for other in (floor, plain)]
        lines.append(f"| {path.name} | {seconds_text(own)} | {rival} | {' | '.join(against)} |")
    return lines


def conditions(options):
    """What was measured and how."""
    import platform
    from importlib import metadata

    versions = [
        f"adtally {own_version()}",
        f"DuckDB {metadata.version('duckdb')}",
        f"Polars {metadata.version('polars')} (streaming)",
        f"chdb {metadata.version('chdb')} (ClickHouse {metadata.version('chdb-core')})",
        f"pandas {metadata.version('pandas')}",
        f"csv-async {crate_version('csv-async')}",
        f"Python {platform.python_version()}",
        rustc_version(),
    ]
    return [
        surroundings(versions),
        "",
        f"Whole processes from start to exit, {options.threads} threads each, page cache warm, all tools in turn and "
        f"{options.runs} {'rounds' if options.runs > 1 else 'round'}; {options.rows:,} rows a file"
        + (", bad ones on top of them. " if options.rows == FULL_ROWS else ". ")
        + "Each tool reads only what it needs, with the column types given, and writes both top-10 files; *same* "
        "means that they are byte for byte those of adtally. CPU is user and system time (median), peak the largest "
        "resident memory of any run. The floor is what only reading (or unpacking) the file takes: the last line of "
        "each table.",
    ]


def document_block(results, options):
    lines = [BEGIN, *conditions(options), "", *overview(results)]
    for name, (path, cells) in results.items():
        lines += ["", *table(name, path, cells, options)]
    repeat = ["python3", "benches/compare.py", "--runs", str(options.runs), "--files", ",".join(options.files)]
    if options.rows != FULL_ROWS:
        repeat += ["--rows", str(options.rows)]
    if options.seed != 1:
        repeat += ["--seed", str(options.seed)]
    if options.threads != 2:
        repeat += ["--threads", str(options.threads)]
    if options.peers != list(TOOLS):
        repeat += ["--peers", ",".join(options.peers)]
    lines += ["", "To repeat it:", "", "```", " ".join(repeat), "```", END]
    return "\n".join(lines) + "\n"


def parse_arguments():
    import argparse

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=positive, default=5, help="rounds per file (default 5)")
    parser.add_argument("--files", type=choices(FILES), default=list(FILES), help=f"some of {','.join(FILES)}")
    parser.add_argument("--peers", type=choices(TOOLS), default=list(TOOLS), help=f"some of {','.join(TOOLS)}")
    parser.add_argument(
        "--rows",
        type=positive,
        default=FULL_ROWS,
        help="rows a file; other sizes than the full one have no published totals",
    )
    parser.add_argument("--seed", type=positive, default=1, help="seed of the generator (default 1)")
    parser.add_argument(
        "--data",
        type=Path,
        default=HERE / "data",
        help="directory of the data files, which are reused (default benches/data)",
    )
    parser.add_argument("--threads", type=positive, default=2, help="threads for each tool (default 2)")
    parser.add_argument(
        "--slow",
        type=float,
        default=30,
        metavar="SECONDS",
        help="run a tool that takes longer only once a file (default 30)",
    )
    parser.add_argument(
        "--limit", type=positive, default=900, metavar="SECONDS", help="stop a run that takes longer (default 900)"
    )
    parser.add_argument("--no-write", action="store_true", help="only print the tables")
    return parser.parse_args()


def compare():
    import tempfile

    options = parse_arguments()
    # Without compiled modules every Python process would start more slowly than it does for its users.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    enter_venv("compare.py")
    warn_if_busy()
    directory = data_directory(options.data, options.rows)
    binaries = build("csv_async_baseline", "generate_ads")
    with tempfile.TemporaryDirectory(prefix="adtally-compare-") as scratch_name:
        scratch = Path(scratch_name)
        runner = Runner(scratch, options.limit)
        paths = {name: make_file(name, directory, options.rows, options.seed) for name in options.files}
        # New files are on their way to the disk for a while, which would slow down the first runs.
        os.sync()
        warm_up(runner, scratch, options, binaries)
        results = {
            name: (path, measure_file(runner, name, path, scratch, options, binaries)) for name, path in paths.items()
        }
        block = document_block(results, options)
    print(block, end="")
    if not options.no_write:
        write_document(block, BEGIN, END)
    faults = find_faults(results, options)
    if faults:
        raise Failure("\n       ".join(faults))


def main():
    try:
        if sys.argv[1:2] == ["--peer"]:
            enter_venv("compare.py")
            run_peer(sys.argv[2:])
        else:
            compare()
    except Failure as failure:
        sys.exit(f"error: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
