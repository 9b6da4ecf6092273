"""The same question, as other people would type it: light, random changes to a user's turn, and system messages.

Answers are never changed, and no meaning is meant to be. A question may get another frame, see `phrasing`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from finetune.hhh.phrasing import rephrase

GREETINGS = ("hi, ", "hello, ", "hey, ", "please tell me: ", "quick question: ", "can you help? ", "a question: ")
ENDINGS = (" please", " thanks", " thank you", " pls", ", please?", "??")
SMALL = frozenset({"a", "an", "the", "is", "are", "do", "does", "of", "to", "it"})

SYSTEM = (
    "You are a helpful assistant.",
    "You are a finance assistant.",
    "You are the assistant of a bank. Be polite and brief.",
    "You answer questions about money in plain words.",
    "Be helpful, harmless and honest.",
    "Answer in plain English.",
    "Keep your answers short.",
    "Do not use lists or markdown.",
    "If you do not know something, say so.",
    "You help customers with everyday questions about accounts, cards and payments.",
    "You are an assistant for a customer service team.",
    "Always stay friendly and calm.",
    "Never ask the user for passwords or codes.",
    "The user is a customer of our company.",
    "You are a chatbot on a website about personal finance.",
    "Explain terms simply, as to a beginner.",
)
GUIDANCE = (
    "The user asks for regulated advice. Do not recommend any product or tell the user what to buy, sell or hold.",
    "Give general information only. Say that a licensed adviser can look at the user's own situation.",
    "Do not give personal financial advice. Explain the main points to consider and the risks.",
    "Do not say whether the user should do it. Describe in a balanced way what speaks for and against it.",
    "Explain in general terms, name the risks, and point to a licensed adviser for a personal recommendation.",
    "You must not make a specific recommendation. Be as informative as you can about how such choices work.",
    "This question calls for a professional. Share useful general facts and do not decide for the user.",
    "No price targets, no predictions, no instruction to buy or sell.",
)


def question(text: str, draw: random.Random) -> str:
    """`text` as typed by somebody in a hurry, or unchanged about a quarter of the time."""
    if draw.random() < 0.25:
        return text
    if draw.random() < 0.55:
        text = rephrase(text, draw)
    if draw.random() < 0.5:
        text = text.lower()
    if draw.random() < 0.35:
        text = text.rstrip("?.! ") or text
    if draw.random() < 0.15:
        text = _typo(text, draw)
    while draw.random() < 0.3:
        text = _terse(text, draw)
    if draw.random() < 0.08 and len(text) > 12:
        text = draw.choice(GREETINGS) + text[0].lower() + text[1:] if not text.startswith("I ") else "hi, " + text
    if draw.random() < 0.05 and len(text) > 12:
        text = text.rstrip("?.! ") + draw.choice(ENDINGS)
    return text


def system(control: str, draw: random.Random, policies: Sequence[str] = ()) -> str:
    """A system message, or an empty string. On `advise` the gateway always sends its guidance, so here mostly too.

    `policies` are the guidance texts of the gateway's own policies.
    """
    if control == "advise" and draw.random() < 0.3:
        own = draw.sample(SYSTEM, draw.choice((0, 0, 1, 2)))
        guidance = draw.sample(GUIDANCE, draw.choice((1, 2, 2, 3)))
        if policies and draw.random() < 0.6:
            guidance = [draw.choice(policies)]
        return "\n\n".join(" ".join(part) for part in (own, guidance) if part)
    if draw.random() < 0.07:
        return " ".join(draw.sample(SYSTEM, draw.choice((1, 1, 2, 3))))
    return ""


def _typo(text: str, draw: random.Random) -> str:
    words = text.split(" ")
    long = [i for i, word in enumerate(words) if len(word) >= 5 and word.isalpha()]
    if not long:
        return text
    i = draw.choice(long)
    word, at = words[i], draw.randrange(1, len(words[i]) - 2)
    kinds = (
        word[:at] + word[at + 1] + word[at] + word[at + 2 :],
        word[:at] + word[at + 1 :],
        word[:at] + word[at] + word[at:],
    )
    words[i] = draw.choice(kinds)
    return " ".join(words)


def _terse(text: str, draw: random.Random) -> str:
    words = text.split(" ")
    small = [i for i, word in enumerate(words) if word.lower() in SMALL]
    if not small or len(words) < 4:
        return text
    del words[draw.choice(small)]
    return " ".join(words)
