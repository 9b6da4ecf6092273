"""A classify endpoint as vLLM and SGLang serve it, as a classifier: POST `{"model", "input": [...]}` to `/classify`.

Its probabilities come without names, in the order of the model's label ids, so `labels` maps positions ("0", "1") to
ours. A server that fails raises `RemoteFailed`, which is triage's failure and never a verdict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from classifiers.mapping import judgement
from classifiers.message import Judgement, Message


class RemoteFailed(RuntimeError):
    """No usable answer. The message says what happened, never the address, the key or the text."""


class RemoteClassifier:
    """`url` is the endpoint's whole address; `several` as in `mapping`. Thread-safe; keeps its connections."""

    def __init__(
        self,
        url: str,
        model: str,
        labels: Mapping[str, str],
        key: str | None = None,
        several: bool = False,
        timeout_seconds: float = 2,
    ) -> None:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(headers=headers, timeout=timeout_seconds, trust_env=False)
        self._url = url
        self._model = model
        self._labels = dict(labels)
        self._several = several

    def score(self, messages: Sequence[Message]) -> list[Judgement]:
        """One judgement per message, in order. Raises `RemoteFailed`."""
        if not messages:
            return []
        body = {"model": self._model, "input": [message.text for message in messages]}
        try:
            reply = self._client.post(self._url, json=body)
            reply.raise_for_status()
            rows = sorted(reply.json()["data"], key=lambda row: int(row["index"]))
            shares = [[float(share) for share in row["probs"]] for row in rows]
        except httpx.HTTPStatusError as error:
            raise RemoteFailed(f"the classify endpoint answered {error.response.status_code}") from None
        except httpx.HTTPError as error:
            raise RemoteFailed(f"the classify endpoint failed: {type(error).__name__}") from None
        except (ValueError, KeyError, TypeError):
            raise RemoteFailed("the classify endpoint's answer is not what vLLM's /classify gives") from None
        if len(shares) != len(messages):
            raise RemoteFailed(f"the classify endpoint judged {len(shares)} of {len(messages)} texts")
        return [judgement(self._named(row), self._labels, self._several, "remote") for row in shares]

    def _named(self, shares: Sequence[float]) -> dict[str, float]:
        missing = [name for name in self._labels if not name.isdigit() or int(name) >= len(shares)]
        if missing:
            raise RemoteFailed(f"the model has {len(shares)} classes, none is {missing[0]!r}")
        return {str(at): share for at, share in enumerate(shares)}

    def close(self) -> Any:
        """Let go of the connections."""
        return self._client.close()
