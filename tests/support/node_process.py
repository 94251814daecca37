"""Nodes of processes of their own, with the child of tests: imports are done once, each node is a fork.

`node_process.py` reads lines `NODE.yaml<tab>LOG` and forks a node for each. It prints `pid N` and, when the node has
ended, `ended STATUS`; the node prints `ready` between them. A node that is killed dies as any process does, and the
next start costs no imports.
"""

import ctypes
import os
import signal
import sys
import threading
import traceback
from pathlib import Path

from sightline.web.node.configuration import read_configuration
from sightline.web.node.monitoring.logs import start_logging
from sightline.web.node.service import Node
from support.nodes import CHILD


def serve(config, log):
    """One node until SIGTERM; everything it says goes to its log."""
    die_with_parent()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), 2)
    start_logging()
    end = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: end.set())
    node = Node(read_configuration(Path(config)), child=CHILD, pace_s=0.02)
    node.start()
    print("ready", flush=True)
    end.wait()
    node.stop()


def die_with_parent():
    """A node without what forked it, and that without its test, have nothing to do."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def main():
    die_with_parent()
    for line in sys.stdin:
        config, log = line.rstrip("\n").split("\t")
        pid = os.fork()
        if pid == 0:
            try:
                serve(config, log)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        print(f"pid {pid}", flush=True)
        print(f"ended {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}", flush=True)


if __name__ == "__main__":
    main()
