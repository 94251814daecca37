"""Results of real radiographs in all encodings, and through a PACS and back."""

import io
import subprocess

import numpy as np
import pydicom
import pytest
from support.dicom_sources import radiograph, whole_result
from support.dicom_tools import dciodvfy, dcmpschk, require_program
from support.pacs import orthanc, request
from support.paths import DATA

from sightline.io.dicom_results.header import build_source_image
from sightline.io.dicom_results.identity import encode_dicom
from sightline.io.dicom_results.objects import make_objects, write_objects

FOLDER = DATA / "dicom" / "radiographs"
real = pytest.mark.skipif(not FOLDER.is_dir(), reason="the sample radiographs are not here (SIGHTLINE_DATA)")
NAMES = ("RG2_UNC", "RG2_RLE", "RG2_J2KR", "RG2_JPLL", "RG2_JLSN", "RG2_JPLY", "RG3_J2KR")


@real
@pytest.mark.parametrize("name", NAMES)
def test_real_radiographs_in_all_encodings(name, tmp_path):
    file = FOLDER / f"{name}.dcm"
    objects = make_objects(whole_result(build_source_image(pydicom.dcmread(file), file), picture=name == "RG2_UNC"))
    for path in write_objects(objects, tmp_path):
        assert dciodvfy(path).errors == (), path.name
        if path.name.startswith("states"):
            assert dcmpschk(path)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with orthanc(tmp_path_factory.mktemp("orthanc") / "pacs") as running:
        yield running


def stow(server, objects):
    """Store by STOW-RS; how many the server says it has."""
    from dicomweb_client.api import DICOMwebClient

    client = DICOMwebClient(server.web, headers=dict(request("http://x").header_items()))
    answer = client.store_instances([pydicom.dcmread(io.BytesIO(encode_dicom(o))) for o in objects])
    return len(answer.ReferencedSOPSequence)


def same(stored, sent):
    """Whether two files hold the same elements."""
    a, b = pydicom.dcmread(io.BytesIO(stored)), pydicom.dcmread(io.BytesIO(sent))
    return a == b


def test_stored_by_stow_and_read_back_equal(server):
    objects = make_objects(whole_result(build_source_image(radiograph(64, 50, seed=3))))
    assert stow(server, objects) == len(objects)
    for made in objects:
        assert same(server.instance(made.SOPInstanceUID), encode_dicom(made))


def test_sent_twice_they_are_there_once(server):
    source = radiograph(64, 50, seed=4)
    before = server.json("/statistics")["CountInstances"]
    for _ in range(2):
        stow(server, make_objects(whole_result(build_source_image(source))))
    assert server.json("/statistics")["CountInstances"] == before + 6


@pytest.mark.parametrize("program", ["storescu", "dcmsend"])
def test_stored_by_c_store_and_read_back_equal(program, server, tmp_path):
    seed = {"storescu": 5, "dcmsend": 6}[program]
    objects = make_objects(whole_result(build_source_image(radiograph(64, 50, seed=seed))))
    paths = write_objects(objects, tmp_path)
    # storescu's own list of classes ends before parametric maps
    options = ["-R"] if program == "storescu" else []
    command = [require_program(program), *options, "-aec", server.aet, "127.0.0.1", str(server.port), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for made in objects:
        assert same(server.instance(made.SOPInstanceUID), encode_dicom(made))


def test_stored_by_pynetdicom(server):
    from pynetdicom import AE

    objects = make_objects(whole_result(build_source_image(radiograph(64, 50, seed=7))))
    entity = AE(ae_title="SIGHTLINE")
    for made in objects:
        entity.add_requested_context(made.SOPClassUID, made.file_meta.TransferSyntaxUID)
    association = entity.associate("127.0.0.1", server.port, ae_title=server.aet)
    assert association.is_established
    try:
        assert {association.send_c_store(made).Status for made in objects} == {0}
    finally:
        association.release()
    for made in objects:
        stored = pydicom.dcmread(io.BytesIO(server.instance(made.SOPInstanceUID)))
        assert stored.SOPInstanceUID == made.SOPInstanceUID


@real
def test_a_real_result_by_value_through_the_pacs(server):
    source = build_source_image(pydicom.dcmread(FOLDER / "RG3_J2KR.dcm"))
    result = whole_result(source)
    objects = make_objects(result)
    stow(server, objects)
    back = {o.Modality: pydicom.dcmread(io.BytesIO(server.instance(o.SOPInstanceUID))) for o in objects}
    mask = np.squeeze(back["SEG"].pixel_array).astype(bool)
    assert np.array_equal(mask, result.images[0].regions[0].mask)
    float_map = next(
        pydicom.dcmread(io.BytesIO(server.instance(o.SOPInstanceUID))) for o in objects if "FloatPixelData" in o
    )
    assert np.array_equal(float_map.pixel_array, result.images[0].map.values)
