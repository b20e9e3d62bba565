"""Test items and shots of the paper's ten benchmarks, for the task files in msft/lm_eval_tasks.

    lm_eval --model hf --model_args pretrained=<run>/best --include_path msft/lm_eval_tasks --tasks msft_10

They are those of the mixture paper-10 with its default sizes, for the tokenizer of the model that the command names:
prompts that are too long for the protocol under that tokenizer are passed over, as they are in a run. A model object
names no tokenizer; give it with --metadata '{"tokenizer": "<folder or hub id>"}', else no item is passed over.

MSFT_DATA_DIR            a folder in hub format that stands in for the hub (data_dir of a run)
MSFT_TEST_SIZE           items a benchmark (test_size of a run; 200)
MSFT_MAX_PROMPT_TOKENS   tokens a prompt at most (max_prompt_tokens of a run; 700)

Answers may have 512 tokens. A model whose positions do not reach that far beyond the prompt takes fewer:
--gen_kwargs max_gen_toks=64.
"""

import functools
import os

from msft import names
from msft.benchmarks import paper_mixtures
from msft.data.example import documents
from msft.data.tasks import task_config
from msft.errors import ConfigError, unknown
from msft.paths import VARIABLES, unread_variables

# loaded and drawn once for the ten tasks
_tokenizer = functools.lru_cache(maxsize=1)(names.load_tokenizer)
_mixture = functools.lru_cache(maxsize=1)(paper_mixtures.load)


def dataset(
    benchmark: str,
    pretrained: str | None = None,
    tokenizer: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    **_,
) -> dict:
    """lm-eval's hook: {'test': items, 'shots': the five shots} of a benchmark.

    pretrained, tokenizer, revision, trust_remote_code: lm-eval hands on what --model_args and --metadata say.
    Raises DataError where the records cannot be had, ConfigError for a bad environment variable, ModelError for a
    tokenizer that cannot be loaded.
    """
    from datasets import Dataset

    for wrong in unread_variables(VARIABLES):
        raise ConfigError(unknown("environment variable", wrong, VARIABLES))
    source, longest = tokenizer or pretrained, _number("MSFT_MAX_PROMPT_TOKENS")
    has_source = bool(source) and isinstance(source, str)
    sub = _mixture(
        "paper-10",
        # no draw moves another, so what only training needs can be left out
        train_size=1,
        validation_size=0,
        confirmation_size=0,
        test_size=_number("MSFT_TEST_SIZE"),
        data_dir=os.environ.get("MSFT_DATA_DIR") or None,
        tokenizer=_tokenizer(source, revision or None, bool(trust_remote_code)) if has_source else None,
        **({"max_prompt_tokens": longest} if longest else {}),
    )[benchmark]
    # the same rows as in-process evaluation has; the length of an answer is the task file's own
    shots = task_config(sub, max_new_tokens=1)["fewshot_config"]["samples"]
    return {"test": Dataset.from_list(documents(sub.test)), "shots": Dataset.from_list(shots)}


def _number(variable: str) -> int | None:
    text = os.environ.get(variable, "").strip()
    if text and not (text.isdecimal() and int(text)):
        raise ConfigError(f"the environment variable {variable} must be a whole number of at least 1; found {text!r}")
    return int(text) if text else None
