"""The paper's benchmarks: a hub record to an Example."""

from msft.benchmarks.records import BENCHMARKS, Benchmark, UnlabelledError, to_example

__all__ = ["BENCHMARKS", "Benchmark", "UnlabelledError", "to_example"]
