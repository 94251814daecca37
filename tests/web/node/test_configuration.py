"""NODE.yaml: what is understood, and that every fault is named with its line."""

import pytest
import yaml
from support.nodes import settings, write_settings

from sightline.web.node.configuration import ConfigurationError, is_near, parse_bytes, read_configuration

TLS = {"certificate": "NODE.yaml", "key": "NODE.yaml"}


def refusal(folder, plain):
    with pytest.raises(ConfigurationError) as caught:
        read_configuration(write_settings(folder, plain))
    return caught.value.message


def test_the_example_of_the_specification_is_read(tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text("modality a-token-of-enough-letters\n")
    tokens.chmod(0o600)
    for name in ("cert.pem", "key.pem", "ca.pem", "vna.token"):
        (tmp_path / name).write_text("x")
        (tmp_path / name).chmod(0o600)
    text = """
name: sightline-1
keep: keep
dicom: {aet: SIGHTLINE, address: 0.0.0.0, port: 11112, tls: {certificate: cert.pem, key: key.pem, clients: ca.pem},
        callers: {PACS1: [10.1.2.3], MOD7: [10.1.2.0/24]}, most_associations: 16, most_bytes: 512 MiB}
dicomweb: {address: 127.0.0.1, port: 8104, plain: true, tokens: tokens}
destinations:
  pacs: {kind: dicom, aet: PACS1, address: 10.1.2.3, port: 104, commit: true}
  vna:  {kind: dicomweb, url: https://vna/dicom-web, token_file: vna.token}
rules:
  - when: {modality: [CR, DX], body_part: [WRIST, HAND], view: [PA, AP, LAT, ""], age: 16-, caller: [PACS1]}
    run: runs/wrist
    send: {to: [pacs], objects: [findings, marks, picture]}
settle_s: 60
"""
    path = tmp_path / "NODE.yaml"
    path.write_text(text)
    read = read_configuration(path)
    assert read.dicom.most_bytes == 512 * 2**20
    assert read.rules[0].when.age_range() == (16.0, float("inf"))
    assert read.rules[0].when.view == ("PA", "AP", "LAT", "")
    assert read.destinations["vna"].read_token() == "x"
    # relative paths are beside NODE.yaml, wherever the node is started
    assert read.keep == tmp_path / "keep"
    assert read.rules[0].run == tmp_path / "runs" / "wrist"


@pytest.mark.parametrize(
    ("edit", "line_of", "words"),
    [
        (lambda p: p.update(setle_s=3), "setle_s", "unknown word setle_s"),
        (lambda p: p["dicom"].update(prot=1), "prot", "unknown word dicom.prot"),
        (lambda p: p["dicom"].update(port=70000), "port: 70000", "less than or equal to 65535"),
        (lambda p: p["dicom"].update(aet="A" * 17), "aet", "1 to 16"),
        (lambda p: p["dicom"].update(address="0.0.0.0"), "address", "loopback or private"),
        (lambda p: p["dicom"].pop("plain"), "dicom:", "plain: true"),
        (lambda p: p["dicom"]["callers"].update(MOD=["10.1.2"]), "MOD", "no address or network"),
        (lambda p: p["rules"][0]["when"].update(age="old"), "when", "16-, -17 or 18-65"),
        (lambda p: p["rules"][0]["send"].update(to=["vna"]), "send", "no destination is called 'vna'"),
        (lambda p: p["rules"][0]["send"].update(objects=["pdf"]), "pdf", "objects"),
        (lambda p: p["rules"].append(p["rules"][0]), "", "two rules are called"),
        (lambda p: p.update(rules=[]), "rules", "at least 1"),
        (lambda p: p.update(workers=10**6), "workers", "less than or equal to"),
        (lambda p: p.update(settle_s=float("inf")), "settle_s", "finite number"),
        (lambda p: p.update(name="a/b"), "name", "pattern"),
        (lambda p: p.pop("keep"), "", "keep is missing"),
        (
            lambda p: p.update(destinations={"far": {"kind": "dicom", "aet": "A", "address": "8.8.8.8", "port": 104}}),
            "far:",
            "has no tls",
        ),
        (
            lambda p: p.update(
                destinations={"far": {"kind": "dicom", "aet": "A", "address": "10.0.0.1", "port": 104, "tls": TLS}}
            ),
            "far:",
            "tls has no clients",
        ),
        (
            lambda p: p.update(destinations={"far": {"kind": "dicomweb", "url": "http://vna.example/x"}}),
            "far:",
            "not https",
        ),
        (
            lambda p: p.update(destinations={"far": {"kind": "ftp", "url": "x"}}),
            "far:",
            "kind",
        ),
    ],
)
def test_each_fault_is_named_with_its_line(tmp_path, edit, line_of, words):
    plain = settings(tmp_path)
    edit(plain)
    message = refusal(tmp_path, plain)
    assert words in message
    lines = (tmp_path / "NODE.yaml").read_text().splitlines()
    if line_of:
        number = next(i for i, line in enumerate(lines, 1) if line_of in line)
        assert f"line {number}:" in message, (message, lines)


def test_a_word_that_stands_twice_is_refused(tmp_path):
    path = write_settings(tmp_path, settings(tmp_path))
    path.write_text(path.read_text() + "name: again\n")
    with pytest.raises(ConfigurationError, match="'name' stands twice"):
        read_configuration(path)


def test_what_is_no_yaml_or_no_mapping_is_refused(tmp_path):
    path = tmp_path / "NODE.yaml"
    for text, words in (
        ("a: [", "not YAML"), ("- 1", "no words"), ("", "no words"), ("name: 2020-13-45", "line 1: .*month must be"),
        ("a: &a [*a]", "holds itself"), ("workers: 0x" + "F" * 9999, "a number of"), ("[" * 60 + "]" * 60, "40 places"),
    ):  # fmt: skip
        path.write_text(text)
        with pytest.raises(ConfigurationError, match=words):
            read_configuration(path)
    with pytest.raises(ConfigurationError, match="is missing"):
        read_configuration(tmp_path / "absent")


def test_secrets_that_anybody_can_read_are_refused(tmp_path):
    plain = settings(tmp_path)
    plain["dicomweb"] = {"plain": True, "tokens": str(tmp_path / "tokens")}
    read_configuration(write_settings(tmp_path, plain))
    (tmp_path / "tokens").chmod(0o644)
    assert "chmod 600" in refusal(tmp_path, plain)
    (tmp_path / "tokens").chmod(0o600)
    files = {name: tmp_path / f"{name}.pem" for name in ("certificate", "key", "clients")}
    for file in files.values():
        file.touch(0o644)
    tls = {name: str(file) for name, file in files.items()}
    far = {"kind": "dicom", "aet": "A", "address": "10.0.0.1", "port": 104, "tls": tls}
    for place in ({"dicom": plain["dicom"] | {"tls": tls}}, {"destinations": {"far": far}}):
        files["key"].chmod(0o640)
        read_configuration(write_settings(tmp_path, plain | place))
        files["key"].chmod(0o644)
        assert "key.pem can be read by anybody; chmod 600" in refusal(tmp_path, plain | place)


def test_yaml_never_makes_objects(tmp_path):
    path = write_settings(tmp_path, settings(tmp_path))
    path.write_text(path.read_text().replace("name: test", "name: !!python/object/apply:os.getcwd []"))
    with pytest.raises(ConfigurationError, match="not YAML"):
        read_configuration(path)


def test_bytes_and_addresses():
    assert [parse_bytes(text) for text in ("512 MiB", "2GB", "1.5 kB", "7")] == [512 * 2**20, 2 * 10**9, 1500, 7]
    assert parse_bytes("many") == "many"
    near = ("127.0.0.1", "10.1.2.3", "192.168.0.1", "localhost", "::1")
    assert all(is_near(one) for one in near)
    assert not any(is_near(one) for one in ("0.0.0.0", "8.8.8.8", "pacs.example", "::"))


def test_docs_show_every_word():
    """docs/node.md lists every word of NODE.yaml."""
    from pydantic import BaseModel
    from support.paths import ROOT

    from sightline.web.node import configuration

    words = set()
    for thing in vars(configuration).values():
        if isinstance(thing, type) and issubclass(thing, BaseModel) and thing.__module__ == configuration.__name__:
            words |= set(thing.model_fields)
    page = (ROOT / "docs" / "node.md").read_text(encoding="utf-8")
    missing = sorted(word for word in words if f"`{word}`" not in page)
    assert missing == []
    example = page.split("```yaml")[1].split("```")[0]
    assert set(yaml.safe_load(example)) <= set(configuration.Configuration.model_fields)
