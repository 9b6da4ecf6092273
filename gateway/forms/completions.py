"""`/v1/completions`, the API before chat: a prompt, or several, each continued `n` times."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import Any

from gateway.call import Body, Path, Piece, Said, Segment, Words
from gateway.errors import TooLarge
from gateway.forms.choices import Choices
from gateway.forms.texts import reply_texts
from gateway.forms.valid import MOST_INPUTS, check_case, check_inputs, check_model, check_options

# Of a choice: what is not its text.
_NO_TEXT = frozenset({"index", "finish_reason", "logprobs", "stop_reason", "prompt_logprobs", "token_ids"})


class Completions(Choices):
    """A `Form`. Guidance has no place in it: on route `advise` the prompt goes as it is."""

    endpoint = "completions"
    path = "/completions"
    prefix = "cmpl"
    kind = "text_completion"
    chunk_kind = "text_completion"

    def check(self, body: Body, most_messages: int) -> int:
        check_case(body, None)
        check_model(body)
        check_options(body)
        prompt = body.get("prompt")
        suffix = body.get("suffix")
        characters = check_inputs(prompt, "prompt") if prompt is not None else 0
        if self.choices(body) > MOST_INPUTS:
            raise TooLarge(f"at most {MOST_INPUTS} choices are made in one request", param="n")
        return characters + (len(suffix) if isinstance(suffix, str) else 0)

    def segments(self, body: Body) -> list[Segment]:
        found = input_segments(body, "prompt")
        suffix = body.get("suffix")
        if isinstance(suffix, str) and suffix.strip():
            found.append(Segment("user", ("suffix",), suffix, group=len(found)))
        return found

    def earlier(self, body: Body) -> str:
        return ""

    def unchecked(self, body: Body) -> list[str]:
        return unchecked_inputs(body, "prompt")

    def guided(self, body: Body, text: str) -> Body:
        return body

    def choices(self, body: Body) -> int:
        """`n` for each prompt."""
        prompt = body.get("prompt")
        several = isinstance(prompt, list) and not isinstance(prompt[0], int)
        return super().choices(body) * (len(prompt) if isinstance(prompt, list) and several else 1)

    def said(self, choice: Mapping[str, Any], path: Path) -> list[Said]:
        texts = reply_texts(choice, _NO_TEXT)
        return [Said("content" if name == "text" else name, (*path, name), text) for name, text in texts]

    def pieces(self, choice: Mapping[str, Any], index: int) -> list[Piece]:
        return [Piece(index, name, text) for name, text in reply_texts(choice, _NO_TEXT)]

    def is_choice(self, choice: Mapping[str, Any], *, streamed: bool) -> bool:
        return isinstance(choice.get("text"), (str, NoneType) if streamed else str)

    def refused_choice(self, index: int, words: Words) -> dict[str, Any]:
        return {"index": index, "finish_reason": "content_filter", "logprobs": None, "text": words.text}

    def refusal_deltas(self, words: Words, *, begun: bool, spoken: bool) -> list[dict[str, Any]]:
        return [{"text": f"\n\n{words.text}" if spoken else words.text}]

    def blank(self) -> dict[str, Any]:
        return {"text": ""}


def input_segments(body: Body, name: str) -> list[Segment]:
    """A string, or strings that have nothing to do with each other."""
    found = body.get(name)
    if isinstance(found, str):
        return [Segment("user", (name,), found)] if found.strip() else []
    return [
        Segment("user", (name, index), text, group=index)
        for index, text in enumerate(found if isinstance(found, list) else ())
        if isinstance(text, str) and text.strip()
    ]


def unchecked_inputs(body: Body, name: str) -> list[str]:
    """Tokens are numbers of a vocabulary that we do not know."""
    found = body.get(name)
    tokens = [one for one in found if not isinstance(one, str)] if isinstance(found, list) else []
    return ["tokens"] if tokens and isinstance(tokens[0], int) else ["tokens"] * len(tokens)


COMPLETIONS = Completions()
