"""Uploads a file with tuspy through a proxy that cuts connections.

Usage: tus_through_cuts.py HOST:PORT FILE

Prints the address of the upload and how often it was cut, as JSON.
"""

import json
import os
import socket
import sys
import threading

from tusclient import client
from tusclient.exceptions import TusCommunicationError

CHUNK_BYTES = 2_500_000
# A connection is cut when clients have sent this many bytes in all. Behind the last one everything passes.
CUTS_BYTES = [300, 300_000, 1_500_000, 1_500_010, 4_200_000, 6_000_000, 9_000_000, 9_700_000, 15_000_000, 19_000_000]
# Of these connections what the client sends passes, and the answer is lost.
LOST_ANSWERS = [3, 9, 14]
MAX_ATTEMPTS = 100


class CuttingProxy:
    """Passes connections on to a server, and cuts them."""

    def __init__(self, server):
        self.server = server
        self.cuts = 0
        self.passed_bytes = 0
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        number = 0
        while True:
            client_side, _ = self.listener.accept()
            server_side = socket.create_connection(self.server)
            number += 1
            is_lost = number in LOST_ANSWERS
            threading.Thread(target=self.pass_on, args=(client_side, server_side, self.allowed), daemon=True).start()
            answers = self.none if is_lost else len
            threading.Thread(target=self.pass_on, args=(server_side, client_side, answers), daemon=True).start()

    def allowed(self, data):
        """How many of these bytes of a client may pass."""
        with self.lock:
            before = self.passed_bytes
            cut = next((cut for cut in CUTS_BYTES if before < cut), None)
            self.passed_bytes += len(data) if cut is None else min(len(data), cut - before)
            return self.passed_bytes - before

    @staticmethod
    def none(_data):
        return 0

    def pass_on(self, source, target, allowed):
        try:
            while data := source.recv(65536):
                passing = allowed(data)
                target.sendall(data[:passing])
                if passing < len(data):
                    with self.lock:
                        self.cuts += 1
                    break
        except OSError:
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def main():
    host, port = sys.argv[1].rsplit(":", 1)
    path = sys.argv[2]
    proxy = CuttingProxy((host, int(port)))
    tus = client.TusClient(f"http://{proxy.address}/v1/tus")
    metadata = {"filename": os.path.basename(path)}
    address = None
    for attempt in range(MAX_ATTEMPTS):
        try:
            # With a checksum, a chunk that is cut counts for nothing.
            has_checksum = attempt % 2 == 1
            uploader = tus.uploader(
                path, chunk_size=CHUNK_BYTES, metadata=metadata, url=address, upload_checksum=has_checksum
            )
            if address is None:
                # Kept, to go on there when the first chunk is cut.
                address = uploader.create_url()
                uploader.set_url(address)
            uploader.upload()
            break
        except (TusCommunicationError, OSError):
            continue
    else:
        sys.exit("the upload did not get through")
    print(json.dumps({"address": address, "cuts": proxy.cuts}))


if __name__ == "__main__":
    main()
