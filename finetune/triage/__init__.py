"""The triage classifier, offline: data, training, export, evaluation."""
