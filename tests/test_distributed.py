"""Several processes for one run: the history of one process, one writer, and a run that any number of them goes on with."""

import datetime
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import filelock
import pandas as pd
import pytest
import torch
import yaml
from helpers import ALWAYS, make_model
from safetensors.torch import load_file

import msft
from msft import distributed
from msft.errors import DataError, ModelError, RunError
from msft.launch.accelerated import unused_keys
from msft.loss import tokens
from msft.loss.losses import make_passes
from msft.training import Trainer

METHODS = {
    "msft": {"budget": 0.5},
    "sft": {"epochs": 1},
    "sro_sft": {"epochs": 1},
    "dynamix_sft": {"epochs": 1, "updates": 3, "look_ahead_batch": 6},
    "ies": {"epochs": 4, "delta": 0.05},
}
WROTE = 7  # exit code of a process that wrote where only process 0 may


def settings_of(method, **other):
    small = {"model": "tiny-smoke", "mixture": "tiny-smoke", "device": "cpu", "batch_size": 17}
    return {"method": method, "params": METHODS[method], **small, **other}


# what a process of a run does ---------------------------------------------------------------------------------


def join(environment):
    os.environ |= environment
    torch.set_num_threads(1)


def train(environment, runs_dir, configs, hit=None):
    """Trains configs one after the other. hit: (rank, call, signal): a process signals itself at a step."""
    join(environment)
    if hit and distributed.rank() == hit[0]:
        original, calls = Trainer.gradients, []

        def struck(self, rows):
            calls.append(1)
            if len(calls) == hit[1]:
                os.kill(os.getpid(), hit[2])
            return original(self, rows)

        Trainer.gradients = struck
    written = [] if distributed.is_main() else watch_writes(runs_dir)
    for settings in configs:
        msft.run(msft.RunConfig(**settings, **(ALWAYS if hit else {})), runs_dir, progress=False)
    if written:
        print(written[:5], file=sys.stderr)
        os._exit(WROTE)


def watch_writes(folder):
    """The list that names what this process opens for writing, makes, renames or deletes below a folder from now on."""
    writes, folder = [], str(folder)

    def watch(event, args):
        if (
            event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir")
            and args
            and str(args[0]).startswith(folder)
        ):
            if event != "open" or args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                writes.append((event, str(args[0])))

    sys.addaudithook(watch)
    return writes


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def group(children, processes, target, *args, fsdp=False):
    """Exit codes of processes that a launcher would start together."""
    shared = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    shared |= {"ACCELERATE_USE_FSDP": str(fsdp).lower()}
    started = [
        children.Process(target=target, args=({**shared, "RANK": str(r), "LOCAL_RANK": str(r)}, *args))
        for r in range(processes)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(120)
    codes = [process.exitcode for process in started]
    for process in started:
        process.kill()
    return codes


# fixtures -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone(smoke_sft_run, tmp_path_factory):
    """alone(method): the run of one process."""
    folder, known = tmp_path_factory.mktemp("alone"), {}

    def get(method):
        if method not in known:
            known[method] = msft.run(msft.RunConfig(**settings_of(method)), folder, progress=False)
        return known[method]

    return get


def assert_same_run(run, one):
    """Losses within 1e-5, everything that was counted or decided equal."""
    assert run.status == "finished"
    assert run.directory.name == one.directory.name
    pd.testing.assert_frame_equal(run.history, one.history, check_exact=False, rtol=0, atol=1e-5)
    for column in ("stage", "epoch", "path_epoch", "task", "accuracy", "n", "active"):
        assert run.history[column].tolist() == one.history[column].tolist()
    decisions = [
        [(e["kind"], e["arguments"]) for e in r.journal if e["kind"] not in ("note", "saved")] for r in (run, one)
    ]
    assert decisions[0] == decisions[1]
    assert run.result["best"] == one.result["best"]
    assert run.flops == one.flops
    pd.testing.assert_frame_equal(run.outputs, one.outputs)
    ours, theirs = (load_file(next(r.best.path.glob("*.safetensors"))) for r in (run, one))
    assert ours.keys() == theirs.keys()
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < 1e-3


# whole runs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("processes", "fsdp", "methods"),
    [(2, False, list(METHODS)), (3, False, ["msft", "sft"]), (2, True, ["msft", "dynamix_sft", "ies"])],
    ids=["two", "three", "fsdp2"],
)
def test_history_of_several_processes_is_that_of_one(alone, tmp_path, children, processes, fsdp, methods):
    configs = [settings_of(method) for method in methods]
    assert group(children, processes, train, tmp_path, configs, fsdp=fsdp) == [0] * processes
    for run in msft.load_runs(tmp_path):
        assert run.result["processes"] == processes
        assert_same_run(run, alone(run.config.method))


@pytest.mark.parametrize("fsdp", [False, True], ids=["ddp", "fsdp2"])
def test_an_adapter_is_trained_by_several_processes(tmp_path, children, fsdp):
    pytest.importorskip("peft")
    lora = {"adapter": "lora", "learning_rate": 1e-2}
    configs = [settings_of(method, **lora) for method in ("msft", "dynamix_sft")]
    alone = [msft.run(msft.RunConfig(**config), tmp_path / "alone", progress=False) for config in configs]
    # told to stop, saved, and gone on with
    assert group(children, 2, train, tmp_path, configs[:1], (1, 3, signal.SIGTERM), fsdp=fsdp) == [1, 1]
    half = settings_of("sft", **lora, precision="bf16")
    assert group(children, 2, train, tmp_path, [*configs, half], fsdp=fsdp) == [0, 0]
    for one in alone:
        run = msft.Run(tmp_path / one.directory.name)
        assert_same_run(run, one)
        assert run.result["frozen"] == one.result["frozen"] > 0
    assert {run.config.precision for run in msft.load_runs(tmp_path)} == {"fp32", "bf16"}


@pytest.mark.parametrize("killed", [0, 1])
def test_killed_process_stops_the_run_and_any_number_goes_on_with_it(alone, tmp_path, children, killed):
    configs = [settings_of("sft")]
    codes = group(children, 2, train, tmp_path / "killed", configs, (killed, 4, signal.SIGKILL))
    assert codes[killed] == -signal.SIGKILL
    assert codes[1 - killed] == 1
    name = alone("sft").directory.name
    assert msft.Run(tmp_path / "killed" / name).status != "finished"
    with filelock.FileLock(tmp_path / "killed" / name / ".lock", timeout=0):
        pass
    for processes in (3, 1)[killed:]:
        shutil.copytree(tmp_path / "killed", tmp_path / str(processes))
        assert group(children, processes, train, tmp_path / str(processes), configs) == [0] * processes
        run = msft.Run(tmp_path / str(processes) / name)
        assert run.result["resumed"]
        assert_same_run(run, alone("sft"))


def test_one_process_that_is_told_to_stop_stops_all_and_sharded_state_is_anyones(alone, tmp_path, children):
    configs = [settings_of("dynamix_sft")]
    assert group(children, 2, train, tmp_path, configs, (1, 3, signal.SIGTERM), fsdp=True) == [1, 1]
    run = msft.Run(tmp_path / alone("dynamix_sft").directory.name)
    state = [e["state"] for e in map(yaml.safe_load, (run.directory / "journal.jsonl").open()) for e in [e["entry"]]][
        -1
    ]
    assert state["progress"]["step"] > 0
    # on with one, then with sharded weights again
    assert group(children, 1, train, tmp_path, configs, (0, 9, signal.SIGTERM)) == [1]
    assert group(children, 2, train, tmp_path, configs, fsdp=True) == [0, 0]
    assert_same_run(run, alone("dynamix_sft"))


# rows and items -----------------------------------------------------------------------------------------------


def test_every_row_is_dealt_out_once_and_all_have_as_many_passes():
    lengths = [5, 30, 7, 7, 12, 3, 28, 16]
    for processes in (1, 2, 3, 11):
        for budget in (16, 40, 1000):
            shares = [tokens.deal_out(lengths, budget, p, processes) for p in range(processes)]
            assert sorted(i for share in shares for part in share for i in part) == list(range(8))
            assert len({len(share) for share in shares}) == 1
    # two of 30, two of 28 and three of 16 tokens would be over the budget; two of 16 and four of 7 are not
    assert tokens.deal_out(lengths, 40) == [[1], [6], [7, 4], [2, 3, 0, 5]]


def test_shares_of_a_step_add_up_to_its_loss():
    rows = [tokens.Tokens(tuple(range(2, 6 + n)), 1 + n % 3) for n in range(7)]
    model = make_model()
    whole = list(make_passes(rows, 4, 64, model, padded=True))
    for processes in (2, 3, 9):
        shares = [b for p in range(processes) for b in make_passes(rows, 4, 64, model, (p, processes), padded=True)]
        for part in ("weights", "examples", "targets"):
            ours, theirs = (torch.cat([getattr(b, part) for b in batches]) for batches in (shares, whole))
            assert ours.dtype == theirs.dtype
            assert torch.equal(ours.sort().values, theirs.sort().values)
        assert all(batch.rows.ids.numel() for batch in shares)


def test_items_come_back_in_their_order(monkeypatch):
    items = list(range(10))
    for processes in (1, 2, 3, 12):
        monkeypatch.setattr(distributed, "size", lambda processes=processes: processes)
        shares = []
        for number in range(processes):
            monkeypatch.setattr(distributed, "rank", lambda number=number: number)
            shares.append(distributed.mine(items))
        assert distributed.woven(shares) == items


# agreement ----------------------------------------------------------------------------------------------------


def agree(environment, folder):
    join(environment)
    distributed.start("cpu")
    rank = distributed.rank()
    values = [distributed.same(f"of {rank}"), distributed.gather(rank), distributed.any_of(rank == 2, False)]
    assert values == ["of 0", [0, 1, 2], (True, False)]
    assert distributed.on_main(lambda: rank) == 0
    with pytest.raises(DataError, match="row 3 of 1"), distributed.agreed():
        if rank == 1:
            raise DataError("row 3 of 1")
    with pytest.raises(RunError, match="the disk is full"):
        distributed.on_main(fail)
    with pytest.raises(RunError, match="process 2 has another run than process 0"):
        distributed.check_same("b" if rank == 2 else "a")
    (folder / str(rank)).touch()


def fail():
    raise RunError("the disk is full")


def test_processes_agree_on_values_and_errors(tmp_path, children):
    assert group(children, 3, agree, tmp_path) == [0, 0, 0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2"]


def test_with_one_process_nothing_happens(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "8")  # of a cluster job that starts its processes itself
    assert (distributed.size(), distributed.rank(), distributed.is_main()) == (1, 0, True)
    distributed.start(None)
    assert not torch.distributed.is_initialized()
    assert distributed.gather(3) == [3]
    model = torch.nn.Linear(2, 2)
    assert distributed.for_training(model) is model


def test_error_is_said_once_and_the_launcher_sees_it(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "msft", "run"]
    done = subprocess.run(
        [*command, "--learning-rate", "-1"], capture_output=True, text=True, cwd=tmp_path, timeout=100
    )
    assert done.returncode != 0
    assert done.stderr.count("learning_rate = -1.0: must lie in") == 1


def test_one_gpu_for_all_processes_is_refused(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ModelError, match="one GPU for 2 processes"):
        distributed.device("cuda:1")
    monkeypatch.setenv("LOCAL_RANK", "99")
    with pytest.raises(ModelError, match="fewer than its processes"):
        distributed.device("cuda")


def test_process_that_waits_for_others_says_so(monkeypatch, capsys):
    """RANK and its like are left over in many a shell."""
    port = free_port()
    names = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed, "_SILENCE", 0.2)
    monkeypatch.setattr(distributed, "_ARRIVAL", datetime.timedelta(seconds=2))
    with pytest.raises(RunError, match="process 0 of 2 cannot reach the others"):
        distributed.start("cpu")
    word = f"process 0 of 2 (RANK, WORLD_SIZE) waits for the others at 127.0.0.1:{port}"
    assert word in capsys.readouterr().err


# accelerate ---------------------------------------------------------------------------------------------------

CONFIGS = Path(msft.__file__).parent / "launch" / "accelerate"


@pytest.mark.parametrize(("name", "kind"), [("ddp", "MULTI_GPU"), ("fsdp2", "FSDP")])
def test_shipped_configuration_is_one_of_accelerates(name, kind):
    from accelerate.commands.config.config_args import load_config_from_file

    loaded = load_config_from_file(str(CONFIGS / f"{name}.yaml"))
    assert loaded.distributed_type == kind
    assert loaded.mixed_precision == "no"


@pytest.mark.parametrize("name", ["ddp", "fsdp2"])
def test_runs_of_a_machine_that_start_at_once_have_a_port_each(name):
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    words = ["--config_file", str(CONFIGS / f"{name}.yaml"), "--num_processes", "2", "script.py"]
    ports = set()
    for _ in range(2):
        args, *_ = _validate_launch_command(launch_command_parser().parse_args(words))
        prepare_multi_gpu_env(args)
        ports.add(args.master_port)
    assert len(ports) == 2 and not {"0", "29500"} & ports


def environment_of(*words):
    """The variables that `accelerate launch` sets for its processes, by its own code."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    words = [*words, "--num_processes", "2", "--main_process_port", "0", "script.py"]
    args, *_ = _validate_launch_command(launch_command_parser().parse_args(words))
    return prepare_multi_gpu_env(args)


@pytest.mark.parametrize("name", ["ddp", "fsdp2"])
def test_of_the_shipped_configurations_every_key_is_used(name):
    assert unused_keys(msft.RunConfig(), environment_of("--config_file", str(CONFIGS / f"{name}.yaml"))) == []


def test_keys_of_accelerate_that_a_run_does_not_use_are_named():
    words = "--use_fsdp --fsdp_version 2 --fsdp_offload_params true --fsdp_activation_checkpointing true"
    words += " --mixed_precision bf16 --dynamo_backend inductor"
    lines = unused_keys(msft.RunConfig(), environment_of(*words.split()))
    keys = ["mixed_precision", "dynamo_config", "fsdp_offload_params", "fsdp_activation_checkpointing"]
    assert [line.partition(":")[0] for line in lines] == keys
    assert "mixed_precision: bf16 (--precision decides)" in lines


def test_a_cpu_is_asked_for_by_the_run_s_own_setting():
    environment = {"ACCELERATE_USE_CPU": "true"}
    assert unused_keys(msft.RunConfig(), environment) == ["use_cpu: true (--device cpu decides)"]
    assert unused_keys(msft.RunConfig(device="cpu"), environment) == []


def test_unused_keys_are_said_at_the_start(monkeypatch, capsys, small_run):
    from msft import runs
    from msft.__main__ import main

    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setattr(runs, "run", lambda *_, **__: small_run)
    assert main(["run"]) == 0
    assert "  - deepspeed_config: true (take fsdp_config to shard the weights)" in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("name", ["ddp", "fsdp2"])
def test_accelerate_launch_on_two_gpus(smoke_sft_run, tmp_path, name):
    """nccl, each process on its own GPU; one GPU's run beside it."""
    small = ["--method", "msft", "--model", "tiny-smoke", "--mixture", "tiny-smoke", "--params", "budget=0.5"]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIGS / f"{name}.yaml")]
    flags = [*small, "--precision", "fp32", "--runs-dir"]
    for command in (
        [*launch, "--num_processes", "2", "-m", "msft", "run", *flags, str(tmp_path / "two")],
        [sys.executable, "-m", "msft", "run", *flags, str(tmp_path / "one")],
    ):
        subprocess.run(command, check=True, timeout=300)
    two, one = (msft.load_runs(tmp_path / folder)[0] for folder in ("two", "one"))
    assert (two.result["processes"], one.result["processes"]) == (2, 1)
    losses = [run.history["train_loss"].dropna().tolist() for run in (two, one)]
    assert losses[0][:4] == pytest.approx(losses[1][:4], abs=1e-3)
