#!/usr/bin/env python3
"""Uploads files with curl to adtally and to other servers, in turn, and compares time, memory and results.

    python3 benches/upload.py                  # the whole comparison, written to docs/benchmarks.md
    python3 benches/upload.py --quick          # a quick look: 100 MB, one round, nothing written
    python3 benches/upload.py --cases free,limited --servers adtally,sink --no-write

It makes its own virtual environment and data files beside itself (1.4 GB at full size), builds the release binaries,
and needs Linux, Python 3.11 or newer, cargo and curl. The other servers are `examples/sink.rs`, the same server stack
that drops what it reads, and `benches/fastapi_peer.py`, the usual way to do it in Python. All of it is on one machine,
over loopback.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import re
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from common import (
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
    first_match,
    make_file,
    output_of,
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

BEGIN, END = "<!-- upload:begin -->", "<!-- upload:end -->"

SERVERS = ("adtally", "sink", "fastapi")
# About 100 MB.
QUICK_ROWS = 2_600_000
SEED = 1

# As many files at once, which together are about as large as the whole one.
AT_ONCE = 32
PART_BYTES = 32_000_000

# What curl makes of `1250M`: its M is 2**20, so this is 10.5 Gbit/s.
LIMIT_RATE = "1250M"
LIMIT_BYTES_PER_SECOND = 1250 << 20

START_SECONDS = 30
STOP_SECONDS = 40
# Between an answer and the look at the memory that is left in use.
SETTLE_SECONDS = 2


@dataclass(frozen=True)
class Case:
    """One way to upload."""

    title: str
    file: str
    servers: tuple[str, ...]
    curl: tuple[str, ...] = ()
    uploads: int = 1
    # All uploads by one curl, or each by its own.
    one_sender: bool = False


CASES = {
    "free": Case("one upload, as fast as it goes", "plain", SERVERS),
    "limited": Case(
        f"one upload, `--limit-rate {LIMIT_RATE}`", "plain", ("adtally", "sink"), ("--limit-rate", LIMIT_RATE)
    ),
    "h2c": Case(
        "one upload, HTTP/2 (`--http2-prior-knowledge`)", "plain", ("adtally", "sink"), ("--http2-prior-knowledge",)
    ),
    "gzip": Case("one upload, gzip", "gz", ("adtally",), ("--header", "Content-Encoding: gzip")),
    "many": Case(f"{AT_ONCE} uploads at once, each by its own curl", "part", ("adtally", "sink"), uploads=AT_ONCE),
    "many-z": Case(
        f"{AT_ONCE} uploads at once by one curl (`--parallel`)",
        "part",
        ("adtally", "sink"),
        uploads=AT_ONCE,
        one_sender=True,
    ),
}


@dataclass(frozen=True)
class Data:
    """A file to upload."""

    path: Path
    # Uncompressed.
    text_bytes: int
    # What `adtally aggregate` makes of it.
    reports: tuple[bytes, ...]


@dataclass(frozen=True)
class Measurement:
    """What all uploads of one run took."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


@dataclass
class Cell:
    """All runs of one case with one server."""

    runs: list[Measurement] = field(default_factory=list)
    problem: str | None = None
    idle_bytes: int = 0
    after_bytes: int = 0

    def measured(self) -> bool:
        return bool(self.runs) and self.problem is None

    def median(self) -> float:
        return statistics.median(run.seconds for run in self.runs)

    def cpu(self) -> float:
        return statistics.median(run.cpu_seconds for run in self.runs)

    def peak(self) -> int:
        return max(run.peak_bytes for run in self.runs)


@dataclass
class Result:
    """One case: what was sent, and the cells of its servers."""

    case: Case
    data: Data
    cells: dict[str, Cell]

    def text_bytes(self) -> int:
        return self.data.text_bytes * self.case.uploads

    def cell(self, server: str) -> Cell | None:
        cell = self.cells.get(server)
        return cell if cell and cell.measured() else None

    def ratio(self, server: str, other: str) -> float | None:
        one, two = self.cell(server), self.cell(other)
        return one.median() / two.median() if one and two else None


class Server:
    """A running server. The first line it prints ends with its address."""

    def __init__(self, name: str, command: list[str | Path], scratch: Path) -> None:
        self.name = name
        self.errors = scratch / f"{name}.err"
        # Settings of whoever starts this script are not to be measured.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ADTALLY_")}
        with open(self.errors, "wb") as errors:
            self.process = subprocess.Popen(
                [str(word) for word in command],
                cwd=scratch,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        try:
            self.url = self.read_address()
        except BaseException:
            self.stop()
            raise

    def read_address(self) -> str:
        ready, _, _ = select.select([self.process.stdout], [], [], START_SECONDS)
        line = self.process.stdout.readline().decode(errors="replace") if ready else ""
        found = re.search(r"http://\S+", line)
        if found is None:
            raise Failure(f"{self.name} did not start: {self.last_words() or line.strip() or 'it printed no address'}")
        return found.group(0).rstrip("/")

    def last_words(self) -> str:
        lines = self.errors.read_text(errors="replace").strip().splitlines()
        return lines[-1].strip()[:200] if lines else ""

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def get(self, path: str) -> bytes:
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(self.url + path, timeout=START_SECONDS) as response:
            return response.read()

    def cpu_seconds(self) -> float:
        """User and system time of all its threads, past ones too: like /proc/PID/stat, but not in steps of 10 ms."""
        # How the kernel numbers the CPU clock of another process, see clock_getcpuclockid(3).
        return time.clock_gettime(~self.process.pid << 3 | 2)

    def memory(self, what: str) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(first_match(rf"^{what}:\s*(\d+) kB$", status, "0")) << 10

    def resident(self) -> int:
        return self.memory("VmRSS")

    def peak(self) -> int:
        """The most that was resident since `forget_peak`."""
        return self.memory("VmHWM")

    def forget_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")


def start(name: str, scratch: Path, binaries: Path) -> Server:
    directory = scratch / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    command = {
        "adtally": [binaries / "adtally", "serve", "--listen", "127.0.0.1:0", "--data-dir", directory],
        "sink": [binaries / "examples/sink"],
        "fastapi": [sys.executable, HERE / "fastapi_peer.py", directory],
    }[name]
    return Server(name, command, scratch)


def curl_command(limit_seconds: int, options: tuple[str, ...], targets: list[tuple[Path, str, Path]]) -> list[str]:
    """One curl that uploads each file to its address and puts the answer into its file."""
    command = ["curl", "--disable", "--silent", "--show-error", "--noproxy", "*", "--max-time", str(limit_seconds)]
    command += ["--write-out", "%{http_code} %{time_total}\n", *options]
    if len(targets) > 1:
        command += ["--parallel", "--parallel-immediate", "--parallel-max", str(len(targets))]
    for path, url, answer in targets:
        command += ["--upload-file", str(path), "--output", str(answer), url]
    return command


def send(server: Server, case: Case, path: Path, scratch: Path, limit_seconds: int) -> tuple[float, list[bytes]]:
    """Uploads a file as the case says; returns the seconds it took, and the answers."""
    answers = [scratch / f"answer-{number}" for number in range(case.uploads)]
    for answer in answers:
        answer.unlink(missing_ok=True)
    targets = [(path, f"{server.url}/v1/jobs/{number:02}-{path.name}", answer) for number, answer in enumerate(answers)]
    groups = [targets] if case.one_sender else [[target] for target in targets]
    commands = [curl_command(limit_seconds, case.curl, group) for group in groups]
    senders: list[subprocess.Popen] = []
    begin = time.monotonic()
    try:
        for command in commands:
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            senders.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, text=True, **pipes))
        outputs = [sender.communicate() for sender in senders]
    finally:
        for sender in senders:
            if sender.poll() is None:
                sender.kill()
                sender.wait()
    seconds = time.monotonic() - begin
    for sender, (output, errors) in zip(senders, outputs, strict=True):
        if sender.returncode != 0:
            raise Failure(f"curl exit code {sender.returncode}: {errors.strip()[:200]}")
        for line in output.splitlines():
            status, took = line.split()
            if status != "201":
                text = b" ".join(answer.read_bytes() for answer in answers if answer.exists())
                raise Failure(f"status {status}: {text[:200].decode(errors='replace').strip()}")
            if case.uploads == 1:
                # curl's own clock leaves out its start.
                seconds = float(took)
    return seconds, [answer.read_bytes() for answer in answers]


def check(server: Server, data: Data, answer: bytes) -> None:
    """Whether the answer to one upload is right."""
    if server.name == "sink":
        if int(answer) != data.path.stat().st_size:
            raise Failure(f"it counted {int(answer)} bytes")
        return
    document = json.loads(answer)
    if server.name == "adtally":
        if document["state"] != "succeeded":
            raise Failure(f"the job is {document['state']}")
        for report, expected in zip(REPORTS, data.reports, strict=True):
            if server.get(f"/v1/jobs/{document['id']}/results/{report}") != expected:
                raise Failure(f"{report} is not what adtally aggregate writes")
        return
    totals = ("campaign_id", "total_impressions", "total_clicks", "total_spend", "total_conversions")
    for leaders, report in zip((document["top_ctr"], document["top_cpa"]), data.reports, strict=True):
        expected = [[row[name] for name in totals] for row in csv.DictReader(report.decode().splitlines())]
        if [[str(row[name]) for name in totals] for row in leaders] != expected:
            raise Failure("its leaders are not those of adtally aggregate")


def measure(server: Server, case: Case, data: Data, scratch: Path, limit_seconds: int) -> Measurement:
    server.forget_peak()
    cpu_before = server.cpu_seconds()
    try:
        seconds, answers = send(server, case, data.path, scratch, limit_seconds)
    except Failure as failure:
        if server.process.poll() is not None:
            raise Failure(f"{failure}; the server has ended: {server.last_words()}") from failure
        raise
    measurement = Measurement(seconds, server.cpu_seconds() - cpu_before, server.peak())
    for answer in answers:
        try:
            check(server, data, answer)
        except (OSError, ValueError, KeyError) as error:
            raise Failure(f"{type(error).__name__} about its answer: {error}") from error
    return measurement


def measure_case(name: str, data: Data, sample: Data, options: argparse.Namespace, binaries: Path) -> Result:
    """Starts the servers of a case and uploads to them in turn, round by round, so that a change of the machine's
    mood hits all of them."""
    case = CASES[name]
    chosen = [server for server in options.servers if server in case.servers]
    result = Result(case, data, {server: Cell() for server in chosen})
    fill_page_cache(data.path)
    with tempfile.TemporaryDirectory(prefix="adtally-upload-") as scratch_name:
        scratch = Path(scratch_name)
        servers: list[Server] = []
        try:
            for server_name in chosen:
                server = start(server_name, scratch, binaries)
                servers.append(server)
                try:
                    # Loads what is only loaded for the first upload, and finds out early what does not work.
                    measure(server, Case("warm-up", "sample", SERVERS), sample, scratch, options.limit)
                except Failure as reason:
                    raise Failure(f"{server_name} does not work here: {reason}") from reason
            time.sleep(SETTLE_SECONDS)
            for server in servers:
                result.cells[server.name].idle_bytes = server.resident()
            for turn in range(options.runs):
                shift = turn % len(servers)
                for server in servers[shift:] + servers[:shift]:
                    cell = result.cells[server.name]
                    if cell.problem:
                        continue
                    # What an earlier run left to write to the disk is not to slow down this one.
                    os.sync()
                    label = f"{name} {turn + 1}/{options.runs}: {server.name}"
                    try:
                        run = measure(server, case, data, scratch, options.limit)
                    except Failure as reason:
                        # The tables tell of the file, not of where it lies on this machine.
                        cell.problem = str(reason).replace(f"{data.path.parent}/", "")
                        say(f"{label} {cell.problem}")
                        continue
                    cell.runs.append(run)
                    say(f"{label} {run.seconds:.2f} s, CPU {run.cpu_seconds:.2f} s, {mib(run.peak_bytes)} MiB")
            time.sleep(SETTLE_SECONDS)
            for server in servers:
                result.cells[server.name].after_bytes = server.resident()
        finally:
            for server in servers:
                server.stop()
    return result


def make_part(whole: Path, wanted_bytes: int) -> Path:
    """The first rows of a file."""
    path = whole.with_name("part.csv")
    if not path.exists():
        with open(whole, "rb") as file:
            text = file.read(wanted_bytes)
        part = path.with_name(path.name + ".part")
        part.write_bytes(text[: text.rindex(b"\n") + 1])
        part.rename(path)
    return path


def aggregate(path: Path, scratch: Path, binaries: Path) -> tuple[bytes, ...]:
    output = scratch / f"reports-{path.name}"
    output_of([binaries / "adtally", "aggregate", "--input", path, "--output", output])
    reports = read_reports(output)
    if reports is None:
        raise Failure(f"adtally aggregate did not write {' and '.join(REPORTS)}")
    return reports


def prepare(options: argparse.Namespace, scratch: Path, binaries: Path) -> tuple[dict[str, Data], Data]:
    """Makes the files that the cases need, and a small one for the warm-up."""
    directory = data_directory(options.data, options.rows)
    whole = make_file("plain", directory, options.rows, SEED)
    reports = aggregate(whole, scratch, binaries)
    if options.rows == FULL_ROWS and reports != read_reports(TRUTH):
        raise Failure("what adtally aggregate writes are not the published results")
    files = {"plain": Data(whole, whole.stat().st_size, reports)}
    wanted = {CASES[name].file for name in options.cases}
    if "gz" in wanted:
        packed = make_file("gz", directory, options.rows, SEED)
        files["gz"] = Data(packed, whole.stat().st_size, reports)
    if "part" in wanted:
        part = make_part(whole, PART_BYTES if options.rows == FULL_ROWS else whole.stat().st_size // AT_ONCE)
        files["part"] = Data(part, part.stat().st_size, aggregate(part, scratch, binaries))
    sample = scratch / "sample.csv"
    sample.write_bytes((ROOT / "examples/ad_data.csv").read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
    return files, Data(sample, sample.stat().st_size, aggregate(sample, scratch, binaries))


def mib(size: int) -> str:
    return f"{size / 2**20:,.1f}"


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"


def ratio_text(ratio: float | None) -> str:
    return "–" if ratio is None else f"{ratio:.2f}"


def table(result: Result) -> list[str]:
    case, data = result.case, result.data
    size = megabytes(data.path.stat().st_size)
    count = f"{case.uploads} × " if case.uploads > 1 else ""
    lines = [
        f"### {case.title}: {count}{data.path.name}, {size}",
        "",
        "| server | median s | best s | / sink | GB/s | CPU s | CPU s / GB | idle MiB | peak MiB | after MiB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    notes = []
    gigabytes = result.text_bytes() / 1e9
    for server, cell in result.cells.items():
        if not cell.measured():
            lines.append(f"| {server} |{' – |' * 9}")
            notes.append(f"{server}: failed, {cell.problem}.")
            continue
        columns = [
            server,
            seconds_text(cell.median()),
            seconds_text(min(run.seconds for run in cell.runs)),
            ratio_text(result.ratio(server, "sink")),
            f"{gigabytes / cell.median():.2f}",
            seconds_text(cell.cpu()),
            seconds_text(cell.cpu() / gigabytes),
            *map(mib, (cell.idle_bytes, cell.peak(), cell.after_bytes)),
        ]
        lines.append(f"| {' | '.join(columns)} |")
    if case.curl[:1] == ("--limit-rate",):
        notes.append(
            f"curl's `{LIMIT_RATE}` is {LIMIT_BYTES_PER_SECOND * 8 / 1e9:.1f} Gbit/s, for this file "
            f"{seconds_text(data.path.stat().st_size / LIMIT_BYTES_PER_SECOND)} s."
        )
    if notes:
        lines += ["", " ".join(notes)]
    return lines


def overview(results: dict[str, Result]) -> list[str]:
    """What is asked of the service, one line each."""
    lines = ["| | measured | wanted | met |", "| --- | ---: | ---: | --- |"]

    def add(what: str, measured: float | None, text: str, wanted: str = "–", met: bool | None = None) -> None:
        if measured is not None:
            lines.append(f"| {what} | {text} | {wanted} | {'–' if met is None else 'yes' if met else 'NO'} |")

    def at_most(what: str, measured: float | None, limit: float, unit: str = "", digits: int = 2) -> None:
        if measured is not None:
            text = f"{measured:.{digits}f}{unit}"
            # What is printed is what is judged.
            add(what, measured, text, f"at most {limit:g}{unit}", round(measured, digits) <= limit)

    def memory(result: Result, name: str, limit: int) -> None:
        cell = result.cell("adtally")
        if cell:
            at_most(f"{name}, resident memory", cell.peak() / 2**20, limit, " MiB", 1)
            add(
                f"{name}, resident before and afterwards",
                1,
                f"{mib(cell.idle_bytes)} and {mib(cell.after_bytes)} MiB",
                "the same",
            )

    if free := results.get("free"):
        one = f"{megabytes(free.text_bytes())} as fast as it goes"
        at_most(f"{one}, time / sink", free.ratio("adtally", "sink"), 1.25)
        cell = free.cell("adtally")
        at_most(f"{one}, CPU of the server per GB", cell and cell.cpu() / (free.text_bytes() / 1e9), 0.5, " s")
        memory(free, one, 16)
        against = free.ratio("fastapi", "adtally")
        add(f"{one}, FastAPI and DuckDB / adtally", against, f"{against or 0:.1f}")
    if limited := results.get("limited"):
        name = f"{megabytes(limited.text_bytes())} at 10 Gbit/s, time / sink"
        at_most(name, limited.ratio("adtally", "sink"), 1.1)
    for key, how in (("many", ""), ("many-z", " by one curl")):
        if many := results.get(key):
            several = f"{many.case.uploads} × {megabytes(many.data.text_bytes)} at once{how}"
            throughput = many.ratio("sink", "adtally")
            at_least = 0.6
            add(
                f"{several}, throughput / sink",
                throughput,
                ratio_text(throughput),
                f"at least {at_least}",
                throughput is not None and round(throughput, 2) >= at_least,
            )
            memory(many, several, 48)
    return lines if len(lines) > 2 else []


def conditions(options: argparse.Namespace) -> list[str]:
    """What was measured and how."""
    from importlib import metadata

    versions = [
        f"adtally {own_version()}",
        f"hyper {crate_version('hyper')}",
        f"hyper-util {crate_version('hyper-util')}",
        f"FastAPI {metadata.version('fastapi')}",
        f"Uvicorn {metadata.version('uvicorn')}",
        f"DuckDB {metadata.version('duckdb')}",
        f"Python {platform.python_version()}",
        " ".join(output_of(["curl", "--disable", "--version"]).split()[:2]),
        rustc_version(),
    ]
    return [
        surroundings(versions),
        "",
        "`curl -T` and the server share the machine, over loopback, page cache warm, all servers in turn and "
        f"{options.runs} {'rounds' if options.runs > 1 else 'round'}, each case with servers started for it. *sink* is "
        "`examples/sink.rs`, the same server stack, which reads the body and drops it; *fastapi* is "
        "`benches/fastapi_peer.py`, which saves the body and asks DuckDB. Seconds are those of curl until the whole "
        "answer is there; for several uploads from the start of the first curl to the end of the last. GB are of text: "
        "uncompressed. CPU is user and system time of the server (median). Memory is resident: idle before the first "
        "run and after a tiny upload, peak the largest of any run, after 2 s behind the last one. Every answer was "
        "compared with what `adtally aggregate` makes of the same file.",
    ]


def document_block(results: dict[str, Result], options: argparse.Namespace) -> str:
    lines = [BEGIN, *conditions(options)]
    summary = overview(results)
    if summary:
        lines += ["", *summary]
    for result in results.values():
        lines += ["", *table(result)]
    repeat = ["python3", "benches/upload.py", "--runs", str(options.runs)]
    if options.cases != list(CASES):
        repeat += ["--cases", ",".join(options.cases)]
    if options.servers != list(SERVERS):
        repeat += ["--servers", ",".join(options.servers)]
    if options.rows != FULL_ROWS:
        repeat += ["--rows", str(options.rows)]
    lines += ["", "To repeat it:", "", "```", " ".join(repeat), "```", END]
    return "\n".join(lines) + "\n"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=positive, help="rounds per case (default 5)")
    parser.add_argument("--cases", type=choices(CASES), default=list(CASES), help=f"some of {','.join(CASES)}")
    parser.add_argument("--servers", type=choices(SERVERS), default=list(SERVERS), help=f"some of {','.join(SERVERS)}")
    parser.add_argument("--rows", type=positive, help="rows of the file (default: those of 1 GB)")
    parser.add_argument(
        "--data",
        type=Path,
        default=HERE / "data",
        help="directory of the data files, which are reused (default benches/data)",
    )
    parser.add_argument(
        "--limit", type=positive, default=300, metavar="SECONDS", help="stop an upload that takes longer (default 300)"
    )
    parser.add_argument("--quick", action="store_true", help="100 MB, one round, only print the tables")
    parser.add_argument("--no-write", action="store_true", help="only print the tables")
    options = parser.parse_args()
    options.runs = options.runs or (1 if options.quick else 5)
    options.rows = options.rows or (QUICK_ROWS if options.quick else FULL_ROWS)
    options.no_write = options.no_write or options.quick
    options.cases = [name for name in options.cases if set(CASES[name].servers) & set(options.servers)]
    if not options.cases:
        parser.error("none of these cases has any of these servers")
    return options


def compare() -> None:
    options = parse_arguments()
    if sys.platform != "linux" or shutil.which("curl") is None:
        raise Failure("Linux and curl are needed")
    enter_venv("upload.py")
    warn_if_busy()
    binaries = build("sink", "generate_ads")
    with tempfile.TemporaryDirectory(prefix="adtally-upload-") as scratch_name:
        files, sample = prepare(options, Path(scratch_name), binaries)
        results = {
            name: measure_case(name, files[CASES[name].file], sample, options, binaries) for name in options.cases
        }
    block = document_block(results, options)
    print(block, end="")
    if not options.no_write:
        write_document(block, BEGIN, END)
    faults = [
        f"{name}: {server}: {cell.problem}"
        for name, result in results.items()
        for server, cell in result.cells.items()
        if cell.problem
    ]
    if faults:
        raise Failure("\n       ".join(faults))


def main() -> None:
    try:
        compare()
    except Failure as failure:
        sys.exit(f"error: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
