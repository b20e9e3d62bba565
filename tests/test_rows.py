"""Rows of one's own: one set of rules for blanks, nulls, keys, doubles and shots, in any shape that people have them."""

import json
import logging

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import msft
from msft.data import metrics, scoring
from msft.data.rows import CHANGES_MEANING, row_to_example, unread
from msft.errors import DataError


def sums(start, count, **more):
    return [{"question": f"{i} + 1?", "answer": str(i + 1), **more} for i in range(start, start + count)]


def chats(start, count):
    return [
        {"messages": [{"role": "user", "content": f"{i} + 1?"}, {"role": "assistant", "content": str(i + 1)}]}
        for i in range(start, start + count)
    ]


def write(folder, entry=(), **parts):
    """A mixture of one sub-dataset; parts: rows by name of part."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {"train": sums(0, 12), "test": sums(40, 4), **parts}
    for part, rows in parts.items():
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    entry = {"name": "sums", **{part: f"{part}.jsonl" for part in parts}, **dict(entry)}
    (folder / "mine.yaml").write_text(yaml.safe_dump({"name": "mine", "sub_datasets": [entry]}))
    return folder / "mine.yaml"


def read(folder, entry=(), **parts):
    return msft.load_mixture(write(folder, entry, **parts))["sums"]


def refusal(folder, entry=(), **parts):
    with pytest.raises(DataError) as caught:
        read(folder, entry, **parts)
    return str(caught.value)


# blanks, nulls ---------------------------------------------------------------------------------------------------

BLANKS = st.text(st.sampled_from(" \t\n\r\u00a0"), max_size=3)


@settings(max_examples=100, deadline=None)
@given(st.tuples(*[BLANKS] * 6), st.sampled_from([None, "", " ", "So."]), st.booleans())
def test_blanks_around_texts_and_null_columns_change_nothing(blanks, rationale, joined):
    texts = {"question": "Two\n lines?", "answer": "a  b", "rationale": rationale}
    row = {key: text and blanks[i] + text + blanks[i + 3] for i, (key, text) in enumerate(texts.items())}
    row |= {"messages": None, "tools": None} if joined else {}
    row = {key: value for key, value in row.items() if value is not None}
    example = row_to_example(row)
    target = "So. #### a  b" if rationale == "So." else "#### a  b"
    assert (example.question, example.target, example.answer) == ("Two\n lines?", target, "a  b")


@pytest.mark.parametrize("mark", ["\u200b", "\ufeff", "\u2060", "\x00", "\u200b \ufeff\n"])
def test_a_text_of_which_nobody_sees_anything_is_empty(mark):
    with pytest.raises(DataError, match="'answer' is empty"):
        row_to_example({"question": "Which?", "answer": mark})
    with pytest.raises(DataError, match="message 2: content is empty"):
        row_to_example(chat(last={"content": mark}))


@pytest.mark.parametrize("made", [sums, chats])
def test_a_null_column_is_an_absent_one(tmp_path, made):
    columns = ("question", "answer", "rationale", "messages", "tools", "system", "id")
    parts = {"train": made(0, 12), "test": made(40, 4)}
    joined = {part: [{**dict.fromkeys(columns), **row} for row in rows] for part, rows in parts.items()}
    bare = msft.load_mixture(write(tmp_path / "bare", **parts))
    assert msft.load_mixture(write(tmp_path / "joined", **joined)).fingerprint() == bare.fingerprint()


def test_nan_and_a_struct_of_nulls_say_nothing(tmp_path, caplog):
    """As pandas writes a missing value, and joined tables a missing struct or list."""
    nan = float("nan")
    nothing = {"rationale": nan, "context": nan, "tools": [None], "function_call": {"name": None, "arguments": [""]}}
    parts = {"train": sums(0, 12), "test": sums(40, 4)}
    joined = {part: [{**row, **nothing, "id": nan} for row in rows] for part, rows in parts.items()}
    bare = msft.load_mixture(write(tmp_path / "bare", **parts))
    assert msft.load_mixture(write(tmp_path / "joined", **joined)).fingerprint() == bare.fingerprint()
    assert not caplog.records
    assert "'answer' is of type float" in refusal(tmp_path, test=[{"question": "?", "answer": nan}])


# keys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("rationle", "Did you mean 'rationale'?"),
        ("Rationale", "Did you mean 'rationale'?"),
        ("rational", "Did you mean 'rationale'?"),
        ("answers", "Did you mean 'answer'?"),
        *((key, f"the key {key!r} is not read") for key in sorted(CHANGES_MEANING - {"answers", "rationale"})),
    ],
)
def test_a_key_that_changes_a_row_s_meaning_is_refused(key, words):
    with pytest.raises(DataError) as caught:
        row_to_example({**sums(1, 1)[0], key: "a text"})
    assert words in str(caught.value)
    for nothing in (None, "", [], {}):
        assert row_to_example({**sums(1, 1)[0], key: nothing}) == row_to_example(sums(1, 1)[0])


def test_every_other_key_is_named_once_with_its_count(tmp_path, caplog):
    train = [{**row, "id": i, "source": "web"} for i, row in enumerate(sums(0, 12))]
    with caplog.at_level(logging.WARNING, logger="msft"):
        read(tmp_path, train=train, test=[{**row, "question_id": "x"} for row in sums(40, 4)])
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("sums: keys of rows that are not read, and in how many rows: ")
    assert set(line.rpartition(": ")[2].split(", ")) == {"'source' (12)", "'id' (12)", "'question_id' (4)"}


@pytest.mark.parametrize("key", ["context", "prompt", "instruction"])
def test_what_stands_in_the_question_already_is_not_lost(key):
    row = {"question": "The book is red.\nWhat is red?", "answer": "book", key: " The book is red. "}
    assert row_to_example(row).answer == "book"
    assert row_to_example({**chats(1, 1)[0], key: "1 + 1?"}).answer == "2"


@pytest.mark.parametrize(
    "key", ["systemPrompt", "Context 2", "A", "option_b", "choice1", "opd", "weights", "Premises", "thoughts"]
)
def test_a_key_that_changes_the_meaning_is_known_in_other_spellings(key):
    """Options of a choice often have a column each, as in MMLU's and MedMCQA's tables."""
    row = {"question": "Which is round?", "answer": "A"}
    with pytest.raises(DataError, match=f"the key '{key}' is not read"):
        row_to_example({**row, key: "a ball"})
    assert row_to_example({**row, "question": "Which is round? A. a ball B. a box", key: "a ball"}).answer == "A"
    assert row_to_example({"question": "What is 3 + 4?", "answer": "7", "a": 3, "b": 4, "e": None}).answer == "7"


def chat(last=(), first=(), **more):
    user, assistant = {"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}
    return {"messages": [{**user, **dict(first)}, {**assistant, **dict(last)}], **more}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (chat(tools=[{"type": "function"}]), "the key 'tools' is not read"),
        (chat(system="Be short."), "the key 'system' is not read"),
        (chat(mesages=[]) | {"mesages": [1]}, "unknown key 'mesages'. Did you mean 'messages'?"),
        (chat({"tool_calls": [{"id": "1"}]}), "message 2: the key 'tool_calls' is not read"),
        (chat({"reasoning_content": "hm"}), "message 2: the key 'reasoning_content' is not read"),
        (chat({"weight": 0}), "message 2: the key 'weight' is not read"),
        (chat({"loss": False}), "message 2: the key 'loss' is not read"),
        (chat({"training": False}), "message 2: the key 'training' is not read"),
        (chat({"reasoning_details": [{"text": "hm"}]}), "message 2: the key 'reasoning_details' is not read"),
        (chat({"content": None}), "message 2 has no content."),
        (chat(system_message="Be short."), "the key 'system_message' is not read"),
        (chat(function_declarations="[{}]"), "the key 'function_declarations' is not read"),
        (chat({}, {"name": "Ann"}), "message 1: the key 'name' is not read"),
        (chat({"contents": "x"}), "message 2: unknown key 'contents'. Did you mean 'content'?"),
    ],
)
def test_a_key_of_a_chat_that_changes_its_meaning_is_refused(row, words):
    with pytest.raises(DataError) as caught:
        row_to_example(row)
    assert words in str(caught.value)
    assert "Did you mean 'content'" not in str(caught.value) or "contents" in words


@pytest.mark.parametrize(("key", "no", "yes"), [("weight", 0, 1), ("loss", False, True), ("train", False, True)])
def test_a_weight_that_asks_for_what_is_done_is_taken(key, no, yes):
    before = [{"role": "user", "content": "0?", key: no}, {"role": "assistant", "content": "1", key: no}]
    asked = {"messages": [*before, *chat({key: yes, "refusal": None, "id": "m2"})["messages"]]}
    assert row_to_example(asked).answer == "2"
    assert unread(asked) == {"id"}
    before[1][key] = yes
    with pytest.raises(DataError, match=f"message 2: the key '{key}'"):
        row_to_example(asked)


SHAPES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)
KEYS = st.sampled_from(["question", "answer", "rationale", "messages", "role", "content", "weight", "tools"])


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(
        KEYS | st.text(max_size=5), SHAPES | st.lists(st.dictionaries(KEYS, SHAPES), max_size=3), max_size=5
    ),
    st.sampled_from(["", "exact_match", "number_match", "loss"]),
)
def test_any_row_is_read_or_refused(row, metric):
    try:
        example = row_to_example(row, metric)
    except DataError as error:
        assert str(error)
        return
    assert metric == "loss" or scoring.is_right(example.target, {"answer": example.answer, "metric": metric})


# solutions in the answer, golds that a metric cannot tell ---------------------------------------------------------


@pytest.mark.parametrize("metric", ["", "exact_match", "number_match"])
@pytest.mark.parametrize(
    "answer",
    [
        "40+1=41 #### 41",
        "First 40.\nThen 41.\n#### 41",
        "####41",
        "<think>\n40, then 41\n</think>\n\n41",
        "<reasoning>40</reasoning> 41",
    ],
)
def test_a_solution_in_the_answer_is_refused_with_both_ways_out(answer, metric):
    with pytest.raises(DataError, match="benchmark: gsm8k.*rationale"):
        row_to_example({"question": "40 + 1?", "answer": answer}, metric)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("many", "has none"),
        ("10:30", "has one that it cannot read"),
        ("3-4", "has one that it cannot read"),
        ("√2", "has one that it cannot read"),
        ("2024-05-01", "has one that it cannot read"),
        ("3 and 4", "has 2: give one"),
        ("5' 3\"", "has 2: give one"),
    ],
)
def test_a_gold_that_is_no_one_number_is_refused_with_its_line(tmp_path, answer, words):
    text = refusal(tmp_path, {"metric": "number_match"}, test=[*sums(40, 4), {"question": "?", "answer": answer}])
    (line,) = [line for line in text.splitlines() if words in line]
    assert "test.jsonl:5: " in line


@pytest.mark.parametrize(
    ("one", "other"), [("Red", "red."), ("MB", "Mb"), ("ﬁne", "fine"), ("'a'", "a"), ("a  b", "a b")]
)
def test_golds_that_exact_match_would_merge_are_refused(tmp_path, one, other):
    test = [{"question": f"{i}?", "answer": answer} for i, answer in enumerate((one, other, one))]
    text = refusal(tmp_path, {"metric": "exact_match"}, test=test)
    assert "test.jsonl:2: metric exact_match takes the answer" in text
    assert "test.jsonl:1)" in text
    assert len(text.splitlines()) == 2
    read(tmp_path, test=test)


@pytest.mark.parametrize(("one", "other"), [("1.10", "1.1"), ("CO", "Co"), ("0070", "70")])
def test_golds_that_the_paper_s_scorer_takes_for_one_are_named(tmp_path, caplog, one, other):
    read(tmp_path, test=[{"question": f"{i}?", "answer": answer} for i, answer in enumerate((one, other, one, "x"))])
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("sums: 1 answers count as another one: ")
    assert f"test.jsonl:2: the default metric takes the answer {other!r} for {one!r}" in line
    told_apart = [row_to_example({"question": "?", "answer": str(2**53 + i)}) for i in range(2)]
    assert metrics.merged(told_apart, "") == []


def test_a_heading_in_a_chat_is_no_result(tmp_path):
    """'####' is also Markdown's: the first heading would be the gold answer of the whole text."""

    def told(start, count):
        rows = [
            (f"Tell {i}.", f"# Day {i}\n\n#### Morning\nWe slept.\n\n#### Evening\nWe ate {i}.")
            for i in range(start, start + count)
        ]
        turns = [({"role": "user", "content": asked}, {"role": "assistant", "content": said}) for asked, said in rows]
        return [{"messages": list(pair)} for pair in turns]

    text = refusal(tmp_path, train=told(0, 6), test=told(10, 2))
    assert (
        "test.jsonl:1: its last message has '####', behind which the scored answer stands, and lines behind that"
        in text
    )
    assert read(tmp_path, {"metric": "loss"}, train=told(0, 6), test=told(10, 2)).metric == "loss"


# doubles and shots ------------------------------------------------------------------------------------------------


def test_rows_that_stand_several_times_are_one_shot_and_all_leave_train(tmp_path):
    short = {"question": "?", "answer": "1"}
    sub = read(tmp_path, train=[short, *sums(0, 12), *[short] * 4])
    assert len({shot.question for shot in sub.shots}) == 5
    assert short["question"] in {shot.question for shot in sub.shots}
    assert short["question"] not in {example.question for example in sub.train}
    assert (len(sub.train), sub.left_out) == (8, {"train: same question as a shot": 4})


def test_a_question_with_several_answers_is_no_shot_and_stays_in_train(tmp_path):
    sampled = [{"question": "A?", "answer": str(i)} for i in range(4)]
    same = [{"question": "B?", "answer": "7", "rationale": text} for text in ("so", "thus")]
    sub = read(tmp_path, train=[*sampled, *same, *sums(0, 12)])
    asked = [shot.question for shot in sub.shots]
    assert len(set(asked)) == 5
    assert "A?" not in asked
    assert "B?" in asked
    assert [example.question for example in sub.train].count("A?") == 4


def test_too_few_different_questions(tmp_path):
    text = refusal(tmp_path, train=sums(0, 4) * 3)
    assert "12 train rows, 4 different questions with one answer each; five become shots" in text


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 1)), min_size=1, max_size=40))
def test_shots_are_five_questions_that_train_does_not_ask(tmp_path_factory, drawn):
    train = [{"question": f"number {q}?", "answer": f"answer {a}"} for q, a in drawn]
    clear = {q for q, _ in drawn if len({a for other, a in drawn if other == q}) == 1}
    folder = tmp_path_factory.mktemp("drawn")
    if len(clear) < 5 or {q for q, _ in drawn} == clear and len(clear) == 5:
        assert "five become shots" in refusal(folder, train=train)
        return
    sub = read(folder, train=train)
    shots = {shot.question for shot in sub.shots}
    assert len(shots) == 5
    assert shots <= {f"number {q}?" for q in clear}
    assert not shots & {example.question for example in sub.train}
    assert len(sub.train) + 5 + sum(sub.left_out.values()) == len(train)


@pytest.mark.parametrize(
    ("shots", "words"),
    [
        ([*sums(60, 4), *sums(60, 1)], "shots.jsonl:5: this shot's question stands twice"),
        (
            [*sums(60, 5), {"question": " 60  + 1? ", "answer": "61"}],
            "shots.jsonl:6: this shot's question stands twice",
        ),
        ([*sums(60, 4), {"question": "3 + 1?", "answer": "5"}], "answers '5' where"),
        ([*sums(60, 4), {"question": "40 + 1?", "answer": "41"}], "same question in shots (line 5) and test (line 1)"),
    ],
)
def test_a_list_of_shots_is_five_questions_with_one_answer_each(tmp_path, shots, words):
    assert words in refusal(tmp_path, shots=shots)
    assert len(read(tmp_path, shots=[*sums(60, 4), *sums(3, 1)]).shots) == 5


def test_the_same_question_in_other_case_and_blanks_is_an_overlap(tmp_path):
    train = [{"question": f"Code  of Caf\u00e9 {i}", "answer": "1"} for i in range(12)]
    text = refusal(tmp_path, train=train, test=[{"question": " code\u200b of\nCAFE\u0301 3 \ufeff", "answer": "1"}])
    assert "the same question in train (line 4) and test (line 1)" in text
    for mark in "\u061c\u034f\ufe0f\ufffb\U000e0041\x00\x1b":  # nobody sees them
        text = refusal(tmp_path, train=train, test=[{"question": f"{mark}Code of{mark} Caf\u00e9 3", "answer": "1"}])
        assert "the same question in train (line 4) and test (line 1)" in text


@pytest.mark.parametrize("system", [[], [{"role": "system", "content": "Be short."}]])
def test_a_question_that_another_sub_dataset_asks_in_a_chat_is_named(tmp_path, caplog, system):
    path = write(tmp_path)
    rows = [{"messages": [*system, *row["messages"]]} for row in chats(20, 24)]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = yaml.safe_load(path.read_text())
    spec["sub_datasets"].append({"name": "chats", "train": "chats.jsonl", "test_split": 0.2})
    path.write_text(yaml.safe_dump(spec))
    msft.load_mixture(path)
    said = [record.getMessage() for record in caplog.records]
    assert any(
        line.startswith("sums: ") and "of 4 are trained in other sub-datasets, such as '4" in line for line in said
    )


def test_questions_that_another_sub_dataset_trains_on_are_named(tmp_path, caplog):
    path = write(tmp_path)
    (tmp_path / "other.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sums(20, 24)))
    spec = yaml.safe_load(path.read_text())
    spec["sub_datasets"].append({"name": "other", "train": "other.jsonl", "test_split": 0.1})
    path.write_text(yaml.safe_dump(spec))
    msft.load_mixture(path)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("sums: ")
    assert "questions of 4 are trained in other sub-datasets, such as '40 + 1?' (line 21 of other)" in line
    path.write_text(yaml.safe_dump({**spec, "allow_overlap": ["sums"]}))
    caplog.clear()
    msft.load_mixture(path)
    assert not caplog.records


def test_lines_that_cannot_be_read_and_rows_that_cannot_be_used_are_said_together(tmp_path):
    path = write(tmp_path, test=[{"question": "?"}])
    with open(tmp_path / "train.jsonl", "a") as file:
        file.write("no json\n" + json.dumps({"question": "?", "answer": ""}) + "\n")
    with pytest.raises(DataError) as caught:
        msft.load_mixture(path)
    for words in ("train.jsonl:13: not JSON", "train.jsonl:14: 'answer' is empty", "test.jsonl:1: the key 'answer'"):
        assert words in str(caught.value)


@pytest.mark.parametrize("name", ["mean", "all", "nan", "NA", "null", "None"])
def test_a_name_that_tables_use_is_refused(tmp_path, name):
    assert f"the name {name!r} stands for all sub-datasets" in refusal(tmp_path, {"name": name})


@pytest.mark.parametrize("name", ["$x^2$", "100 %", "a_b", "{x}", "é", "~", "msft_run"])
def test_other_names_are_names(tmp_path, name):
    assert msft.load_mixture(write(tmp_path, {"name": name})).names == [name]


PIECES = st.sampled_from(
    ["(", ")", "[", "]", "}", "!", "?", ".", ",", "5", "1/2", " ", "'", '"', "a", "A", "²", "½", "ﬁ", "é", "-", "%"]
)
SET_GOLDS = st.lists(st.lists(PIECES, min_size=1, max_size=5).map("".join), min_size=2, max_size=4, unique=True)


@settings(max_examples=300, deadline=None)
@given(SET_GOLDS, st.sampled_from(["exact_match", "number_match"]))
def test_in_a_set_that_is_taken_every_gold_is_right_for_itself_and_exactly_for_its_equals(golds, metric):
    examples = []
    for i, gold in enumerate(golds):
        try:
            examples.append(row_to_example({"question": f"{i}?", "answer": gold}, metric, f"test.jsonl:{i}"))
        except DataError:
            continue
    if metrics.merged(examples, metric):
        return
    for one in examples:
        for other in examples:
            right = scoring.SCORERS[metric](one.target, other.answer)
            if metric == "exact_match":  # '5' and '5.' are one answer: the paper's reading takes the dot away
                assert right is (one.answer.rstrip(". ") == other.answer.rstrip(". "))
            else:
                assert right is (scoring.numbers(one.answer)[0][0] == scoring.numbers(other.answer)[0][0])
