"""A proxy of one TCP port that cuts, hangs, slows and turns away: a bad network between a node and a PACS."""

import socket
import threading
import time

from support.pacs import free_port


class Proxy:
    """Passes bytes on to a port of this machine, in one of several moods.

    Moods: `good`; `away` (connections are closed at once); `cut` (closed after `after` bytes of the client); `hang`
    (what comes is taken, nothing is answered); `slow` (a pause before each piece).
    """

    def __init__(self, target, mood="good", after=3000):
        self.target, self.mood, self.after = target, mood, after
        self.port, self.connections = free_port(), 0
        self._open = True
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=50)
        threading.Thread(target=self._accept, daemon=True).start()

    def destination(self, aet, **words):
        return {"kind": "dicom", "aet": aet, "address": "127.0.0.1", "port": self.port, **words}

    def close(self):
        self._open = False
        self._listener.close()

    def _accept(self):
        while self._open:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(client, self.mood), daemon=True).start()

    def _serve(self, client, mood):
        with client:
            if mood == "away":
                return
            if mood == "hang":
                while client.recv(65536):
                    pass
                return
            with socket.create_connection(("127.0.0.1", self.target)) as server:
                there = threading.Thread(target=self._pass, args=(client, server, mood), daemon=True)
                there.start()
                self._pass(server, client, "good" if mood == "cut" else mood)
                there.join(5)

    def _pass(self, source, sink, mood):
        passed = 0
        try:
            while piece := source.recv(4096):
                if mood == "slow":
                    time.sleep(0.05)
                passed += len(piece)
                if mood == "cut" and passed > self.after:
                    break
                sink.sendall(piece)
        except OSError:
            pass
        for one in (source, sink):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
