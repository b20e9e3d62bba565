"""The paper's mixtures by name: order, draws, what is left out, and the hub as just another source."""

import copy
import json
import socket
from pathlib import Path

import pytest

from msft.benchmarks.paper_mixtures import NAMES, SUBJECTS, load, mixture_benchmarks, read_hub
from msft.benchmarks.records import BENCHMARKS, to_example
from msft.data.example import SHOTS, shots_text, training_text
from msft.errors import ConfigError, DataError

GOLDEN = json.loads((Path(__file__).parent / "golden_prompts.json").read_text(encoding="utf-8"))
SHARED = Path(__file__).resolve().parents[2] / "shared"
FIVE = ["hellaswag", "arc_easy", "boolq", "gsm8k", "medmcqa"]
TEN = ["hellaswag", "arc_easy", "openbookqa", "sciq", "winogrande"]
TEN += ["aqua_rat", "boolq", "gsm8k", "medmcqa", "commonsense_qa"]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Nothing here may look for the hub: not a local folder, and not the made hub either."""

    def look_up(*args, **kwargs):
        raise AssertionError("a name was looked up on the network")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def made(name: str, label: str, count: int) -> list[dict]:
    """`count` invented records that differ in their question."""
    asked = {"hellaswag": "ctx"}.get(name, "question")
    records = []
    for number in range(count):
        record = copy.deepcopy(GOLDEN[name]["records"][number % len(GOLDEN[name]["records"])]["record"])
        record[asked] = f"{label} {number}: " + "word " * (number % 7) + record[asked]
        if name == "medmcqa":
            record["exp"] = "none"
        records.append(record)
    return records


def write(folder: Path, name: str, train: list[dict], test: list[dict]) -> None:
    (folder / name).mkdir(parents=True, exist_ok=True)
    for part, records in (("train", train), ("test", test)):
        text = "".join(json.dumps(record) + "\n" for record in records)
        (folder / name / f"{part}.jsonl").write_text(text, encoding="utf-8")


@pytest.fixture
def folder(tmp_path):
    for name in FIVE:
        write(tmp_path, name, made(name, "train", 60), made(name, "test", 12))
    return tmp_path


def assert_disjoint(sub):
    examples = [*sub.train, *sub.test, *sub.validation, *sub.confirmation, *sub.shots]
    assert len({example.question for example in examples}) == len(examples), sub.name


# ---- names and order


def test_mixtures_are_in_the_order_of_their_hub_ids():
    assert [b.name for b in mixture_benchmarks("paper-10")] == TEN
    assert [b.name for b in mixture_benchmarks("paper-5")] == FIVE
    fifteen = [b.order_key for b in mixture_benchmarks("paper-15")]
    assert len(fifteen) == 15
    assert fifteen == sorted(fifteen)
    assert fifteen[0] == "Rowan/hellaswag"
    assert "allenai/winogrande/winogrande_debiased" in fifteen
    assert set(TEN) < {b.name for b in mixture_benchmarks("paper-15")}


def test_the_groups_are_those_of_table_2():
    groups = {}
    for name in TEN:
        groups.setdefault(BENCHMARKS[name].group, set()).add(name)
    assert groups == {
        "Science and Knowledge": {"arc_easy", "openbookqa", "sciq", "medmcqa"},
        "Commonsense and Language": {"commonsense_qa", "hellaswag", "winogrande", "boolq"},
        "Mathematic and Quantitative": {"aqua_rat", "gsm8k"},
    }
    records = {name: GOLDEN[name]["records"][0]["record"] for name in TEN}
    targets = {name: to_example(name, record).target for name, record in records.items()}
    assert {name for name in TEN if not targets[name].startswith("####")} == {"aqua_rat", "gsm8k"}


def test_unknown_mixture_gets_the_nearest_name():
    assert NAMES == ("paper-5", "paper-10", "paper-15", "medmcqa-21")
    with pytest.raises(DataError, match=r"unknown mixture 'paper10'. Did you mean 'paper-10'"):
        load("paper10")


@pytest.mark.parametrize("sizes", [{"train_size": 0}, {"test_size": -1}, {"validation_size": 1.5}, {"test_size": True}])
def test_bad_sizes_are_refused(sizes, folder):
    with pytest.raises(ConfigError, match="_size must be a whole number"):
        load("paper-5", data_dir=folder, **sizes)


# ---- draws


def test_load_draws_what_is_asked(folder):
    mixture = load("paper-5", data_dir=folder, train_size=30, test_size=10, validation_size=8)
    assert mixture.names == FIVE
    assert mixture.name == "paper-5"
    for sub in mixture:
        assert [len(sub.train), len(sub.test), len(sub.validation), len(sub.shots)] == [30, 10, 8, SHOTS]
        assert sub.left_out == {"train: became a shot": SHOTS}
        assert sub.group == BENCHMARKS[sub.name].group
        assert_disjoint(sub)


def test_draws_are_a_function_of_the_seed(folder):
    sizes = {"train_size": 30, "test_size": 6, "validation_size": 8}
    first, again, other = (load("paper-5", data_dir=folder, seed=s, **sizes) for s in (20, 20, 30))
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()
    for a, b in zip(first, other, strict=True):
        assert a.train != b.train
        assert a.test != b.test
        assert a.validation != b.validation
    orders = {tuple(example.question.split(":")[0] for example in sub.train) for sub in first}
    assert len(orders) == len(FIVE)  # no two sub-datasets share a permutation


def test_a_draw_depends_on_its_own_sub_dataset_and_part_alone(folder):
    sizes = {"train_size": 30, "test_size": 6, "validation_size": 8}
    before = load("paper-5", data_dir=folder, **sizes)
    write(folder, "boolq", made("boolq", "other", 50), made("boolq", "test", 12))
    after = load("paper-5", data_dir=folder, **sizes)
    assert before["boolq"].train != after["boolq"].train
    assert before["boolq"].test == after["boolq"].test
    assert all(before[name] == after[name] for name in FIVE if name != "boolq")
    smaller = load("paper-5", data_dir=folder, train_size=20, test_size=3, validation_size=0)
    for name in FIVE:
        assert smaller[name].train == after[name].train[:20]
        assert smaller[name].test == after[name].test[:3]
        assert smaller[name].shots == after[name].shots
        assert smaller[name].validation == []


def test_fewer_records_than_asked_are_all_taken(folder):
    for sub in load("paper-5", data_dir=folder):
        # 55 beside the shots, shared as 1,800 to 200
        assert [len(sub.train), len(sub.validation), len(sub.test)] == [50, 5, 12]
        assert_disjoint(sub)


def test_confirmation_items_are_the_test_records_left_over(folder):
    asked = {"data_dir": folder, "train_size": 20, "validation_size": 0}
    without, default, two = (load("paper-5", test_size=8, confirmation_size=size, **asked) for size in (0, None, 2))
    for bare, sub, less in zip(without, default, two, strict=True):
        assert_disjoint(sub)
        assert (len(bare.confirmation), len(sub.confirmation), len(less.confirmation)) == (0, 4, 2)  # of 12
        assert less.confirmation == sub.confirmation[:2]
        assert bare.test == sub.test == less.test
        assert bare.train == sub.train
    assert not any(sub.confirmation for sub in load("paper-5", **asked))  # the default test_size takes all
    assert [len(sub.confirmation) for sub in load("paper-5", test_size=3, **asked)] == [3] * 5


def test_too_few_records_are_an_error_that_shows_the_counts(folder):
    write(folder, "gsm8k", made("gsm8k", "train", 5), made("gsm8k", "test", 3))
    with pytest.raises(DataError, match="gsm8k: 5 shots, 0 train and 3 test items come out of 5 train and 3 test"):
        load("paper-5", data_dir=folder)


def test_what_is_left_out_is_counted_by_reason(folder):
    train, test = made("arc_easy", "train", 40), made("arc_easy", "test", 12)
    shouted = {**train[1], "question": "  " + train[1]["question"].upper() + " "}
    broken = [{**train[2], "question": ""}, {**train[3], "answerKey": "Z"}]
    train += [train[0], shouted, *broken, {**train[4], "answerKey": ""}, *test[:3]]
    test += [test[5], {**test[6], "question": "new", "answerKey": ""}]
    write(folder, "arc_easy", train, test)
    sub = load("paper-5", data_dir=folder)["arc_easy"]
    assert sub.left_out == {
        "train: duplicate question": 2,
        "train: broken record": 2,
        "train: unlabelled": 1,
        "train: question also in test": 3,
        "train: became a shot": SHOTS,
        "test: duplicate question": 1,
        "test: unlabelled": 1,
    }
    assert len(sub.train) + len(sub.validation) == 40 - SHOTS
    assert len(sub.test) == 12
    assert_disjoint(sub)


def test_an_unlabelled_test_split_is_named_in_the_error(folder):
    unlabelled = [{**record, "label": ""} for record in made("hellaswag", "test", 12)]
    write(folder, "hellaswag", made("hellaswag", "train", 30), unlabelled)
    with pytest.raises(DataError, match=r"'test: unlabelled': 12.*labels are in the splits train and validation"):
        load("paper-5", data_dir=folder)


class Words:
    """A tokenizer whose tokens are the words of a text."""

    eos_token = None

    def __call__(self, text, **_):
        return {"input_ids": text.split() if isinstance(text, str) else [one.split() for one in text]}

    def decode(self, ids, **_):
        return " ".join(ids)


def test_over_long_items_are_passed_over(folder):
    sizes = {"train_size": 20, "test_size": 8, "validation_size": 5}
    free = load("paper-5", data_dir=folder, **sizes)
    mixture = load("paper-5", data_dir=folder, tokenizer=Words(), max_tokens=36, max_prompt_tokens=230, **sizes)
    reasons = set()
    for sub in mixture:
        prefix = shots_text(sub.shots)
        assert all(len("".join(training_text(e)).split()) + 1 <= 36 for e in sub.train)
        assert all(len((prefix + training_text(e)[0]).split()) <= 230 for e in sub.test + sub.validation)
        assert sub.shots == free[sub.name].shots
        kept = [e for e in free[sub.name].train if e in sub.train]
        assert sub.train[: len(kept)] == kept  # the others stay as they were drawn
        reasons |= set(sub.left_out)
    assert "train: longer than 36 tokens" in reasons
    with pytest.raises(DataError, match="test: prompt longer than 5 tokens"):
        load("paper-5", data_dir=folder, tokenizer=Words(), max_prompt_tokens=5)


# ---- MedMCQA by subject


def by_subject(count: int, subjects=SUBJECTS) -> list[dict]:
    records = made("medmcqa", f"n{count}", count * len(subjects))
    return [{**record, "subject_name": subjects[i % len(subjects)]} for i, record in enumerate(records)]


def test_medmcqa_is_split_by_subject(tmp_path):
    write(tmp_path, "medmcqa", by_subject(12), by_subject(3))
    mixture = load("medmcqa-21", data_dir=tmp_path)
    assert len(mixture) == len(SUBJECTS) == 21
    assert list(SUBJECTS) == sorted(SUBJECTS)
    assert mixture.names[:3] == ["medmcqa_anaesthesia", "medmcqa_anatomy", "medmcqa_biochemistry"]
    assert {"medmcqa_gynaecology_obstetrics", "medmcqa_social_preventive_medicine"} < set(mixture.names)
    for sub in mixture:
        assert_disjoint(sub)
        assert len(sub.train) + len(sub.validation) == 7
        assert len(sub.test) == 3


def test_subjects_without_enough_records_are_left_out_with_a_warning(tmp_path):
    train = by_subject(12, SUBJECTS[:3]) + by_subject(2, SUBJECTS[3:4])
    train.append({**train[0], "subject_name": "Astrology", "question": "stars"})
    write(tmp_path, "medmcqa", train, by_subject(3))
    with pytest.warns(UserWarning, match="left out|does not know") as warned:
        mixture = load("medmcqa-21", data_dir=tmp_path)
    assert len(mixture) == 3
    text = "\n".join(str(warning.message) for warning in warned)
    assert "subjects left out (18 of 21)" in text
    assert "medmcqa_dental: 2 shots" in text
    assert "Astrology" in text
    write(tmp_path, "medmcqa", by_subject(2, SUBJECTS[:3]), by_subject(3))
    with pytest.raises(DataError, match="medmcqa-21 cannot be drawn"):
        load("medmcqa-21", data_dir=tmp_path)


# ---- sources


def test_missing_files_are_named_all_at_once(folder):
    (folder / "gsm8k" / "test.jsonl").unlink()
    (folder / "boolq" / "train.jsonl").unlink()
    with pytest.raises(DataError) as caught:
        load("paper-5", data_dir=folder)
    assert str(folder / "gsm8k" / "test.jsonl") in str(caught.value)
    assert str(folder / "boolq" / "train.jsonl") in str(caught.value)


@pytest.mark.parametrize("text", ["", "not json\n", '{"question": "q"\n', '[1, 2]\n"three"\n'])
def test_a_file_that_is_not_json_lines_is_named(folder, text):
    (folder / "boolq" / "train.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="boolq"):
        load("paper-5", data_dir=folder)


def test_local_sources_are_recorded_with_their_checksums(folder):
    source = load("paper-5", data_dir=folder)["arc_easy"].source
    assert source["revision"] == "local"
    assert source["hub_id"] == "allenai/ai2_arc"
    assert source["config"] == "ARC-Easy"
    assert source["licence"] == "CC BY-SA 4.0"
    assert len(source["train_sha256"]) == len(source["test_sha256"]) == 64
    assert source["train_sha256"] != source["test_sha256"]


@pytest.fixture
def hub(folder, monkeypatch):
    """A hub that holds what the folder holds, and what was asked of it."""
    import datasets
    import huggingface_hub

    calls = []

    def load_dataset(path, *args, **kwargs):
        calls.append((path, *args, kwargs))
        benchmark = next(b for b in BENCHMARKS.values() if b.hub_id == path)
        part = "train" if kwargs["split"] == benchmark.train_split else "test"
        file = folder / benchmark.name / f"{part}.jsonl"
        records = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        return datasets.Dataset.from_list(records)

    class Info:
        sha = COMMIT

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(huggingface_hub, "is_offline_mode", lambda: False)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *args, **kwargs: Info)
    return calls


def test_the_hub_and_a_folder_give_the_same_mixture(hub, folder):
    from_hub, from_folder = load("paper-5"), load("paper-5", data_dir=folder)
    assert from_hub.fingerprint() == from_folder.fingerprint()
    assert [sub.left_out for sub in from_hub] == [sub.left_out for sub in from_folder]
    assert {sub.source["revision"] for sub in from_hub} == {COMMIT}
    assert hub[:2] == [
        ("Rowan/hellaswag", None, {"split": "train", "revision": COMMIT}),
        ("Rowan/hellaswag", None, {"split": "validation", "revision": COMMIT}),
    ]
    assert ("openai/gsm8k", "main", {"split": "test", "revision": COMMIT}) in hub


def test_no_network_is_one_quick_error_with_the_ways_out(hub, monkeypatch):
    import huggingface_hub

    def unreachable(*args, **kwargs):
        assert kwargs["timeout"] <= 10
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", unreachable)
    with pytest.raises(DataError) as caught:
        load("paper-10")
    for fragment in ("Rowan/hellaswag", "huggingface.co", "train.jsonl", "data_dir", "HF_HUB_OFFLINE"):
        assert fragment in str(caught.value)
    assert not hub  # nothing was tried, so nothing was tried again and again


def test_offline_mode_reads_the_cache_and_says_which_commit(hub, monkeypatch):
    import datasets
    import huggingface_hub

    from_hub = datasets.load_dataset

    class Cached:
        def __init__(self, *args, **kwargs):
            self.to_list = from_hub(*args, **kwargs).to_list
            self.cache_files = [{"filename": f"/c/openai___gsm8k/main/0.0.0/{COMMIT}/x.arrow"}]

    monkeypatch.setattr(datasets, "load_dataset", Cached)
    monkeypatch.setattr(huggingface_hub, "is_offline_mode", lambda: True)
    assert {sub.source["revision"] for sub in load("paper-5", revision=COMMIT)} == {COMMIT}
    other = COMMIT[::-1]
    with pytest.raises(DataError, match=f"openai/gsm8k: the cache holds commit {COMMIT}, not {other}"):
        load("paper-5", revision={"gsm8k": other})
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(DataError, match=r"Rowan/hellaswag .* cannot be read: ZeroDivisionError.*data_dir"):
        load("paper-5")


def test_revision_of_an_unknown_benchmark(hub):
    with pytest.raises(DataError, match=r"revision: unknown benchmark 'gsm8'. Did you mean 'gsm8k'"):
        load("paper-5", revision={"gsm8": COMMIT})


def test_script_repositories_are_read_from_their_conversion(hub, monkeypatch):
    import huggingface_hub

    asked = {}

    def dataset_info(self, repo, revision=None, timeout=None):
        asked[repo] = revision
        raise ConnectionError

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    for name in ("hellaswag", "piqa"):
        with pytest.raises(DataError):
            read_hub(BENCHMARKS[name], None)
    assert asked == {"Rowan/hellaswag": None, "ybisk/piqa": "refs/convert/parquet"}


# ---- the real samples, where this checkout has them beside it

samples = pytest.mark.skipif(
    not (SHARED / "benchmarks").is_dir(), reason="the samples of the benchmarks are not beside this checkout"
)


@samples
def test_paper_10_loads_from_the_samples():
    first, again, other = (load("paper-10", data_dir=SHARED / "benchmarks", seed=s) for s in (20, 20, 30))
    assert first.names == TEN
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()
    counts = {sub.name: (len(sub.train), len(sub.validation), len(sub.test)) for sub in first}
    expected = dict.fromkeys(TEN, (356, 39, 100)) | {"aqua_rat": (225, 24, 100), "medmcqa": (637, 70, 96)}
    assert counts == expected
    for sub in first:
        assert_disjoint(sub)
        assert sub.left_out == {"train: became a shot": SHOTS}


@samples
def test_medmcqa_21_loads_from_the_samples_but_for_one_subject():
    with pytest.warns(UserWarning, match=r"subjects left out \(1 of 21\):\n  - medmcqa_unknown"):
        mixture = load("medmcqa-21", data_dir=SHARED / "benchmarks")
    assert len(mixture) == 20
    for sub in mixture:
        assert_disjoint(sub)
