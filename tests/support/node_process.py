"""A node of its own process with the child of tests: `node_process.py NODE.yaml`; prints `ready` when it serves."""

import signal
import sys
import threading
from pathlib import Path

from sightline.web.node.configuration import read_configuration
from sightline.web.node.monitoring.logs import start_logging
from sightline.web.node.service import Node
from support.nodes import CHILD

if __name__ == "__main__":
    start_logging()
    end = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: end.set())
    node = Node(read_configuration(Path(sys.argv[1])), child=CHILD, pace_s=0.02)
    node.start()
    print("ready", flush=True)
    end.wait()
    node.stop()
