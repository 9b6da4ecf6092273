"""The service: an OpenAI-compatible gateway that checks what goes to a model and what comes back."""

__version__ = "0.1.0"
