"""The rows that are for evaluation only, and the guard that keeps training away from them.

Every reader of training data asks `trainable` for each file. A row that was trained on measures memory, and the figures
of every model would be too good without anybody noticing.
"""

from __future__ import annotations

from pathlib import Path

AUTHORED = Path(__file__).resolve().parents[1] / "data" / "authored"
PROMPTS = AUTHORED / "suite"
QUESTIONS = AUTHORED / "questions"
PREFIX = "suite-"  # every id of these rows begins so, wherever a copy of them lies


class HeldOut(ValueError):
    """Training was pointed at rows that are for evaluation only."""


def trainable(path: Path) -> Path:
    """The path of a file or folder, when training may read all of it. Raises `HeldOut`."""
    where = path.resolve()
    for held in (PROMPTS, QUESTIONS):
        if where == held or held in where.parents:
            raise HeldOut(f"{path}: these rows are for evaluation (hhh eval) and are never trained on")
    return path


def trainable_row(identity: object, where: str) -> None:
    """Refuse a row by its id, for files that were copied elsewhere. Raises `HeldOut`."""
    if isinstance(identity, str) and identity.startswith(PREFIX):
        raise HeldOut(f"{where}: row {identity} is for evaluation (hhh eval) and is never trained on")
