"""Places in a body: text put at a path, and the walk over all strings of something that we know little of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.call import Body, Path


def put(body: Body, path: Path, value: Any) -> dict[str, Any]:
    """A copy of `body` with another value at `path`; all that is not on the way there is shared."""
    changed: dict[str, Any] = dict(body)
    here: Any = changed
    for step in path[:-1]:
        here[step] = list(here[step]) if isinstance(here[step], list) else dict(here[step])
        here = here[step]
    here[path[-1]] = value
    return changed


def at(body: Any, path: Path) -> Any:
    """What is at `path`."""
    for step in path:
        body = body[step]
    return body


def strings(value: Any, skip: frozenset[str] = frozenset()) -> Iterator[tuple[Path, str]]:
    """Every string in `value` that is not empty, with its path, in order; members named in `skip` are left out."""
    waiting: list[tuple[Path, Any]] = [((), value)]
    while waiting:
        path, found = waiting.pop()
        if isinstance(found, str):
            if found:
                yield path, found
        elif isinstance(found, list):
            waiting += [((*path, index), item) for index, item in reversed(list(enumerate(found)))]
        elif isinstance(found, Mapping):
            waiting += [((*path, name), found[name]) for name in reversed(list(found)) if name not in skip]
