#!/usr/bin/env python3
"""A well-behaved upload alone and beside attacks: how long it takes, what the attackers get, how much memory is used.

    cargo build --release && python3 benches/abuse.py          # all attacks, written to docs/benchmarks.md
    python3 benches/abuse.py --attacks idle,campaigns --runs 3 --no-write

For each attack a server is started with the settings as they are. The upload is sent alone and beside the attack in turn, so that
noise hits both, and every result has to be the same. Attackers run in a process of their own, with everything that they send
made before. Linux and Python 3.11 or newer are needed, and nothing else.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import json
import multiprocessing
import os
import resource
import select
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

from common import (
    ROOT,
    Failure,
    choices,
    own_version,
    positive,
    say,
    seconds_text,
    surroundings,
    warn_if_busy,
    write_document,
)

BEGIN, END = "<!-- abuse:begin -->", "<!-- abuse:end -->"

# An upload beside an attack may take this many times as long as alone.
MAX_RATIO = 1.5
HEADER = b"campaign_id,date,impressions,clicks,spend,conversions\n"
TABLES = ("top10_ctr.csv", "top10_cpa.csv", "campaigns.csv")
CAMPAIGNS = 1000
BLOCK_BYTES = 4 << 20
# Nothing takes this long unless it hangs.
PATIENCE_SECONDS = 120
BOMB_BYTES = 1 << 30
FORM_TYPE = "multipart/form-data; boundary=frontier"


# -- What is sent ---------------------------------------------------------------------------------------------------------


def head(method: str, path: str, *fields: str) -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: localhost", *fields, "", "")).encode()


def put(name: str, body: bytes = b"", *fields: str) -> bytes:
    return head("PUT", f"/v1/jobs/{name}", f"Content-Length: {len(body)}", *fields) + body


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def form(contents: bytes) -> bytes:
    part = b'--frontier\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n'
    body = part + contents + b"\r\n--frontier--\r\n"
    return head("POST", "/v1/jobs", f"Content-Type: {FORM_TYPE}", f"Content-Length: {len(body)}") + body


def deflate_bomb(window_bits: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, window_bits)
    zeros = bytes(1 << 20)
    return packer.compress(HEADER) + b"".join(packer.compress(zeros) for _ in range(BOMB_BYTES >> 20)) + packer.flush()


def zstandard_bomb() -> bytes:
    """Blocks that each say one byte and how often it comes (RFC 8878, 3.1.1.2): 4 bytes for 128 KiB."""
    block, run, last = 128 << 10, 1 << 1, 1
    blocks = BOMB_BYTES // block - 1
    begin = b"\x28\xb5\x2f\xfd\x00" + bytes([(23 - 10) << 3])
    header = struct.pack("<I", len(HEADER) << 3)[:3] + HEADER
    return begin + header + struct.pack("<I", block << 3 | run) * blocks + struct.pack("<I", block << 3 | run | last)


def brotli_bomb() -> bytes:
    """Blocks of one command, which says how many literals come, all of the same byte: 14 bytes for 16 MiB (RFC 7932, 9.2)."""
    # Pairs of a value and its number of bits. The empty block of metadata makes the next one begin with a byte.
    empty = ((0, 1), (3, 2), (0, 1), (0, 2))
    size, base = 1 << 24, 22_594
    command = (
        *((0, 1), (2, 2), (size - 1, 24), (0, 1), (0, 3), (0, 6), (0, 4)),
        *((1, 4), (0, 8), (1, 4), (504, 10), (1, 4), (0, 6), (size - base, 24)),
    )

    def pack(*pairs: tuple[int, int]) -> bytes:
        value = count = 0
        for part, bits in pairs:
            value |= part << count
            count += bits
        return value.to_bytes((count + 7) // 8, "little")

    # A window of 16 MiB; the header line as it is.
    header = pack((0, 1), (0, 2), (len(HEADER) - 1, 16), (1, 1)) + HEADER
    return pack((0xF, 4), *empty) + header + pack(*command, *empty) * (BOMB_BYTES // size) + b"\x03"


def http2_frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def http2_resets() -> bytes:
    """Streams that are begun and reset at once."""
    path = b"/v1/jobs"
    # GET, http, the path, the authority: entries 2, 6, 4 and 1 of the table (RFC 7541, appendix A).
    fields = b"\x82\x86\x04" + bytes([len(path)]) + path + b"\x01\x09localhost"
    begin = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + http2_frame(4, 0, 0, b"")
    streams = (http2_frame(1, 5, id, fields) + http2_frame(3, 0, id, struct.pack(">I", 8)) for id in range(1, 4001, 2))
    return begin + b"".join(streams)


def campaign_file(directory: Path, campaigns: int) -> Path:
    """Rows that each have a campaign of their own."""
    path = directory / "campaigns.csv"
    with open(path, "wb") as file:
        file.write(HEADER)
        for first in range(0, campaigns, 100_000):
            numbers = range(first, min(campaigns, first + 100_000))
            file.write("".join(f"1202{number:014},2025-01-01,10,1,1.50,1\n" for number in numbers).encode())
    return path


# -- Attackers ------------------------------------------------------------------------------------------------------------


class Attacker:
    """What an attack has to work with, in its own process."""

    def __init__(self, address: tuple[str, int], options: argparse.Namespace, pipe) -> None:
        self.address, self.options, self.pipe = address, options, pipe
        self.answers: collections.Counter[str] = collections.Counter()
        self.stands = False

    def connect(self) -> socket.socket:
        connection = socket.create_connection(self.address, timeout=PATIENCE_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def standing(self) -> None:
        """Says that the attack is under way."""
        if not self.stands:
            self.stands = True
            self.pipe.send("standing")

    def is_over(self, seconds: float = 0) -> bool:
        """Waits for as long, unless the attack is to end before."""
        return self.pipe.poll(seconds)

    def note(self, answer: bytes | None) -> None:
        """Counts what came: a status with its problem, an end without an answer."""
        if not answer:
            self.answers["closed" if answer is not None else "reset"] += 1
            return
        status = answer.split(b" ", 2)[1].decode() if answer.startswith(b"HTTP/1.1 ") else "other bytes"
        problem = answer.partition(b"urn:adtally:problem:")[2].partition(b'"')[0].decode()
        self.answers[f"{status} {problem}".strip()] += 1

    def read_answer(self, connection: socket.socket) -> bytes | None:
        """An answer with its document, or what came before the end."""
        answer = b""
        try:
            while piece := connection.recv(1 << 16):
                answer += piece
                begin, found, body = answer.partition(b"\r\n\r\n")
                length = begin.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
                if found and length.isdigit() and len(body) >= int(length):
                    break
        except OSError:
            return answer or None
        return answer

    def ask(self, request: bytes, half_close: bool = False) -> None:
        """Sends this on a connection of its own as far as it is taken, and counts the answer."""
        with self.connect() as connection:
            try:
                # An answer may come before the last byte.
                view = memoryview(request)
                while view and not select.select([connection], [], [], 0)[0]:
                    view = view[connection.send(view[: 1 << 18]) :]
                if half_close:
                    connection.shutdown(socket.SHUT_WR)
            except OSError:
                pass
            self.note(self.read_answer(connection))

    def repeat(self, requests: list[bytes], per_second: int, half_close: bool = False) -> None:
        """Asks these, one behind the other, at most as often."""
        for request in itertools.cycle(requests):
            begin = time.monotonic()
            self.ask(request, half_close)
            self.standing()
            if self.is_over(max(0.0, 1 / per_second - (time.monotonic() - begin))):
                return

    def hold(self, beginning: bytes, count: int, drop: bytes = b"", seconds: float = 1) -> None:
        """Holds connections on which this was sent, and sends a drop more on each from time to time; opens others instead
        of those that the server ends."""
        poller = select.epoll()
        held: dict[int, socket.socket] = {}

        def fill() -> None:
            while len(held) < count:
                connection = self.connect()
                connection.sendall(beginning)
                held[connection.fileno()] = connection
                poller.register(connection, select.EPOLLIN)

        fill()
        self.standing()
        while not self.is_over(seconds):
            for number, _ in poller.poll(0):
                connection = held[number]
                try:
                    answer = connection.recv(1 << 16)
                except OSError:
                    answer = None
                self.note(answer)
                if not answer or b"onnection: close" in answer or not answer.startswith(b"HTTP/1.1 200"):
                    poller.unregister(connection)
                    held.pop(number).close()
            if drop:
                for connection in held.values():
                    try:
                        connection.send(drop)
                    except OSError:
                        # It is ended, which the next look tells.
                        pass
            fill()
        if held:
            self.answers["still open"] += len(held)
        for connection in held.values():
            connection.close()


def resets(attacker: Attacker) -> None:
    rows = HEADER + b"c,2025-01-01,1,1,1,1\n" * 2000
    stages = [b"", b"PUT /v1/jobs/reset HTT", put("reset", rows)[:60], put("reset", rows)[:20_000], put("reset", rows)]
    for stage in itertools.cycle(stages):
        with attacker.connect() as connection:
            connection.sendall(stage)
            # No time for what is still to be sent: the connection is reset.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        attacker.answers["not waited for"] += 1
        attacker.standing()
        if attacker.is_over(1 / 200):
            return


def campaigns(attacker: Attacker) -> None:
    """Sends the same file over and over, each time until there is an answer."""
    path = attacker.options.campaign_file
    size = path.stat().st_size
    with open(path, "rb") as file:
        while not attacker.is_over():
            with attacker.connect() as connection:
                connection.sendall(head("PUT", "/v1/jobs/many", f"Content-Length: {size}"))
                attacker.standing()
                offset = 0
                try:
                    while offset < size and not attacker.is_over():
                        readable, _, _ = select.select([connection], [connection], [])
                        if readable:
                            break
                        offset += os.sendfile(connection.fileno(), file.fileno(), offset, 1 << 20)
                except OSError:
                    pass
                if attacker.is_over():
                    attacker.answers["not finished"] += 1
                    return
                attacker.note(attacker.read_answer(connection))


def unread_downloads(attacker: Attacker) -> None:
    """Asks for a large result again and again, and reads none of the answers."""
    rows = b"".join(b"%0250d,2025-01-01,1,1,1,1\n" % number for number in range(40_000))
    attacker.ask(put("large", HEADER + rows))
    request = head("GET", "/v1/jobs/large/results/campaigns.csv", "Accept: application/json") * 20
    held = []
    for _ in range(100):
        connection = attacker.connect()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(request)
        held.append(connection)
    attacker.standing()
    attacker.is_over(PATIENCE_SECONDS)
    attacker.answers["not read"] += len(held)


def rapid_resets(attacker: Attacker) -> None:
    frames = http2_resets()
    while not attacker.is_over(1 / 50):
        with attacker.connect() as connection:
            try:
                connection.sendall(frames)
                while connection.recv(1 << 16):
                    pass
                attacker.answers["closed"] += 1
            except OSError:
                attacker.answers["reset"] += 1
        attacker.standing()


def strangers(attacker: Attacker) -> None:
    """Requests with a token of another tenant, or with none that is right, on connections that stay."""
    paths = [f"/v1/jobs/{job}{rest}" for job in attacker.options.jobs for rest in ("", "/results/campaigns.csv", "/files")]
    tokens = [f"Authorization: Bearer {token}" for token in attacker.options.bad_tokens]
    requests = [
        head(method, path, *fields)
        for method in ("GET", "DELETE")
        for path in paths
        for fields in [(), *((token,) for token in tokens)]
    ]
    with attacker.connect() as connection:
        for request in itertools.cycle(requests):
            connection.sendall(request)
            attacker.note(attacker.read_answer(connection))
            attacker.standing()
            if attacker.is_over(1 / 500):
                return


NONSENSE = [
    b"zz\r\nhello\r\n",
    b"-5\r\nhello\r\n",
    b"ffffffffffffffffff\r\nhello\r\n",
    b"5\r\nhelloworld\r\n",
    b"5;" + b"x=y;" * 20_000 + b"\r\nhello\r\n",
    b"0\r\n" + b"X-Trailer: y\r\n" * 20_000,
]
TWO_ENDS = [
    ("Content-Length: 4", "Transfer-Encoding: chunked"),
    ("Transfer-Encoding: chunked", "Content-Length: 100000"),
    ("Transfer-Encoding: gzip, chunked",),
    ("Content-Length: 4", "Content-Length: 5"),
]
TARGETS = [
    "/v1/jobs/..%2f..%2fdata%2fadtally.db",
    "/../../../../etc/passwd",
    "/v1/jobs/%00",
    "/v1/jobs/a\0b",
    "/v1/jobs/x/results/..%2f..%2f..%2fdata%2fadtally.db",
    "/v1/jobs/%c0%ae%c0%ae%c0%af",
]


def chunked_body(*fields: str) -> bytes:
    return head("PUT", "/v1/jobs/chunked", *(fields or ("Transfer-Encoding: chunked",))) + chunk(HEADER)


def oversized() -> list[bytes]:
    large = bytes(4 << 20)
    return [
        head("GET", "/healthz", f"X-Field: {'x' * (4 << 20)}"),
        head("GET", "/healthz", *["X-Field: 1"] * 5000),
        head("GET", "/" + "x" * (4 << 20)),
        head("PUT", "/v1/jobs/large", f"Content-Length: {1 << 60}"),
        head("POST", "/v1/jobs", "Content-Type: application/json", f"Content-Length: {len(large)}") + large,
        put("record", HEADER + b'"' + large),
        form(b"x\r\n--frontier\r\nContent-Disposition: form-data; name=" + large),
    ]


@dataclass(frozen=True)
class Attack:
    """One kind of attack."""

    title: str
    # Makes what is sent, before anything is measured, and gives what runs in the attacker's process.
    prepare: Callable[[], Callable[[Attacker], None]]
    arguments: tuple[str, ...] = ()
    attackers: int = 1
    with_tokens: bool = False
    # The server has to compute for it, as for the upload: both share its threads.
    computes: bool = False

    def max_ratio(self) -> float:
        return 1 + self.attackers if self.computes else MAX_RATIO


def repeating(make: Callable[[], list[bytes]], per_second: int, half_close: bool = False):
    def prepare() -> Callable[[Attacker], None]:
        requests = make()
        return lambda attacker: attacker.repeat(requests, per_second, half_close)

    return prepare


def holding(beginning: bytes, count: int, drop: bytes = b""):
    return lambda: lambda attacker: attacker.hold(beginning, count, drop)


def plain(run: Callable[[Attacker], None]):
    return lambda: run


def bomb(coding: str, make: Callable[[], bytes]):
    return repeating(lambda: [put("bomb", make(), f"Content-Encoding: {coding}")], 1000)


HEALTHZ = head("GET", "/healthz")

ATTACKS = {
    "heads": Attack("500 heads of one byte a second", holding(b"PUT /v1/jobs/slow HTTP/1.1\r\nX-Slow: ", 500, b"x")),
    "silent": Attack("1,000 silent sockets", holding(b"", 1000)),
    "bodies": Attack("200 bodies of one byte a second", holding(chunked_body(), 200, chunk(b"c"))),
    "idle": Attack(
        "idle connections", lambda: lambda attacker: attacker.hold(HEALTHZ, attacker.options.idle)
    ),
    "half": Attack(
        "half-closed sockets", repeating(lambda: [b"", b"PUT / HT", put("h", HEADER)[:80], HEALTHZ], 200, half_close=True)
    ),
    "resets": Attack("resets at every stage", plain(resets)),
    "chunks": Attack("chunks that are none", repeating(lambda: [chunked_body() + bad for bad in NONSENSE], 200, True)),
    "smuggling": Attack("two ends of a body", repeating(lambda: [chunked_body(*two) for two in TWO_ENDS], 200, True)),
    "oversized": Attack("oversized heads and bodies", repeating(oversized, 50)),
    "gzip": Attack("gzip bombs", bomb("gzip", lambda: deflate_bomb(31)), attackers=2, computes=True),
    "deflate": Attack("deflate bombs", bomb("deflate", lambda: deflate_bomb(15)), attackers=2, computes=True),
    "zstd": Attack("Zstandard bombs", bomb("zstd", zstandard_bomb), attackers=2, computes=True),
    "br": Attack("Brotli bombs", bomb("br", brotli_bomb), attackers=2, computes=True),
    "form": Attack("gzip bombs in forms", repeating(lambda: [form(deflate_bomb(31))], 1000), attackers=2, computes=True),
    "campaigns": Attack("different ids over and over", plain(campaigns), computes=True),
    "campaigns-all": Attack(
        "the same, all of them allowed, 2 GiB of memory",
        plain(campaigns),
        ("--max-campaigns", "20000000", "--memory-budget", "2GiB"),
        computes=True,
    ),
    "targets": Attack("NULs and path tricks", repeating(lambda: [head("PUT", target, "Content-Length: 0") for target in TARGETS], 200)),
    "strangers": Attack("tokens that are missing, wrong or another tenant's", plain(strangers), with_tokens=True),
    "unread": Attack("100 downloads that nobody reads", plain(unread_downloads)),
    "http2": Attack("streams of HTTP/2 that are reset", plain(rapid_resets)),
}


# -- The server and the upload --------------------------------------------------------------------------------------------


class Server:
    """A running server with a directory of its own."""

    def __init__(self, program: Path, directory: Path, arguments: tuple[str, ...]) -> None:
        directory.mkdir()
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ADTALLY_")}
        command = [str(program), "serve", "--listen", "127.0.0.1:0", "--data-dir", str(directory / "data"), *arguments]
        with open(directory / "log", "wb") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
        line = self.process.stdout.readline().strip()
        host, _, port = line.removeprefix("listening on http://").rpartition(":")
        if not port.isdigit():
            self.stop()
            raise Failure(f"the server said {line!r}, and {(directory / 'log').read_text()}")
        self.address = (host, int(port))

    def status(self, name: str) -> int:
        """Bytes of memory: `VmRSS` now, `VmHWM` at the peak."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) << 10
        return 0

    def forget_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


class Upload:
    """A file of blocks that are all the same, and a token."""

    def __init__(self, directory: Path, megabytes: int) -> None:
        rows = "".join(
            f"c{number % CAMPAIGNS},2025-01-01,1000,{number % 97},{number % 13}.25,{number % 5}\n" for number in range(10_000)
        ).encode()
        self.path = directory / "block.csv"
        block = rows * max(1, min(BLOCK_BYTES, megabytes << 20) // len(rows))
        self.path.write_bytes(block)
        self.block_bytes = len(block)
        self.blocks = max(1, (megabytes << 20) // len(block))
        self.token: str | None = None

    def megabytes(self) -> float:
        return (len(HEADER) + self.blocks * self.block_bytes) / 1e6

    def request(self, connection: socket.socket, method: str, path: str, *fields: str) -> None:
        fields += (f"Authorization: Bearer {self.token}",) if self.token else ()
        connection.sendall(head(method, path, *fields))

    def send(self, address: tuple[str, int], name: str) -> tuple[float, dict, tuple[bytes, ...]]:
        """Gives the seconds until the answer, the job and its tables."""
        begin = time.perf_counter()
        with socket.create_connection(address, timeout=PATIENCE_SECONDS) as connection, open(self.path, "rb") as file:
            length = len(HEADER) + self.blocks * self.block_bytes
            self.request(connection, "PUT", f"/v1/jobs/{name}", f"Content-Length: {length}")
            connection.sendall(HEADER)
            try:
                for _ in range(self.blocks):
                    file.seek(0)
                    connection.sendfile(file)
            except OSError:
                # The answer tells why.
                pass
            status, body = self.read(connection)
            seconds = time.perf_counter() - begin
            job = json.loads(body)
            if status != 201:
                raise Failure(f"the upload came to {status} {job.get('type', '').rsplit(':', 1)[-1]}")
            tables = []
            for table in TABLES:
                self.request(connection, "GET", job["links"]["results"][table])
                status, body = self.read(connection)
                if status != 200:
                    raise Failure(f"{table} came to {status}")
                tables.append(body)
        return seconds, job, tuple(tables)

    def read(self, connection: socket.socket) -> tuple[int, bytes]:
        answer = b""
        while b"\r\n\r\n" not in answer:
            piece = connection.recv(1 << 16)
            if not piece:
                raise Failure(f"the connection of the upload ended after {answer!r}")
            answer += piece
        begin, _, body = answer.partition(b"\r\n\r\n")
        length = int(begin.lower().partition(b"content-length: ")[2].partition(b"\r")[0] or 0)
        while len(body) < length:
            piece = connection.recv(1 << 20)
            if not piece:
                raise Failure("the connection of the upload ended within an answer")
            body += piece
        return int(begin.split(b" ", 2)[1]), body


@dataclass
class Result:
    """What was measured with one attack."""

    alone: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    answers: collections.Counter = field(default_factory=collections.Counter)
    peak_alone: int = 0
    peak: int = 0
    after: int = 0
    problems: list[str] = field(default_factory=list)

    def ratio(self) -> float:
        return statistics.median(self.beside) / statistics.median(self.alone)

    def row(self, attack: Attack) -> str:
        got = ", ".join(f"{count:,} × {answer}" for answer, count in self.answers.most_common(4)) or "–"
        cells = [attack.title]
        if self.alone and self.beside:
            ratio = self.ratio()
            seconds = (statistics.median(self.alone), statistics.median(self.beside))
            cells += [*map(seconds_text, seconds), f"{ratio:.2f}", f"{attack.max_ratio():g}", "yes" if round(ratio, 2) <= attack.max_ratio() else "NO"]
        else:
            cells += ["–"] * 5
        cells += [got, *(f"{size / 2**20:,.1f}" for size in (self.peak_alone, self.peak, self.after))]
        return f"| {' | '.join(cells)} |"


def run_attacker(run: Callable[[Attacker], None], address: tuple[str, int], options: argparse.Namespace, pipe) -> None:
    attacker = Attacker(address, options, pipe)
    try:
        run(attacker)
    except Exception as error:  # noqa: BLE001: told to whoever measures
        attacker.answers[f"attacker failed: {error!r}"] += 1
    attacker.standing()
    pipe.send(attacker.answers)


def make_token(program: Path, *arguments: str) -> tuple[str, str]:
    made = subprocess.run([str(program), "token", *arguments], capture_output=True, text=True, check=True)
    line = next(line for line in made.stderr.splitlines() if line.count(":") >= 2 and " " not in line)
    return made.stdout.strip(), line


def measure(name: str, upload: Upload, options: argparse.Namespace, scratch: Path) -> Result:
    attack, result = ATTACKS[name], Result()
    run = attack.prepare()
    arguments = attack.arguments
    upload.token = None
    if attack.with_tokens:
        good, other = (make_token(options.program, tenant, "--tenant", tenant) for tenant in ("we", "you"))
        old = make_token(options.program, "old", "--expires", "2001-01-01")
        tokens = scratch / "tokens"
        tokens.write_text("\n".join(line for _, line in (good, other, old)))
        arguments += ("--token-file", str(tokens))
        upload.token = good[0]
        options.bad_tokens = [other[0], old[0], good[0][:-4] + "0000"]
    server = Server(options.program, scratch / name, arguments)
    context = multiprocessing.get_context("fork")
    try:
        _, job, expected = upload.send(server.address, "first")
        options.jobs = ["first", job["id"]]
        for number in range(options.runs):
            for beside in (False, True):
                attackers = []
                server.forget_peak()
                if beside:
                    for _ in range(attack.attackers):
                        ours, theirs = context.Pipe()
                        process = context.Process(target=run_attacker, args=(run, server.address, options, theirs))
                        process.start()
                        attackers.append((process, ours))
                    for _, pipe in attackers:
                        if not pipe.poll(PATIENCE_SECONDS):
                            raise Failure("the attack does not get under way")
                        pipe.recv()
                try:
                    seconds, _, tables = upload.send(server.address, f"{'beside' if beside else 'alone'}{number}")
                    (result.beside if beside else result.alone).append(seconds)
                    if tables != expected:
                        result.problems.append("the results are others")
                except (Failure, OSError) as error:
                    result.problems.append(str(error))
                peak = server.status("VmHWM")
                for _, pipe in attackers:
                    pipe.send("over")
                for process, pipe in attackers:
                    if pipe.poll(PATIENCE_SECONDS):
                        result.answers += pipe.recv()
                    else:
                        result.problems.append("an attacker did not end")
                        process.kill()
                    process.join()
                if beside:
                    result.peak = max(result.peak, peak)
                    # What the attack left to do is not to be measured.
                    time.sleep(options.pause)
                else:
                    result.peak_alone = max(result.peak_alone, peak)
        result.after = server.status("VmRSS")
        if server.process.poll() is not None:
            result.problems.append("the server has ended")
    finally:
        server.stop()
    log = (scratch / name / "log").read_text(errors="replace")
    faults = [line for line in log.splitlines() if "ERROR" in line or "panicked" in line or "status=500" in line]
    if faults:
        result.problems.append(f"{len(faults)} faults are logged: {faults[0]}")
    if any(answer.startswith(("500", "attacker failed")) for answer in result.answers):
        result.problems.append(f"answers: {dict(result.answers)}")
    return result


def document_block(results: dict[str, Result], upload: Upload, options: argparse.Namespace) -> str:
    repeat = ["python3", "benches/abuse.py", "--runs", str(options.runs)]
    if options.attacks != list(ATTACKS):
        repeat += ["--attacks", ",".join(options.attacks)]
    lines = [
        BEGIN,
        surroundings([f"adtally {own_version()}", f"Python {sys.version.split()[0]}"]),
        "",
        f"An upload of {upload.megabytes():,.0f} MB as fast as it goes, alone and beside an attack, in turn; medians of "
        f"{options.runs}. Wanted is at most {MAX_RATIO} times the time alone; where the attack has the server "
        "compute as much as it can, its fair share: as many times as there are senders. The attackers are on the same machine. Memory is the "
        "largest resident memory of the server in MiB: alone, beside, and what is left afterwards. Answers are those of all rounds; "
        f"*idle connections* are {options.idle:,}, *different ids* {options.campaigns:,}, bombs 1 GiB of zeros. All results were "
        "those of the upload alone, unless it is said below.",
        "",
        "| attack | alone s | beside s | ratio | at most | met | the attackers got | alone MiB | peak MiB | after MiB |",
        "| --- | ---: | ---: | ---: | ---: | --- | --- | ---: | ---: | ---: |",
        *(result.row(ATTACKS[name]) for name, result in results.items()),
    ]
    problems = [f"{name}: {problem}." for name, result in results.items() for problem in dict.fromkeys(result.problems)]
    if problems:
        lines += ["", " ".join(problems)]
    lines += ["", "To repeat it:", "", "```", " ".join(repeat), "```", END]
    return "\n".join(lines) + "\n"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/adtally", help="the server (default target/release/adtally)")
    parser.add_argument("--runs", type=positive, default=5, help="rounds for each attack (default 5)")
    parser.add_argument("--attacks", type=choices(ATTACKS), default=list(ATTACKS), help=f"some of {','.join(ATTACKS)}")
    parser.add_argument("--megabytes", type=positive, default=1000, help="size of the upload in MiB (default 1000)")
    parser.add_argument("--idle", type=positive, default=5000, help="idle connections (default 5000)")
    parser.add_argument("--campaigns", type=positive, default=10_000_000, help="different ids (default 10000000)")
    parser.add_argument("--pause", type=float, default=1.0, metavar="SECONDS", help="rest after each attack (default 1)")
    parser.add_argument("--no-write", action="store_true", help="only print the table")
    return parser.parse_args()


def run() -> None:
    options = parse_arguments()
    if sys.platform != "linux":
        raise Failure("Linux is needed")
    if not options.program.is_file():
        raise Failure(f"{options.program} is not there: run `cargo build --release` first")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if "idle" in options.attacks and most < options.idle + 100:
        raise Failure(f"{options.idle} connections need as many open files (ulimit -n is {most} at most)")
    warn_if_busy()
    with tempfile.TemporaryDirectory(prefix="adtally-abuse-") as name:
        scratch = Path(name)
        upload = Upload(scratch, options.megabytes)
        if any(attack.startswith("campaigns") for attack in options.attacks):
            say("making the file of campaigns")
            options.campaign_file = campaign_file(scratch, options.campaigns)
        results = {}
        for attack in options.attacks:
            say(attack)
            results[attack] = measure(attack, upload, options, scratch)
            say("  " + results[attack].row(ATTACKS[attack]))
            for problem in dict.fromkeys(results[attack].problems):
                say(f"  {problem}")
    block = document_block(results, upload, options)
    print(block, end="")
    if not options.no_write:
        write_document(block, BEGIN, END)
    faults = [f"{name}: {problem}" for name, result in results.items() for problem in dict.fromkeys(result.problems)]
    if faults:
        raise Failure("\n       ".join(faults))


def main() -> None:
    try:
        run()
    except Failure as failure:
        sys.exit(f"error: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
