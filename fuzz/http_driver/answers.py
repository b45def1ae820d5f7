"""Reads answers of HTTP/1, and says what is wrong with them."""

import base64
import json
import re
import zlib
from dataclasses import dataclass

STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9]) [\t -~]*")
FIELD_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t -~\x80-\xff]*)")
# Fields that an answer has once at most.
SINGLE = ["content-length", "content-type", "content-encoding", "transfer-encoding", "date", "etag", "location", "retry-after", "x-request-id", "upload-offset"]
# The only answers of 5xx, and of 4xx that ask to come again, with the types that they may have.
BUSY = {
    503: "draining not_ready server_stopped too_many_uploads too_many_downloads too_many_connections too_many_open_jobs memory_budget store_unavailable".split(),
    507: ["storage_full"],
}
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
PREFIX = "urn:adtally:problem:"


def base64_text(text):
    """The text in Base64."""
    return base64.b64encode(text.encode()).decode()


class Malformed(Exception):
    """The bytes are no answer of HTTP."""


@dataclass
class Answer:
    """One answer. `is_whole` is false when the connection ended within it."""

    status: int
    fields: dict
    repeated: list
    body: bytes
    is_whole: bool
    method: str | None


def read_chunks(data, at):
    """A chunked body from an offset on: its bytes, where it ends, and whether it has."""
    body = []
    while True:
        end = data.find(b"\r\n", at)
        if end < 0:
            return b"".join(body), len(data), False
        if not re.fullmatch(rb"[0-9A-Fa-f]{1,8}", data[at:end]):
            raise Malformed(f"a chunk begins with {data[at:end][:40]!r}")
        size = int(data[at:end], 16)
        at = end + 2
        if size == 0:
            if len(data) < at + 2:
                return b"".join(body), len(data), False
            if data[at : at + 2] != b"\r\n":
                raise Malformed("there is something behind the last chunk")
            return b"".join(body), at + 2, True
        body.append(data[at : at + size])
        if len(data) < at + size + 2:
            return b"".join(body), len(data), False
        if data[at + size : at + size + 2] != b"\r\n":
            raise Malformed("a chunk is longer than it says")
        at += size + 2


def parse(data, methods=None, is_whole=False):
    """The answers in what a connection gave. `methods` are those of the requests, if they are known for certain: otherwise an answer
    whose body does not come is taken for one to HEAD. `is_whole`: the last one must not end early."""
    found, at = [], 0
    while at < len(data):
        end = data.find(b"\r\n\r\n", at)
        if end < 0:
            if is_whole or not b"HTTP/1.".startswith(data[at : at + 7]):
                raise Malformed(f"no head of an answer: {data[at:at + 80]!r}")
            return found
        lines = data[at:end].split(b"\r\n")
        status_line = STATUS_LINE.fullmatch(lines[0])
        if not status_line:
            raise Malformed(f"no status line: {lines[0][:80]!r}")
        status, fields, repeated = int(status_line[1]), {}, []
        for line in lines[1:]:
            field = FIELD_LINE.fullmatch(line)
            if not field:
                raise Malformed(f"no header field: {line[:80]!r}")
            name = field[1].decode().lower()
            if name in fields:
                repeated.append(name)
            fields[name] = field[2].decode("latin-1").strip()
        at = end + 4
        if status < 200:
            continue
        number = len(found)
        method = methods[number] if methods is not None and number < len(methods) else None
        if method is None and (at == len(data) or data.startswith(b"HTTP/1.", at)):
            has_body = False
        else:
            has_body = method != "HEAD" and status not in (204, 304)
        body, is_complete = b"", True
        if has_body and "transfer-encoding" in fields:
            if fields["transfer-encoding"] != "chunked" or "content-length" in fields:
                raise Malformed(f"an answer's length is in doubt: {fields}")
            body, at, is_complete = read_chunks(data, at)
        elif has_body and "content-length" in fields:
            if not fields["content-length"].isdigit():
                raise Malformed(f"Content-Length is {fields['content-length']!r}")
            length = int(fields["content-length"])
            body, is_complete = data[at : at + length], at + length <= len(data)
            at += length
        elif has_body:
            body, at = data[at:], len(data)
        if is_whole and not is_complete:
            raise Malformed("an answer ends early")
        found.append(Answer(status, fields, repeated, body, is_complete, method))
    return found


class Checker:
    """Says what is wrong with answers. It knows the types of problems from openapi.yaml, and each must always have one status."""

    def __init__(self, description):
        start = description.index("\n    ProblemType:")
        end = re.compile(r"\n    [A-Za-z]").search(description, start + 5)
        self.types = set(re.findall(PREFIX + "([a-z_]+)", description[start : end.start() if end else None]))
        unknown = {name for names in BUSY.values() for name in names} - self.types
        if not self.types or unknown:
            raise ValueError(f"openapi.yaml does not have the types {sorted(unknown)}")
        self.statuses = {}

    def check(self, answer):
        """Yields what is wrong with one answer."""
        status, fields = answer.status, answer.fields
        repeated = [name for name in answer.repeated if name in SINGLE]
        if repeated:
            yield f"{status} has {repeated} more than once"
        if status in (204, 304) and answer.body:
            yield f"{status} has a body"
        if status == 204 and "content-length" in fields:
            yield "204 has Content-Length"
        if "x-request-id" not in fields:
            # hyper refuses what is not HTTP before anything of the service sees it.
            if status not in (400, 414, 431) or answer.body:
                yield f"{status} has no x-request-id"
            return
        if status < 400:
            return
        if fields.get("content-type") != "application/problem+json":
            yield f"{status} is of the type {fields.get('content-type')}"
            return
        if not answer.is_whole or not answer.body:
            # To HEAD.
            if status >= 500 and status not in BUSY:
                yield f"{status}"
            return
        if (fields.get("content-encoding") == "gzip") != answer.body.startswith(GZIP):
            yield f"{status} is in another coding than it says"
        yield from self.check_problem(status, answer.body, fields)

    def check_problem(self, status, body, fields):
        """Yields what is wrong with a problem document, perhaps compressed."""
        if body.startswith(ZSTD):
            # Nothing in the standard library reads that.
            return
        try:
            if body.startswith(GZIP):
                body = zlib.decompress(body, 31)
        except zlib.error as error:
            yield f"{status} has damaged gzip: {error}"
            return
        try:
            problem = json.loads(body)
            name = problem["type"].removeprefix(PREFIX)
            inside, request_id, texts = problem["status"], problem["request_id"], [problem["title"], problem["detail"]]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            yield f"{status} has a body that is no problem: {error!r}"
            return
        if inside != status:
            yield f"{status} says {inside} inside"
        if name not in self.types:
            yield f"{status} has the type {problem['type']}, which openapi.yaml does not have"
        if self.statuses.setdefault(name, status) != status:
            yield f"{name} is answered with {self.statuses[name]} and with {status}"
        if status >= 500 and name not in BUSY.get(status, ()):
            yield f"{status} {name}"
        if not all(isinstance(text, str) and text for text in texts):
            yield f"{status} {name} has no title or no detail"
        if fields is None:
            return
        if request_id != fields["x-request-id"]:
            yield f"{status} {name} has another request id inside"
        wanted = {401: "www-authenticate", 405: "allow", 423: "retry-after", 429: "retry-after", 503: "retry-after"}.get(status)
        if wanted and wanted not in fields:
            yield f"{status} {name} has no {wanted}"
