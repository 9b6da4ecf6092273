"""How commands end when they cannot go on: one line on stderr, and exit 2."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Says which extra is missing, where an import of ours fails for want of one."""
    try:
        yield
    except ModuleNotFoundError as error:
        fail(f"{error.name} is not installed; this command needs: pip install 'hhh-gateway[{name}]'")


def fail(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(2)
