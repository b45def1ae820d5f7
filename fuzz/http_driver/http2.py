"""Connections of HTTP/2 by hand: frames with random contents, and just enough reading to see statuses and problems."""

import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RESET, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
# A table of no bytes: the server then says every status in full, and it can be read without keeping state.
NO_TABLE = struct.pack(">HI", 1, 0)
STATIC_STATUSES = {0x88: 200, 0x89: 204, 0x8A: 206, 0x8B: 304, 0x8C: 400, 0x8D: 404, 0x8E: 500}
# The Huffman codes of digits (RFC 7541, appendix B).
DIGITS = {"00000": 0, "00001": 1, "00010": 2, "011001": 3, "011010": 4, "011011": 5, "011100": 6, "011101": 7, "011110": 8, "011111": 9}


def frame(kind, flags, stream, payload):
    """One frame."""
    return len(payload).to_bytes(3, "big") + bytes([kind & 255, flags & 255]) + struct.pack(">I", stream & 0xFFFFFFFF) + payload


def integer(value, bits, first):
    """An integer of HPACK with a prefix of so many bits."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([first | value])
    out, value = [first | most], value - most
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out + [value])


def block(fields):
    """A block of header fields, each as it is and not indexed."""
    out = b""
    for name, value in fields:
        out += b"\0" + integer(len(name), 7, 0) + name + integer(len(value), 7, 0) + value
    return out


def request(rng, stream, method, path, fields, body):
    """The frames of a request, sometimes cut up, padded or with frames between them that may not be there."""
    head = [(b":method", method), (b":scheme", b"http"), (b":authority", b"127.0.0.1"), (b":path", path)]
    if rng.random() < 0.1:
        odd = [(b":path", b"/"), (b"Upper", b"x"), (b"connection", b"close"), (b"te", b"gzip"), (b":odd", b""), (b"", b"x"), (b"host", b"other"), (b"x", b"a\r\nb"), (b"content-length", b"7")]
        head.insert(rng.randrange(len(head) + 1), rng.choice(odd))
    if rng.random() < 0.05:
        del head[rng.randrange(len(head))]
    coded = block(head + [(name.lower(), value) for name, value in fields])
    if rng.random() < 0.05:
        coded += rng.randbytes(rng.randrange(1, 30))
    is_short = not body
    out, pieces = [], [coded]
    if rng.random() < 0.2 or len(coded) > 16_000:
        at = rng.randrange(len(coded))
        pieces = [coded[:at]] + [coded[start : start + 10_000] for start in range(at, len(coded), 10_000)]
    for number, piece in enumerate(pieces):
        flags = (1 if is_short and number == 0 else 0) | (4 if number == len(pieces) - 1 and rng.random() < 0.98 else 0)
        out.append(frame(HEADERS if number == 0 else CONTINUATION, flags, stream, piece))
        if len(pieces) > 1 and rng.random() < 0.1:
            out.append(frame(PING, 0, 0, bytes(8)))
    for at in range(0, len(body), 16_000):
        is_last = at + 16_000 >= len(body) and rng.random() < 0.95
        out.append(frame(DATA, int(is_last), stream, body[at : at + 16_000]))
    return out


def noise(rng, stream):
    """A frame that has little to do with anything."""
    choice = rng.randrange(9)
    if choice == 0:
        return frame(PING, rng.randrange(2), 0, rng.randbytes(rng.choice([8, 8, 0, 9])))
    if choice == 1:
        return frame(RESET, 0, stream, struct.pack(">I", rng.randrange(16)))
    if choice == 2:
        return frame(WINDOW, 0, rng.choice([0, stream]), struct.pack(">I", rng.choice([0, 1, 65535, 0x7FFFFFFF])))
    if choice == 3:
        return frame(SETTINGS, rng.choice([0, 0, 1]), 0, struct.pack(">HI", rng.randrange(1, 9), rng.choice([0, 1, 16384, 0x7FFFFFFF, 0xFFFFFFFF])))
    if choice == 4:
        return frame(PRIORITY, 0, stream, struct.pack(">IB", rng.choice([0, stream, 3]), 7))
    if choice == 5:
        return frame(GOAWAY, 0, 0, struct.pack(">II", rng.choice([0, 1, 2**31 - 1]), 0))
    if choice == 6:
        return frame(DATA, rng.randrange(256), rng.choice([0, stream, 2, 99]), rng.randbytes(rng.randrange(40)))
    if choice == 7:
        return frame(CONTINUATION, rng.choice([0, 4]), stream, rng.randbytes(rng.randrange(40)))
    return frame(rng.randrange(256), rng.randrange(256), rng.choice([0, 1, stream, 2**31 - 1]), rng.randbytes(rng.choice([0, 4, 8, 100])))


def connection(rng, requests):
    """The pieces of a connection with these requests, each (method, path, fields, body)."""
    out = [PREFACE + frame(SETTINGS, 0, 0, NO_TABLE)]
    stream = 1
    for method, path, fields, body in requests:
        frames = request(rng, stream, method, path, fields, body)
        if rng.random() < 0.3:
            frames.insert(rng.randrange(len(frames) + 1), noise(rng, stream))
        out += frames
        stream = stream + 2 if rng.random() < 0.97 else rng.choice([1, 2, 0, 2**31 - 1])
    out += [noise(rng, stream - 2 & 0x7FFFFFFF) for _ in range(rng.choice([0, 0, 1, 3, 30]))]
    return out


def read_status(coded):
    """The status at the start of a block of header fields, if it can be told."""
    while coded and coded[0] >> 5 == 1:
        # A new size of the table.
        size = 1
        if coded[0] & 31 == 31:
            while size < len(coded) and coded[size] & 128:
                size += 1
            size += 1
        coded = coded[size:]
    if not coded:
        return None
    if coded[0] in STATIC_STATUSES:
        return STATIC_STATUSES[coded[0]]
    # Literal, with the name of one of the statuses in the static table.
    name = coded[0] & 63 if coded[0] & 0xC0 == 0x40 else coded[0] & 15 if coded[0] & 0xE0 == 0 else None
    if name is None or not 8 <= name <= 14 or len(coded) < 2:
        return None
    value = coded[2 : 2 + (coded[1] & 127)]
    if not coded[1] & 128:
        return int(value) if value.isdigit() else None
    bits, digits = "".join(f"{byte:08b}" for byte in value), []
    while len(digits) < 3:
        for code, digit in DIGITS.items():
            if bits.startswith(code):
                digits.append(digit)
                bits = bits[len(code) :]
                break
        else:
            return None
    return int("".join(map(str, digits)))


def read(data):
    """What came: faults of framing, and of each stream its status and its body."""
    streams, faults, at = {}, [], 0
    while at + 9 <= len(data):
        length, kind, flags = int.from_bytes(data[at : at + 3], "big"), data[at + 3], data[at + 4]
        stream = struct.unpack(">I", data[at + 5 : at + 9])[0]
        payload = data[at + 9 : at + 9 + length]
        if length > 16_384 or kind > CONTINUATION:
            faults.append(f"a frame of the kind {kind} and {length} bytes")
            break
        at += 9 + length
        entry = streams.setdefault(stream, {"status": None, "body": b"", "ended": False})
        if kind == HEADERS and entry["status"] is None and not flags & 0x28:
            entry["status"] = read_status(payload)
        if kind == DATA:
            entry["body"] += payload
        if kind in (HEADERS, DATA) and flags & 1:
            entry["ended"] = True
    return streams, faults
