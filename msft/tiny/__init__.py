"""The embedded mixture and its tiny base models."""

from msft.tiny.models import MIXTURES, MODELS, SETTINGS, TABLE, base_model, cache_folder, identity, make_mixture

__all__ = ["MIXTURES", "MODELS", "SETTINGS", "TABLE", "base_model", "cache_folder", "identity", "make_mixture"]
