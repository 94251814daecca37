"""The node put together: listeners, planner, workers, dispatchers, commitment, cleaning; its start and its end."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError

from sightline.errors import SightlineError
from sightline.inference.gate.gate_file import Gate, read_gate, read_weights_digest
from sightline.inference.onnx.model_file import FOLDER, find_export, read_facts
from sightline.web.node.configuration import Configuration, DicomDestination
from sightline.web.node.database import Store, readings, studies
from sightline.web.node.delivery.cleaning import Cleaner
from sightline.web.node.delivery.commitment import CommitmentAnswers, CommitmentQuestions, resume_questions, take_answer
from sightline.web.node.delivery.dispatch import DeliveryEvents, Dispatcher
from sightline.web.node.delivery.senders import Sender, StoreScu, StowClient
from sightline.web.node.intake.acceptance import AcceptedObject, Intake, Origin
from sightline.web.node.intake.storage_scp import ScpEvents, StorageScp, build_server_tls
from sightline.web.node.jobs.planning import Planner
from sightline.web.node.jobs.worker import Worker, WorkEvents, resume_jobs
from sightline.web.node.monitoring.logs import Pseudonyms, start_logging
from sightline.web.node.monitoring.metrics import (
    Gauges,
    MetricsServer,
    NodeMetrics,
    count_days_until,
    read_certificate_end,
)
from sightline.web.node.spool import Spool

LOG = logging.getLogger("sightline.node")
CHILD = (sys.executable, "-m", "sightline.web.node.jobs.judge")
# clocks that are years off would give results dates that no archive can sort
EARLIEST, LATEST = 1_735_689_600.0, 4_102_444_800.0  # 2025, 2100
RUN_CHECK_S, CLEAN_S, GAUGES_S, DRIFT_FIRST_S, DRIFT_S = 300.0, 600.0, 5.0, 120.0, 3600.0
STOP_S = 60.0


class Node:
    """One running node.

    Args:
        configuration: NODE.yaml.
        child: what starts a child process.
        clock: seconds since 1970.
        pace_s: pause between two looks for work.
        ahead: start child processes with the node, not with the first study: imports and the runs' opening take
            seconds, on a busy machine many.

    Raises:
        SightlineError: whatever makes it impossible to serve: a run without gate, a clock that is years off, ...
    """

    def __init__(
        self,
        configuration: Configuration,
        child: Sequence[str],
        clock: Callable[[], float] = time.time,
        pace_s: float = 0.2,
        ahead: bool = False,
    ) -> None:
        self.configuration, self.clock, self.pace_s = configuration, clock, pace_s
        if not EARLIEST <= clock() <= LATEST:
            raise SightlineError(f"The clock says {time.ctime(clock())}.", "Set the clock (NTP) before serving.")
        self.gates = read_gates(configuration)
        self._weights = {rule.run: read_weights_digest(rule.run) for rule in configuration.rules}
        self.spool = Spool(configuration.keep, configuration.least_free, configuration.least_free_share)
        self._lock = _hold_keep(configuration.keep)
        self.spool.empty_scratch()
        self.store = Store(configuration.keep / "node.sqlite", clock)
        self.pseudonyms = Pseudonyms(configuration.keep / "log.key")
        self.metrics = NodeMetrics()
        self.intake = Intake(self.store, self.spool)
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._unready = "starting"
        self._run_trouble = ""
        destinations = configuration.destinations
        self.answers = CommitmentAnswers(
            self.store, destinations, configuration.dicom.aet, lambda sha256: self.spool.path(sha256).exists()
        )
        self.scp = StorageScp(configuration.dicom, self.intake, self._build_scp_events())
        self.planner = Planner(configuration, self.store, self.gates)
        self.cleaner = Cleaner(configuration, self.store, self.spool)
        self.gauges = Gauges(self.metrics, self.store, self.spool)
        work = WorkEvents(self._on_judged, self._on_refused, self._on_job_failed)
        self.workers = [
            Worker(configuration, self.store, self.spool, work, child, ahead=ahead)
            for _ in range(configuration.workers)
        ]
        delivery = DeliveryEvents(self._on_sent, self._send_failed, self._on_dead, self._on_not_taken)
        self.dispatchers = {
            name: Dispatcher(name, self._build_sender(name), self.store, self.spool, delivery) for name in destinations
        }
        self._web: Any = None
        self._metrics_server: MetricsServer | None = None

    def start(self) -> None:
        """Open the listeners; returns when the node serves.

        Raises:
            SightlineError: a port is taken, a certificate or token does not load.
        """
        resumed = resume_jobs(self.store)
        resume_questions(self.store)
        self._check_tls()
        self._metrics_server = MetricsServer(self.configuration.metrics, self.metrics, lambda: self.unready)
        try:
            self.scp.start()
            self._start_web()
        except SightlineError:
            self._metrics_server.stop()
            self.scp.stop(0.0)
            raise
        self.answers.start()
        self._run("planner", self._plan, self.pace_s)
        for number, worker in enumerate(self.workers):
            self._run(f"worker {number}", worker.work_once, self.pace_s)
        for name, dispatcher in self.dispatchers.items():
            self._run(f"to {name}", dispatcher.send_due, self.pace_s)
        for name, one in self.configuration.destinations.items():
            if isinstance(one, DicomDestination) and one.commit:
                questions = CommitmentQuestions(name, one, self.configuration.dicom.aet, self.store)
                self._run(f"commitment of {name}", questions.ask, 1.0)
        self._run("cleaner", self.cleaner.clean, CLEAN_S)
        self._run("run check", self._check_runs, RUN_CHECK_S)
        self._run("gauges", self._update_gauges, GAUGES_S)
        self._run("drift", self._watch_drift, DRIFT_S, first_after_s=DRIFT_FIRST_S)
        self._unready = ""
        LOG.info("serving", extra={"port": self.scp.port, "count": resumed})

    @property
    def unready(self) -> str:
        """Why the node is not ready, or an empty text."""
        if self._unready or self._run_trouble:
            return self._unready or self._run_trouble
        # one worker that can judge is enough
        troubles = [worker.trouble for worker in self.workers]
        if troubles and all(troubles):
            return troubles[0]
        return "" if self.spool.has_room() else "the disk is low"

    def stop(self) -> None:
        """Take nothing new, let running jobs end within a minute, keep everything else for the next start."""
        self._unready = "stopping"
        LOG.info("stopping")
        self._stopping.set()
        self.scp.stop()
        if self._web is not None:
            self._web.should_exit = True
        until = time.monotonic() + STOP_S
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        for worker in self.workers:
            worker.child.stop()
        self.answers.stop()
        if self._metrics_server is not None:
            self._metrics_server.stop()
        self.store.close()
        self._lock.release()
        LOG.info("stopped")

    def _run(self, name: str, step: Callable[[], Any], pause_s: float, first_after_s: float = 0.0) -> None:
        """Repeat a step until the node stops; while it finds work there is no pause. Nothing it raises ends it."""

        def run_loop() -> None:
            self._stopping.wait(first_after_s)
            while not self._stopping.is_set():
                try:
                    found = step()
                except (DBAPIError, OSError) as error:
                    # a locked database, a full or read-only disk: it goes on by itself when that is over
                    LOG.error("step failed", extra={"error": type(error).__name__, "reason": name})
                    found = None
                except Exception:  # a step must never end its thread: the node would look alive and do nothing
                    LOG.exception("step failed", extra={"reason": name})
                    found = None
                # True and counts of the short loops mean that there may be more to do at once
                if not (found and pause_s < 1.0):
                    self._stopping.wait(pause_s)

        thread = threading.Thread(target=run_loop, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _plan(self) -> None:
        for rule, check, _ in self.planner.settle():
            self.metrics.refused.labels(rule, check).inc()

    def _update_gauges(self) -> None:
        with self.store.look() as db:
            query = select(func.count()).select_from(studies).where(studies.c.state == "held")
            self.gauges.update(int(db.execute(query).scalar_one()))
        for name, dispatcher in self.dispatchers.items():
            self.metrics.breaker.labels(name).set(dispatcher.breaker.open)
        self.metrics.ready.set(not self.unready)

    def _watch_drift(self) -> None:
        with self.store.look() as db:
            if db.execute(select(readings.c.id).limit(1)).first() is None:
                return
        # its imports take seconds, in which the listeners would have to wait for the interpreter
        from sightline.web.node.monitoring.drift_watch import watch_rule

        for rule, gate in self.gates.items():
            for watched in watch_rule(self.store, rule, gate):
                for measure in {one.measure for _, drift in watched.windows for one in drift}:
                    self.metrics.drift.labels(rule, measure, watched.against).set(measure in watched.moved)

    def _check_runs(self) -> None:
        """Where a run is exchanged while it is served, the node goes unready; the child's own check fails its jobs."""
        trouble = ""
        for run, digest in self._weights.items():
            try:
                if read_weights_digest(run) != digest:
                    trouble = "a run was exchanged while it is served"
            except (SightlineError, OSError):
                trouble = "a run cannot be read"
        self._run_trouble = trouble

    def _check_tls(self) -> None:
        listeners = {"dicom": self.configuration.dicom, "dicomweb": self.configuration.dicomweb}
        for word, listener in listeners.items():
            if listener is None:
                continue
            self.metrics.plain.labels(word).set(listener.tls is None)
            if listener.tls is None:
                LOG.warning("a listener without TLS", extra={"listener": word})
                continue
            build_server_tls(listener.tls)
            # of what is served until the node ends, whatever lies in the file by then
            ends = read_certificate_end(listener.tls)
            days = count_days_until(ends)
            if days < 0:
                raise SightlineError(
                    f"{listener.tls.certificate} ended {-days:.0f} days ago.", "Renew the certificate."
                )
            self.metrics.certificate.labels(word).set_function(partial(count_days_until, ends))

    def _start_web(self) -> None:
        listener = self.configuration.dicomweb
        if listener is None:
            return
        import uvicorn

        from sightline.web.node.intake.dicomweb import build_app

        app = build_app(listener, self.intake, self._on_received, self._on_not_received)
        settings: dict[str, Any] = {}
        if listener.tls is not None:
            settings = {"ssl_certfile": str(listener.tls.certificate), "ssl_keyfile": str(listener.tls.key)}
            if listener.tls.clients is not None:
                settings |= {"ssl_ca_certs": str(listener.tls.clients), "ssl_cert_reqs": 2}
        web = uvicorn.Server(
            uvicorn.Config(
                app, host=listener.address, port=listener.port, log_config=None, access_log=False, server_header=False,
                limit_concurrency=64, timeout_keep_alive=5, lifespan="off", **settings,
            )
        )  # fmt: skip
        web.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        self._web = web
        thread = threading.Thread(target=web.run, name="dicomweb listener", daemon=True)
        thread.start()
        until = time.monotonic() + 15.0
        while not web.started:
            if not thread.is_alive() or time.monotonic() > until:
                raise SightlineError(
                    f"dicomweb: {listener.address}:{listener.port} cannot be listened on.", "Choose another port."
                )
            time.sleep(0.02)

    def _build_sender(self, name: str) -> Sender:
        one = self.configuration.destinations[name]
        return StoreScu(one, self.configuration.dicom.aet) if isinstance(one, DicomDestination) else StowClient(one)

    def _build_scp_events(self) -> ScpEvents:
        def on_rejected(reason: str) -> None:
            self.metrics.rejected.labels(reason).inc()

        def on_answered(transaction: str, committed: list[str], failed: list[str]) -> None:
            for one in take_answer(self.store, transaction, committed, failed):
                if one.state == "committed":
                    self.metrics.committed.labels(one.destination).inc()
                elif one.state == "dead":
                    self._on_dead(one.destination, one.kind)
                else:
                    self._send_failed(one.destination, one.kind)

        return ScpEvents(self._on_received, self._on_not_received, on_rejected, self.answers.ask, on_answered)

    def _on_received(self, accepted: AcceptedObject, origin: Origin) -> None:
        self.metrics.received.labels(origin.caller, origin.protocol, accepted.result).inc()
        self.metrics.received_bytes.labels(origin.caller, origin.protocol).inc(accepted.bytes)
        if accepted.result == "altered":
            self.metrics.altered.labels(origin.caller).inc()
            about = {"object": self.pseudonyms.of(accepted.sop_uid), "caller": origin.caller}
            LOG.error("other bytes under a known UID", extra=about)

    def _on_not_received(self, reason: str, caller: str) -> None:
        self.metrics.not_received.labels(caller, reason).inc()

    def _on_judged(self, rule: str, seconds: float) -> None:
        self.metrics.judged.labels(rule).inc()
        self.metrics.judging.labels(rule).observe(seconds)

    def _on_refused(self, rule: str, check: str, _reason: str) -> None:
        self.metrics.refused.labels(rule, check).inc()

    def _on_job_failed(self, rule: str, last: bool) -> None:
        self.metrics.job_failures.labels(rule, str(last).lower()).inc()

    def _on_sent(self, destination: str, kind: str, seconds: float) -> None:
        self.metrics.sent.labels(destination, kind).inc()
        self.metrics.delivery.labels(destination).observe(seconds)

    def _send_failed(self, destination: str, kind: str) -> None:
        self.metrics.send_failures.labels(destination, kind).inc()

    def _on_dead(self, destination: str, kind: str) -> None:
        self.metrics.dead.labels(destination, kind).inc()
        LOG.error("a result was given up", extra={"destination": destination, "kind": kind})

    def _on_not_taken(self, destination: str, kind: str) -> None:
        self.metrics.not_taken.labels(destination, kind).inc()


def read_gates(configuration: Configuration) -> dict[str, Gate]:
    """The gate of each rule's run, by the rule's name.

    Raises:
        RunError: a run without gate, or whose gate was made for other weights; with `engine: onnx` also one without
            graph.
    """
    for rule in configuration.rules if configuration.engine == "onnx" else ():
        read_facts(find_export(rule.run) or rule.run / FOLDER)
    return {configuration.rule_name(i): read_gate(rule.run) for i, rule in enumerate(configuration.rules)}


def _hold_keep(keep: Path) -> FileLock:
    """Hold the lock of a keep folder; the system lets go of it when the process dies, however it dies."""
    # the thread that stops a node may be another than the one that started it
    lock = FileLock(keep / "node.lock", timeout=0, mode=0o600, thread_local=False)
    try:
        lock.acquire()
    except OSError:
        raise SightlineError(
            f"{keep} is used by another node.", "Stop it, or give this one a keep of its own."
        ) from None
    return lock


def serve(configuration: Configuration) -> int:
    """Serve until SIGTERM or SIGINT; the exit status."""
    start_logging()
    end = threading.Event()
    for word in (signal.SIGTERM, signal.SIGINT):
        signal.signal(word, lambda *_: end.set())
    node = Node(configuration, CHILD, ahead=True)
    node.start()
    end.wait()
    node.stop()
    return 0
