"""Shipped weights: verified at load, refused when damaged."""

import json
import shutil

import pytest

from classifiers import shipped
from classifiers.refusal import RefusalDetector
from classifiers.triage import Triage


@pytest.mark.parametrize("folder", [shipped.TRIAGE, shipped.SCREEN, shipped.REFUSAL], ids=lambda folder: folder.name)
def test_shipped_weights_are_what_their_manifest_says(folder):
    assert shipped.verified(folder) == folder
    listed = set(json.loads((folder / "manifest.json").read_text())["files"])
    assert {path.name for path in folder.iterdir()} == listed | {"manifest.json", "MODEL_CARD.md"}


def test_a_flipped_byte_is_refused(tmp_path):
    folder = tmp_path / "refusal"
    shutil.copytree(shipped.REFUSAL, folder)
    weights = bytearray((folder / "weights.npy").read_bytes())
    weights[-5] ^= 1
    (folder / "weights.npy").write_bytes(weights)
    with pytest.raises(shipped.CorruptWeights, match=r"weights\.npy"):
        RefusalDetector.load(folder)


def test_a_flipped_byte_in_the_model_is_refused(tmp_path):
    folder = tmp_path / "triage"
    shutil.copytree(shipped.TRIAGE, folder)
    with (folder / "model.onnx").open("r+b") as model:
        model.seek(1_000_000)
        byte = model.read(1)
        model.seek(1_000_000)
        model.write(bytes([byte[0] ^ 1]))
    with pytest.raises(shipped.CorruptWeights, match=r"model\.onnx"):
        Triage.load(folder, threads=1)


@pytest.mark.parametrize("manifest", [None, "not json", "[]", "{}", '{"files": {"../config.json": "00"}}'])
def test_a_manifest_that_cannot_be_trusted_is_refused(tmp_path, manifest):
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(shipped.CorruptWeights):
        shipped.verified(tmp_path)


def test_a_missing_file_is_named(tmp_path):
    (tmp_path / "weights.npy").write_bytes(b"weights")
    shipped.seal(tmp_path)
    assert shipped.verified(tmp_path) == tmp_path
    (tmp_path / "weights.npy").unlink()
    with pytest.raises(shipped.CorruptWeights, match=r"weights\.npy: missing"):
        shipped.verified(tmp_path)


def test_shipped_weights_fit_the_budget():
    sizes = [
        path.stat().st_size for folder in (shipped.TRIAGE, shipped.SCREEN, shipped.REFUSAL) for path in folder.iterdir()
    ]
    assert sum(sizes) < 30_000_000
    assert sum(path.stat().st_size for path in shipped.REFUSAL.iterdir()) < 300_000
