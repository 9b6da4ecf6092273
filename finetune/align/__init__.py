"""Alignment of a language model: supervised tuning, a penalised loss, preferences, rewards, self-critique, sweeps.

Each method is a recipe (`recipe.py`), a command (`hhh finetune ...`) and a resumable run in its own folder. On top of
transformers, TRL, PEFT and accelerate as they are. It evaluates only as far as it must to choose; judging a model is
`finetune.suite`'s.
"""
