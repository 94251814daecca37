"""No name, id or UID in a line of the log, not in that of an exception either."""

import io
import json
import logging
import warnings

from sightline.web.node.monitoring.logs import FIELDS, JsonLines, Pseudonyms, start_logging


def lines_of(act):
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    log = logging.getLogger("sightline.node.test")
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.INFO)
    act(log)
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_only_named_fields_stand_in_a_line():
    (line,) = lines_of(lambda log: log.info("x", extra={"job": 3, "patient": "Planted^Name"}))
    assert set(line) <= {"at", "level", "message", *FIELDS}
    assert line["job"] == 3 and "Planted" not in json.dumps(line)


def test_an_exception_says_type_and_place_and_no_text():
    def act(log):
        try:
            raise ValueError("Planted^Name 1.2.3")
        except ValueError:
            log.exception("failed")

    (line,) = lines_of(act)
    assert line["exception"] == "ValueError" and line["where"][-1].startswith("test_logs.py:")
    assert "Planted" not in json.dumps(line) and "1.2.3" not in json.dumps(line)


def test_a_warning_of_a_library_says_kind_and_place_and_no_text(monkeypatch):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    stream = io.StringIO()
    monkeypatch.setattr(warnings, "showwarning", None)
    start_logging(stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("Invalid value for VR DA: 'Planted^Name'", UserWarning, stacklevel=1)
    (line,) = stream.getvalue().splitlines()
    assert "Planted" not in line and json.loads(line)["error"] == "UserWarning"


def test_lines_cannot_be_broken():
    (line,) = lines_of(lambda log: log.info("a\nb", extra={"reason": '"}\n{'}))
    assert line["message"] == "a\nb" and line["reason"] == '"}\n{'


def test_pseudonyms_are_the_same_for_one_node_and_another_for_the_next(tmp_path):
    one, again, other = (Pseudonyms(tmp_path / name) for name in ("a", "a", "b"))
    assert one.of("1.2.3") == again.of("1.2.3") != other.of("1.2.3")
    assert one.of("1.2.3") != one.of("1.2.4") and len(one.of("1.2.3")) == 12
    assert (tmp_path / "a").stat().st_mode & 0o077 == 0
