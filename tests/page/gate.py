"""A way to a server that lets some bytes of uploads through, and then waits or breaks."""

import socket
import threading


class Gate:
    """Passes connections on. Bytes of clients are counted over all connections; what is beyond a limit waits until the gate is
    opened. Answers always pass."""

    def __init__(self, server: str) -> None:
        host, _, port = server.rpartition(":")
        self.server = (host, int(port))
        self.limit = None
        self.passed_bytes = 0
        self.changed = threading.Condition()
        self.connections = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def hold_after(self, size: int) -> None:
        """Holds what comes after this many bytes from now on."""
        with self.changed:
            self.limit = self.passed_bytes + size
            self.changed.notify_all()

    def open(self) -> None:
        """Lets everything through."""
        with self.changed:
            self.limit = None
            self.changed.notify_all()

    def cut(self) -> None:
        """Breaks all connections that are open."""
        with self.changed:
            connections, self.connections = self.connections, []
        for connection in connections:
            for end in connection:
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def wait_until_held(self, seconds: float = 30) -> None:
        with self.changed:
            is_held = self.changed.wait_for(lambda: self.limit is not None and self.passed_bytes >= self.limit, seconds)
            assert is_held, "the upload did not come as far"

    def _accept(self) -> None:
        while True:
            client, _ = self.listener.accept()
            try:
                server = socket.create_connection(self.server)
            except OSError:
                client.close()
                continue
            with self.changed:
                self.connections.append((client, server))
            threading.Thread(target=self._pass_on, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._pass_on, args=(server, client, False), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, counts: bool) -> None:
        try:
            while data := source.recv(1 << 16):
                # Small requests always pass, so that the page still hears of its job.
                if counts and len(data) > 8192:
                    self._wait_for(len(data))
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _wait_for(self, size: int) -> None:
        with self.changed:
            self.changed.wait_for(lambda: self.limit is None or self.passed_bytes < self.limit)
            self.passed_bytes += size
            self.changed.notify_all()
