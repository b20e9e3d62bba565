"""Small models, tokenizers, mixtures and stand-ins for the tests: made in a moment, fixed by seeds."""

import json
import os
import signal

import torch
import yaml
from lm_eval.api.instance import Instance
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

import msft
from msft import run_directory, runs, training
from msft.data.example import Example
from msft.data.example import test_prompt as five_shot_prompt
from msft.evaluation import Scores
from msft.loss.tokens import tokenize
from msft.results.progress import RunProgress
from msft.store import checkpoints

ALWAYS = {"save_share": 1.0, "save_minutes": 0.0}  # saves as often as can be
KINDS = ("qwen2", "qwen3", "olmo2", "llama")
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": False,
    "initializer_range": 0.2,
}


def save_small(folder, kind, tokenizer_file, pad):
    """A folder in hub format: `kind` ("Qwen2" or "Olmo2") with two layers, random weights, a real tokenizer."""
    import transformers

    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(tokenizer_file), eos_token="<|endoftext|>", pad_token=pad)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = getattr(transformers, f"{kind}Config")(
            vocab_size=100352 if kind == "Olmo2" else len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=4096,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            tie_word_embeddings=True,
        )
        model = getattr(transformers, f"{kind}ForCausalLM")(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def letters(i):
    return Example(f"Pick {i}.\noptions: A. {i}, B. {i + 1}", "#### A" if i % 3 else "#### B", "A" if i % 3 else "B")


def sums(i):
    return Example(f"{i} + 1?", f"{i} and one. #### {i + 1}", str(i + 1))


def mottos(i):
    return Example(f"Motto {i}: café?", "#### naïve ☃", "naïve ☃")


MAKERS = {"zebras": letters, "adding": sums, "mottos": mottos}  # not in string order
TEST_SIZES = {"zebras": 8, "adding": 5, "mottos": 6}  # not equal


def mixture_rows(name, part):
    start, count = {"train": (0, 24), "shots": (30, 5), "test": (40, TEST_SIZES[name]), "validation": (60, 4)}[part]
    return [MAKERS[name](i) for i in range(start, start + count)]


def write_mixture(folder):
    """The small mixture as YAML and JSONL; returns the YAML's path."""
    entries = []
    for name in MAKERS:
        entry = {"name": name}
        for part in ("train", "test", "validation", "shots"):
            rows = []
            for example in mixture_rows(name, part):
                rationale = example.target.split("####")[0].strip()
                rows.append({"question": example.question, "answer": example.answer, "rationale": rationale or None})
            entry[part] = f"{name}_{part}.jsonl"
            (folder / entry[part]).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        entries.append(entry)
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump({"name": "small", "sub_datasets": entries}, sort_keys=False))
    return path


def make_tokenizer(vocabulary=400):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    texts = [
        text for name in MAKERS for e in mixture_rows(name, "train") for text in (f"Q: {e.question}\nA: ", e.target)
    ]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(
        texts * 3,
        trainers.BpeTrainer(
            vocab_size=vocabulary, special_tokens=["<pad>", "<eos>"], initial_alphabet=alphabet, show_progress=False
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>")


def make_model(kind="qwen2", vocabulary=400, seed=0, **shape):
    """An untrained model in evaluation mode; its greedy texts are noise but fixed."""
    shape = {**SHAPE, "vocab_size": vocabulary, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None, **shape}
    if kind == "qwen3":
        shape.setdefault("head_dim", 8)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shape)).eval()


def taught_examples():
    """(prompt, target) of five-shot prompts over the train items of one sub-dataset after the other."""
    pairs = []
    for name in MAKERS:
        sub = msft.SubDataset(
            name, mixture_rows(name, "train"), mixture_rows(name, "test"), mixture_rows(name, "shots")
        )
        pairs += [(five_shot_prompt(sub, e), e.target) for e in sub.train[:7]]
    return pairs[:20]


def teach(model, tokenizer, pairs, steps=120):
    """Over-fits a model on (prompt, target) until it answers in the format."""
    eos = tokenizer.eos_token_id
    prompts = tokenizer([p for p, _ in pairs])["input_ids"]
    answers = [[*ids, eos] for ids in tokenizer([t for _, t in pairs])["input_ids"]]
    width = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
    ids = torch.zeros(len(pairs), width, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for r, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        ids[r, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
        labels[r, len(prompt) : len(prompt) + len(answer)] = torch.tensor(answer)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    model.train()
    for _ in range(steps):
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def requests(prompts, until=(), limit=16, docs=None, task="t"):
    """Real lm-eval instances of generate_until; docs: the documents, or the texts of their targets."""
    docs = [{"target": doc} if isinstance(doc, str) else doc for doc in docs or [{} for _ in prompts]]
    options = {"until": list(until), "max_gen_toks": limit, "do_sample": False}
    return [
        Instance("generate_until", doc, (prompt, dict(options)), 0, (task, i, 1))
        for i, (prompt, doc) in enumerate(zip(prompts, docs, strict=True))
    ]


class FakeEvaluator:
    """Stands for an Evaluator: accuracies and losses from functions of the number of calls; remembers the weights it saw."""

    path = "packed"

    def __init__(self, tasks, accuracy=lambda call, task: 0.5, model=None, n=4, loss=lambda call, task: 1.5):
        self.tasks, self.accuracy, self.model, self.n, self.seen = list(tasks), accuracy, model, n, []
        self.loss = loss

    def evaluate(self):
        call = len(self.seen)
        self.seen.append(checkpoints.snapshot(self.model) if self.model is not None else None)
        scores = {t: self.accuracy(call, t) for t in self.tasks}
        same = (self.n, 10, ["x"] * self.n, [False] * self.n)
        return {t: Scores(score, *same, self.loss(call, t)) for t, score in scores.items()}


def make_trainer(folder, model=None, tokenizer=None, evaluators=None, examples=None, **settings):
    """(trainer, test evaluator) over the small mixture, with a run directory in `folder`."""
    tokenizer = tokenizer or make_tokenizer()
    model = model or make_model()
    settings = {"learning_rate": 1e-3, "batch_size": 8, "precision": "fp32", **settings}
    config = settings_of(settings)
    examples = examples or {name: tokenize(tokenizer, mixture_rows(name, "train")) for name in MAKERS}
    folder.mkdir(parents=True, exist_ok=True)
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    where = run_directory.RunDirectory(None, folder, size, RunProgress("test", shown=False))
    evaluators = evaluators or {"test": FakeEvaluator(examples, model=model)}
    return training.Trainer(model, config, examples, evaluators, where), evaluators["test"]


def settings_of(settings):
    return msft.RunConfig(method="sft", **settings).with_defaults({})


def killed_run(settings, runs_dir, place, count):
    """Runs in a child process that kills itself (SIGKILL) at the count-th call of `place`, saving as often as it can."""
    owner, name = {
        "step": (training.Trainer, "gradients"),
        "evaluation": (training.Trainer, "measure"),
        "before commit": (run_directory.RunDirectory, "commit"),
        "after commit": (checkpoints.Store, "retain"),
        "put": (checkpoints.Store, "put"),
        "best": (runs, "save_best"),
    }[place]
    original, calls = getattr(owner, name), []

    def deadly(*args, **kwargs):
        calls.append(1)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(owner, name, deadly)
    msft.run(msft.RunConfig(**{**ALWAYS, **settings}), runs_dir, progress=False)


def unharmed_run(settings, runs_dir, wait=True):
    """Runs in a child process to the end."""
    msft.run(msft.RunConfig(**settings), runs_dir, progress=False, wait=wait)
