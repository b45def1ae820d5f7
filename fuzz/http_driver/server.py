"""The server under test: starting it, well-behaved requests to it, and what it holds."""

import json
import os
import re
import signal
import socket
import subprocess
import time

import answers

# Small limits, so that they are met. Times are short, so that the server ends every connection by itself within seconds.
SETTINGS = {
    "--max-upload": "256KiB",
    "--max-text": "1MiB",
    "--max-decompression-ratio": "100",
    "--max-record": "4KiB",
    "--max-campaigns": "500",
    "--max-rejects": "16KiB",
    "--max-form-parts": "8",
    "--max-files": "8",
    "--max-open-jobs": "300",
    "--max-stored": "256MiB",
    "--disk-reserve": "1MiB",
    "--max-concurrent-uploads": "5",
    "--max-concurrent-downloads": "3",
    "--memory-budget": "64MiB",
    "--max-connections": "64",
    "--max-connections-per-tenant": "12",
    "--max-request-rate": "400",
    "--parser-threads": "2",
    "--header-timeout": "2s",
    "--idle-timeout": "2s",
    "--receive-grace": "3s",
    "--write-timeout": "3s",
    "--linger-timeout": "1s",
    "--drain-timeout": "5s",
    "--keep-finished": "30s",
    "--keep-open": "20s",
    "--checkpoint-interval": "200ms",
}
START_SECONDS = 60
# A well-behaved request that meets a limit is sent again for this long.
RETRY_SECONDS = 60

UPLOAD = (
    b"campaign_id,date,impressions,clicks,spend,conversions\n"
    b"CMP025,2025-04-18,3653,60,64.29,2\nCMP020,2025-05-03,24465,764,1394.62,42\nCMP025,2025-04-19,1,0,0.71,1\n"
)


class ServerFault(Exception):
    """The server did something that it must not do, other than in one connection's answers."""


class Server:
    """A process of its own, in a directory that it has for itself."""

    def __init__(self, binary, directory, with_tokens):
        self.directory = directory
        self.temporary = os.path.join(directory, "tmp")
        os.mkdir(self.temporary)
        self.tokens = {}
        self.results = os.path.join(directory, "results")
        self.log_path = os.path.join(directory, "log")
        self.log_read_bytes = 0
        command = [binary, "serve", "--listen", "127.0.0.1:0", "--data-dir", os.path.join(directory, "data"), "--results-dir", self.results]
        for name, value in SETTINGS.items():
            command += [name, value]
        if with_tokens:
            token_file = os.path.join(directory, "tokens")
            for name, extra in [("a", []), ("b", []), ("admin", ["--admin"])]:
                made = subprocess.run([binary, "token", name, *extra, "--append", token_file], check=True, capture_output=True)
                self.tokens[name] = made.stdout.decode().strip()
            command += ["--token-file", token_file]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ADTALLY_")}
        # The backtrace of a panic would load the debug information, a hundred megabytes.
        environment |= {"TMPDIR": self.temporary, "RUST_BACKTRACE": "0"}
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment)
        deadline = time.monotonic() + START_SECONDS
        line = self.process.stdout.readline().decode()
        found = re.search(r"http://([0-9.]+):([0-9]+)", line)
        if not found or time.monotonic() > deadline:
            self.process.kill()
            self.process.wait()
            raise ServerFault(f"the server does not start: {line!r} {self.log_tail()}")
        self.address = (found[1], int(found[2]))

    def log_tail(self):
        """The last lines of the log."""
        with open(self.log_path, "rb") as log:
            return b"\n".join(log.read().split(b"\n")[-8:]).decode("utf-8", "replace")

    def log_faults(self):
        """Lines of the log that must not be there, each once: errors, and panics with the line behind them."""
        with open(self.log_path, "rb") as log:
            log.seek(self.log_read_bytes)
            new = log.read()
        new = new[: new.rfind(b"\n") + 1]
        self.log_read_bytes += len(new)
        lines = [line.decode("utf-8", "replace").strip() for line in new.split(b"\n")] + [""]
        found = []
        for number, line in enumerate(lines[:-1]):
            if "panicked" in line:
                found.append(f"{line} {lines[number + 1]}")
            elif " ERROR " in line:
                found.append(line)
        return found

    def slowest(self):
        """The request that took the longest, as the log has it."""
        worst = (0.0, "")
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            for line in log:
                if found := re.search(r" request (method=.*) seconds=([0-9.e-]+).*(request_id=\S+)", line):
                    worst = max(worst, (float(found[2]), f"{found[1]} {found[3]}"))
        return worst

    def is_alive(self):
        """Whether the process still runs."""
        return self.process.poll() is None

    def stop(self):
        """Stops the server as a supervisor does, and gives its exit code; kills it when that takes too long."""
        if self.is_alive():
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return "none within 60 seconds of SIGTERM"

    def ask(self, method, path, fields=(), body=None, tenant="a", announced=None):
        """Sends one request and gives its answer. `announced` is a length other than that of the body: the sender then breaks off."""
        head = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close"]
        if tenant in self.tokens:
            head.append(f"Authorization: Bearer {self.tokens[tenant]}")
        if body is not None:
            head.append(f"Content-Length: {len(body) if announced is None else announced}")
        head += [f"{name}: {value}" for name, value in fields]
        with socket.create_connection(self.address, 30) as stream:
            stream.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + (body or b""))
            if announced is not None:
                return None
            received = b""
            while piece := stream.recv(65536):
                received += piece
        parsed = answers.parse(received, [method], is_whole=True)
        if not parsed:
            raise ServerFault(f"{method} {path}: the connection was closed without an answer")
        return parsed[-1]

    def ask_patiently(self, *arguments, **options):
        """As `ask`; limits that others have used up are waited for."""
        deadline = time.monotonic() + RETRY_SECONDS
        while True:
            answer = self.ask(*arguments, **options)
            if answer.status not in (423, 429, 503) or time.monotonic() > deadline:
                return answer
            time.sleep(0.2)

    def check_behaviour(self, number):
        """Asks for health, and uploads a file whose results are known."""
        tenant = "admin" if self.tokens else "a"
        health = self.ask("GET", "/healthz")
        if health.status != 200:
            raise ServerFault(f"/healthz is answered with {health.status}")
        upload = self.ask_patiently("PUT", f"/v1/jobs/check-{number}.csv", body=UPLOAD, tenant=tenant)
        if upload.status != 201:
            raise ServerFault(f"a good upload is answered with {upload.status}: {upload.body[:500]!r}")
        job = json.loads(upload.body)
        stats = {name: job["stats"][name] for name in ("rows_read", "rows_skipped", "unique_campaigns")}
        if stats != {"rows_read": 3, "rows_skipped": 0, "unique_campaigns": 2}:
            raise ServerFault(f"a good upload has other statistics: {job['stats']}")
        result = self.ask_patiently("GET", f"/v1/jobs/{job['id']}/results/campaigns.csv", tenant=tenant)
        lines = result.body.split()[1:]
        if result.status != 200 or [line.split(b",")[:4] for line in lines] != [
            [b"CMP020", b"24465", b"764", b"1394.62"],
            [b"CMP025", b"3654", b"60", b"65.00"],
        ]:
            raise ServerFault(f"a good upload has other results: {result.status} {result.body!r}")

    def handles(self):
        """What the process has open: sockets, and files by their names."""
        found = {}
        directory = f"/proc/{self.process.pid}/fd"
        for handle in os.listdir(directory):
            try:
                target = os.readlink(os.path.join(directory, handle))
            except FileNotFoundError:
                continue
            target = re.sub(r":\[\d+\]$", "", target)
            found[target] = found.get(target, 0) + 1
        return found

    def resident_bytes(self):
        """Memory that the process has resident."""
        with open(f"/proc/{self.process.pid}/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def gauges(self):
        """What the server itself says that it holds."""
        answer = self.ask_patiently("GET", "/metrics", tenant="admin")
        found = re.findall(rb"^(adtally_uploads_in_progress|adtally_memory_used_bytes) (\d+)", answer.body, re.M)
        return {name.decode(): int(value) for name, value in found}

    def left_files(self):
        """Temporary files that are still there."""
        left = [os.path.join(self.temporary, name) for name in os.listdir(self.temporary)]
        for root, directories, files in os.walk(self.directory):
            left += [os.path.join(root, name) for name in directories + files if name.endswith(".tmp")]
        return left


def make_jobs(server, old=None):
    """Makes jobs in every state for two tenants, and gives where they are. Their addresses always have the same length."""
    made = {tenant: dict((old or {}).get(tenant, {})) for tenant in ("a", "b")}
    for tenant, jobs in made.items():

        def ask(*arguments, body=None, fields=()):
            return server.ask_patiently(*arguments, body=body, fields=fields, tenant=tenant)

        def keep(kind, answer):
            # Without an answer that names a job the old one stays.
            found = re.search(rb"/v1/jobs/([0-9a-f-]{36})", answer.body)
            if found:
                jobs[kind] = found[1].decode()
            elif kind not in jobs:
                raise ServerFault(f"a job to begin with is answered with {answer.status}: {answer.body[:300]!r}")

        tus = [("Tus-Resumable", "1.0.0"), ("Content-Type", "application/offset+octet-stream")]
        keep("done", ask("PUT", "/v1/jobs/ad_data.csv", body=UPLOAD))
        keep("failed", ask("PUT", "/v1/jobs/bad.csv", body=b"a,b\n1,2\n"))
        is_json = [("Content-Type", "application/json")]
        keep("open", ask("POST", "/v1/jobs", body=b'{"name":"may"}', fields=is_json))
        ask("PUT", f"/v1/jobs/{jobs['open']}/files/january.csv", body=UPLOAD)
        metadata = f"job {answers.base64_text(jobs['open'])},filename {answers.base64_text('february.csv')}"
        ask("POST", "/v1/tus", body=UPLOAD[:80], fields=[*tus, ("Upload-Length", len(UPLOAD)), ("Upload-Metadata", metadata)])
        created = ask("POST", "/v1/tus", body=UPLOAD[:80], fields=[*tus, ("Upload-Length", len(UPLOAD)), ("Upload-Metadata", f"filename {answers.base64_text('tus.csv')}")])
        address = re.search(r"/v1/tus/([0-9a-f-]{36})/([^/]+)$", created.fields.get("location", ""))
        if address:
            jobs["tus"], jobs["tus_file"] = address[1], address[2]
        elif "tus" not in jobs:
            raise ServerFault(f"a tus upload to begin with is answered with {created.status}: {created.body[:300]!r}")
        server.ask("PUT", "/v1/jobs/cut.csv", body=UPLOAD[:80], tenant=tenant, announced=len(UPLOAD))
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            listed = ask("GET", "/v1/jobs?name=cut.csv&limit=1")
            if b'"interrupted"' in listed.body:
                break
            time.sleep(0.05)
        keep("cut", listed)
        cancelled = ask("POST", "/v1/jobs", body=b'{"name":"june"}', fields=is_json)
        keep("cancelled", cancelled)
        ask("POST", f"/v1/jobs/{jobs['cancelled']}/cancel")
        gone = ask("POST", "/v1/jobs", body=b'{"name":"gone"}', fields=is_json)
        keep("gone", gone)
        ask("DELETE", f"/v1/jobs/{jobs['gone']}")
    return made
