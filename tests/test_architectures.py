"""Every architecture: which path it takes, and that texts, log-likelihoods and gradients are then right.

A line an architecture: a tiny random model of a family that transformers builds from a config. To add one, add a line.
"""

import warnings

import pytest
import torch
from helpers import SHAPE, make_model, requests
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import AutoConfig, AutoModelForCausalLM

import msft
from msft.generation import PrefixCachedLM
from msft.loss.losses import TokenLosses
from msft.loss.tokens import Tokens
from msft.packing.probe import changes_in_a_batch, reads_padding, why_not_packed, why_not_trained_packed
from msft.results.summary import summary

PACKED, HFLM_PATH = "packed", "HFLM"
MLA = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8}
MLA |= {"num_key_value_heads": 4, "head_dim": 8}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
DEEP = {**MLA, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "first_k_dense_replace": 1}
SLIDING = {"sliding_window": 8, "layer_types": ["full_attention", "sliding_attention"]}
SHARED = {"head_dim": 8, "layer_types": ["full_attention"] * 4, "num_hidden_layers": 4, "num_kv_shared_layers": 2}
SHARED |= {"vocab_size_per_layer_input": 400, "hidden_size_per_layer_input": 8}
LONG = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 16, "factor": 4.0}
LONG |= {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}

# (name, model type, its shape beyond the common one, path of evaluations, whether training is packed)
TABLE = [
    ("llama", "llama", {}, PACKED, True),
    ("qwen2", "qwen2", {}, PACKED, True),
    ("qwen3", "qwen3", {"head_dim": 8}, PACKED, True),
    ("olmo2", "olmo2", {}, PACKED, True),
    (
        "qwen2, last layer slides",
        "qwen2",
        {"use_sliding_window": True, "max_window_layers": 1, **SLIDING},
        HFLM_PATH,
        False,
    ),
    ("qwen3, last layer slides", "qwen3", {"head_dim": 8, "use_sliding_window": True, **SLIDING}, HFLM_PATH, False),
    ("mistral, all layers slide", "mistral", {"sliding_window": 8}, HFLM_PATH, False),
    ("mistral, no window", "mistral", {"sliding_window": None}, PACKED, False),
    ("olmo", "olmo", {}, PACKED, False),
    ("olmo3", "olmo3", {"sliding_window": 8}, HFLM_PATH, False),
    ("gemma", "gemma", {"head_dim": 8}, PACKED, False),
    ("gemma2", "gemma2", {"head_dim": 8, "sliding_window": 8}, HFLM_PATH, False),
    ("gemma3", "gemma3_text", {"head_dim": 8, "sliding_window": 8}, HFLM_PATH, False),
    ("phi", "phi", {}, PACKED, False),
    ("phi3", "phi3", {"sliding_window": None}, PACKED, False),
    ("llama, longrope", "llama", {"rope_parameters": LONG}, HFLM_PATH, False),
    ("granite, scaled logits", "granite", {"logits_scaling": 8.0}, PACKED, False),
    ("cohere, scaled logits", "cohere", {"logit_scale": 0.06}, PACKED, False),
    ("starcoder2", "starcoder2", {"sliding_window": None}, PACKED, False),
    ("gemma3n, shared keys", "gemma3n_text", SHARED, PACKED, False),
    ("stablelm", "stablelm", {}, None, False),
    ("doge, a window of another name", "doge", {"keep_window_size": 64, "num_experts": 4}, HFLM_PATH, False),
    (
        "doge, its router mixes a batch",
        "doge",
        {"is_moe": True, "num_experts": 16, "num_experts_per_tok": 2},
        HFLM_PATH,
        False,
    ),
    ("glm", "glm", {"head_dim": 8}, PACKED, False),
    ("smollm3", "smollm3", {"head_dim": 8}, PACKED, False),
    ("mixtral", "mixtral", {"num_local_experts": 4, "sliding_window": None}, PACKED, False),
    ("qwen3_moe", "qwen3_moe", {"head_dim": 8, **MOE}, PACKED, False),
    ("deepseek_v2", "deepseek_v2", DEEP, HFLM_PATH, False),
    ("deepseek_v3", "deepseek_v3", {**DEEP, "n_group": 1, "topk_group": 1, "n_shared_experts": 1}, HFLM_PATH, False),
    ("nemotron", "nemotron", {}, None, False),
    ("gpt2", "gpt2", {"n_positions": 256}, None, False),
    (
        "gpt_neo",
        "gpt_neo",
        {"attention_types": [[["global", "local"], 1]], "num_layers": 2, "window_size": 8},
        None,
        False,
    ),
    ("gpt_neox", "gpt_neox", {}, None, False),
    ("opt", "opt", {"ffn_dim": 64, "word_embed_proj_dim": 32}, None, False),
    ("bloom", "bloom", {}, None, False),
    ("falcon", "falcon", {}, None, False),
    ("mamba", "mamba", {"state_size": 4}, HFLM_PATH, False),
]
NAMES = [row[0] for row in TABLE]
EXPERTS = ("mixtral", "qwen3_moe", "deepseek_v2", "deepseek_v3")


def model_of(name, dtype=torch.float32, seed=3, **more):
    _, kind, shape, *_ = TABLE[NAMES.index(name)]
    common = {**SHAPE, "vocab_size": 400, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = AutoConfig.for_model(kind, **{**common, "max_position_embeddings": 256, **shape, **more})
        return AutoModelForCausalLM.from_config(config).eval().to(dtype)


def lm_of(model, tokenizer, size):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        lm = PrefixCachedLM(model, tokenizer, size)
    said = [str(warning.message) for warning in caught if "HFLM" in str(warning.message)]
    assert bool(said) == (lm.path != "packed")
    return lm


# the shortest has few tokens: longrope turns at 16
PROMPTS = ["Q: 1?", *(f"Q: Motto {i}: caf\u00e9?\nA: #### {i}\nQ: {i + 1} + 1?\nA: " for i in (3, 17, 4, 250))]


@pytest.mark.parametrize("name", NAMES)
def test_texts_and_log_likelihoods_are_those_of_hflm(name, tokenizer):
    *_, path, _ = TABLE[NAMES.index(name)]
    model = model_of(name)
    lm = lm_of(model, tokenizer, 3)
    assert path is None or lm.path.split(":")[0] == path, lm.path
    assert name != "nemotron" or lm.path.startswith("HFLM: its own code does not take packed rows (TypeError: "), (
        lm.path
    )
    stock = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1)  # a row alone: no model mixes it with others
    asked = requests(PROMPTS, limit=6)
    assert lm.generate_until(asked) == stock.generate_until(asked, disable_tqdm=True)
    pairs = [Instance("loglikelihood", {}, (p, a), 0, ("t", 0, 1)) for p in PROMPTS for a in (" yes", " no, 7")]
    ours, theirs = lm.loglikelihood(pairs), stock.loglikelihood(pairs, disable_tqdm=True)
    assert [value for value, _ in ours] == pytest.approx([value for value, _ in theirs], abs=2e-3)
    assert [greedy for _, greedy in ours] == [greedy for _, greedy in theirs]


def literal_gradients(model, rows, group):
    """Each row alone: the mean over micro-batches of the mean over their target tokens, as the paper has it."""
    model.zero_grad()
    groups = [rows[first : first + group] for first in range(0, len(rows), group)]
    for members in groups:
        count = sum(row.targets for row in members)
        for row in members:
            ids = torch.tensor([row.ids])
            logits = model(input_ids=ids, use_cache=False).logits[0, row.start - 1 : -1]
            loss = torch.nn.functional.cross_entropy(logits, ids[0, row.start :], reduction="sum")
            (loss / count / len(groups)).backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_literal_micro_batches(name):
    *_, packed = TABLE[NAMES.index(name)]
    # torch's grouped products of experts know no double precision
    dtype, close = (torch.float32, 1e-4) if name in EXPERTS else (torch.float64, 1e-7)
    model = model_of(name, dtype)
    generator = torch.Generator().manual_seed(0)
    sizes = [(20, 6), (11, 3), (7, 2), (15, 9), (20, 1)]
    draw = [torch.randint(2, 400, (n,), generator=generator).tolist() for n, _ in sizes]
    rows = [Tokens(tuple(ids), n - targets) for ids, (n, targets) in zip(draw, sizes, strict=True)]
    wanted = literal_gradients(model, rows, 2)
    model.zero_grad()
    losses = TokenLosses(model, 2, 64)
    assert (losses.path == "packed") == packed, losses.path
    losses.gradients(rows)
    for parameter, gradient in model.named_parameters():
        if parameter in wanted:
            torch.testing.assert_close(gradient.grad, wanted[parameter], rtol=1e-4, atol=close)


def test_a_window_of_another_name_counts_beyond_the_probe(tokenizer):
    """doge attends to 64 tokens of its own choice where a row has more: what no probe of 40 tokens shows."""
    model = model_of("doge, a window of another name")
    text = "Q: " + " ".join(str(i % 10) for i in range(90))
    asked = [Instance("loglikelihood", {}, (text, " no, 7"), 0, ("t", 0, 1))]
    stock = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1)
    assert len(stock.tok_encode(text)) > 64
    with pytest.warns(UserWarning, match="since it has keep_window_size = 64"):
        lm = PrefixCachedLM(model, tokenizer)
    assert lm.loglikelihood(asked) == stock.loglikelihood(asked, disable_tqdm=True)


def dynamic_model(kind, **rope):
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 8.0}
    both = {"full_attention": rope, "sliding_attention": {**rope, "factor": 4.0}}
    more = {"gemma3_text": {"rope_parameters": both, "layer_types": [*both], "sliding_window": 8}}
    shape = {**SHAPE, "max_position_embeddings": 16, "head_dim": 8, "rope_parameters": rope, **more.get(kind, {})}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, vocab_size=400, **shape)).eval()


@pytest.mark.parametrize("kind", ["llama", "gemma3_text"])  # one rotary embedding, and one for each kind of layer
def test_no_row_turns_with_those_before_it(kind, tokenizer):
    model, whole = dynamic_model(kind), {"max_length": 128, "batch_size": 4}
    pairs = [Instance("loglikelihood", {}, (PROMPTS[i], " no, 7"), 0, ("t", 0, 1)) for i in (0, 2, 0, 1)]
    asked = requests(PROMPTS[1:3] + PROMPTS[:1], limit=6)

    def alone(call, request):
        fresh = HFLM(pretrained=dynamic_model(kind), tokenizer=tokenizer, **whole)
        return getattr(fresh, call)([request], disable_tqdm=True)[0]

    with pytest.warns(UserWarning, match="HFLM, since"):
        lm = PrefixCachedLM(model, tokenizer, **whole)
    wanted = [alone("loglikelihood", pair) for pair in pairs]
    assert lm.loglikelihood(pairs) == wanted
    assert lm.generate_until(asked) == [alone("generate_until", request) for request in asked]
    assert lm.loglikelihood(pairs) == wanted

    draw = torch.Generator().manual_seed(0)
    rows = [Tokens(tuple(torch.randint(2, 400, (n,), generator=draw).tolist()), n - 5) for n in (60, 9, 40, 16)]
    losses = TokenLosses(model, 2, 64)
    one_by_one = [TokenLosses(dynamic_model(kind), 2, 64).of_examples([row])[0] for row in rows]
    assert losses.of_examples(rows) == one_by_one == losses.of_examples(rows)
    losses.gradients(rows)
    mean = 0.0  # of rows with as many targets each
    for row in rows:
        fresh = dynamic_model(kind)
        TokenLosses(fresh, 2, 64).gradients([row])
        mean += fresh.model.layers[0].self_attn.q_proj.weight.grad / len(rows)
    torch.testing.assert_close(model.model.layers[0].self_attn.q_proj.weight.grad, mean, rtol=1e-4, atol=1e-6)


def test_a_deep_model_in_half_precision_is_packed_and_as_near_to_full_precision():
    """Thirty layers of rounding: the probe must not take it for another model."""
    shape = {"num_hidden_layers": 30, "hidden_size": 64, "initializer_range": 0.1, "vocabulary": 400}
    exact, half = make_model("llama", seed=1, **shape), make_model("llama", seed=1, **shape).bfloat16()
    assert why_not_packed(half) == why_not_trained_packed(half) == ""
    generator = torch.Generator().manual_seed(1)
    rows = [Tokens(tuple(torch.randint(2, 400, (24,), generator=generator).tolist()), 12) for _ in range(4)]
    wanted = torch.tensor(TokenLosses(exact, 4, 64).of_examples(rows))
    losses, apart = TokenLosses(half, 4, 64), {}
    for path in ("packed", "padded: as asked"):
        losses.path = path
        apart[path] = (torch.tensor(losses.of_examples(rows)) - wanted).abs().mean()
    assert apart["packed"] <= 2 * apart["padded: as asked"] + 0.01


@pytest.mark.parametrize("more", [{}, {"num_kv_shared_layers": 0}])
def test_layers_that_do_not_stand_alone_are_shown_together_in_half_precision(more):
    """Gemma 3n and 4: layers that read another one's keys, and inputs of their own for each."""
    model = model_of("gemma3n, shared keys", torch.bfloat16, **more)
    assert why_not_packed(model) == ""
    inner = model.model.layers[1].mlp.forward
    model.model.layers[1].mlp.forward = lambda x: inner(x) + x.mean(1, keepdim=True)
    assert "differ by" in why_not_packed(model)


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe"])
def test_a_router_s_near_ties_are_not_taken_for_another_model(name):
    """Rounding sends a token to another expert in one of some ten random models; a twist in their code is seen in all."""
    for seed in range(24):
        model = model_of(name, torch.bfloat16, seed, initializer_range=0.15)
        assert why_not_packed(model) == "", seed
        assert not changes_in_a_batch(model), seed
        inner = model.model.layers[1].mlp.forward
        model.model.layers[1].mlp.forward = lambda x, inner=inner: inner(x) + x.mean(1, keepdim=True)
        assert "differ by" in why_not_packed(model)
        assert changes_in_a_batch(model), seed


def test_the_probe_leaves_the_model_as_it_was():
    model = make_model("llama", num_hidden_layers=5).bfloat16().train()
    layers, before = list(model.model.layers), torch.get_rng_state()
    assert why_not_packed(model) == ""
    assert list(model.model.layers) == layers
    assert model.config.num_hidden_layers == 5
    assert model.training
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("twist", ["attention", "head"])
def test_a_twist_in_the_model_s_own_code_is_seen(twist):
    """What no configuration tells: other scores, or other logits, than the architecture's."""
    model = make_model("llama")
    if twist == "attention":
        inner = model.model.layers[1].mlp.forward
        model.model.layers[1].mlp.forward = lambda x: inner(x) * x.shape[1]
        assert "differ by" in why_not_packed(model)
    else:
        forward = model.lm_head.forward
        model.lm_head.forward = lambda x: 2 * forward(x)
        assert "logits" in why_not_trained_packed(model)


def test_a_layer_s_forward_that_somebody_replaced_stays_and_counts(tokenizer):
    """accelerate does so where it moves a layer's inputs to another device; a steered model, to change its states."""
    model, pair = make_model("llama"), Instance("loglikelihood", {}, (PROMPTS[1], " no, 7"), 0, ("t", 0, 1))
    inner = model.model.layers[-1].forward
    model.model.layers[-1].forward = ours = lambda *states, **more: inner(*states, **more) + torch.arange(32) / 3
    wanted = HFLM(pretrained=model, tokenizer=tokenizer).loglikelihood([pair], disable_tqdm=True)
    lm = lm_of(model, tokenizer, 3)
    assert lm.path == "HFLM: its last layer has a forward of its own in place of its class's"
    assert lm.loglikelihood([pair]) == wanted
    assert model.model.layers[-1].forward is ours


@pytest.mark.parametrize("how", ["wrapped", "in place", "its layers"])
def test_a_compiled_model_is_packed_as_it_was_written(how, tokenizer):
    model = make_model("llama")
    stock = HFLM(pretrained=model, tokenizer=tokenizer).generate_until(requests(PROMPTS, limit=6), disable_tqdm=True)
    for part in model.model.layers if how == "its layers" else [model] * (how == "in place"):
        part.compile(backend="eager")
    lm = lm_of(torch.compile(model, backend="eager") if how == "wrapped" else model, tokenizer, 3)
    assert lm.path == "packed"
    assert lm.generate_until(requests(PROMPTS, limit=6)) == stock


@pytest.mark.parametrize("name", ["llama", "mistral, all layers slide"])
def test_a_run_says_which_paths_it_took_and_its_checkpoint_loads(name, tokenizer, small_settings, tmp_path):
    model_of(name).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    settings = {**small_settings, "model": str(tmp_path / "model"), "method": "sft", "params": {"epochs": 0.25}}
    settings |= {"max_tokens": 100, "max_prompt_tokens": 240, "max_new_tokens": 4}
    with warnings.catch_warnings(action="ignore"):
        run = msft.run(msft.RunConfig(**settings), tmp_path / "runs", progress=False)
    paths, text = run.result["paths"], summary(run)
    if name == "llama":
        assert paths == {"training": "packed", "evaluation": "packed"}
        assert "HFLM" not in text
    else:
        assert paths["training"].startswith("padded: packed training knows")
        assert paths["evaluation"] == "HFLM: its layers attend to a sliding window of 8 tokens"
        assert all(path in text for path in paths.values())
    folder = msft.export(run, tmp_path / "out")
    assert AutoModelForCausalLM.from_pretrained(folder).config.model_type == TABLE[NAMES.index(name)][1]


ODD = {
    "rwkv": {"attention_hidden_size": 32, "context_length": 256},  # its state reads what is masked
    "roformer": {"embedding_size": 32},  # an encoder
}


@pytest.mark.parametrize("kind", ODD)
def test_rows_that_padding_would_change_go_one_at_a_time(kind, tokenizer):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        config = AutoConfig.for_model(kind, **{**SHAPE, "vocab_size": 400, **ODD[kind]})
        model = AutoModelForCausalLM.from_config(config).eval()
    with pytest.warns(UserWarning, match="what pads a row changes it, so rows go one at a time"):
        lm = PrefixCachedLM(model, tokenizer, 4)
    pairs = [Instance("loglikelihood", {}, (p, a), 0, ("t", 0, 1)) for p in PROMPTS for a in (" yes", " no, 7")]

    def answers(lm):
        asked = requests(PROMPTS, limit=6)
        return lm.generate_until(asked, disable_tqdm=True), lm.loglikelihood(pairs, disable_tqdm=True)

    alone, together = (answers(HFLM(pretrained=model, tokenizer=tokenizer, batch_size=n)) for n in (1, 4))
    assert answers(lm) == alone
    assert together[0] != alone[0] or together[1][0][0] != pytest.approx(alone[1][0][0], abs=1e-3)


def test_a_decoder_that_shares_its_name_with_an_encoder_decoder_answers_as_a_causal_model(tokenizer):
    """By the name alone HFLM gives prompts as parts of the answers, and no log-likelihood at all."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        shape = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "init_std": 0.2}
        shape |= {f"{part}_attention_heads": 4 for part in ("encoder", "decoder")}
        config = AutoConfig.for_model("bart", vocab_size=400, **shape, encoder_ffn_dim=64, decoder_ffn_dim=64)
        model = AutoModelForCausalLM.from_config(config).eval()
    lm, stock = lm_of(model, tokenizer, 4), HFLM(pretrained=model, tokenizer=tokenizer, backend="causal")
    asked, options = requests(PROMPTS, limit=6), {"disable_tqdm": True}
    assert lm.generate_until(asked) == stock.generate_until(asked, **options)
    pairs = [Instance("loglikelihood", {}, (p, " no, 7"), 0, ("t", 0, 1)) for p in PROMPTS]
    assert lm.loglikelihood(pairs) == stock.loglikelihood(pairs, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_that_padding_leaves_alone_go_together(dtype):
    """In half precision too, where a padded row of another shape rounds otherwise."""
    for name in ("mistral, all layers slide", "gemma2", "mamba", "gpt2"):
        assert not reads_padding(model_of(name, dtype)), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_that_others_of_a_batch_would_change_are_trained_one_at_a_time(dtype):
    losses = TokenLosses(model_of("doge, its router mixes a batch", dtype), 2, 64)
    assert losses.path.endswith("; what pads a row changes it, so rows go one at a time")
    assert losses.token_budget == 1
    for name in ("doge, a window of another name", "mixtral", "gemma2", "mamba", "gpt2"):
        losses = TokenLosses(model_of(name, dtype), 2, 64)
        assert "one at a time" not in losses.path
        assert losses.token_budget == 64
