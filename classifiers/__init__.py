"""Text in, scores out: the triage classifier, the toxicity head, the refusal detector, and their shipped weights."""
