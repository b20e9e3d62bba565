"""The embedded mixture and its tiny base models."""

from msft.tiny.models import MIXTURES, MODELS, TABLE, base_model, cache_folder, identity, make_mixture, settings

__all__ = ["MIXTURES", "MODELS", "TABLE", "base_model", "cache_folder", "identity", "make_mixture", "settings"]
