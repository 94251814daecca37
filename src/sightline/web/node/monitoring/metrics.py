"""`/metrics`, `/healthz` and `/readyz`: counters by rule, caller, destination and check. No name, no UID is a label."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, make_wsgi_app
from sqlalchemy import func, select

from sightline.errors import SightlineError
from sightline.web.node.configuration import MetricsListener, Tls
from sightline.web.node.database import Store, jobs, outbox, select_oldest_job
from sightline.web.node.spool import Spool

_SECONDS = (0.1, 0.3, 1, 3, 5, 10, 15, 30, 60, 120, 300, 3600, 6 * 3600, 48 * 3600)


class NodeMetrics:
    """All numbers of one node, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)

        def make_counter(name: str, words: str, *labels: str) -> Counter:
            return Counter(f"sightline_{name}", words, labels, registry=self.registry)

        def make_gauge(name: str, words: str, *labels: str) -> Gauge:
            return Gauge(f"sightline_{name}", words, labels, registry=self.registry)

        def make_histogram(name: str, words: str, *labels: str) -> Histogram:
            return Histogram(f"sightline_{name}", words, labels, registry=self.registry, buckets=_SECONDS)

        self.received = make_counter(
            "received_objects", "objects that are safe, by what they are", "caller", "protocol", "result"
        )
        self.received_bytes = make_counter("received_bytes", "bytes of them", "caller", "protocol")
        self.not_received = make_counter("not_received_objects", "objects that were not taken", "caller", "reason")
        self.rejected = make_counter("rejected_associations", "associations and connections refused", "reason")
        self.refused = make_counter("refused_images", "images that no finding is given for", "rule", "check")
        self.judged = make_counter("judged_studies", "jobs done", "rule")
        self.job_failures = make_counter("failed_jobs", "tries of jobs that failed", "rule", "last")
        self.judging = make_histogram("judging_seconds", "time of a job in the child process", "rule")
        self.sent = make_counter("sent_objects", "results that a destination has", "destination", "kind")
        self.send_failures = make_counter("failed_sends", "attempts that failed", "destination", "kind")
        self.not_taken = make_counter(
            "not_taken_objects", "results of a kind a destination does not take", "destination", "kind"
        )
        self.dead = make_counter("dead_objects", "results that were given up", "destination", "kind")
        self.delivery = make_histogram("delivery_seconds", "from a result made to a result sent", "destination")
        self.committed = make_counter("committed_objects", "results that a destination promised to keep", "destination")
        self.jobs = make_gauge("jobs", "jobs by state", "state")
        self.outbox = make_gauge("outbox_objects", "outbox rows by destination and state", "destination", "state")
        self.oldest = make_gauge("oldest_waiting_seconds", "age of the oldest job that has not ended")
        self.breaker = make_gauge("breaker_open", "1 where a destination is taken for dead", "destination")
        self.free = make_gauge("disk_free_bytes", "free bytes of the spool's disk")
        self.ready = make_gauge("ready", "1 where the node takes objects and judges them")
        self.plain = make_gauge("plain_listener", "1 where a listener has no TLS", "listener")
        self.certificate = make_gauge("certificate_days_left", "days until a certificate ends", "listener")
        self.drift = make_gauge(
            "drift_alarm", "1 where inputs or outputs moved for two windows", "rule", "measure", "against"
        )
        self.altered = make_counter(
            "altered_objects", "other bytes under a known UID: kept apart, look at them", "caller"
        )
        self.held = make_gauge("held_studies", "studies that a person must look at")


class Gauges:
    """Brings the gauges up to date.

    Args:
        metrics: the node's numbers.
        store: the node's database.
        spool: the node's files.
    """

    def __init__(self, metrics: NodeMetrics, store: Store, spool: Spool) -> None:
        self.metrics, self.store, self.spool = metrics, store, spool

    def update(self, held: int) -> None:
        """Count again; `held` is the number of held studies."""
        now = self.store.clock()
        with self.store.look() as db:
            query = select(jobs.c.state, func.count()).group_by(jobs.c.state)
            states: dict[str, int] = {row[0]: row[1] for row in db.execute(query)}
            columns = (outbox.c.destination, outbox.c.state)
            rows = db.execute(select(*columns, func.count()).group_by(*columns)).all()
            oldest = db.execute(select_oldest_job()).scalar()
        for state in ("waiting", "running", "failed", "done", "refused", "dead"):
            self.metrics.jobs.labels(state).set(states.get(state, 0))
        for destination, state, count in rows:
            self.metrics.outbox.labels(destination, state).set(count)
        gone = {(one[0], one[1]) for one in rows}
        for destination in {one[0] for one in rows}:
            for state in ("due", "sent", "committed", "not_taken", "dead"):
                if (destination, state) not in gone:
                    self.metrics.outbox.labels(destination, state).set(0)
        self.metrics.oldest.set(0.0 if oldest is None else max(0.0, now - oldest))
        self.metrics.free.set(self.spool.measure_free()[0])
        self.metrics.held.set(held)


def read_certificate_end(tls: Tls) -> float:
    """When the certificate of a listener ends, in seconds since 1970.

    Raises:
        SightlineError: it does not read.
    """
    from cryptography import x509

    try:
        ends = x509.load_pem_x509_certificate(Path(tls.certificate).read_bytes()).not_valid_after_utc
    except (OSError, ValueError) as error:
        raise SightlineError(f"{tls.certificate} is no PEM certificate ({error}).", "Give a PEM file.") from None
    return float(ends.timestamp())


def count_days_until(moment: float) -> float:
    """Days from now until a moment, below 0 after it."""
    return (moment - time.time()) / 86400.0


class MetricsServer:
    """Answers the three addresses from a thread of its own.

    Args:
        listener: as NODE.yaml says.
        metrics: the node's numbers.
        unready: why the node is not ready, or an empty text.

    Raises:
        SightlineError: the port is taken.
    """

    def __init__(self, listener: MetricsListener, metrics: NodeMetrics, unready: Callable[[], str]) -> None:
        numbers = make_wsgi_app(metrics.registry)

        def answer(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
            path = environ.get("PATH_INFO", "")
            if path == "/metrics":
                return numbers(environ, start)
            reason = unready() if path == "/readyz" else ""
            known = path in ("/healthz", "/readyz")
            status = "404 Not Found" if not known else "503 Service Unavailable" if reason else "200 OK"
            start(status, [("Content-Type", "text/plain; charset=utf-8")])
            return [(reason or ("ok" if known else "not found")).encode() + b"\n"]

        try:
            self._server = make_server(listener.address, listener.port, answer, _ThreadedServer, _SilentRequestHandler)
        except OSError as error:
            raise SightlineError(
                f"metrics: {listener.address}:{listener.port} cannot be listened on ({error}).", "Choose another port."
            ) from None
        threading.Thread(target=self._server.serve_forever, name="metrics listener", daemon=True).start()

    def stop(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()


class _ThreadedServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _SilentRequestHandler(WSGIRequestHandler):
    timeout = 10

    def log_message(self, format: str, *args: Any) -> None:
        logging.getLogger("sightline.node").debug("metrics asked")
