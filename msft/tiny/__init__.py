"""The embedded mixture and its tiny base models."""

from msft.tiny.data import make_mixture
from msft.tiny.models import MIXTURES, MODELS, base_model, cache_folder, identity, settings
from msft.tiny.table import TABLE

__all__ = ["MIXTURES", "MODELS", "TABLE", "base_model", "cache_folder", "identity", "make_mixture", "settings"]
