"""The embedded HHH model, from the authored dialogues to the ONNX file that the gateway serves.

Not a recipe for a general model: it trains about nine million parameters on one narrow domain. Larger models are
tuned from existing weights elsewhere in `finetune`.
"""
