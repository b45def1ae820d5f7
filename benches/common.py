"""What compare.py, reports.py and upload.py share: the virtual environment, the build, the data files, the document.

Other modules are imported where they are needed: the start of `compare.py --peer` and `reports.py --peer` is part of
what is measured.
"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
VENV = HERE / ".venv"
REQUIREMENTS = HERE / "requirements.txt"

# The size of the public data set whose totals are in tests/truth.
FULL_ROWS = 26_843_544
TRUTH = ROOT / "tests/truth"
DOCUMENT = ROOT / "docs/benchmarks.md"

REPORTS = ("top10_ctr.csv", "top10_cpa.csv")

# Per file: its name, what it is, the options of the generator, or the file it is compressed from.
FILES = {
    "plain": ("plain.csv", "50 campaigns, CRLF", ["--campaigns", "50", "--crlf"], None),
    "m1": ("m1.csv", "1,000,000 campaigns, CRLF", ["--campaigns", "1000000", "--crlf"], None),
    "m1_digits": (
        "m1_digits.csv",
        "1,000,000 campaigns with ids of 18 digits, CRLF",
        ["--campaigns", "1000000", "--crlf", "--ids", "digits"],
        None,
    ),
    "m1_uuid": (
        "m1_uuid.csv",
        "1,000,000 campaigns with UUIDs, CRLF",
        ["--campaigns", "1000000", "--crlf", "--ids", "uuid"],
        None,
    ),
    "quoted": (
        "quoted.csv",
        "50 campaigns, CRLF, every field quoted",
        ["--campaigns", "50", "--crlf", "--quoted"],
        None,
    ),
    "bad1": (
        "bad1.csv",
        "50 campaigns, CRLF, 1 % bad rows",
        ["--campaigns", "50", "--crlf", "--bad-rows", "1"],
        None,
    ),
    "gz": ("plain.csv.gz", "the plain file, gzip", None, "plain"),
    "zst": ("plain.csv.zst", "the plain file, zstd", None, "plain"),
}


class Failure(Exception):
    """Something the user should read as one line."""


def enter_venv(script):
    """Goes on with the script inside the virtual environment, which is made or brought up to date first."""
    import subprocess

    if Path(sys.prefix).resolve() == VENV.resolve():
        return
    if sys.version_info < (3, 11):
        raise Failure("Python 3.11 or newer is needed")
    python, stamp = VENV / "bin/python", VENV / "installed.txt"
    wanted = REQUIREMENTS.read_text()
    if not stamp.exists() or stamp.read_text() != wanted:
        say("installing the other tools into benches/.venv")
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(REQUIREMENTS)]
        for command in ([sys.executable, "-m", "venv", "--clear", str(VENV)], pip):
            if subprocess.run(command, stdin=subprocess.DEVNULL).returncode != 0:
                raise Failure(f"this failed: {' '.join(command)}")
        # Written last, so that a broken installation is not taken for a good one.
        stamp.write_text(wanted)
    os.execv(python, [str(python), str(HERE / script), *sys.argv[1:]])


def say(text):
    print(text, file=sys.stderr, flush=True)


def warn_if_busy():
    busy = os.getloadavg()[0]
    if busy > 0.5:
        say(f"warning: load average {busy:.1f}; other work on this machine spoils the times")


def output_of(command):
    import subprocess

    command = [str(word) for word in command]
    try:
        return subprocess.run(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        detail = getattr(error, "stderr", None) or str(error)
        raise Failure(f"{' '.join(command)}: {detail.strip()}") from error


def build(*examples):
    """Builds adtally and these examples and returns the directory of the release binaries."""
    import json
    import subprocess

    say("building")
    command = ["cargo", "build", "--release", "--quiet", "--bin", "adtally"]
    for example in examples:
        command += ["--example", example]
    try:
        done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL)
    except FileNotFoundError as error:
        raise Failure("cargo is needed and was not found") from error
    if done.returncode != 0:
        raise Failure("the release build failed")
    metadata = output_of(["cargo", "metadata", "--no-deps", "--format-version", "1"])
    return Path(json.loads(metadata)["target_directory"]) / "release"


def data_directory(chosen, rows):
    """Where files of this many rows are, so that a file of one size is never taken for one of another."""
    directory = chosen.absolute()
    return directory if rows == FULL_ROWS else directory / f"rows-{rows}"


def make_file(name, directory, rows, seed):
    """Makes a data file if it is not there; it appears whole or not at all."""
    import gzip
    import shutil
    import subprocess

    file_name, _, generator_options, source = FILES[name]
    path = directory / file_name
    if path.exists():
        return path
    directory.mkdir(parents=True, exist_ok=True)
    original = make_file(source, directory, rows, seed) if source else None
    say(f"making {file_name}")
    part = path.with_name(path.name + ".part")
    try:
        with open(part, "wb") as output:
            if name == "gz":
                with open(original, "rb") as data, gzip.GzipFile("", "wb", 6, output, mtime=0) as packed:
                    shutil.copyfileobj(data, packed, 1 << 20)
            elif name == "zst":
                import zstandard

                with open(original, "rb") as data:
                    zstandard.ZstdCompressor(level=3).copy_stream(data, output)
            else:
                command = ["cargo", "run", "--release", "--quiet", "--example", "generate_ads", "--"]
                command += ["--rows", str(rows), "--seed", str(seed), *generator_options]
                if rows == FULL_ROWS and not name.startswith("m1"):
                    command += ["--totals", str(TRUTH / "campaign_totals.csv")]
                if subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output).returncode != 0:
                    raise Failure(f"this failed: {' '.join(command)}")
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def fill_page_cache(path):
    buffer = bytearray(8 << 20)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def read_reports(directory):
    try:
        return tuple((directory / report).read_bytes() for report in REPORTS)
    except OSError:
        return None


def seconds_text(seconds):
    return f"{seconds:.2f}" if seconds >= 1 else f"{seconds:.3f}"


def first_match(pattern, text, otherwise="unknown"):
    import re

    found = re.search(pattern, text, re.MULTILINE)
    return found.group(1).strip() if found else otherwise


def own_version():
    return first_match(r'^version = "(.+)"$', (ROOT / "Cargo.toml").read_text())


def crate_version(name):
    lock = (ROOT / "Cargo.lock").read_text() if (ROOT / "Cargo.lock").exists() else ""
    return first_match(rf'^name = "{name}"\nversion = "(.+)"$', lock)


def rustc_version():
    return output_of(["rustc", "--version"]).split(" (")[0]


def surroundings(versions):
    """The day, the machine and the versions, in words that say nothing about whose machine it is."""
    import datetime
    import platform

    cpu = first_match(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), platform.machine())
    memory = int(first_match(r"^MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(), "0")) / 2**20
    kernel = first_match(r"^(\d+(?:\.\d+)*)", platform.release())
    return (
        f"Measured on {datetime.date.today().isoformat()}: {cpu}, {len(os.sched_getaffinity(0))} cores, "
        f"{memory:.0f} GiB of memory, Linux {kernel}. {', '.join(versions)}."
    )


def write_document(block, begin, end):
    """Puts the block, which has these two markers around it, in place of the old one; the rest stays as it is."""
    text = DOCUMENT.read_text(encoding="utf-8") if DOCUMENT.exists() else "# Benchmarks\n"
    if begin in text and end in text.split(begin, 1)[1]:
        before, rest = text.split(begin, 1)
        after = rest.split(end, 1)[1].removeprefix("\n")
        text = before + block + after
    else:
        text = text.rstrip("\n") + "\n\n" + block
    DOCUMENT.parent.mkdir(parents=True, exist_ok=True)
    part = DOCUMENT.with_name(DOCUMENT.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(DOCUMENT)


def choices(known):
    """An argument that is a list of some of these words, which come back in their own order."""
    import argparse

    def parse(text):
        wanted = [word.strip() for word in text.split(",") if word.strip()]
        unknown = [word for word in wanted if word not in known]
        if unknown or not wanted:
            raise argparse.ArgumentTypeError(f"choose from {','.join(known)}")
        return [word for word in known if word in wanted]

    return parse


def positive(text):
    import argparse

    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError("a whole number above 0 is needed")
    return int(text)
