"""The labels of triage and the categories that refine them. The order is that of the model's outputs."""

from __future__ import annotations

LABELS = ("benign", "regulated_advice", "harmful", "hate", "self_harm", "prompt_injection")

CATEGORIES = (
    "benign",
    "regulated_advice.investment",
    "regulated_advice.credit",
    "regulated_advice.insurance",
    "regulated_advice.tax",
    "regulated_advice.pension",
    "regulated_advice.crypto",
    "regulated_advice.real_estate",
    "regulated_advice.medical",
    "regulated_advice.legal",
    "harmful.fraud",
    "harmful.money_laundering",
    "harmful.weapons",
    "harmful.drugs",
    "harmful.violence",
    "harmful.cybercrime",
    "harmful.privacy",
    "harmful.sexual_minors",
    "harmful.sexual",
    "harmful.extremism",
    "harmful.theft",
    "harmful.misinformation",
    "harmful.market_manipulation",
    "harmful.harassment",
    "harmful.unethical",
    "hate.stereotype",
    "hate.slur",
    "hate.dehumanise",
    "hate.threat",
    "hate.discrimination",
    "self_harm.intent",
    "self_harm.method",
    "self_harm.ideation",
    "prompt_injection.override",
    "prompt_injection.persona",
    "prompt_injection.extraction",
    "prompt_injection.fake_policy",
    "prompt_injection.delimiter",
    "prompt_injection.indirect",
    "prompt_injection.encoding",
    "prompt_injection.many_shot",
)


def label_of(category: str) -> str:
    """The label that a category refines."""
    return category.split(".", 1)[0]
