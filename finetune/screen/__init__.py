"""Tier 0 of triage, offline: distilled from the shipped encoder."""
