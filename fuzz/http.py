"""Sends random and damaged requests to the service, and checks that it stays sound.

Usage: fuzz/http.py [--server PATH] [--mode open|tokens|both] [--seconds N] [--seed S] [--threads N] [--only NUMBER]

Starts the server with small limits in a temporary directory, without a token file, with one, or one after the other. Every answer must be
HTTP, 5xx only 503 and 507 of documented types, every refusal a problem; no connection may hang; good uploads must stay right; and when all
is over, the server must hold what it held before. Needs Python 3.11 on Linux, and nothing else.

What a connection sends follows from the seed and its number, but for ids and tokens, which the server chooses. What has happened on the
server before does not: a finding that depends on it may not come again with `--only`.
"""

import argparse
import base64
import itertools
import os
import random
import re
import select
import shutil
import socket
import struct
import sys
import tempfile
import threading
import time
from collections import Counter

# This file's name is that of a module of the standard library: nothing that is imported here may need that one.
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[0] = os.path.join(ROOT, "fuzz", "http_driver")

import answers  # noqa: E402
import http2  # noqa: E402
import plans  # noqa: E402
from server import SETTINGS, Server, ServerFault, make_jobs  # noqa: E402

# The server's own limits end most connections within some seconds. A stream of events is silent for 15 at most, and `Prefer: wait` is
# kept to for 60.
HANG_SECONDS = 75
# A client that half-closes when nothing comes waits so long; at first, if its requests are right, for an answer as long as for a hang.
PATIENCE_SECONDS = 0.2
# Connections between two looks at the server's behaviour.
CHECK_EVERY = 200
# How long the server may take to let go of everything once all connections are closed. It is longer than jobs are kept open.
SETTLE_SECONDS = 40
# How much more memory may be resident in the end than after the warm-up, what the allocator keeps included.
MAX_GROWTH_BYTES = 48 << 20
# Handles of the database come and go with its pool of connections.
DATABASE = re.compile(r"\.db(-wal|-shm|-journal)?( \(deleted\))?$")
MAX_FINDINGS = 20


class Client:
    """One connection, as its plan has it."""

    def __init__(self, address, plan):
        self.plan = plan
        self.received = bytearray()
        # "closed" and "reset" by the server before the client said that it has nothing more, "finished" after that, "left" by the
        # client, "hang".
        self.end = "left"
        self.stream = socket.create_connection(address, 30)
        self.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream.setblocking(False)

    def run(self):
        """Sends what there is and reads until it is over."""
        try:
            self.end = self.exchange()
        except OSError:
            # The peer reset the connection, perhaps because it read no further.
            self.end = "reset"
        finally:
            if self.plan.ending == "reset":
                self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.stream.close()

    def exchange(self):
        waiting, is_half_closed = list(self.plan.pieces), False
        poll = select.poll()
        poll.register(self.stream, select.POLLIN | select.POLLOUT)
        progress = start = time.monotonic()
        while True:
            if not waiting and not is_half_closed:
                if self.plan.ending in ("close", "reset"):
                    return "left"
                if self.plan.ending == "half" or (self.plan.ending == "patience" and time.monotonic() - progress > self.patience()):
                    self.stream.shutdown(socket.SHUT_WR)
                    is_half_closed, progress = True, time.monotonic()
            poll.modify(self.stream, select.POLLIN | (select.POLLOUT if waiting else 0))
            events = poll.poll(50)
            now = time.monotonic()
            if now - progress > HANG_SECONDS or now - start > 3 * HANG_SECONDS:
                return "hang"
            for _, event in events:
                if event & (select.POLLIN | select.POLLHUP | select.POLLERR):
                    piece = self.stream.recv(262144)
                    if not piece:
                        return "finished" if is_half_closed else "closed"
                    self.received += piece
                    progress = now
                if event & select.POLLOUT and waiting:
                    try:
                        sent = self.stream.send(waiting[0])
                    except (BrokenPipeError, ConnectionResetError):
                        # What came before the reset may still be there to read.
                        waiting = []
                        continue
                    waiting[0] = waiting[0][sent:]
                    if not waiting[0]:
                        del waiting[0]
                    progress = now

    def patience(self):
        return HANG_SECONDS - 5 if self.plan.must_be_right and not self.received else PATIENCE_SECONDS


class Run:
    """One server, and what is sent to it."""

    def __init__(self, options, mode, checker):
        self.options, self.mode, self.checker = options, mode, checker
        self.directory = tempfile.mkdtemp(prefix="adtally-fuzz-")
        try:
            self.server = Server(os.path.abspath(options.server), self.directory, mode == "tokens")
        except (ServerFault, OSError) as fault:
            shutil.rmtree(self.directory)
            raise SystemExit(str(fault)) from fault
        self.world = None
        self.numbers = itertools.count(1)
        self.lock = threading.Lock()
        self.findings, self.statuses, self.ends, self.problems = {}, Counter(), Counter(), Counter()
        self.done = 0
        self.stop, self.go = threading.Event(), threading.Event()
        self.busy = 0

    def report(self, what, number=None, detail=""):
        """Notes a finding, and prints it if it is the first of its kind."""
        kind = re.sub(r"[0-9a-f-]{36}|fuzz-\d+-\d+|\d{4,}", "…", what)[:160]
        with self.lock:
            is_new = kind not in self.findings
            self.findings.setdefault(kind, []).append(number)
            if len(self.findings) >= MAX_FINDINGS:
                self.stop.set()
        if not is_new:
            return
        print(f"FINDING ({self.mode}): {what}\n{detail}", flush=True)
        if number is not None:
            print(f"  again: python3 fuzz/http.py --server {self.options.server} --mode {self.mode} --seed {self.options.seed} --only {number}", flush=True)

    def try_one(self, number, is_shown=False):
        """Makes the connection of this number, and checks what comes of it."""
        world = self.world
        plan = plans.plan(self.options.seed, number, world)
        client = Client(self.server.address, plan)
        client.run()
        sent, received = b"".join(plan.pieces), bytes(client.received)
        if is_shown:
            print(f"ending: {plan.ending}, end: {client.end}\n--- sent\n{sent!r}\n--- received\n{received!r}")
        faults = []
        if client.end == "hang":
            faults.append("the connection hangs")
        is_http2 = sent.startswith(http2.PREFACE[:14]) and not received.startswith(b"HTTP/")
        try:
            if is_http2:
                faults += self.check_http2(received, plan)
            else:
                faults += self.check_http1(sent, received, plan, client.end, world)
        except answers.Malformed as malformed:
            faults.append(f"not HTTP: {malformed}")
        with self.lock:
            self.done += 1
            self.ends[client.end] += 1
        for fault in faults:
            self.report(fault, number, f"  sent: {sent[:1200]!r}\n  received: {received[:1200]!r}\n  end: {client.end}")

    def check_http1(self, sent, received, plan, end, world):
        """Yields what is wrong with answers of HTTP/1."""
        found = answers.parse(received, plan.methods)
        if plan.must_be_right and not found and end in ("closed", "hang"):
            yield "a good request has no answer"
        held = [name for name, token in world.tokens.items() if token.encode() in sent or base64.b64encode(f":{token}".encode()) in sent]
        for answer in found:
            with self.lock:
                self.statuses[answer.status] += 1
                problem = re.match(rb'\{"type":"urn:adtally:problem:([a-z_]+)"', answer.body)
                if problem:
                    self.problems[problem[1].decode()] += 1
            yield from self.checker.check(answer)
            if not answer.is_whole and end == "closed" and plan.must_be_right:
                yield f"{answer.status} ends early"
            if self.mode == "tokens" and answer.status < 300:
                yield from self.check_tenant(answer, held, world)

    def check_tenant(self, answer, held, world):
        """Yields what an answer tells to those who may not know."""
        if not held and re.match("application/json|text/csv|text/event-stream", answer.fields.get("content-type", "")):
            yield f"{answer.status} without a token"
        for tenant in ("a", "b"):
            if tenant not in held and "admin" not in held:
                if any(job.encode() in answer.body for kind, job in world.jobs[tenant].items() if kind != "tus_file"):
                    yield f"{answer.status} shows a job of another tenant"

    def check_http2(self, received, plan):
        """Yields what is wrong with answers of HTTP/2."""
        streams, faults = http2.read(received)
        yield from faults
        for entry in streams.values():
            status = entry["status"]
            if status is None:
                continue
            with self.lock:
                self.statuses[f"h2 {status}"] += 1
            if status >= 500 and status not in answers.BUSY:
                yield f"HTTP/2: {status}"
            if status >= 400 and entry["ended"] and entry["body"]:
                for fault in self.checker.check_problem(status, entry["body"], None):
                    yield f"HTTP/2: {fault}"

    def work(self):
        """What one thread does."""
        while not self.stop.is_set():
            if not self.go.wait(0.2):
                continue
            with self.lock:
                if not self.go.is_set():
                    continue
                self.busy += 1
                number = next(self.numbers)
            try:
                self.try_one(number)
            except ConnectionRefusedError:
                self.report("the server takes no connections", number)
                self.stop.set()
            except Exception as error:  # A fault of the driver is a finding, too, and must not end the thread in silence.
                self.report(f"the driver fails: {error!r}", number)
            finally:
                with self.lock:
                    self.busy -= 1

    def settle(self, is_settled):
        """Waits until no connection is open, and then until this holds or it takes too long."""
        with self.lock:
            self.go.clear()
        while self.busy:
            time.sleep(0.05)
        deadline = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < deadline and not is_settled():
            time.sleep(0.5)

    def held(self):
        """What the server holds: handles but those of the database, and what it says itself."""
        handles = {name: count for name, count in self.server.handles().items() if not DATABASE.search(name)}
        return handles, self.server.gauges()

    def look(self, number):
        """Checks the server between connections."""
        self.server.check_behaviour(number)
        self.world = plans.World(make_jobs(self.server, self.world.jobs if self.world else None), self.server.tokens)
        self.check_log()

    def check_log(self):
        for line in self.server.log_faults():
            self.report(f"the log has: {line[line.find(' ERROR ') + 1:][:400]}", None, f"  {line[:3000]}")

    def fuzz(self):
        """Sends requests for as long as was asked for."""
        self.look(0)
        time.sleep(1)
        start_handles, start_gauges = self.held()
        threads = [threading.Thread(target=self.work, daemon=True) for _ in range(self.options.threads)]
        for thread in threads:
            thread.start()
        self.go.set()
        begin = time.monotonic()
        warm_up = min(60, self.options.seconds / 3)
        warm_bytes, looked = None, 0
        while time.monotonic() - begin < self.options.seconds and not self.stop.is_set():
            time.sleep(0.2)
            if not self.server.is_alive():
                self.report(f"the server has ended: {self.server.process.returncode}", None, self.server.log_tail())
                break
            if self.done - looked >= CHECK_EVERY:
                looked = self.done
                self.look(looked)
            if warm_bytes is None and time.monotonic() - begin > warm_up:
                self.settle(lambda: True)
                warm_bytes = self.server.resident_bytes()
                self.go.set()
        if self.server.is_alive():
            self.check_end(start_handles, start_gauges, warm_bytes)
        self.stop.set()
        for thread in threads:
            thread.join(HANG_SECONDS * 4)

    def check_end(self, start_handles, start_gauges, warm_bytes):
        """Compares what the server holds in the end with what it held."""
        held = None

        def is_settled():
            nonlocal held
            held = self.held()
            return held == (start_handles, start_gauges)

        # The result of the last look is used. A new look would still see the connection on which this one asked for the gauges.
        self.settle(is_settled)
        handles, gauges = held
        if handles != start_handles:
            self.report("open handles in the end are others than at the start", None, f"  {start_handles}\n  {handles}")
        if gauges != start_gauges:
            self.report("the server says that it holds other things in the end than at the start", None, f"  {start_gauges}\n  {gauges}")
        resident = self.server.resident_bytes()
        seconds, slowest = self.server.slowest()
        print(f"  the longest request took {seconds:.1f} seconds: {slowest}")
        print(f"  resident: {(warm_bytes or 0) >> 20} MiB after the warm-up, {resident >> 20} MiB in the end; handles: {handles}; {gauges}", flush=True)
        if warm_bytes is not None and resident > warm_bytes + MAX_GROWTH_BYTES:
            self.report("memory has grown", None, f"  {warm_bytes} bytes after the warm-up, {resident} in the end")
        self.look(self.done + 1)

    def end(self):
        """Stops the server, and looks at what it leaves."""
        was_alive = self.server.is_alive()
        code = self.server.stop()
        if was_alive and code != 0:
            self.report(f"the server stops with {code}", None, self.server.log_tail())
        left = self.server.left_files()
        if left:
            self.report("temporary files are left", None, f"  {left[:20]}")
        self.check_log()
        if self.findings:
            kept = tempfile.mkdtemp(prefix="adtally-fuzz-log-")
            shutil.copy(self.server.log_path, kept)
            print(f"  the server's log: {kept}/log", flush=True)
        shutil.rmtree(self.directory)


def check_routes(description):
    """Refuses to run when a path or a method of openapi.yaml is not tried."""
    described, path = {}, None
    section = description[description.index("\npaths:") : description.index("\ncomponents:")]
    for line in section.splitlines():
        if found := re.fullmatch(r"  (/\S*):", line):
            path = found[1]
            described[path] = set()
        elif found := re.fullmatch(r"    (get|put|post|patch|delete|head|options|trace):", line):
            described[path].add(found[1])
    tried = {path: set(methods) for path, (methods, _) in plans.ROUTES.items()}
    if described != tried:
        different = sorted(path for path in described.keys() | tried.keys() if described.get(path) != tried.get(path))
        raise SystemExit(f"fuzz/http_driver/plans.py and openapi.yaml have different paths or methods: {different}")


def main():
    parser = argparse.ArgumentParser(description="Sends random and damaged requests to the service.")
    parser.add_argument("--server", default="target/debug/adtally", help="the program (default: %(default)s)")
    parser.add_argument("--mode", choices=["open", "tokens", "both"], default="both", help="without tokens, with tokens, or both")
    parser.add_argument("--seconds", type=float, default=60, help="how long requests are sent in each mode (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="what the requests follow from (default: random)")
    parser.add_argument("--threads", type=int, default=16, help="connections at once (default: %(default)s)")
    parser.add_argument("--only", type=int, help="the number of the only connection to make; it is shown")
    options = parser.parse_args()
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(10**9)
    with open(os.path.join(ROOT, "openapi.yaml"), encoding="utf-8") as file:
        description = file.read()
    check_routes(description)
    checker = answers.Checker(description)
    print(f"seed: {options.seed}, limits: {SETTINGS}", flush=True)
    has_failed = False
    for mode in ["open", "tokens"] if options.mode == "both" else [options.mode]:
        run = Run(options, mode, checker)
        try:
            if options.only is not None:
                run.look(0)
                run.try_one(options.only, is_shown=True)
            else:
                run.fuzz()
        except (ServerFault, OSError) as fault:
            run.report(str(fault), None, run.server.log_tail())
        finally:
            run.stop.set()
            run.end()
        print(f"{mode}: {run.done} connections, {len(run.findings)} kinds of findings", flush=True)
        print(f"  ends: {dict(run.ends)}\n  statuses: {dict(sorted(run.statuses.items(), key=str))}\n  problems: {dict(run.problems.most_common())}")
        for kind, numbers in run.findings.items():
            print(f"  {len(numbers)} times: {kind}")
        has_failed = has_failed or bool(run.findings)
    sys.exit(1 if has_failed else 0)


if __name__ == "__main__":
    main()
