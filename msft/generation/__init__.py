"""PrefixCachedLM: an lm-eval LM with shared prefixes and gold drafts."""

from msft.generation.lm import PrefixCachedLM

__all__ = ["PrefixCachedLM"]
