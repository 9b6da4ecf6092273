"""The refusal detector, offline: data and training."""
