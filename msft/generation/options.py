"""Generation options: which of them change what greedy decoding gives, and a configuration that says nothing else."""

import copy
import inspect
from collections.abc import Mapping, Sequence

from lm_eval.models.huggingface import HFLM
from transformers import GenerationConfig

from msft.errors import ModelError, unknown
from msft.packing.probe import vocabulary

# what HFLM reads itself; the last three are its other names of max_gen_toks
_HFLM = {"until", "do_sample", "temperature", "max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens"}
# of sampling alone, of length, and of how the same tokens are computed
_HARMLESS = {
    *("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"),
    *("do_sample", "temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"),
    *("max_length", "max_new_tokens", "use_cache", "cache_implementation", "cache_config", "disable_compile"),
    *("output_attentions", "output_hidden_states", "output_logits", "output_scores"),
    *("transformers_version", "_from_model_config", "return_dict_in_generate"),
}
# what `generate` refuses as lm-eval calls it
_NOT_TAKEN = {
    *("stop_strings", "token_healing", "penalty_alpha", "dola_layers", "constraints", "force_words_ids"),
    *("is_assistant", "compile_config", "prompt_lookup_num_tokens", "assistant_early_exit"),
    *("return_dict_in_generate", "num_return_sequences", "use_cache", "pad_token_id"),
}
_OTHER_WEIGHTS = ("peft", "delta", "gguf_file", "autogptq", "gptqmodel")  # of a model that HFLM loads itself


def check_lm_options(options: Mapping) -> None:
    """Raises ModelError for what HFLM would pass over in silence beside a live model: an option that it does not know,
    which is for the loading of a model, and one that asks for other weights."""
    known = list(inspect.signature(HFLM).parameters)
    for name, value in options.items():
        if name not in known:
            raise ModelError(unknown("option of HFLM", name, known))
        if value and name in _OTHER_WEIGHTS:
            what = f"{name} = {value!r} is of a model that HFLM loads itself"
            raise ModelError(f"{what}: give the model that has it loaded")


def check_request(options: Mapping) -> None:
    """Raises ModelError for an option that neither lm-eval nor transformers knows, with the nearest that they do, for one
    with which `generate` would end in an error, and for stops that are no texts."""
    known = {*_HFLM, *vars(GenerationConfig())}
    for name, value in options.items():
        if name not in known:
            raise ModelError(unknown("generation option", name, sorted(n for n in known if not n.startswith("_"))))
        if name in _NOT_TAKEN:
            what = f"generation option {name} = {value!r} is not taken with lm-eval"
            raise ModelError(f"{what}; leave it out, and give texts that end an answer as until")
    until = options.get("until", [])
    if not all(isinstance(stop, str) for stop in (until if isinstance(until, list) else [until])):
        raise ModelError(f"until = {until!r}; give a text or a list of texts")


def changes_greedy(model, options: Mapping) -> str:
    """What, of a request's options and the checkpoint's, makes decoding more than greedy; '' where nothing does."""
    if options.get("do_sample") or options.get("temperature"):
        return "it asks for sampling"
    asked = sorted(set(options) - _HFLM)
    if asked:
        return f"it asks for {', '.join(asked)}"
    configured = model.generation_config.to_diff_dict() if model.can_generate() and model.generation_config else {}
    changing = sorted(n for n, value in configured.items() if n not in _HARMLESS and value not in (None, False))
    return f"its generation_config has {', '.join(changing)}" if changing else ""


def ends(model, tokenizer, stops: Sequence[str] = (), eos: int | list[int] | None = None) -> list[int]:
    """Tokens that end a text: EOS, the checkpoint's (chat models have several) or, in their place, a
    request's `eos`, and stops that are one special token.

    Raises ModelError where the checkpoint's are no token ids.
    """
    eos = getattr(model.generation_config, "eos_token_id", None) if eos is None else eos
    configured = eos if isinstance(eos, list) else [eos]
    if not all(token is None or isinstance(token, int) for token in configured):
        mend = "write a number or a list of numbers into its generation_config.json"
        raise ModelError(f"the model's generation_config has eos_token_id = {eos!r}, which is no token id; {mend}")
    tokens = [tokenizer.eos_token_id, *configured]
    for stop in stops:
        ids = tokenizer.encode(stop, add_special_tokens=False)
        if len(ids) == 1 and tokenizer.decode(ids, skip_special_tokens=True) == "":
            tokens += ids
    size = vocabulary(model)
    return [i for i in dict.fromkeys(tokens) if i is not None and 0 <= i < size]


def padded(tokenizer, model):
    """The tokenizer, or a copy with EOS for padding where the model has no embedding for its own pad token: stock tools
    pad with it."""
    pad = tokenizer.pad_token_id
    if pad is None or not 0 <= pad < vocabulary(model):
        tokenizer = copy.deepcopy(tokenizer)  # the caller's stays as it is
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def greedy(model, tokenizer, stops: Sequence[str] = ()) -> GenerationConfig:
    """Greedy decoding and nothing else, ended by `ends`.

    What a run measures and what its checkpoints carry, so that stock tools answer as the run did: no penalty, no
    sampling, no beam of the base model is left.
    """
    eos, pad = ends(model, tokenizer, stops), padded(tokenizer, model).pad_token_id
    return GenerationConfig(
        do_sample=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=eos,
        pad_token_id=eos[0] if pad is None else pad,
    )
