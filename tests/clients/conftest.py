"""A gateway for clients that are no part of it: it blocks MARK-HARM, and answers all else as every endpoint does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.app import create_app
from gateway.config import load
from tests.conftest import ROOT, Running
from tests.endpoints import ENDPOINTS
from tests.fakes import Recorder, Words


@pytest.fixture(scope="session")
def recorder() -> Iterator[Recorder]:
    found = Recorder()
    running = Running(found)
    found.url = f"{running.url}/v1"
    yield found
    running.stop()


@pytest.fixture(scope="session")
def base_url(recorder: Recorder) -> Iterator[str]:
    """The address of the gateway, with its `/v1`."""
    for endpoint in ENDPOINTS:
        if endpoint.replies is not None:
            recorder.by_path[endpoint.path] = endpoint.replies("An index fund.", "")
    upstream = {"base_url": recorder.url, "retries": 0}
    config = load(None, rails_dir=ROOT / "rails", policy="general", upstream=upstream)
    running = Running(create_app(config, classifier=Words()))
    yield f"{running.url}/v1"
    running.stop()
