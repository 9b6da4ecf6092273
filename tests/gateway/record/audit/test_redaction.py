"""Text without numbers and addresses of persons, with Presidio where it is installed."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest
from sqlalchemy import select

from gateway.config import Audit
from gateway.errors import ConfigError
from gateway.record.audit import redaction
from gateway.record.audit.recorder import Recorder
from gateway.record.audit.schema import DECISIONS
from gateway.record.audit.store import Store
from gateway.record.metrics import Metrics
from tests.gateway.record.audit.conftest import entry

TEXT = (
    "My card 4111 1111 1111 1111, iban DE89370400440532013000, mail jo.b+x@bank.example.co.uk, call +44 20 7946 0958 "
    "or (212) 555-0187, account 12345678, from 10.1.2.3. I paid 4,500 in 2024 for 3 things."
)


def test_without_presidio_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    with pytest.raises(ConfigError, match=r"audit.text: redacted needs presidio_analyzer.*hhh-gateway\[pii\]"):
        redaction.build(None)


@pytest.fixture
def presidio(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("presidio_analyzer", reason="the extra `pii` is not installed")

    def refuse(*_: object) -> None:
        raise AssertionError("redaction opens a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.usefixtures("presidio")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_numbers_and_addresses_go() -> None:
    redacted = redaction.build(None)(TEXT)
    assert redacted is not None
    for secret in ("4111", "DE89", "jo.b", "7946", "555", "12345678", "10.1.2.3"):
        assert secret not in redacted
    assert "<CREDIT_CARD>" in redacted
    assert "<EMAIL_ADDRESS>" in redacted
    assert redacted.endswith("I paid 4,500 in 2024 for 3 things.")


@pytest.mark.usefixtures("presidio")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_model_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"audit.pii_model: the spaCy model no_such_model is not installed"):
        redaction.build("no_such_model")


async def test_what_cannot_be_redacted_is_not_kept(tmp_path: Path) -> None:
    settings = Audit(url=f"sqlite+aiosqlite:///{tmp_path}/a.db", text="redacted")
    recorder = Recorder(Store(settings), settings, Metrics(), lambda text: None if "!" in text else text.upper())
    await recorder.start()
    await recorder.keep(entry(1, text="hello"))
    await recorder.keep(entry(2, text="oh!"))
    rows = await recorder.store.rows(select(DECISIONS).order_by(DECISIONS.c.id))
    await recorder.close()
    assert [row["text"] for row in rows] == ["HELLO", None]
