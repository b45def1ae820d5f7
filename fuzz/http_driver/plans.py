"""What is sent over one connection: it follows from the seed and the connection's number alone, but for the ids and tokens of the
run, which always have the same length."""

import base64
import hashlib
import random
import urllib.parse
from dataclasses import dataclass

import bodies
import http2

# Every path of openapi.yaml, with the methods that it has there and how often it is asked for.
ROUTES = {
    "/v1/jobs": (["put", "post", "get"], 10),
    "/v1/jobs/{job}": (["put", "get", "delete"], 8),
    "/v1/jobs/{job}/cancel": (["post"], 2),
    "/v1/jobs/{job}/complete": (["post"], 3),
    "/v1/jobs/{job}/files": (["get"], 2),
    "/v1/jobs/{job}/files/{file}": (["put", "patch", "get", "delete"], 12),
    "/v1/tus": (["options", "post"], 6),
    "/v1/tus/{job}/{file}": (["head", "patch", "delete", "post"], 8),
    "/v1/formats": (["get"], 1),
    "/v1/jobs/{job}/events": (["get"], 2),
    "/v1/jobs/{job}/results/{file}": (["get"], 8),
    "/healthz": (["get"], 1),
    "/readyz": (["get"], 1),
    "/metrics": (["get"], 1),
    "/openapi.yaml": (["get"], 1),
    "/": (["get"], 1),
    "/page/{file}": (["get"], 1),
}
PATHS = list(ROUTES)
WEIGHTS = [weight for _, weight in ROUTES.values()]
ODD_METHODS = ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get", "PROPFIND", "PRI", "M" * 300, "G\0T", "", "GET GET"]

NAMES = ["ad_data.csv", "cut.csv", "may", "june", "é.csv", "a b", "=1+1", "~"]
BAD_NAMES = [".", "..", "", "a/b", "a\\b", "x" * 255, "x" * 256, "\0", "\u202e", "\ufeff", "é" * 200, "00000000-0000-0000-0000-000000000000", "🏳️‍🌈", "\r\nX: y"]
FILES = ["january.csv", "february.csv", "ad_data.csv", "tus.csv", "cut.csv", "march.csv"]
RESULTS = ["top10_ctr.csv", "top10_cpa.csv", "campaigns.csv", "rejects.csv", "stats.json", "top3_ctr.csv", "top0_ctr.csv", "top1001_cpa.csv", "campaigns.CSV"]
KINDS = ["done", "failed", "open", "open", "open", "tus", "cut", "cut", "cancelled", "gone"]

# Options of a query: good values, then bad ones.
OPTIONS = {
    "delimiter": ([",", ";", "tab", "auto", "|"], ["", ",,", '"', "\n", "é", "\0"]),
    "has_header": (["true", "false"], ["1", "", "TRUE"]),
    "encoding": (["utf-8", "windows-1252", "latin1", "utf-16le", "shift_jis"], ["utf-7", "", "x" * 900]),
    "top": (["1", "3", "1000"], ["0", "-1", "1001", "9" * 30, "1.0", "+1", " 1"]),
    "format": (["google_ads", "meta_ads", "microsoft_ads", "tiktok_ads", "linkedin_ads", "amazon_sp"], ["", "Google", "x" * 300]),
    "columns": (["campaign_id:Campaign ID|Campaign;spend:Cost", "date:day"], [":", "a:b", "spend:" + "x|" * 500, "\\", "spend:(*)"]),
    "header": (["first", "find"], ["", "x"]),
    "decimal": (["point", "comma", "auto", "."], [".,", ""]),
    "thousands": (["none", "space", "any", "comma"], ["x"]),
    "conversions": (["whole", "decimal", "integer"], ["x"]),
    "currency": (["strip", "none"], ["x"]),
    "spend_unit": (["micros", "unit"], ["x"]),
    "zero_if_empty": (["clicks,conversions", ""], ["date", "clicks,clicks", ","]),
    "totals": (["none", "Total:|Gesamt:", ""], ["|", "#" * 2000]),
    "end": (["blank_line", "file"], ["x"]),
    "id_brackets": (["true", "false"], ["x"]),
    "rejects": (["all", "first"], ["x"]),
    "max_skipped": (["0", "7", "0.5%", "100%"], ["-1", "101%", "1.23456%", "%", "9" * 25]),
    "name": (NAMES, BAD_NAMES),
    "state": (["open", "receiving", "interrupted", "succeeded", "failed", "cancelled"], ["x", ""]),
    "limit": (["1", "100"], ["0", "101", "-1", "x", "9" * 30]),
    "cursor": (["0199f173-5810-7c3e-9b1d-3f5a7e2c8d41"], ["x", "", "0" * 36]),
    "spreadsheet": (["safe"], ["unsafe", ""]),
    "x": (["1"], [""]),
}
UPLOAD_OPTIONS = list(OPTIONS)[:19]

DIGEST = "sha-256=:" + base64.b64encode(bytes(32)).decode() + ":"
DATE = "Sat, 01 Nov 2025 00:00:00 GMT"
# Header fields with values that some requests may have, and others.
FIELDS = {
    "Accept": ["application/json", "text/csv", "*/*", "text/csv;q=0, application/json;q=0.5", "image/png", "", ";;", "a/b;q=9", ",".join(["a/b"] * 900), "text/*;q=0.001"],
    "Accept-Encoding": ["gzip", "zstd", "br", "identity;q=0", "*;q=0", "gzip;q=x", "", "gzip, deflate, br, zstd"],
    "Access-Control-Request-Method": ["PUT", "X", ""],
    "Connection": ["keep-alive", "upgrade", "close, x", "Transfer-Encoding", "TE, close"],
    "Content-Digest": [DIGEST, "sha-256=:x:", "sha-512=:AA==:", "", "sha-256", DIGEST + "," + DIGEST],
    "Content-Encoding": ["identity", "gzip", "br", "zstd", "deflate", "gzip, gzip", "compress", "", "GZIP", "\xff"],
    "Content-Language": ["de"],
    "Content-Range": ["bytes 0-9/20", "bytes 80-201/202", "bytes 80-/202", "bytes 9-1/5", "bytes */202", "bytes 0-18446744073709551615/*", "x", "bytes 80-90/*"],
    "Content-Type": ["text/csv", "text/csv; charset=latin1; header=absent", "text/csv; charset=x", "application/json", "multipart/form-data", "application/octet-stream", "image/png", "", "text", "application/partial-upload", "application/offset+octet-stream", "\xff/\xfe"],
    "Cookie": ["a=b"],
    "Expect": ["100-continue", "100-Continue", "200-ok", ""],
    "Forwarded": ["for=1.2.3.4"],
    "Host": ["127.0.0.1", "localhost:80", "example.com", "", "a b", "[::1]", "[::1", "user@127.0.0.1", "127.0.0.1:99999999", "\xff"],
    "Idempotency-Key": ["key-1", "key-2", "key-3", "", "x" * 255, "x" * 256, "a b", "\xff"],
    "If-Match": ["*", '"x"', '"a b"', '"a\t"', 'W/"x"', "x", "", '"a", "b"', "*, *"],
    "If-None-Match": ["*", '"x"', '"a b"', 'W/"x"', "x", ",,"],
    "If-Range": ['"x"', '"a b"', DATE, "x"],
    "If-Modified-Since": [DATE, "x"],
    "If-Unmodified-Since": [DATE],
    "Last-Event-ID": ["7", "x"],
    "Origin": ["null", "http://127.0.0.1", "https://evil.example", ""],
    "Prefer": ["wait=0", "wait=1", "wait=-1", "wait=x", "return=minimal", "wait=9999999999999999999", 'wait="1"', ""],
    "Range": ["bytes=0-9", "bytes=-5", "bytes=5-", "bytes=9-1", "bytes=99999999-", "bytes=0-1,3-4", "bytes=-0", "bytes=18446744073709551615-", "x", "rows=1-2", "bytes=0-18446744073709551616"],
    "Repr-Digest": [DIGEST, "sha-256=:" + "A" * 900 + ":", "x"],
    "Sec-Fetch-Site": ["same-origin", "cross-site", "x"],
    "TE": ["trailers", "gzip"],
    "Trailer": ["Content-Digest", "X"],
    "Transfer-Encoding": ["chunked", "gzip, chunked", "chunked, chunked", "identity", "xchunked", "Chunked", "", "chunked;q=1"],
    "Tus-Resumable": ["1.0.0", "0.2.2", "", "1.0.0, 1.0.0"],
    "Upgrade": ["h2c", "websocket"],
    "Upload-Checksum": ["sha1 AAAAAAAAAAAAAAAAAAAAAAAAAAA=", "sha256 x", "md5 AA==", "sha1", "", "sha1  "],
    "Upload-Complete": ["?0", "?1", "1", "", "?2", "?1;a=b"],
    "Upload-Concat": ["partial", "final;/v1/tus/a/b"],
    "Upload-Defer-Length": ["1", "0", ""],
    "Upload-Draft-Interop-Version": ["9", "8", "x", "99999999999999999999"],
    "Upload-Length": ["0", "80", "202", "-1", "x", "9223372036854775807", "18446744073709551615", "18446744073709551616", "300000"],
    "Upload-Metadata": ["filename YS5jc3Y=", "filename", "filename =", "filename YQ==,filename YQ==", "job eA==", "top Mw==,filename YS5jc3Y=", ",", "x" * 5000, "filename Li4=", "format Z29vZ2xlX2Fkcw==", "a" + " b" * 9],
    "Upload-Offset": ["0", "80", "81", "202", "-1", "x", "", "18446744073709551615", "9223372036854775808", "00", "+80"],
    "X-Forwarded-For": ["1.2.3.4"],
    "X-HTTP-Method-Override": ["HEAD", "PATCH", "DELETE", "GET", "", "patch"],
    "X-Request-Id": ["mine", "x" * 129, "a b", "é", ""],
    "Bad Name": ["x"],
    "X-Empty\0": ["x"],
    "": ["x"],
}
FIELD_NAMES = list(FIELDS)
# Fields that belong to a request; some are left out.
USUAL = {
    ("patch", "/v1/jobs/{job}/files/{file}"): {"Upload-Offset": ["80", "80", "0", "202"], "Upload-Complete": ["?0", "?1"], "Content-Type": ["application/partial-upload", "application/octet-stream"]},
    ("put", "/v1/jobs/{job}/files/{file}"): {"Content-Range": [None, None, None, "bytes 80-201/202", "bytes 0-201/202", "bytes 0-79/202"]},
    ("post", "/v1/tus"): {"Tus-Resumable": ["1.0.0"], "Upload-Length": ["202", "127", "300", None], "Upload-Defer-Length": [None, None, "1"], "Content-Type": ["application/offset+octet-stream"]},
    ("patch", "/v1/tus/{job}/{file}"): {"Tus-Resumable": ["1.0.0"], "Upload-Offset": ["80", "80", "0", "202"], "Content-Type": ["application/offset+octet-stream"]},
    ("post", "/v1/tus/{job}/{file}"): {"Tus-Resumable": ["1.0.0"], "X-HTTP-Method-Override": ["HEAD", "PATCH", "DELETE"], "Upload-Offset": ["80"], "Content-Type": ["application/offset+octet-stream"]},
    ("head", "/v1/tus/{job}/{file}"): {"Tus-Resumable": ["1.0.0"]},
    ("delete", "/v1/tus/{job}/{file}"): {"Tus-Resumable": ["1.0.0"]},
    ("get", "/v1/jobs/{job}/results/{file}"): {"Range": [None, "bytes=0-9", "bytes=-5"], "Accept": [None, "application/json", "text/csv"], "Accept-Encoding": [None, "gzip", "zstd"]},
    ("get", "/v1/jobs/{job}"): {"Prefer": [None, None, "wait=0", "wait=1"]},
}


@dataclass
class World:
    """What there is on the server: jobs of two tenants by their kinds, and tokens by names, none if it asks for none."""

    jobs: dict
    tokens: dict


@dataclass
class Plan:
    """One connection. `methods` are those of its requests when they are known for certain, else None. `ending` is what the client
    does when all is sent: wait for the server's end, half-close, half-close when nothing comes for a time, close, or reset."""

    pieces: list
    methods: list | None
    ending: str
    is_http2: bool
    must_be_right: bool


def quote(rng, text):
    """The text as a part of a path."""
    choice = rng.random()
    if choice < 0.9:
        return urllib.parse.quote(text, safe="").encode()
    if choice < 0.95:
        return text.encode().replace(b" ", b"+")
    return urllib.parse.quote(text, safe="/").encode() + rng.choice([b"%", b"%zz", b"%00", b"%ff", b"%2F", b"%2e%2e", b"//", b"/.", b";a", b"\xff", b"#x", b"?"])


def job_id(rng, world, tenant, kind):
    """The id of a job of this kind, rarely of the other tenant."""
    if rng.random() < 0.1:
        tenant = "b" if tenant == "a" else "a"
    return world.jobs[tenant][kind]


def target(rng, world, tenant, path, method):
    """A target of a request for this route."""
    kind = rng.choice(KINDS)
    if "/tus/" in path and rng.random() < 0.6:
        kind = "tus"
    # Chosen whether they are used or not.
    bad, name, file, known = rng.choice(BAD_NAMES), rng.choice(NAMES), rng.choice(FILES), job_id(rng, world, tenant, kind)
    choice = rng.random()
    job = bad if choice < 0.07 else name if choice < 0.2 or (method, path) == ("put", "/v1/jobs/{job}") else known
    if path.endswith("/results/{file}"):
        file = rng.choice(RESULTS)
    elif rng.random() < 0.5:
        file = {"open": "february.csv", "cut": "cut.csv", "done": "ad_data.csv", "tus": world.jobs[tenant]["tus_file"]}.get(kind, file)
    if rng.random() < 0.05:
        file = rng.choice(BAD_NAMES)
    out = path.encode().replace(b"{job}", quote(rng, job)).replace(b"{file}", quote(rng, file))
    if rng.random() < 0.03:
        out = rng.choice([b"http://127.0.0.1" + out, b"*", out + b"/", b"/" + out, out.upper(), b"", b"http://" + out, b"/" + b"x" * 9000, out + b"/..", b"127.0.0.1:80"])
    options = []
    names = UPLOAD_OPTIONS if method in ("put", "post") else ["state", "name", "limit", "cursor"] if path == "/v1/jobs" else list(OPTIONS)[18:]
    for _ in range(rng.choice([0, 0, 0, 0, 1, 1, 2, 4])):
        name = rng.choice(names) if rng.random() < 0.95 else rng.choice(list(OPTIONS))
        value = rng.choice(OPTIONS[name][rng.random() < 0.25])
        options.append(urllib.parse.quote(name).encode() + b"=" + (quote(rng, value) if rng.random() < 0.95 else value.encode().replace(b" ", b"+")))
    if rng.random() < 0.02:
        options.append(rng.choice([b"", b"=", b"&&", b"a", b"%ff=%ff", b"x=" + b"y" * 70_000]))
    # Most addresses take no options.
    if method not in ("put", "post") and path != "/v1/jobs" and rng.random() < 0.85:
        options = []
    if method == "post" and path != "/v1/jobs" and rng.random() < 0.8:
        options = []
    return out + (b"?" + b"&".join(options) if options else b"")


def credentials(rng, world, tenant):
    """A field that says whose the request is."""
    if not world.tokens:
        return [] if rng.random() < 0.95 else [("Authorization", rng.choice(["Bearer x", "Basic eDp5", "", "Bearer", "Digest a=b", "\xff"]))]
    token = world.tokens["admin" if rng.random() < 0.03 else tenant]
    choice = rng.random()
    if choice < 0.8:
        return [("Authorization", f"Bearer {token}")]
    if choice < 0.9:
        return [("Authorization", "Basic " + base64.b64encode(f":{token}".encode()).decode())]
    wrong = rng.choice([None, "Bearer", f"Bearer {token}x", f"Bearer {token[:-1]}", "Bearer adt_a_x", "Basic !", f"bearer  {token}", "Basic " + base64.b64encode(b"a").decode(), f"Token {token}"])
    return [] if wrong is None else [("Authorization", wrong)] * rng.choice([1, 1, 2])


def content(rng, method, path):
    """A body and the fields that say what it is."""
    fields = []
    if method == "post" and path == "/v1/jobs":
        choice = rng.random()
        if choice < 0.4:
            body, media = bodies.form(rng)
            return body, [("Content-Type", media)]
        if choice < 0.7:
            return bodies.new_job(rng), [("Content-Type", "application/json")]
    takes_body = method in ("put", "patch") or (method == "post" and ("tus" in path or path == "/v1/jobs"))
    if not takes_body and rng.random() < 0.9:
        return b"", fields
    body = bodies.table(rng)
    if method == "patch" or "tus" in path:
        # What is left of the uploads that have begun has 122 bytes.
        body = rng.choice([body[:122].ljust(122, b"\n"), body, body[: rng.randrange(len(body) + 1)]])
    if rng.random() < 0.2:
        coding, body = bodies.encode(rng, body)
        if rng.random() < 0.8:
            fields.append(("Content-Encoding", coding))
    if rng.random() < 0.1:
        body = bodies.damage(rng, body)
    if rng.random() < 0.1:
        digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
        fields.append((rng.choice(["Content-Digest", "Repr-Digest"]), f"sha-256=:{digest}:"))
    if "tus" in path and rng.random() < 0.1:
        fields.append(("Upload-Checksum", "sha1 " + base64.b64encode(hashlib.sha1(body).digest()).decode()))
    return body, fields


def parts(rng, world, tenant, request_id):
    """One request in its parts: the method, the target, the fields and the body. Its id tells in the server's log whose it is."""
    path = rng.choices(PATHS, WEIGHTS)[0]
    method = rng.choice(ROUTES[path][0])
    if method == "delete" and rng.random() < 0.7:
        # Jobs are to be there for a while.
        method = ROUTES[path][0][0]
    address = target(rng, world, tenant, path, method)
    body, fields = content(rng, method, path)
    for name, values in USUAL.get((method, path), {}).items():
        value = rng.choice(values)
        if value is not None and rng.random() < 0.97:
            fields.append((name, value))
    if path == "/v1/tus" and rng.random() < 0.5:
        # In Base64, so that its place does not depend on the id.
        name = base64.b64encode(rng.choice(FILES + NAMES).encode()).decode()
        known = base64.b64encode(job_id(rng, world, tenant, "open").encode()).decode()
        fields.append(("Upload-Metadata", f"filename {name}" + (f",job {known}" if rng.random() < 0.5 else "")))
    if method in ("put", "post") and rng.random() < 0.08:
        fields.append(("Idempotency-Key", f"key-{rng.randrange(30)}"))
    for _ in range(rng.choice([0, 0, 0, 0, 0, 1, 1, 2, 5])):
        name = rng.choice(FIELD_NAMES)
        fields.append((name, rng.choice(FIELDS[name])))
    fields = credentials(rng, world, tenant) + [("X-Request-Id", request_id)] + fields
    verb = method.upper()
    if method == "get" and rng.random() < 0.15:
        verb = "HEAD"
    if rng.random() < 0.05:
        verb = rng.choice(ODD_METHODS)
    return verb, address, fields, body


def framed(rng, verb, address, fields, body, is_last):
    """A request of HTTP/1 as bytes, and whether its end is where it seems to be."""
    is_right = True
    head = [("Host", "127.0.0.1")]
    if is_last and rng.random() < 0.9:
        head.append(("Connection", "close"))
    is_right = not any(name in ("Host", "Connection", "Transfer-Encoding", "Expect", "Upgrade", "") or name not in FIELDS for name, _ in fields if name != "Authorization")
    choice = rng.random()
    if choice < 0.7:
        if body or verb in ("PUT", "POST", "PATCH"):
            head.append(("Content-Length", str(len(body))))
        coded = body
    elif choice < 0.92:
        head.append(("Transfer-Encoding", "chunked"))
        trailer = b""
        if rng.random() < 0.2:
            digest = base64.b64encode(hashlib.sha256(body).digest())
            trailer = rng.choice([b"Content-Digest: sha-256=:" + digest + b":\r\n", b"X: y\r\n", b"X: " + b"y" * 40_000 + b"\r\n", b"bad\r\n", b"Content-Digest: x\r\n"])
        coded, is_right = bodies.chunked(rng, body, trailer), False
    else:
        length = rng.choice([str(len(body) + 5), str(max(0, len(body) - 5)), "-1", "x", "", "9" * 25, "+3", f"{len(body)}, {len(body)}", "0x10", "300000", "99999999999"])
        head += [("Content-Length", length)] * rng.choice([1, 1, 2])
        if rng.random() < 0.3:
            head.append(("Transfer-Encoding", "chunked"))
        coded, is_right = body, False
    lines = head + fields
    if rng.random() < 0.3:
        rng.shuffle(lines)
    if rng.random() < 0.03 and lines:
        lines.append(rng.choice(lines))
        is_right = False
    if rng.random() < 0.02:
        lines += [(f"X-{number}", "y" * rng.choice([1, 5000])) for number in range(rng.choice([50, 99, 120]))]
        is_right = False
    version = b"HTTP/1.1"
    if rng.random() < 0.04:
        version, is_right = rng.choice([b"HTTP/1.0", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/0.9", b"http/1.1", b"HTTP/1.1 ", b""]), False
    end, between = b"\r\n", b": "
    if rng.random() < 0.02:
        end, between = rng.choice([(b"\n", b": "), (b"\r", b": "), (b"\r\n", b":"), (b"\r\n", b" : "), (b"\r\n ", b": ")])
        is_right = False
    out = verb.encode() + b" " + address + b" " + version + end
    for name, value in lines:
        out += name.encode() + between + value.encode("latin-1" if rng.random() < 0.5 and value.isascii() else "utf-8") + end
    out += end + coded
    return out, is_right and verb.isalpha() and verb.isupper() and len(verb) < 20


def plan(seed, number, world):
    """The connection of this number."""
    rng = random.Random(f"{seed}/{number}")
    tenant = rng.choice(["a", "b"])
    count = rng.choice([1, 1, 1, 1, 2, 3, 8])
    if rng.random() < 0.05:
        requests = []
        for position in range(count):
            verb, address, fields, body = parts(rng, world, tenant, f"fuzz-{number}-{position}")
            requests.append((verb.encode(), address, [(name.encode(), value.encode()) for name, value in fields], body))
        pieces = http2.connection(rng, requests)
        data, methods, is_http2 = b"".join(pieces), None, True
        is_mutated = rng.random() < 0.3
    else:
        pieces, methods, is_http2 = [], [], False
        for position in range(count):
            verb, address, fields, body = parts(rng, world, tenant, f"fuzz-{number}-{position}")
            coded, is_right = framed(rng, verb, address, fields, body, position == count - 1)
            pieces.append(coded)
            if methods is not None:
                methods = methods + [verb] if is_right else None
        data = b"".join(pieces)
        is_mutated = rng.random() < 0.25
    if is_mutated:
        # Mostly the head of the first request: a body is long, and hides what comes behind it.
        at = len(data) if rng.random() < 0.4 else min(len(data), rng.choice([40, 300, 1000]))
        data, methods = bodies.damage(rng, data[:at]) + data[at:], None
    if rng.random() < 0.02:
        data, methods = rng.randbytes(rng.randrange(1, 400)) + (data if rng.random() < 0.5 else b""), None
    ending = rng.choices(["wait", "half", "patience", "close", "reset"], [4, 1, 12, 1, 1])[0]
    if rng.random() < 0.12:
        data = data[: rng.randrange(len(data) + 1)]
        ending, methods = rng.choice(["wait", "half", "half", "close", "close", "reset", "reset"]), None
    # A stream of events, and a preference to wait, go on for longer than anything else.
    if ending == "wait" and (b"events" in data or b"wait=" in data.lower()):
        ending = "patience"
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.choice([0, 0, 0, 1, 2, 10])))
    split = [data[start:end] for start, end in zip([0] + cuts, cuts + [len(data)])]
    return Plan([piece for piece in split if piece], methods, ending, is_http2, methods is not None and ending in ("wait", "patience"))
