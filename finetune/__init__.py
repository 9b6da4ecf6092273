"""Offline work: data, training, evaluation, audits. Nothing that serves imports it."""
