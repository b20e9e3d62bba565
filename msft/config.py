"""RunConfig: the settings of one run; frozen, checked in full when made, hashed over what changes the result."""

import dataclasses
import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from msft import methods
from msft.errors import ConfigError, unknown
from msft.paths import PATHS, is_mixture_file, settled
from msft.settings import check_values, setting

CANNOT_START = "the run cannot start with these settings:"
_DEVICES = r"(cpu|cuda|mps|xpu)(:\d\d?)?"
TRACKERS = ("tensorboard", "wandb")
# Table 5 and section 2 of the protocol; a model's own defaults (the tiny ones) may stand before these
PAPER_SETTINGS = {
    "learning_rate": 1e-5,
    "batch_size": 64,
    "precision": "bf16",
    "max_new_tokens": 512,
    "eval_batch_size": 64,
}
LORA_SETTINGS = {"lora_r": 8, "lora_alpha": 8, "lora_dropout": 0.0}  # peft's own defaults
ADAPTER = ("adapter", *LORA_SETTINGS, "lora_target_modules")  # the settings that a run without one does not have


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Everything that a run is determined by.

    A None means the model's own default: the paper's value (Table 5), or that of the tiny models.
    Raises ConfigError, which names every wrong setting at once.
    """

    method: str = setting("msft", "name of the training method; see `python -m msft methods`")
    model: str = setting("tiny-qwen2", "tiny-qwen2, tiny-qwen3, tiny-olmo2, a hub id or a local folder")
    mixture: str = setting("tiny", "tiny, tiny-5, tiny-15, tiny-21, paper-5, paper-10, paper-15, medmcqa-21, a YAML")
    seed: int = setting(20, "seed of the data order and of all else that training draws", low=0, high=2**31 - 1)
    params: dict = setting({}, "the method's own parameters")
    select_on: str | None = setting(
        None,
        "what peaks and the best checkpoint are chosen on; none: validation where a mixture YAML has it for all, else test",
        choices=("test", "validation"),
    )
    select_metric: str = setting("accuracy", "what of it: accuracy, or held-out loss", choices=("accuracy", "loss"))
    learning_rate: float | None = setting(None, "constant learning rate of Adam", low=1e-30, high=10.0)
    batch_size: int | None = setting(None, "examples a step", low=1, high=65536)
    loss_group: int = setting(4, "examples a micro-batch of the loss: a mean of group means", low=1, high=65536)
    precision: str | None = setting(
        None, "of weights and Adam; mixed: kept in fp32, multiplied in bf16", choices=("bf16", "fp32", "mixed")
    )
    eval_precision: str | None = setting(
        None, "of the weights while they answer; none: bf16 under mixed, else as they are", choices=("bf16", "fp32")
    )
    adapter: str | None = setting(None, "lora: train an adapter of peft in place of the weights", choices=("lora",))
    lora_r: int | None = setting(None, "rank of the adapter", low=1, high=65536)
    lora_alpha: int | None = setting(None, "numerator of its scale lora_alpha / lora_r", low=1, high=2**20)
    lora_dropout: float | None = setting(None, "dropout before it, in training", low=0.0, high=0.99)
    lora_target_modules: str | None = setting(None, "layers that get one, with commas, or all-linear; none: peft's own")
    max_tokens: int = setting(512, "tokens an example at most; longer ones are left out", low=8, high=131072)
    max_prompt_tokens: int = setting(700, "tokens a five-shot prompt at most", low=8, high=131072)
    max_new_tokens: int | None = setting(None, "tokens generated an item at most", low=1, high=131072)
    evaluations_per_epoch: int = setting(4, "evaluations an epoch", low=1, high=1000)
    eval_batch_size: int | None = setting(None, "items a forward pass of the evaluation", low=1, high=65536)
    token_budget: int = setting(16384, "tokens a pass of training at most; a CPU takes 1,024", low=16, high=2**24)
    train_size: int | None = setting(None, "train examples a sub-dataset (paper mixtures)", low=1, high=10**7)
    test_size: int | None = setting(None, "test examples a sub-dataset (paper mixtures)", low=1, high=10**7)
    validation_size: int | None = setting(None, "validation examples a sub-dataset (paper mixtures)", low=0, high=10**7)
    confirmation_size: int | None = setting(
        None, "confirmation examples: of the test records left over; none: test_size", low=0, high=10**7, result=False
    )
    data_dir: str | None = setting(None, "folder in hub format that stands in for the hub", result=False)
    revision: str | None = setting(None, "revision of the hub's data sets")
    model_revision: str | None = setting(None, "revision of the hub's model")
    trust_remote_code: bool = setting(False, "run the code that a hub model brings along")
    methods_dir: str | None = setting(None, "a folder with methods of your own, one file each", result=False)
    device: str | None = setting(None, "cpu, cuda, cuda:1, ...; none takes what is there", result=False)
    threads: int | None = setting(None, "CPU threads; none leaves torch's own number", low=1, high=1024)
    save_share: float = setting(0.05, "share of a run's time for saves; 1: no limit", low=0.0, high=1.0, result=False)
    save_minutes: float = setting(2.0, "minutes between two saves at least", low=0.0, high=1e6, result=False)
    keep_peaks: str = setting(
        "memory",
        "where the peaks of a stage wait: host memory, or files alone",
        choices=("memory", "disk"),
        result=False,
    )
    track: str | None = setting(None, "where to log: tensorboard, wandb, or both with a comma", result=False)

    def __post_init__(self):
        clean, problems = check_values(RunConfig, vars(self), "setting")
        for name in filter(clean.get, PATHS):
            try:
                clean[name] = settled(name, clean[name])
            except ConfigError as error:  # it can be no path
                problems += [f"setting {name}: {problem}" for problem in error.problems]
                del clean[name]
        if names := clean.get("lora_target_modules"):
            clean["lora_target_modules"] = ",".join(sorted({name.strip() for name in names.split(",")} - {""}))
        if "mixture" in clean and clean.get("select_on", "") is None:
            clean["select_on"] = "test"
            if is_mixture_file(clean["mixture"]):
                from msft.data.spec import selects_on  # a quarter of a second

                clean["select_on"] = selects_on(clean["mixture"])
        if "method" in clean and "params" in clean:
            folder, evaluations = clean.get("methods_dir"), clean.get("evaluations_per_epoch")
            clean["params"], wrong_params = methods.check_params(clean["method"], clean["params"], folder, evaluations)
            problems += wrong_params
        problems += _misfits(clean)
        if problems:
            raise ConfigError(CANNOT_START, problems)
        for name, value in clean.items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_mapping(cls, values: Mapping, problems: Sequence[str] = ()) -> "RunConfig":
        """A config from a mapping such as a YAML file or flags; unknown names are errors, beside the problems given."""
        names = [field.name for field in dataclasses.fields(cls)]
        problems = [*problems, *(unknown("setting", name, names) for name in values if name not in names)]
        try:
            config = cls(**{name: value for name, value in values.items() if name in names})
        except ConfigError as error:
            problems += error.problems
        if problems:
            raise ConfigError(CANNOT_START, problems)
        return config

    def __hash__(self) -> int:
        return hash((self.method, self.model, self.mixture, self.seed, *self.params))

    def with_defaults(self, model_settings: Mapping) -> "RunConfig":
        """Every None that has a default filled in: the model's own first, then the paper's."""
        defaults = {**PAPER_SETTINGS, **model_settings, **(LORA_SETTINGS if self.adapter else {})}
        missing = {name: value for name, value in defaults.items() if getattr(self, name) is None}
        whole = dataclasses.replace(self, **missing)
        by_default = dataclasses.replace(whole, eval_precision=None)  # one run, whether its default is said or not
        return by_default if by_default.answers == whole.answers else whole

    def sft(self, epochs: float) -> "RunConfig":
        """The SFT run of the same settings, which a search for peaks is read from where it is finished."""
        return dataclasses.replace(self, method="sft", params={"epochs": epochs}, methods_dir=None)

    def to_dict(self) -> dict:
        """All settings as plain values."""
        return dataclasses.asdict(self)

    @property
    def weights(self) -> str:
        """The precision of the weights, 'bf16' or 'fp32': what is trained and saved."""
        return "bf16" if self.precision == "bf16" else "fp32"

    @property
    def answers(self) -> str:
        """The precision of the weights in an evaluation."""
        return self.eval_precision or ("bf16" if self.precision == "mixed" else self.weights)

    @property
    def changed_params(self) -> dict:
        """The method's parameters that differ from its defaults."""
        plain, _ = methods.check_params(self.method, {}, self.methods_dir)
        return {name: value for name, value in self.params.items() if value != plain.get(name)}

    def command_line(self, **other) -> str:
        """The command that trains this run, quoted for a shell; settings at their defaults are left out.

        other: what stands in place of a setting (None leaves it out), and more flags, such as runs_dir.
        """
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        if not is_mixture_file(self.mixture):  # of a file it depends on what stands in it
            defaults["select_on"] = "test"
        first = {name: getattr(self, name) for name in ("method", "model", "mixture")}
        changed = {name: value for name, value in self.to_dict().items() if value != defaults[name]}
        values = {**first, **changed, **other}
        del values["params"]  # they never equal their field's default, which is made anew for each config
        words = ["python", "-m", "msft", "run"]
        for name, value in values.items():
            words += [] if value is None else [f"--{name.replace('_', '-')}", str(value)]
        pairs = [f"{name}={value}" for name, value in self.changed_params.items()]
        return shlex.join(words + (["--params", *pairs] if pairs else []))

    def fingerprint(self, *contents: str) -> str:
        """Hash of the settings that change the result, and of the contents (data, model) given."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.metadata["result"]}
        if self.select_metric == "accuracy":  # runs from before it could be chosen keep their names
            del fields["select_metric"]
        del fields["eval_precision"]
        if self.answers != self.weights:
            fields["answers"] = self.answers
        if not self.adapter:
            fields = {name: value for name, value in fields.items() if name not in ADAPTER}
        # of folders and files the contents count, not where they lie
        fields |= {name: Path(fields[name]).name for name in ("model", "mixture") if Path(fields[name]).is_absolute()}
        text = json.dumps([fields, contents], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def _misfits(clean: Mapping) -> list[str]:
    """Problems of settings that have the right type and bounds each."""
    others = [] if clean.get("adapter") else [name for name in ADAPTER if clean.get(name) is not None]
    problems = [f"setting {name} = {clean[name]!r} is for a run with adapter=lora" for name in others]
    trackers = [] if clean.get("track") is None else [name.strip() for name in clean["track"].split(",")]
    problems += [unknown("tracker", name, TRACKERS) for name in trackers if name not in TRACKERS]
    if not re.fullmatch(_DEVICES, clean.get("device") or "cpu"):
        problems.append(f"setting device: unknown device {clean['device']!r}. Allowed: cpu, cuda, cuda:0, ...")
    names = [name for name in ("model", "mixture", "lora_target_modules") if clean.get(name) is not None]
    return problems + [f"setting {name} is empty" for name in names if not clean[name].strip()]
