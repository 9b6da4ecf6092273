"""Several classifiers that judge beside each other: every risk counts where one of them sees it highest."""

from __future__ import annotations

from collections.abc import Sequence

from classifiers.message import Classifier, Judgement, Message, merged


class Panel:
    """A `Classifier` of classifiers. Ties in category and tier go to the first."""

    def __init__(self, members: Sequence[Classifier]) -> None:
        self._members = members

    def score(self, messages: Sequence[Message]) -> list[Judgement]:
        """One judgement per message, in order. Blocks until the slowest member has judged."""
        judged = [member.score(messages) for member in self._members]
        return [merged(found) for found in zip(*judged, strict=True)]
