"""Shipped weights: where they lie, and that they are the ones that were shipped. Nothing is ever fetched.

Catches a file that is damaged, missing or swapped without its manifest. Not a signature: who can rewrite the manifest
can rewrite the weights.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

TRIAGE = Path(__file__).parent / "weights" / "triage"
SCREEN = Path(__file__).parent / "weights" / "screen"
REFUSAL = Path(__file__).parent / "weights" / "refusal"


class CorruptWeights(ValueError):
    """A weights folder is not what its manifest says. The message names the file."""


def verified(folder: Path, required: Iterable[str] = ()) -> Path:
    """The folder, when every file of its `manifest.json` is there with its sha256, and the required ones are listed.

    Raises `CorruptWeights` otherwise.
    """
    manifest = folder / "manifest.json"
    try:
        files = dict[str, str](json.loads(manifest.read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptWeights(f"{manifest}: unreadable ({type(error).__name__}: {error})") from None
    for name in required:
        if name not in files:
            raise CorruptWeights(f"{manifest}: {name} is not listed")
    for name, expected in files.items():
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise CorruptWeights(f"{path}: missing")
        if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            raise CorruptWeights(f"{path}: its sha256 is not the one in {manifest.name}")
    return folder


def seal(folder: Path) -> Path:
    """Write the manifest over every file in the folder but itself and the card."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and not _unsealed(path.name))
    files = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps({"files": files}, indent=1) + "\n", encoding="utf-8")
    return manifest


def _unsealed(name: str) -> bool:
    return name in ("manifest.json", "MODEL_CARD.md") or name.startswith(".")
