"""Records of the real benchmarks: exact rendering, quirks, refusals, and the samples where present."""

import copy
import json
from pathlib import Path
from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msft.benchmarks.records import BENCHMARKS, UnlabelledError, to_example
from msft.data.example import Example, test_prompt, training_text
from msft.data.mixture import SubDataset
from msft.data.scoring import score
from msft.errors import DataError

GOLDEN = json.loads((Path(__file__).parent / "golden_prompts.json").read_text(encoding="utf-8"))
SHARED = Path(__file__).resolve().parents[2] / "shared"
TEN = list(BENCHMARKS)[:10]


def record(name: str, **changes) -> dict:
    """The first golden record of a benchmark with some columns changed; a column of None is taken out."""
    changed = {**copy.deepcopy(GOLDEN[name]["records"][0]["record"]), **changes}
    return {key: value for key, value in changed.items() if value is not None}


def choices(labels, texts=("one", "two", "three", "four")) -> dict:
    return {"label": list(labels), "text": list(texts)}


# ---- exact strings


def test_every_benchmark_has_golden_prompts():
    assert list(GOLDEN) == list(BENCHMARKS)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_rendering_is_the_golden_one_character_for_character(name):
    examples = []
    for row in GOLDEN[name]["records"]:
        example = to_example(name, row["record"])
        assert training_text(example) == (row["prompt"], row["completion"])
        assert example.answer == row["answer"]
        examples.append(example)
    shots = [examples[i % len(examples)] for i in range(5)]
    sub = SubDataset(name, examples, examples, shots)
    assert test_prompt(sub, examples[-1]) == GOLDEN[name]["test_prompt"]


def test_a_column_that_is_not_shown_changes_nothing():
    shown = to_example("sciq", record("sciq"))
    assert to_example("sciq", record("sciq", support="", distractor1="other")) == shown
    shown = to_example("medmcqa", record("medmcqa"))
    assert to_example("medmcqa", record("medmcqa", exp="Because.", subject_name="Skin")) == shown


@pytest.mark.parametrize(
    ("labels", "key", "letter"),
    [("ABCD", "D", "D"), ("1234", "1", "A"), ("1234", "4", "D"), ("ABC", "C", "C"), ("ABCDE", "E", "E")],
)
def test_arc_labels_become_letters(labels, key, letter):
    texts = [f"text {label}" for label in labels]
    example = to_example("arc_easy", record("arc_easy", choices=choices(labels, texts), answerKey=key))
    assert example.answer == letter
    assert f"{letter}. text {key}" in example.question
    assert example.question.count("text") == len(labels)


def test_labels_may_be_numbers_or_their_text():
    for name, key in (("hellaswag", "label"), ("medmcqa", "cop"), ("logiqa", "correct_option")):
        by_text, by_number = (to_example(name, record(name, **{key: value})) for value in ("2", 2))
        assert by_text == by_number
        assert by_text.answer == "C"


def test_record_text_is_text_only():
    trap = "{0.__class__} %s %(x)d {question} __import__('os') ${HOME}"
    example = to_example("sciq", {"question": trap, "correct_answer": trap})
    assert training_text(example) == (f"Q: {trap}\nA: ", f"#### {trap}")


# ---- refusals

REFUSED = [
    ("commonsense_qa", {"question": None}, "'question' is missing"),
    ("commonsense_qa", {"question": " \n"}, "'question' is empty"),
    ("commonsense_qa", {"question": 7}, "'question' must be a text; found int 7"),
    ("commonsense_qa", {"choices": ["a", "b"]}, "'choices' must be a dict"),
    ("commonsense_qa", {"choices": {"text": ["a", "b"]}}, "'label' is missing"),
    ("openbookqa", {"question_stem": None}, "'question_stem' is missing"),
    ("openbookqa", {"answerKey": "F"}, "'answerKey' must be one of A, B, C, D; found str 'F'"),
    ("openbookqa", {"choices": choices("ABCD", ["a", "b", "", "d"])}, "'choices.text' has an empty entry"),
    ("arc_easy", {"choices": choices("ABC")}, "'choices.label' must have 4 entries; found 3"),
    ("arc_easy", {"choices": choices("AACD")}, "has a label twice"),
    ("arc_easy", {"choices": choices("A", ["only"])}, "'choices.text' must have 2 to 10 entries"),
    ("arc_easy", {"choices": choices("1234"), "answerKey": "A"}, "must be one of 1, 2, 3, 4"),
    ("aqua_rat", {"options": ["A)1", "B)", "C)3", "D)4", "E)5"]}, "no text behind B)"),
    ("aqua_rat", {"options": ["A)1", "", "C)3", "D)4", "E)5"]}, "'options' has an empty entry"),
    ("aqua_rat", {"options": ["A)1", "B)2", "C)3", "D)4"]}, "'options' must have 5 entries; found 4"),
    ("aqua_rat", {"options": ["B)1", "A)2", "C)3", "D)4", "E)5"]}, "out of order"),
    ("aqua_rat", {"correct": "f"}, "'correct' must be one of A, B, C, D, E"),
    ("aqua_rat", {"rationale": ""}, "'rationale' is empty"),
    ("aqua_rat", {"rationale": "so #### B is it"}, "would be scored as wrong"),
    ("gsm8k", {"answer": "It is 12."}, "does not end in '#### number'"),
    ("gsm8k", {"answer": "It is 12.\n#### "}, "does not end in '#### number'"),
    ("gsm8k", {"answer": "#### 11\n#### 12"}, "would be scored as wrong"),
    ("sciq", {"correct_answer": "two\nlines"}, "would be scored as wrong"),
    ("sciq", {"correct_answer": "..."}, "would be scored as wrong"),
    ("sciq", {"correct_answer": "NaN"}, "would be scored as wrong"),
    ("sciq", {"correct_answer": ["ice"]}, "'correct_answer' must be a text; found list"),
    ("sciq", {"question": "half \ud800 pair"}, "surrogate"),
    ("hellaswag", {"endings": ["a", "b", "c"]}, "'endings' must have 4 entries"),
    ("hellaswag", {"endings": "abcd"}, "'endings' must be a list of texts"),
    ("hellaswag", {"label": "12"}, "'label' must be one of 0, 1, 2, 3"),
    ("hellaswag", {"label": "4"}, "'label' must be one of 0, 1, 2, 3"),
    ("winogrande", {"sentence": "No blank here."}, "no blank"),
    ("winogrande", {"answer": "3"}, "'answer' must be one of 1, 2"),
    ("boolq", {"answer": "true"}, "'answer' must be true or false; found str 'true'"),
    ("boolq", {"answer": 1}, "'answer' must be true or false; found int 1"),
    ("boolq", {"question": "?"}, "'question' is empty"),
    ("boolq", {"passage": ""}, "'passage' is empty"),
    ("medmcqa", {"cop": 4}, "'cop' must be one of 0, 1, 2, 3; found int 4"),
    ("medmcqa", {"cop": True}, "'cop' must be one of 0, 1, 2, 3; found bool True"),
    ("medmcqa", {"cop": 10**5000}, "'cop' must be one of 0, 1, 2, 3; found int"),
    ("medmcqa", {"opc": ""}, "'opc' is empty"),
    ("social_i_qa", {"label": "0"}, "must be one of 1, 2, 3"),
    ("anli", {"hypothesis": None}, "'hypothesis' is missing"),
    ("halueval", {"hallucination": "maybe"}, "must be one of yes, no"),
    ("logiqa", {"options": []}, "'options' must have 4 entries"),
    ("piqa", {"sol2": ""}, "'sol2' is empty"),
]


@pytest.mark.parametrize(("name", "changes", "fragment"), REFUSED)
def test_broken_records_are_refused_by_name_key_and_finding(name, changes, fragment):
    with pytest.raises(DataError) as caught:
        to_example(name, record(name, **changes))
    assert str(caught.value).startswith(f"{name}: ")
    assert fragment in str(caught.value)
    assert not isinstance(caught.value, UnlabelledError)


@pytest.mark.parametrize(
    ("name", "changes", "split"),
    [
        ("commonsense_qa", {"answerKey": ""}, "validation"),
        ("hellaswag", {"label": ""}, "validation"),
        ("winogrande", {"answer": ""}, "validation"),
        ("medmcqa", {"cop": -1}, "validation"),
        ("piqa", {"label": -1}, "validation"),
        ("arc_easy", {"answerKey": ""}, "test"),
    ],
)
def test_unlabelled_records_say_which_splits_have_labels(name, changes, split):
    with pytest.raises(UnlabelledError, match=f"^{name}: .*unlabelled; labels are in the splits train and {split}"):
        to_example(name, record(name, **changes))


def test_a_null_column_is_refused():
    with pytest.raises(DataError, match="'question' must be a text; found NoneType"):
        to_example("sciq", {"question": None, "correct_answer": "ice"})


def test_unknown_benchmark_gets_the_nearest_name():
    with pytest.raises(DataError, match="Did you mean 'hellaswag'"):
        to_example("hellaswagg", {})
    with pytest.raises(DataError, match="unknown benchmark"):
        to_example(["sciq"], {})


@pytest.mark.parametrize("found", [None, [], "text", 3])
def test_a_record_must_be_a_dict(found):
    with pytest.raises(DataError, match="gsm8k: a record is a dict"):
        to_example("gsm8k", found)


# ---- fuzzing

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=6), inner, max_size=5),
    max_leaves=10,
)
COLUMNS = sorted({key for case in GOLDEN.values() for row in case["records"] for key in row["record"]})


def converts_or_refuses(name, found):
    try:
        example = to_example(name, found)
    except DataError:
        return
    assert isinstance(example, Example)
    assert example.question.strip()
    assert score(example.target, example.answer)
    "".join(training_text(example)).encode()


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(list(BENCHMARKS)), st.dictionaries(st.sampled_from(COLUMNS) | st.text(max_size=6), JSON))
def test_arbitrary_records_convert_or_are_refused(name, found):
    converts_or_refuses(name, found)


@settings(max_examples=250, deadline=None)
@given(st.sampled_from(list(BENCHMARKS)), st.data())
def test_mutated_records_convert_or_are_refused(name, data):
    found = copy.deepcopy(data.draw(st.sampled_from(GOLDEN[name]["records"]))["record"])
    for _ in range(data.draw(st.integers(1, 2))):
        inside = data.draw(st.sampled_from([found, *(v for v in found.values() if isinstance(v, (dict, list)))]))
        keys = list(inside) if isinstance(inside, dict) else list(range(len(inside)))
        if not keys:
            continue
        key = data.draw(st.sampled_from(keys))
        if data.draw(st.booleans()):
            inside[key] = data.draw(JSON)
        else:
            del inside[key]
    converts_or_refuses(name, found)


# ---- the real samples, where this checkout has them beside it

samples = pytest.mark.skipif(
    not (SHARED / "benchmarks").is_dir(), reason="the samples of the benchmarks are not beside this checkout"
)


def rows(name: str, part: str) -> list[dict]:
    text = (SHARED / "benchmarks" / name / f"{part}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line.strip()]


# (accepted, refused) of each file
COUNTS = {name: {"train": (400, 0), "test": (100, 0)} for name in TEN}
COUNTS["aqua_rat"]["train"] = (254, 0)
COUNTS["medmcqa"] = {"train": (712, 0), "test": (96, 0)}
COUNTS["arc_easy"]["validation"] = (100, 0)


@samples
@pytest.mark.parametrize("name", TEN)
def test_every_real_record_converts(name):
    found = {}
    for part in COUNTS[name]:
        accepted, reasons = 0, []
        for row in rows(name, part):
            try:
                to_example(name, row)
                accepted += 1
            except DataError as error:
                reasons.append(str(error))
        found[part] = (accepted, len(reasons))
    assert found == COUNTS[name], reasons[:3]


@samples
def test_real_examples_average_about_90_tokens():
    """The check of the protocol: ten sub-datasets, prompt + answer + EOS, the Qwen2 vocabulary."""
    tokenizers = pytest.importorskip("tokenizers")
    file = SHARED / "tokenizers" / "qwen2_tokenizer_converted.json"
    if not file.is_file():
        pytest.skip("the Qwen2 tokenizer is not beside this checkout")
    tokenizer = tokenizers.Tokenizer.from_file(str(file))
    means = {}
    for name in TEN:
        texts = ["".join(training_text(to_example(name, row))) for row in rows(name, "train")]
        means[name] = mean(len(encoding.ids) + 1 for encoding in tokenizer.encode_batch(texts))
    assert mean(means.values()) == pytest.approx(90, rel=0.03), means
