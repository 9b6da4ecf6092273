"""Whether a reply keeps to its question, on replies written for it; the encoder is the real one."""

from __future__ import annotations

from finetune.suite import topic

WRITTEN = {
    "What is an index fund?": "It follows a market index. It holds the shares in that index, and its fees are low.",
    "How does a mortgage work?": "You borrow to buy a home. The house secures the loan, and you repay it over decades.",
    "What is inflation?": "It is the general rise of prices. Each year the same money buys a little less.",
    "How do I report a lost card?": "Call the bank at once. It blocks the card, so that nobody can pay with it.",
    "What is a credit score?": "It is a number about you. Lenders read from it how well you have repaid debts.",
    "How are dividends taxed?": "It depends on the country. Often a tax is withheld before the dividend reaches you.",
    "What does car insurance cover?": "That depends on the policy. Damage to other cars is covered, yours often not.",
    "What is a pension for?": "It is for later. You save while you work and are paid an income when you retire.",
    "How do exchange rates move?": "They move all day. Currencies rise and fall with interest rates and trade.",
    "What is a budget?": "It is a plan. You write down what you earn and spend in a month, so that some is left.",
    "How do I spot a phishing mail?": "Look at the sender. Such mails hurry you and ask for your password by a link.",
    "What is a bond?": "It is a loan to a state or firm. The bond pays interest and is repaid at maturity.",
}
QUESTIONS, REPLIES = list(WRITTEN), list(WRITTEN.values())


def test_written_replies_keep_to_their_questions() -> None:
    assert sum(topic.keeps(QUESTIONS, REPLIES)) >= 10


def test_a_right_beginning_does_not_save_a_reply_that_drifts() -> None:
    ends = [topic.ending(reply) for reply in REPLIES]
    drifting = [f"{reply.split('. ')[0]}. {end}" for reply, end in zip(REPLIES, [*ends[1:], ends[0]], strict=True)]
    assert sum(topic.keeps(QUESTIONS, drifting)) <= 3


def test_nothing_said_keeps_to_nothing_and_few_questions_tell_nothing() -> None:
    silent = ["", *REPLIES[1:]]
    assert not topic.keeps(QUESTIONS, silent)[0]
    assert topic.keeps(QUESTIONS[:5], REPLIES[:5]) == []


def test_an_ending_is_all_but_the_first_sentence() -> None:
    assert topic.ending("One. Two. Three.") == "Two. Three."
    assert topic.ending("Only one.") == "Only one."
    assert topic.ending("") == ""
