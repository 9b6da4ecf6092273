"""Numbers and addresses of persons out of a text, by Presidio's recognisers: cards, IBANs, phones, e-mail, and others.

What is not covered: names and places of persons, unless a spaCy model that finds them is named; what no pattern knows.
Presidio's own e-mail recogniser asks the network for the list of domains at its first use, so that ours stands in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog

from gateway.errors import ConfigError

Redact = Callable[[str], str | None]
"""The text without what it must not say; None where that cannot be done, and then it is not kept."""

_EMAIL = r"\b[\w.%+-]+@[\w-]+(?:\.[\w-]+)+\b"
# Account, customer and policy numbers have no form of their own.
_LONG_NUMBER = r"(?<!\w)\d(?:[ -]?\d){6,}(?!\w)"
_NAMES = ("PERSON",)


def build(model: str | None) -> Redact:
    """Load the recognisers, and the spaCy model if one is named. Raises `ConfigError` where one is not installed."""
    try:
        from presidio_analyzer import Pattern, PatternRecognizer, RecognizerResult, predefined_recognizers
        from presidio_anonymizer import AnonymizerEngine
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"audit.text: redacted needs {error.name}, which is not installed; pip install 'hhh-gateway[pii]'"
        ) from None
    names = ("CreditCard", "Iban", "Phone", "Ip", "UsSsn", "Crypto")
    recognisers = [getattr(predefined_recognizers, f"{name}Recognizer")() for name in names]
    for entity, pattern, score in (("EMAIL_ADDRESS", _EMAIL, 0.9), ("NUMBER", _LONG_NUMBER, 0.3)):
        recognisers.append(PatternRecognizer(entity, patterns=[Pattern(entity, pattern, score)]))
    find_names = _names(model)
    anonymiser: Any = AnonymizerEngine()

    def redact(text: str) -> str | None:
        try:
            found = [one for each in recognisers for one in each.analyze(text, each.supported_entities, None) or ()]
            found += [RecognizerResult("PERSON", start, end, 0.85) for start, end in find_names(text)]
            return str(anonymiser.anonymize(text, found).text)
        except Exception as error:  # noqa: BLE001  the seam of a library: a text that it cannot read is not kept
            structlog.get_logger().error("text not redacted, and not kept", error=type(error).__name__)
            return None

    return redact


def _names(model: str | None) -> Callable[[str], list[tuple[int, int]]]:
    if model is None:
        return lambda text: []
    import spacy

    try:
        pipeline = spacy.load(model)
    except OSError:
        raise ConfigError(f"audit.pii_model: the spaCy model {model} is not installed") from None
    return lambda text: [(one.start_char, one.end_char) for one in pipeline(text).ents if one.label_ in _NAMES]
