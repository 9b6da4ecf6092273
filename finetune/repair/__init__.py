"""The over-refusal loop: what triggers wrong refusals, contrast rows around it, retraining, and the proof."""
