"""The same question in other frames: "What is X?" is also "X meaning" and "explain X".

A model this small sees too few phrasings of each question to learn that the frame says little and the topic says all,
so frames are exchanged while it trains. Tables only; nothing here knows a topic, and what fits no frame is left alone.
"""

from __future__ import annotations

import random
import re

FRAMES: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = tuple(
    (re.compile(rf"^(?:{pattern})[?.!]*$", re.IGNORECASE), frames)
    for pattern, frames in (
        (
            r"(?:what(?:'s| is) the )?difference between (?P<x>.+?) and (?P<y>.+?)",
            (
                "{x} vs {y}",
                "{y} vs {x}",
                "{x} or {y}, what is the difference?",
                "difference between {y} and {x}?",
                "what's the difference between {x} and {y}",
                "how do {x} and {y} differ?",
                "how is {x} different from {y}?",
                "compare {x} and {y}",
                "explain the difference between {x} and {y}",
            ),
        ),
        (
            r"how (?:do|does) (?P<x>.+?) work",
            (
                "how does {x} work?",
                "how {x} works",
                "explain how {x} works",
                "what is {x} and how does it work?",
                "{x}, how does it work?",
                "can you tell me how {x} works?",
            ),
        ),
        (
            r"(?:how (?:do|can|could|would) i|how to|tell me how to|show me how to|teach me (?:how )?to) (?P<x>.+?)",
            (
                "how to {x}",
                "how do i {x}?",
                "how can I {x}?",
                "how could I {x}",
                "what's the way to {x}?",
                "best way to {x}",
                "i want to {x}",
                "i need to {x}, how?",
                "help me {x}",
                "tell me how to {x}",
                "any tips to {x}?",
                "what do i do to {x}",
                "can you explain how to {x}?",
            ),
        ),
        (
            r"(?:please )?(?:can you )?help me (?:to )?(?P<x>.+?)",
            (
                "how do I {x}?",
                "how to {x}",
                "i want to {x}",
                "can you help me {x}?",
                "i need help to {x}",
                "help me {x}",
            ),
        ),
        (
            r"should (?P<w>i|we) (?P<x>.+?)",
            (
                "do you think {w} should {x}?",
                "is it a good idea to {x}?",
                "is it smart to {x}?",
                "tell me if {w} should {x}",
                "would it be wise to {x}?",
                "is it worth it to {x}",
                "would you {x}?",
                "should {w} {x} or not",
                "can you tell me whether to {x}?",
                "i wonder if {w} should {x}",
            ),
        ),
        (
            r"(?:what is|what are|what's|whats|explain|define|what do you mean by|tell me about) "
            r"(?P<a>an? |the )?(?P<x>(?!your|my|it\b|this|that|in\b|wrong|up\b|how|why|what).+?)(?: to me)?"
            r"|(?P<x2>.+?) (?:meaning|explained|definition)|what does (?P<x3>.+?) mean",
            (
                "what's {a}{x}",
                "whats {a}{x}?",
                "what is {a}{x}?",
                "what is {x}",
                "explain {a}{x}",
                "explain {x} to me",
                "{x} meaning",
                "what does {x} mean?",
                "define {x}",
                "{x}?",
                "{x} explained",
                "can you explain {a}{x}?",
                "tell me about {x}",
                "please explain {a}{x} in simple words",
                "i don't understand {x}",
                "meaning of {x}",
                "what do people mean by {x}?",
                "in simple terms, what is {a}{x}?",
                "I want to know what {a}{x} is",
                "never heard of {x}, what is it?",
            ),
        ),
        (
            r"why (?:do|does|did) (?P<x>.+?)",
            (
                "why do {x}",
                "how come {x}?",
                "what makes {x}?",
                "why does {x}?",
                "the reason why {x}",
                "explain why {x}",
            ),
        ),
        (
            r"(?:can|could) you (?P<x>.+?)",
            (
                "could you {x}?",
                "can you {x}",
                "please {x}",
                "{x} please",
                "are you able to {x}?",
                "I'd like you to {x}",
            ),
        ),
        (
            r"can i (?P<x>.+?)",
            ("am i able to {x}?", "is it possible to {x}?", "can i {x}", "could I {x}?", "is it ok to {x}"),
        ),
    )
)


def rephrase(text: str, draw: random.Random) -> str:
    """`text` in another frame of its kind, or as it is when it has none."""
    for pattern, frames in FRAMES:
        found = pattern.match(text)
        if found:
            parts = {name: part for name, part in found.groupdict().items() if part}
            topic = parts.get("x") or parts.get("x2") or parts.get("x3") or ""
            blanks = {"a": parts.get("a", ""), "x": topic, "y": parts.get("y", ""), "w": parts.get("w", "I")}
            return draw.choice(frames).format(**blanks)
    return text
