"""A user's own mixture: what is accepted, and what every mistake is told."""

import contextlib
import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from msft.data.example import SHOTS, Example
from msft.data.mixture import Mixture, draw_shots
from msft.data.reading import read_mixture
from msft.errors import DataError, MsftError


def rows(label: str, count: int) -> list[dict]:
    return [{"question": f"{label} {number}?", "answer": str(number)} for number in range(count)]


def write_rows(path, found) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")


@pytest.fixture
def folder(tmp_path):
    write_rows(tmp_path / "train.jsonl", rows("train", 12))
    write_rows(tmp_path / "test.jsonl", rows("test", 4))
    return tmp_path


ENTRY = {"name": "sums", "train": "train.jsonl", "test": "test.jsonl"}


def read(folder, spec, **kwargs) -> Mixture:
    path = folder / "mixture.yaml"
    path.write_text(spec if isinstance(spec, str) else yaml.safe_dump(spec), encoding="utf-8")
    return read_mixture(path, **kwargs)


# ---- what is accepted


def test_a_mixture_is_read_in_its_order(folder):
    write_rows(folder / "validation.jsonl", rows("validation", 3))
    second = {**ENTRY, "name": "more", "validation": "validation.jsonl", "group": "G"}
    mixture = read(folder, {"name": "mine", "sub_datasets": [ENTRY, second]})
    assert mixture.name == "mine"
    assert mixture.names == ["sums", "more"]
    assert [len(mixture["sums"].train), len(mixture["sums"].test), len(mixture["sums"].shots)] == [
        7,
        4,
        SHOTS,
    ]
    assert len(mixture["more"].validation) == 3
    assert mixture.groups == {"All": ["sums"], "G": ["more"]}
    assert mixture["sums"].test[0] == Example("test 0?", "#### 0", "0")


def test_shots_are_the_shortest_of_train_and_leave_it(folder):
    found = rows("train", 7) + [{"question": "q" * n, "answer": "1"} for n in range(1, 6)]
    write_rows(folder / "train.jsonl", found)
    sub = read(folder, {"sub_datasets": [ENTRY]})["sums"]
    assert [shot.question for shot in sub.shots] == ["q" * n for n in range(1, 6)]
    assert not {e.question for e in sub.shots} & {e.question for e in sub.train}
    assert len(sub.train) == 7


def test_draw_shots_is_a_function_of_the_seed():
    pool = [Example(f"{n:04d}", "#### x", "x") for n in range(3000)]
    assert draw_shots(pool, 1) == draw_shots(pool, 1) != draw_shots(pool, 2)


def test_shots_of_equal_length_come_as_they_stand():
    pool = [Example(f"{n:03d}", "#### x", "x") for n in range(300)]
    assert draw_shots(pool, 1) == draw_shots(pool, 2) == pool[:5]


def test_given_shots_leave_train_alone(folder):
    write_rows(folder / "shots.jsonl", rows("shot", 6))
    sub = read(folder, {"sub_datasets": [{**ENTRY, "shots": "shots.jsonl"}]})["sums"]
    assert len(sub.shots) == SHOTS
    assert len(sub.train) == 12


def test_rationales_blank_lines_and_a_byte_order_mark(folder):
    found = [{**row, "rationale": "Count."} for row in rows("train", 11)] + [{**rows("x", 1)[0], "rationale": None}]
    text = "\ufeff" + "\n\n".join(json.dumps(row) for row in found)
    (folder / "train.jsonl").write_text(text, encoding="utf-8")
    sub = read(folder, {"sub_datasets": [ENTRY]})["sums"]
    targets = {e.question: e.target for e in sub.train + sub.shots}
    assert targets["train 3?"] == "Count. #### 3"
    assert targets["x 0?"] == "#### 0"


def test_records_of_a_benchmark(folder):
    from msft.benchmarks.records import to_example

    records = [{"question": f"What is {n}?", "correct_answer": str(n)} for n in range(12)]
    write_rows(folder / "train.jsonl", records)
    write_rows(folder / "test.jsonl", [{"question": "What is left?", "correct_answer": "right"}])
    spec = {"sub_datasets": [{**ENTRY, "benchmark": "sciq"}]}
    assert read(folder, spec, to_example=to_example)["sums"].test[0].answer == "right"
    with pytest.raises(DataError, match="needs a converter"):
        read(folder, spec)


def test_overlap_can_be_allowed_by_name(folder):
    write_rows(folder / "test.jsonl", rows("train", 2))
    spec = {"sub_datasets": [ENTRY], "allow_overlap": ["sums"]}
    assert len(read(folder, spec)["sums"].test) == 2


def test_fingerprint_follows_content_and_order(folder):
    spec = {"name": "a", "sub_datasets": [ENTRY, {**ENTRY, "name": "more"}]}
    one = read(folder, spec).fingerprint()
    assert one == read(folder, {**spec, "name": "b"}).fingerprint()
    assert one != read(folder, {**spec, "sub_datasets": spec["sub_datasets"][::-1]}).fingerprint()
    write_rows(folder / "test.jsonl", rows("test", 3))
    assert one != read(folder, spec).fingerprint()


def test_an_unknown_sub_dataset_gets_the_nearest_name(folder):
    with pytest.raises(KeyError, match="Did you mean 'sums'"):
        read(folder, {"sub_datasets": [ENTRY]})["sum"]


# ---- what is refused

BAD_SPECS = [
    ("", "a mapping of name and sub_datasets is needed, not a NoneType"),
    ("- a\n- b\n", "a mapping of name and sub_datasets is needed, not a list"),
    ("name: [unclosed\n", "not readable as YAML"),
    ("\tname: x\n", "not readable as YAML"),
    ("name: &a [*a\n", "not readable as YAML"),
    ("!!python/object/apply:os.system ['touch ran']\n", "not readable as YAML"),
    ("name: !!python/name:os.system\n", "not readable as YAML"),
    ({}, "sub_datasets must be a non-empty list"),
    ({"sub_datasets": []}, "sub_datasets must be a non-empty list"),
    ({"sub_datasets": {"sums": ENTRY}}, "sub_datasets must be a non-empty list"),
    ({"sub_datasets": ["sums"]}, "entry 1 is not a mapping"),
    ({"sub_dataset": [ENTRY]}, "unknown key 'sub_dataset'. Did you mean 'sub_datasets'"),
    ({"sub_datasets": [{**ENTRY, "trian": "x"}]}, "unknown key 'trian'. Did you mean 'train'"),
    ({"sub_datasets": [{"name": "sums", "train": "train.jsonl"}]}, "(sums): the key 'test' is missing"),
    (
        {"sub_datasets": [{"train": "train.jsonl", "test": "test.jsonl"}]},
        "(no name): the key 'name' is missing",
    ),
    ({"sub_datasets": [{**ENTRY, "name": 3}]}, "name must be a string"),
    ({"sub_datasets": [{**ENTRY, "train": ["a", "b"]}]}, "train must be a string"),
    ({"sub_datasets": [ENTRY, ENTRY]}, "the sub-dataset name 'sums' is used twice"),
    ({"sub_datasets": [ENTRY, {**ENTRY, "name": "Sums"}]}, "the sub-dataset name 'Sums' is used twice"),
    ({"sub_datasets": [{**ENTRY, "name": n} for n in ("\u00e9", "e\u0301")]}, "unique, in more than case"),
    ({"name": 5, "sub_datasets": [ENTRY]}, "name must be a string"),
    ({"seed": "x", "sub_datasets": [ENTRY]}, "seed must be an integer"),
    ({"seed": True, "sub_datasets": [ENTRY]}, "seed must be an integer"),
    ({"allow_overlap": "sums", "sub_datasets": [ENTRY]}, "allow_overlap must be a list"),
    ({"allow_overlap": ["sum"], "sub_datasets": [ENTRY]}, "unknown sub-dataset 'sum'. Did you mean 'sums'"),
    (
        {"sub_datasets": [{**ENTRY, "train": "trian.jsonl"}]},
        "trian.jsonl: no such file. Did you mean 'train.jsonl'",
    ),
    ({"sub_datasets": [{**ENTRY, "train": "."}]}, "cannot be read"),
    ({"sub_datasets": [{**ENTRY, "train": "a" * 300}]}, "sums: "),
    ({"sub_datasets": [{**ENTRY, "test": "nul\0byte"}]}, "sums: "),
    ("made: 2020-13-45\n", "not readable as YAML"),
    ("seed: !!int ''\n", "not readable as YAML"),
    ({"sub_datasets": [{**ENTRY, "shots": "none.jsonl"}]}, "none.jsonl: no such file"),
]


@pytest.mark.parametrize(("spec", "fragment"), BAD_SPECS)
def test_a_bad_mixture_file_is_told_why(folder, monkeypatch, spec, fragment):
    monkeypatch.chdir(folder)
    with pytest.raises(DataError) as caught:
        read(folder, spec)
    assert fragment in str(caught.value)
    assert not (folder / "ran").exists()  # nothing in a YAML file is ever executed


def line(**row) -> str:
    return json.dumps({"question": "q?", "answer": "a", **row}) + "\n"


GOOD = "".join(line(question=f"good {n}") for n in range(12))
BAD_FILES = [
    ("train", "", "sums: {file} has no rows"),
    ("test", "\n \n", "sums: {file} has no rows"),
    ("train", GOOD + "{'question': 1}\n", "{file}:13: not JSON"),
    ("train", GOOD + '{"question": "q"', "{file}:13: not JSON"),
    ("test", line() + "\n" + '["q", "a"]\n', "{file}:3: a list, not an object"),
    ("test", "[" * 100000, "{file}: not JSON"),
    ("train", GOOD + '{"question": "q"}\n', "{file}:13: the key 'answer' is missing"),
    ("train", '{"qestion": "q", "answer": "a"}\n', "{file}:1: the key 'question' is missing"),
    ("train", '{"qestion": "q", "answer": "a"}\n', "Did you mean 'qestion'"),
    ("train", GOOD + line(answer=12), "{file}:13: 'answer' is of type int; give a string"),
    ("train", GOOD + line(question=None), "{file}:13: the key 'question' is missing"),
    ("test", line(rationale=["a"]), "{file}:1: 'rationale' is of type list"),
    ("test", line(question="  "), "{file}:1: 'question' is empty"),
    ("test", line(answer=""), "{file}:1: 'answer' is empty"),
    ("train", line(question="1") + line(question="2"), "sums: 2 train rows; five become shots"),
    (
        "test",
        line(question="x") + line(question="train 3?"),
        "in train (line 4) and test (line 2): 'train 3?'",
    ),
    ("test", line(question="x") + line(question="train 3?"), "or write `allow_overlap: [sums]`"),
    ("train", line(question="x") + line(answer="") * 30, "20 more lines like these"),
    ("train", line(answer="") * 30, "{file}:1: 'answer' is empty; so it is with all 30 rows"),
]


@pytest.mark.parametrize(("part", "text", "fragment"), BAD_FILES)
def test_a_bad_data_file_is_told_why_with_file_and_line(folder, part, text, fragment):
    file = folder / f"{part}.jsonl"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read(folder, {"sub_datasets": [ENTRY]})
    assert fragment.replace("{file}", str(file)) in str(caught.value)


def test_files_that_are_not_utf8_and_a_missing_mixture(folder):
    (folder / "train.jsonl").write_bytes(b'{"question": "\xff"}')
    with pytest.raises(DataError, match="not UTF-8 text"):
        read(folder, {"sub_datasets": [ENTRY]})
    (folder / "mixture.yaml").write_bytes(b"name: \xff")
    with pytest.raises(DataError, match="not readable as YAML"):
        read_mixture(folder / "mixture.yaml")
    with pytest.raises(DataError, match="does not exist"):
        read_mixture(folder / "none.yaml")
    with pytest.raises(DataError, match="does not exist"):
        read_mixture(folder)


def test_four_shots_are_too_few(folder):
    write_rows(folder / "shots.jsonl", rows("shot", 4))
    with pytest.raises(DataError, match=r"sums: 4 shots in shots.jsonl; give five"):
        read(folder, {"sub_datasets": [{**ENTRY, "shots": "shots.jsonl"}]})


def test_everything_wrong_is_told_at_once(folder):
    entries = [{**ENTRY, "name": "a", "train": "x.jsonl"}, {**ENTRY, "name": "b", "test": "y.jsonl"}]
    with pytest.raises(DataError) as caught:
        read(folder, {"sub_datasets": entries})
    assert "a: " in str(caught.value)
    assert "x.jsonl" in str(caught.value)
    assert "b: " in str(caught.value)
    assert "y.jsonl" in str(caught.value)


def test_the_files_of_an_entry_with_a_wrong_key_are_checked_all_the_same(folder):
    write_rows(folder / "bad.jsonl", [{"question": "q?", "answer": 3}, {"question": "", "answer": "4"}])
    entries = [{**ENTRY, "train": "bad.jsonl", "grup": "x"}, {"name": "more", "test": "bad.jsonl"}]
    with pytest.raises(DataError) as caught:
        read(folder, {"sub_datasets": entries})
    wanted = [
        "unknown key 'grup'",
        "sums: ",
        "bad.jsonl:1: 'answer' is of type int",
        "bad.jsonl:2: 'question' is empty",
    ]
    wanted += ["(more): the key 'train' is missing", "more: "]
    assert all(part in str(caught.value) for part in wanted)
    assert str(caught.value).count("bad.jsonl:2: ") == 2
    assert "train rows" not in str(caught.value)


# ---- fuzzing


def reads_or_refuses(folder, content: bytes) -> None:
    path = folder / "fuzz.yaml"
    path.write_bytes(content)
    with contextlib.suppress(MsftError):
        assert isinstance(read_mixture(path), Mixture)


@pytest.fixture(scope="module")
def fuzz_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    write_rows(folder / "train.jsonl", rows("train", 12))
    write_rows(folder / "test.jsonl", rows("test", 4))
    return folder


YAML_PIECES = [
    *("name", "sub_datasets", "train", "test", "train.jsonl", ": ", "- ", "\n", "\n  ", "\n    ", "{", "}"),
    *(
        "[",
        "]",
        "&a ",
        "*a",
        "!!int ",
        "!!timestamp ",
        "!!bool ",
        "!!float ",
        "!!set ",
        "!!binary ",
        "!!omap ",
    ),
    *("2020-13-45", "'", '"', "\\u0000", "? ", "<<: ", "#", "|", ">", "%", "0x", "1:90", ".inf", "~", "\t"),
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=3),
    max_leaves=6,
)
FILES = st.sampled_from(["train.jsonl", "test.jsonl", "fuzz.yaml", ".", "", "\0", "a" * 300, "~", "/dev/null/x"])
ENTRIES = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("sums") | VALUES,
        "train": FILES | VALUES,
        "test": FILES | VALUES,
        "shots": FILES | VALUES,
        "benchmark": VALUES,
        "other": VALUES,
    },
)
PATHS = st.fixed_dictionaries({"name": st.just("sums"), "train": FILES, "test": FILES}, optional={"shots": FILES})
SPECS = st.fixed_dictionaries(
    {},
    optional={
        "name": VALUES,
        "seed": VALUES,
        "allow_overlap": VALUES,
        "sub_datasets": st.lists(PATHS | ENTRIES | st.just(ENTRY) | VALUES, max_size=3) | VALUES,
    },
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(YAML_PIECES) | st.text(max_size=4), max_size=15).map("".join))
def test_any_yaml_text_is_read_or_refused(fuzz_folder, text):
    reads_or_refuses(fuzz_folder, text.encode())


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(fuzz_folder, content):
    reads_or_refuses(fuzz_folder, content)


@settings(max_examples=200, deadline=None)
@given(SPECS | st.fixed_dictionaries({"sub_datasets": st.lists(PATHS, min_size=1, max_size=2)}) | VALUES)
def test_any_specification_is_read_or_refused(fuzz_folder, spec):
    reads_or_refuses(fuzz_folder, yaml.safe_dump(spec).encode())
