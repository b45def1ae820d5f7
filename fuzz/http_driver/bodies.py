"""Bodies of requests: tables, good and bad, in every coding, forms, JSON, and what damages them."""

import gzip
import json
import zlib

HEADER = b"campaign_id,date,impressions,clicks,spend,conversions\n"
BOUNDARY = "fuzz-boundary"
JUNK = [b"\0", b"\xff\xfe", b'"', b"\r", b"\n\n", b"\xef\xbb\xbf", b"=cmd()", "é€".encode(), b"," * 50, b"9" * 40, b"-1", b"x" * 5000]


def rows(rng, count):
    """Rows of a table; most are right."""
    lines = []
    for _ in range(count):
        fields = [
            b"CMP%03d" % rng.randrange(600 if rng.random() < 0.05 else 20),
            b"2025-01-%02d" % rng.randrange(1, 32),
            b"%d" % rng.randrange(10**6),
            b"%d" % rng.randrange(10**4),
            b"%d.%02d" % (rng.randrange(10**4), rng.randrange(100)),
            b"%d" % rng.randrange(100),
        ]
        if rng.random() < 0.05:
            fields[rng.randrange(6)] = rng.choice(JUNK)
        lines.append(b",".join(fields) + rng.choice([b"\n", b"\n", b"\n", b"\r\n"]))
    return b"".join(lines)


def table(rng):
    """A CSV file: usually small and right, sometimes not, sometimes beyond a limit of the server."""
    choice = rng.random()
    if choice < 0.7:
        return HEADER + rows(rng, rng.randrange(1, 12))
    if choice < 0.8:
        return HEADER.replace(b",", b";") + rows(rng, 3).replace(b",", b";")
    if choice < 0.84:
        return HEADER + rows(rng, rng.randrange(500, 3000))
    if choice < 0.87:
        return (HEADER + rows(rng, 5)).decode("latin-1").encode(rng.choice(["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"]))
    if choice < 0.9:
        return rows(rng, 3)
    if choice < 0.92:
        return HEADER + b"x" * rng.randrange(300_000)
    if choice < 0.94:
        return b"PK\3\4" + rng.randbytes(60)
    return rng.choice([b"", b"\n", HEADER, HEADER * 2, b"a,b\n1,2\n", rng.randbytes(rng.randrange(1, 2000)), b'"' * 9])


def zstd(data, repeated=0):
    """A Zstandard frame of stored blocks, and of one that repeats a byte."""
    out = b"\x28\xb5\x2f\xfd\0\x58"
    pieces = [data[at : at + 60_000] for at in range(0, len(data), 60_000)] or [b""]
    for number, piece in enumerate(pieces):
        is_last = number == len(pieces) - 1 and not repeated
        out += (len(piece) << 3 | is_last).to_bytes(3, "little") + piece
    if repeated:
        out += (repeated << 3 | 1 << 1 | 1).to_bytes(3, "little") + b"\n"
    return out


def brotli(data):
    """A Brotli stream of meta-blocks that are not compressed."""
    out, first = b"", True
    for at in range(0, len(data), 60_000):
        piece = data[at : at + 60_000]
        bits = 0 | (len(piece) - 1) << 3 | 1 << 19
        # The first bit of the stream says how large the window is.
        out += (bits << 1 if first else bits).to_bytes(3, "little") + piece
        first = False
    # The last meta-block is empty. At the start of the stream the bit of the window comes before it.
    return out + (b"\x06" if first else b"\x03")


def encode(rng, data):
    """The data in some coding, with the name of that coding."""
    coding = rng.choice(["gzip", "gzip", "zstd", "zstd", "br", "deflate", "bomb", "members"])
    if coding == "gzip":
        return "gzip", gzip.compress(data, rng.randrange(10), mtime=0)
    if coding == "zstd":
        return "zstd", zstd(data, 100_000 if rng.random() < 0.2 else 0)
    if coding == "br":
        return "br", brotli(data)
    if coding == "deflate":
        return "deflate", zlib.compress(data)
    if coding == "members":
        half = rng.randrange(len(data) + 1)
        return "gzip", gzip.compress(data[:half], mtime=0) + gzip.compress(data[half:], mtime=0) + rng.choice([b"", b"", b"\0" * 9, b"x"])
    return "gzip", gzip.compress(data + b"\n" * rng.choice([900_000, 2_000_000]), mtime=0)


def damage(rng, data):
    """The bytes with something done to them."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice([1, 1, 2, 4, 16, 200]))
        kind = rng.randrange(7)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at:at] = rng.randbytes(rng.choice([1, 1, 2, 4, 30]))
        elif kind == 2:
            del data[at:end]
        elif kind == 3:
            data[at:at] = data[at:end] * rng.choice([1, 2, 5])
        elif kind == 4:
            other = rng.randrange(len(data) + 1)
            data[at:end] = data[other : other + rng.choice([1, 8, 40])]
        elif kind == 5:
            data[at:at] = rng.choice([b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b",", b"%", b"\x80", b"\r\n\r\n", b"0\r\n\r\n"])
        else:
            data[at:end] = rng.choice([b"0", b"-1", b"9" * 20, b"18446744073709551616", b"\xff" * 4, b"%00", b"?1"])
    return bytes(data)


def form(rng):
    """A multipart form, and its media type."""
    line_end = b"\r\n" if rng.random() < 0.95 else b"\n"
    out = []
    for _ in range(rng.choice([0, 0, 1, 2])):
        name, value = rng.choice([("top", "3"), ("format", "google_ads"), ("delimiter", "tab"), ("top", "x"), ("other", "é"), ("name", "form.csv")])
        out += [b"--", BOUNDARY.encode(), line_end, b'Content-Disposition: form-data; name="%s"' % name.encode(), line_end * 2, value.encode(), line_end]
    for number in range(rng.choice([0, 1, 1, 1, 2, 3, 12])):
        name = rng.choice(["ad_data.csv", "january.csv", f"{number}.csv", "a/b", "..", "é.csv", "", "x" * 300, 'q\\"q'])
        disposition = rng.choice(['form-data; name="file"; filename="%s"', 'form-data; name=f; filename=%s', "form-data; filename*=UTF-8''%s", "attachment; %s"])
        out += [b"--", BOUNDARY.encode(), line_end, b"Content-Disposition: ", (disposition % name).encode(), line_end]
        if rng.random() < 0.3:
            out += [rng.choice([b"Content-Type: text/csv", b"Content-Encoding: gzip", b"X: " + b"y" * 9000, b": x", b"Content-Type"]), line_end]
        out += [line_end, table(rng), line_end]
    if rng.random() < 0.9:
        out += [b"--", BOUNDARY.encode(), b"--", line_end]
    boundary = rng.choice([BOUNDARY] * 8 + [f'"{BOUNDARY}"', "", "other", "x" * 100])
    return b"".join(out), rng.choice(["multipart/form-data; boundary="] * 9 + ["multipart/mixed; boundary="]) + boundary


def new_job(rng):
    """A JSON document that asks for an open job; often a wrong one."""
    document = {"name": rng.choice(["may", "may", "june", "é", "", "a/b", "x" * 256, None, 7])}
    if rng.random() < 0.5:
        document["options"] = rng.choice(
            [{}, {"top": 3}, {"top": -1}, {"top": 10**30}, {"delimiter": "tab"}, {"delimiter": "\0"}, {"format": "google_ads"}, [], None, {"x": 1}, {"top": 1.5}]
        )
    choice = rng.random()
    if choice < 0.8:
        return json.dumps(document).encode()
    return rng.choice([b"", b"{", b"[" * 5000, b"{}" * 2, b"null", b'"\xff"', b'{"name":"a","name":"b"}', b" " * 70_000 + b"{}", b'{"name":"\\ud800"}', b"{}"])


def chunked(rng, data, trailer=b""):
    """The chunked coding of a body, rarely a damaged one."""
    out, at = [], 0
    while at < len(data):
        size = rng.choice([1, 7, 100, 4096, 65536])
        piece = data[at : at + size]
        at += size
        extension = b"" if rng.random() < 0.95 else rng.choice([b";a=b", b';a="b\r"', b";" + b"x" * 20_000, b" "])
        out.append(b"%x%s\r\n%s\r\n" % (len(piece), extension, piece))
        if len(out) > 200:
            piece = data[at:]
            if piece:
                out.append(b"%X\r\n%s\r\n" % (len(piece), piece))
            break
    coded = b"".join(out) + b"0\r\n" + trailer + b"\r\n"
    if rng.random() < 0.15:
        wrong = rng.choice([b"\r\n\r\n", b"zz\r\n", b"-1\r\n", b"ffffffffffffffff\r\n", b"10000000000000000\r\n", b"5", b"0x5\r\nabcde\r\n", b"5\nabcde\n", b"5\r\nabcdeXX"])
        at = rng.randrange(len(coded) + 1) if rng.random() < 0.5 else len(coded) - len(trailer) - 5
        coded = coded[:at] + wrong + coded[at:]
    return coded
