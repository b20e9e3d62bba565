"""The embedded mixture and its tiny base models."""

import os
from pathlib import Path

from msft.tiny.models import MIXTURES, MODELS, SETTINGS, TABLE, base_model, cache_folder, make_mixture

__all__ = ["MIXTURES", "MODELS", "SETTINGS", "TABLE", "base_model", "cache_folder", "make_mixture", "token_folder"]


def token_folder() -> Path | None:
    """Where tokenised examples are remembered; None for a user without a home or with a cache that cannot be written."""
    try:
        folder = cache_folder() / "tokens"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return None
    return folder if os.access(folder, os.W_OK | os.X_OK) else None
