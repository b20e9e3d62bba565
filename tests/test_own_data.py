"""Data where it lies: the hub, parquet, CSV, JSON and compressed lines, columns by name, seeded splits, and every mistake."""

import bz2
import csv
import gzip
import json
import logging
import lzma
import random

import datasets
import huggingface_hub
import pandas as pd
import pyarrow
import pytest
import yaml
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

import msft
from msft.__main__ import main
from msft.data.files import read_file
from msft.data.reading import read_mixture
from msft.data.rows import row_to_example
from msft.errors import DataError, MsftError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def sums(start, count, **more):
    return [{"question": f"{i} + 1?", "answer": str(i + 1), **more} for i in range(start, start + count)]


TRAIN, TEST = sums(0, 12), sums(40, 4)
COMPRESSORS = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda content: zstandard.ZstdCompressor().compress(content),
}


def write(path, rows):
    """Rows in the form and the compression that the name of the file asks for; returns the file's name."""
    if path.suffix == ".parquet":
        datasets.Dataset.from_list(rows).to_parquet(path)
    elif ".csv" in path.suffixes:
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, list(rows[-1]))
            table.writeheader()
            table.writerows(rows)
    elif path.suffixes[0] == ".json":
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if path.suffix in COMPRESSORS:
        path.write_bytes(COMPRESSORS[path.suffix](path.read_bytes()))
    return path.name


def mixture_of(folder, *entries, **more):
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({"name": "mine", "sub_datasets": list(entries), **more}), encoding="utf-8")
    return msft.load_mixture(path)


def read(folder, train, test=TEST, ending=".jsonl", **entry):
    """The one sub-dataset of a mixture over two files."""
    parts = {"train": train, "test": test}
    files = {part: write(folder / f"{part}{ending}", rows) for part, rows in parts.items() if rows is not None}
    return mixture_of(folder, {"name": "sums", **files, **entry})["sums"]


def refusal(function, *args, **kwargs):
    with pytest.raises(DataError) as caught:
        function(*args, **kwargs)
    return str(caught.value)


# files -----------------------------------------------------------------------------------------------------------

ENDINGS = [".parquet", ".csv", ".json", *(f".jsonl{ending}" for ending in COMPRESSORS), ".csv.gz", ".json.zst"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_same_rows_are_the_same_mixture_in_every_file(tmp_path, ending):
    train = [*TRAIN[:-1], {"question": 'Say "a, b"\nand é', "answer": "007"}]
    plain = read(tmp_path, train)
    other = read(tmp_path, train, ending=ending)
    assert (other.train, other.test, other.shots) == (plain.train, plain.test, plain.shots)
    assert other.train[-1].answer == "007"


def test_json_lines_may_lie_under_json(tmp_path):
    (tmp_path / "train.json").write_text("".join(json.dumps(row) + "\n" for row in TRAIN))
    (tmp_path / "test.json").write_text(json.dumps(TEST))
    assert len(mixture_of(tmp_path, {"name": "a", "train": "train.json", "test": "test.json"})["a"].train) == 7


def test_numbers_and_labels_of_a_table_are_texts(tmp_path):
    names = datasets.ClassLabel(names=["no", "yes"])
    rows = [{"question": f"{i}?", "answer": i % 2, "count": i} for i in range(12)]
    table = datasets.Dataset.from_list(rows).cast_column("answer", names)
    table.to_parquet(tmp_path / "train.parquet")
    entry = {"name": "a", "train": "train.parquet", "test_split": 0.2}
    sub = mixture_of(tmp_path, entry)["a"]
    assert {e.answer for e in sub.train} == {"no", "yes"}
    sub = mixture_of(tmp_path, {**entry, "columns": {"answer": "count"}})["a"]
    assert {e.answer for e in sub.train + sub.test + sub.shots} == {str(i) for i in range(12)}
    table.map(lambda row: {"answer": -1}).to_parquet(tmp_path / "train.parquet")
    assert "train.parquet:row 1: the key 'answer' is missing" in refusal(mixture_of, tmp_path, entry)


def test_a_map_in_a_parquet_file_is_named_and_is_no_text(tmp_path, caplog):
    pairs = pyarrow.array([[("k", "v")]] * 11 + [None], pyarrow.map_(pyarrow.string(), pyarrow.string()))
    texts = {name: [row[name] for row in TRAIN] for name in ("question", "answer")}
    parquet.write_table(pyarrow.table({**texts, "facts of it": pairs}), tmp_path / "train.parquet")
    write(tmp_path / "test.jsonl", TEST)
    entry = {"name": "sums", "train": "train.parquet", "test": "test.jsonl"}
    with caplog.at_level(logging.WARNING):
        assert mixture_of(tmp_path, entry)["sums"].train == read(tmp_path, TRAIN).train
    assert "'facts of it' (11)" in caplog.text
    told = refusal(mixture_of, tmp_path, {**entry, "columns": {"answer": "facts of it"}})
    assert "train.parquet:row 1: 'answer' is of type dict" in told


def test_joined_files_with_marks_and_long_cells_are_read(tmp_path):
    lines = [json.dumps(row) for row in TRAIN]
    (tmp_path / "train.jsonl").write_text("\ufeff" + "\n\ufeff".join(lines) + "\n", encoding="utf-8")
    write(tmp_path / "test.csv", [{"question": "long " * 40_000, "answer": "1"}, *TEST])
    sub = mixture_of(tmp_path, {"name": "sums", "train": "train.jsonl", "test": "test.csv"})["sums"]
    assert sub.train == read(tmp_path, TRAIN).train
    assert len(sub.test) == 5


def test_records_of_a_benchmark_stay_as_the_hub_has_them(tmp_path):
    record = {"premise": "It rains.", "label": 1}
    rows = [{**record, "hypothesis": f"{i} drops fall."} for i in range(12)]
    labels = datasets.ClassLabel(names=["entailment", "neutral", "contradiction"])
    datasets.Dataset.from_list(rows).cast_column("label", labels).to_parquet(tmp_path / "train.parquet")
    sub = mixture_of(tmp_path, {"name": "a", "train": "train.parquet", "benchmark": "anli", "test_split": 0.2})["a"]
    assert {e.answer for e in sub.train} == {"B"}


def test_categories_of_pandas_are_texts(tmp_path):
    pd.DataFrame(TRAIN).astype("category").to_parquet(tmp_path / "train.parquet")
    entry = {"name": "sums", "train": "train.parquet", "test": write(tmp_path / "test.jsonl", TEST)}
    assert mixture_of(tmp_path, entry)["sums"].train == read(tmp_path, TRAIN).train


BAD_FILES = {
    "train.csv": ('question,answer\n"1\n+ 1?",2\n3?,4,5\n6?\n', [":4: 3 cells in a table of 2", ":5: 1 cells"]),
    "twice.csv": ("question,answer,answer\na,b,c\n", ["must name the columns; it has 'answer' twice"]),
    "empty.csv": ("question,answer\n", ["empty.csv has no rows"]),
    "chats.jsonl": (
        '{"conversations": []}\n{"id": 1}\n',
        [
            "chats.jsonl: no column 'question'.",
            "It has: conversations, id. Say under `columns` which they are, or name a",
        ],
    ),
    "array.jsonl": (
        '[{"question": "1?"},\n 3]',
        ["array.jsonl:row 1: the key 'answer'", ":row 2: a int, not an object"],
    ),
    "train.json": ('[{"question": "1?"}, 3]', [":row 1: the key 'answer'", ":row 2: a int, not an object"]),
    "broken.json": ("[{]", ["broken.json: not JSON"]),
    "train.parquet": ("no parquet", ["train.parquet: cannot be read: Parquet magic bytes"]),
    "pointer.jsonl": (
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n",
        ["pointer.jsonl: cannot be read: it is Git LFS's pointer to a file that was not fetched; run `git lfs pull`"],
    ),
    "marked.csv": (
        "\ufeffquestion,answer\n1?,1\n\ufeffquestion,answer\n2?,2\n",
        ["marked.csv:3: the names of the columns again"],
    ),
    "joined.csv": ("question,answer\n1?,1\nquestion,answer\n2?,2\n", ["joined.csv:3: the names of the columns again"]),
    "turned.csv": ("question,answer\n1?,1\nAnswer, Question\n2,2?\n", ["turned.csv:3: the names of the columns again"]),
    "quoted.csv": ('question,answer\n1?,1\n"2?,2\n3?,3\n', ["quoted.csv:3: not CSV from this line on"]),
    **{
        f"{number}.csv": (
            f"{text}question,answer\n1?,1\n2?,2\n",
            [f"it is '{said}', and no row below fits it; take out"],
        )
        for number, (text, said) in enumerate([("# by hand\n", "# by hand"), ("\n", ""), ("Sums\n\n", "Sums")])
    },
    "head.csv": ('"question"s,answer\n1?,1\n', ["head.csv:1: not CSV from this line on"]),
    "keys.jsonl": (
        '{"question": "1?", "answer": "1", "answer": "2"}\n',
        ["keys.jsonl:1: not JSON (the key 'answer' stands"],
    ),
    "keys.json": ('[{"a": {"b": 1, "b": 2}}]', ["keys.json: not JSON (the key 'b' stands twice"]),
    "train.jsonl.gz": ("not compressed", ["train.jsonl.gz: cannot be read: Not a gzipped file"]),
    "train.jsonl.zst": ("not compressed", ["train.jsonl.zst: cannot be read: "]),
    "train.jsonl.xz": ("not compressed", ["train.jsonl.xz: cannot be read: "]),
}


def test_every_bad_file_is_told_at_once(tmp_path):
    write(tmp_path / "test.jsonl", TEST)
    for file, (text, _) in BAD_FILES.items():
        (tmp_path / file).write_text(text, encoding="utf-8")
    entries = [{"name": file, "train": file, "test": "test.jsonl"} for file in [*BAD_FILES, "tarin.csv"]]
    told = refusal(mixture_of, tmp_path, *entries)
    for fragment in [part for _, parts in BAD_FILES.values() for part in parts]:
        assert fragment in told
    assert "tarin.csv: no such file. Did you mean 'train.csv'?" in told
    (tmp_path / "saved").mkdir()
    (tmp_path / "data.arrow").write_bytes(b"ARROW1\x00\x00\xff\xff\xff\xff")
    told = refusal(mixture_of, tmp_path, {"name": "kinds", "train": "saved", "test": "data.arrow"})
    assert (
        "saved: cannot be read: it is no file; give a data file (of a folder of `save_to_disk` Dataset.to_parquet"
        in told
    )
    assert "data.arrow: not UTF-8 text" in told
    assert "write another kind, such as .arrow, .xlsx or .zip, as one of these" in told
    (tmp_path / "dead.jsonl").symlink_to("nowhere.jsonl")
    entry = {"name": "dead", "train": "dead.jsonl", "test": "TEST.jsonl"}
    told = refusal(mixture_of, tmp_path, entry)
    assert "dead.jsonl: a link to nowhere.jsonl, which is not there" in told
    assert "TEST.jsonl: no such file. Did you mean 'test.jsonl'?" in told
    write(tmp_path / "e\u0301te\u0301.jsonl", TEST)  # as files of some systems and archives have them
    told = refusal(mixture_of, tmp_path, {**entry, "test": "\xe9t\xe9.jsonl"})
    assert r"Did you mean 'e\u0301te\u0301.jsonl'? It looks the same, its letters are composed" in told


@pytest.mark.parametrize("ending", COMPRESSORS)
def test_a_compressed_file_that_is_cut_off_is_refused_and_several_streams_are_one_file(tmp_path, ending):
    rows = [{"question": f"{i} {random.Random(i).random()}?", "answer": str(i)} for i in range(2000)]
    write(tmp_path / f"train.jsonl{ending}", rows)
    content = (tmp_path / f"train.jsonl{ending}").read_bytes()
    entry = {"name": "a", "train": f"train.jsonl{ending}", "test_split": 0.1}
    (tmp_path / f"train.jsonl{ending}").write_bytes(content[: len(content) // 2])
    assert "cannot be read: " in refusal(mixture_of, tmp_path, {**entry, "skip_bad_rows": True})
    more = COMPRESSORS[ending]((json.dumps({"question": "last?", "answer": "1"}) + "\n").encode())
    (tmp_path / f"train.jsonl{ending}").write_bytes(content + more)
    sub = mixture_of(tmp_path, entry)["a"]
    assert len(sub.train) + len(sub.test) + len(sub.shots) == 2001


def test_shots_of_a_file_leave_train_and_what_is_over_is_counted(tmp_path):
    write(tmp_path / "shots.jsonl", TRAIN[:8])
    sub = read(tmp_path, TRAIN, shots="shots.jsonl")
    assert [shot.answer for shot in sub.shots] == ["1", "2", "3", "4", "5"]
    assert [e.answer for e in sub.train] == [str(i) for i in range(6, 13)]
    assert sub.left_out == {"shots: only 5 stand before an item": 3, "train: same question as a shot": 5}
    assert "every train row asks what a shot asks" in refusal(read, tmp_path, TRAIN[:5], shots="shots.jsonl")


def test_a_test_question_with_several_answers_is_named(tmp_path, caplog):
    test = [{"question": "z?", "answer": "1"}, {"question": "Z?", "answer": "2"}, {"question": "y?", "answer": "3"}]
    with caplog.at_level(logging.WARNING):
        assert len(read(tmp_path, TRAIN, test).test) == 3
    assert "sums: 1 questions of test have several answers" in caplog.text and "'Z?' (line 2)" in caplog.text


def test_a_train_question_with_several_answers_is_named_and_one_that_stands_twice_is_not(tmp_path, caplog):
    train = [*TRAIN, {**TRAIN[0], "answer": "no"}, TRAIN[1]]
    with caplog.at_level(logging.WARNING):
        read(tmp_path, train)
    assert "sums: 1 questions of train have several answers, all of which are trained: " in caplog.text
    assert "(line 13)" in caplog.text and "ask what another one asks" not in caplog.text


@pytest.mark.parametrize("metric", [None, "exact_match", "loss"])
def test_test_rows_that_stand_twice_are_named(tmp_path, caplog, metric):
    with caplog.at_level(logging.WARNING):
        sub = read(
            tmp_path, TRAIN, [*TEST, {**TEST[1], "question": "41  + 1? "}], **({"metric": metric} if metric else {})
        )
    assert len(sub.test) == 5
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == "sums: 2 of 5 rows of test ask what another one asks, and count as often: '41  + 1?' (line 5)"


@pytest.mark.parametrize("empty", [[], "", None])
def test_rows_of_both_shapes_may_have_empty_columns_of_the_other(tmp_path, caplog, empty):
    with caplog.at_level(logging.WARNING):
        assert len(read(tmp_path, [{**row, "messages": empty} for row in TRAIN]).train) == 7
    turns = [{"role": "user", "content": "1?"}, {"role": "assistant", "content": "1"}]
    assert row_to_example({"messages": turns, "question": empty, "answer": empty}).messages
    assert not caplog.text


# columns, templates, formats -------------------------------------------------------------------------------------


def test_columns_are_named_and_the_others_are_told(tmp_path, caplog):
    rows = [{"id": str(i), "frage": f"{i}?", "antwort": f"a{i}", "context": "", "input": "x"} for i in range(12)]
    with caplog.at_level(logging.WARNING):
        sub = read(tmp_path, rows, None, ".csv", columns={"question": "frage", "answer": "antwort"}, test_split=0.2)
    assert {(e.question, e.answer) for e in sub.train} <= {(f"{i}?", f"a{i}") for i in range(12)}
    assert "keys of rows that are not read, and in how many rows: 'id' (12), 'input' (12)" in caplog.text


def test_a_template_joins_columns(tmp_path):
    rows = [{"context": "" if i else "It rains.", "query": f"{i}?", "answer": "a"} for i in range(12)]
    entry = {"template": "{context}\n{{{query}}}", "metric": "loss"}
    sub = read(tmp_path, rows[1:], rows[:1], ".csv", **entry)
    assert sub.test[0].question == "It rains.\n{0?}"
    assert sub.train[0].question == "{1?}"
    told = refusal(read, tmp_path, [{**row, "query": 3} for row in rows], **entry)
    assert "train.jsonl:1: 'query' is of type int; the template takes texts" in told


def test_alpaca_rows(tmp_path):
    rows = [{"instruction": f"Add {i}.", "input": f"{i} + 1" * (i % 2), "output": str(i + 1)} for i in range(12)]
    sub = read(tmp_path, rows, None, ".parquet", format="alpaca", test_split=0.25)
    texts = {e.question: e.target for e in sub.train + sub.test + sub.shots}
    assert texts["Add 1.\n1 + 1"] == "#### 2"
    assert texts["Add 2."] == "#### 3"
    told = refusal(
        read, tmp_path, [{**row, "history": [["a", "b"]]} for row in rows], None, test_split=0.25, format="alpaca"
    )
    assert "the key 'history' is not read, and what it says would be lost" in told
    assert "it has no value for 'output'" in refusal(
        read, tmp_path, [*rows, {"instruction": "x"}], None, test_split=0.25, format="alpaca"
    )


def chat(i):
    return [
        {"role": "system", "content": "Add."},
        {"role": "user", "content": f"{i} + 1?"},
        {"role": "assistant", "content": "2"},
    ]


def sharegpt(i):
    names = {"user": "human", "assistant": "gpt"}
    return [{"from": names.get(m["role"], m["role"]), "value": m["content"]} for m in chat(i)]


@pytest.mark.parametrize("ending", [".jsonl", ".parquet", ".json.gz"])
def test_chats_of_three_shapes_are_the_same(tmp_path, ending):
    plain = read(tmp_path, [{"messages": chat(i)} for i in range(12)], [{"messages": chat(40)}])
    for key, entry, make in (
        ("messages", {"format": "openai"}, chat),
        ("talk", {"columns": {"messages": "talk"}}, chat),
        ("conversations", {"format": "sharegpt"}, sharegpt),
    ):
        sub = read(tmp_path, [{key: make(i), "id": "x"} for i in range(12)], [{key: make(40)}], ending, **entry)
        assert (sub.train, sub.test, sub.shots) == (plain.train, plain.test, [])


def test_turns_of_both_spellings(tmp_path):
    """Data sets that were joined have the columns of both, those of the other null."""
    both = [[{**turn, "role": None, "content": None} for turn in sharegpt(i)] for i in range(12)]
    plain = read(tmp_path, [{"messages": chat(i)} for i in range(12)], [{"messages": chat(40)}])
    rows, test = [{"conversations": turns} for turns in both], [{"conversations": sharegpt(40)}]
    assert read(tmp_path, rows, test, format="sharegpt").train == plain.train
    rows[3]["conversations"][0]["content"] = "another text"
    assert "4: a turn has 'value' and 'content', which say different things" in refusal(
        read, tmp_path, rows, test, format="sharegpt"
    )


def test_tools_beside_messages_under_another_name_are_refused(tmp_path):
    rows = [{"talk": chat(i), "tools": ["a search"]} for i in range(12)]
    told = refusal(read, tmp_path, rows, [{"talk": chat(40)}], columns={"messages": "talk"})
    assert "the key 'tools' is not read, and what it says would be lost" in told


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_line_ends_are_the_same_in_every_compression(tmp_path, ending, end):
    text = "question,answer\n" + "".join(f'"{i}\n?",{i}\n' for i in range(12))
    content = text.replace("\n", end).encode()
    (tmp_path / f"train.csv{ending}").write_bytes(COMPRESSORS[ending](content) if ending else content)
    sub = mixture_of(tmp_path, {"name": "a", "train": f"train.csv{ending}", "test_split": 0.2})["a"]
    assert {e.question for e in sub.train + sub.test + sub.shots} == {f"{i}\n?" for i in range(12)}


def test_chats_that_stand_twice_are_quoted_by_what_they_ask(tmp_path, caplog):
    rows = [
        {"messages": [{"role": "system", "content": "You are the till of a shop. " * 4}, *chat(i)[-2:]]}
        for i in range(14)
    ]
    read(tmp_path, rows[:12], [rows[12], rows[12]])
    assert f"count as often: {rows[12]['messages'][1]['content']!r} (" in caplog.text


def test_blanks_behind_the_commas_of_a_csv_are_no_part_of_its_cells(tmp_path):
    cells = "".join(f'Code {i}?, "{i}, then {i}"\n' for i in range(12))
    (tmp_path / "train.csv").write_text("question, answer\n" + cells)
    read = read_file(tmp_path / "train.csv")
    assert read.columns == ["question", "answer"] and not read.problems
    assert read.rows[3][1] == {"question": "Code 3?", "answer": "3, then 3"}


def test_a_short_text_is_said_by_a_word_alone():
    """'A' stands in 'Are' too, and an option that no question shows would be lost."""
    row = {"question": "Are cats (b) or 12 dogs?", "answer": "b"}
    for key, value, is_lost in (("option_a", "A", True), ("option_b", "b", False), ("a", 12, False), ("b", 2, True)):
        if is_lost:
            with pytest.raises(DataError, match=f"the key '{key}' is not read"):
                row_to_example({**row, key: value})
        else:
            row_to_example({**row, key: value})


def test_excels_way_to_write_a_text_is_no_part_of_it(tmp_path):
    """="007" stands in a whole column; a column in which some cells alone look so has formulas."""
    cells = "".join(f'Code {i}?,="00{i}",{a}\n' for i, a in enumerate(['="x"', "y"]))
    (tmp_path / "train.csv").write_text(
        "question,answer,formula\n" + cells + 'Say?,"=""say """"hi""""""",z\nNone?,,z\n'
    )
    rows = [list(row.values())[1:] for _, row in read_file(tmp_path / "train.csv").rows]
    assert rows == [["000", '="x"'], ["001", "y"], ['say "hi"', "z"], ["", "z"]]


def test_a_stray_quote_drops_no_rows_in_silence(tmp_path):
    text = "question,answer\n" + "".join(f"{i}?,{i}\n" for i in range(12)) + '"broken?,5\n' + "x?,1\n" * 5
    (tmp_path / "train.csv").write_text(text)
    entry = {"name": "a", "train": "train.csv", "test_split": 0.2, "skip_bad_rows": True}
    assert "train.csv:14: not CSV from this line on" in refusal(mixture_of, tmp_path, entry)


def test_turns_that_are_none_are_told(tmp_path):
    rows = [{"conversations": value} for value in ("text", [3], [{"from": ["gpt"], "value": 2}], sharegpt(1)[:2])]
    told = refusal(read, tmp_path, rows, [{"conversations": sharegpt(2)}], format="sharegpt")
    wanted = [
        "1: messages must be",
        "2: message 1 is of type int",
        "3: message 1: role is of type list",
        "4: the roles are system, user",
    ]
    assert all(f"train.jsonl:{fragment}" in told for fragment in wanted)


# seeded splits and sizes -----------------------------------------------------------------------------------------


def test_a_split_is_seeded_and_keeps_the_rows_of_a_question_together(tmp_path):
    rows = [row for row in sums(0, 40) for _ in range(2)]
    entry = {"test_split": 0.1, "validation_split": 0.2}
    sub, again = (read(tmp_path, rows, None, **entry) for _ in range(2))
    assert (sub.train, sub.test, sub.validation) == (again.train, again.test, again.validation)
    questions = {part: {e.question for e in getattr(sub, part)} for part in ("train", "test", "validation", "shots")}
    assert [len(asked) for asked in questions.values()] == [23, 4, 8, 5]
    assert sum(map(len, questions.values())) == len(set.union(*questions.values())) == 40
    assert len(sub.test) == 8
    # drawn by seed, name and question alone: the same on every machine
    assert sorted(questions["test"]) == ["1 + 1?", "22 + 1?", "6 + 1?", "7 + 1?"]
    path = tmp_path / "mine.yaml"
    path.write_text(path.read_text() + "seed: 21\n")
    assert {e.question for e in msft.load_mixture(path)["sums"].test} != questions["test"]


def test_sizes_are_drawn_and_what_is_left_is_counted(tmp_path):
    entry = {"train_size": 10, "test_size": 3, "validation_split": 0.5, "validation_size": 5}
    sub = read(tmp_path, sums(0, 60), sums(90, 9), **entry)
    assert [len(sub.train), len(sub.test), len(sub.validation), len(sub.shots)] == [10, 3, 5, 5]
    assert sub.left_out == {
        "train: not drawn, train_size = 10": 15,
        "test: not drawn, test_size = 3": 6,
        "validation: not drawn, validation_size = 5": 25,
    }
    assert "test_size = 10, and test has 9 rows" in refusal(read, tmp_path, sums(0, 60), sums(90, 9), test_size=10)
    assert "train has 7 rows beside its shots" in refusal(read, tmp_path, TRAIN, train_size=8)


def test_a_share_that_leaves_nothing_is_told(tmp_path):
    told = refusal(read, tmp_path, TRAIN, None, test_split=0.01)
    assert "test_split = 0.01 of 12 rows: nothing is left for test" in told
    told = refusal(read, tmp_path, TRAIN, None, test_split=0.5, validation_split=0.5)
    assert "nothing is left for train" in told


def test_rows_that_cannot_be_used_are_left_out_where_that_is_asked_for(tmp_path):
    rows = [*TRAIN, {"question": "", "answer": "2"}, {"question": "7?"}]
    told = refusal(read, tmp_path, rows)
    assert "train.jsonl:13: 'question' is empty" in told and "train.jsonl:14: the key 'answer'" in told
    sub = read(tmp_path, rows, skip_bad_rows=True)
    assert sub.train == read(tmp_path, TRAIN).train
    ((reason, count),) = sub.left_out.items()
    assert reason.startswith("train: rows that cannot be used, such as") and count == 2
    assert "no such file" in refusal(
        mixture_of, tmp_path, {"name": "a", "train": "x.csv", "test_split": 0.1, "skip_bad_rows": True}
    )


def test_a_run_s_identity_follows_the_rows_that_are_read(tmp_path):
    def identity(rows=TRAIN, **entry):
        read(tmp_path, rows, None, ".csv", **{"test_split": 0.3, **entry})
        return msft.load_mixture(tmp_path / "mine.yaml").fingerprint()

    first = identity()
    assert first == identity() == identity(columns={"question": "question"})
    others = [
        identity(test_split=0.2),
        identity(train_size=2),
        identity([*TRAIN[1:], *sums(70, 1)]),
        identity(metric="loss"),
    ]
    assert len({first, *others}) == 5


# the hub ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub that holds owner/sums with the splits train and test, read by `datasets` itself from a folder."""
    folder, load_dataset = tmp_path / "hub", datasets.load_dataset
    for name, more in (("owner/sums", {}), ("owner/labels", {"label": 0})):
        (folder / name).mkdir(parents=True)
        write(
            folder / name / "train.parquet",
            [{"instruction": r["question"], "output": r["answer"], **more} for r in TRAIN],
        )
        write(
            folder / name / "test.parquet",
            [{"instruction": r["question"], "output": r["answer"], **more} for r in TEST],
        )

    def load(path, config, *, split, revision):
        assert revision == COMMIT
        return load_dataset(str(folder / path), config, split=split, cache_dir=tmp_path / "cache")

    def dataset_info(self, repo, revision=None, timeout=None):
        if not (folder / repo).is_dir() or revision not in (None, "v1", COMMIT):
            raise ConnectionError(f"404 for {repo} at {revision}")
        return type("Info", (), {"sha": COMMIT})

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(huggingface_hub, "is_offline_mode", lambda: False)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    return folder


ON_HUB = {"name": "sums", "hub": "owner/sums", "revision": "v1", "format": "alpaca"}


def test_a_data_set_of_the_hub(hub, tmp_path):
    sub = mixture_of(tmp_path, {**ON_HUB, "split": "train[:10]", "test": "test"})["sums"]
    assert [e.question for e in sub.test] == [row["question"] for row in TEST]
    assert len(sub.train) + len(sub.shots) == 10
    assert sub.source == {
        "hub_id": "owner/sums",
        "config": "default",
        "revision": COMMIT,
        "train_split": "train[:10]",
        "test_split": "test",
    }
    same = mixture_of(tmp_path, {**ON_HUB, "train": "train[:10]", "test": "test"})
    assert same["sums"] == sub
    assert len(mixture_of(tmp_path, {**ON_HUB, "split": "train", "test_split": 0.25})["sums"].test) == 3


def test_all_that_is_wrong_with_the_hub_is_told_at_once(hub, tmp_path):
    entries = [
        {**ON_HUB, "name": "split", "split": "trian", "test": "tset"},
        {**ON_HUB, "name": "config", "config": "mian", "split": "train", "test": "test"},
        {**ON_HUB, "name": "repository", "hub": "owner/sum", "split": "train", "test": "test"},
        {**ON_HUB, "name": "revision", "revision": "v2", "split": "train", "test": "test"},
        {"name": "columns", "hub": "owner/labels", "split": "train", "test": "test"},
        {"name": "file", "train": "x.csv", "test_split": 0.1},
    ]
    told = refusal(mixture_of, tmp_path, *entries)
    for fragment in (
        'split: owner/sums (trian) cannot be read: ValueError: Unknown split "trian"',
        'owner/sums (tset) cannot be read: ValueError: Unknown split "tset"',
        "config: owner/sums (train) cannot be read: ValueError: BuilderConfig 'mian' not found. Available: ['default']",
        "repository: owner/sum cannot be reached (ConnectionError: 404 for owner/sum",
        "revision: owner/sums cannot be reached (ConnectionError: 404 for owner/sums at v2",
        "columns: owner/labels train: no column 'question'. Did you mean 'instruction'? no column 'answer'. It has: instruction, output, label.",
        "Say under `columns` which they are, or name a `format`: alpaca, sharegpt, openai",
        "download the data and name the files in place of `hub`",
        "x.csv: no such file",
    ):
        assert fragment in told


# what an entry may not say ---------------------------------------------------------------------------------------

FILES = {"train": "train.jsonl", "test": "test.jsonl"}
BAD_ENTRIES = [
    ({"columsn": {"answer": "output"}, **FILES}, "unknown key 'columsn'. Did you mean 'columns'"),
    ({"columns": "answer", **FILES}, "key columns = 'answer': give a value of type dict"),
    ({"columns": {"answer": ["a"]}, **FILES}, "columns: give each a name as text"),
    ({"columns": {"anwser": "output"}, **FILES}, "columns: unknown name 'anwser'. Did you mean 'answer'"),
    (
        {"columns": {"answer": "anwser"}, **FILES},
        "train.jsonl: no column 'anwser'. Did you mean 'answer'? It has: question, answer.",
    ),
    ({"columns": {"rationale": "why"}, **FILES}, "no column 'why'"),
    ({"columns": {"messages": "m", "answer": "a"}, **FILES}, "messages stand alone"),
    ({"template": "{qestion} {x}", **FILES}, "no column 'qestion'. Did you mean 'question'? no column 'x'."),
    ({"template": "{question", **FILES}, "expected '}' before end of string; a brace that is text is written twice"),
    ({"template": "{question!r}", **FILES}, "give names of columns, alone in braces"),
    ({"template": "{}", **FILES}, "give names of columns, alone in braces"),
    ({"template": "no column", **FILES}, "give names of columns, alone in braces"),
    ({"template": "{question}", "columns": {"question": "answer"}, **FILES}, "take `question` out of columns"),
    ({"template": "{question} {answer}", **FILES}, "'answer': this column is read twice"),
    ({"columns": {"question": "answer"}, **FILES}, "'answer': this column is read twice"),
    ({"columns": {"answer": "q", "rationale": "q"}, **FILES}, "'q': this column is read twice"),
    (
        {"format": "alpcaa", **FILES},
        "unknown value 'alpcaa'. Did you mean 'alpaca'? Allowed: alpaca, sharegpt, openai.",
    ),
    ({"format": "alpaca", **FILES}, "train.jsonl: no column 'instruction'."),
    ({"format": "openai", **FILES}, "train.jsonl: no column 'messages'."),
    ({"format": "alpaca", "template": "{a}", **FILES}, "each say what a row is; give one of them"),
    ({"benchmark": "sciq", "columns": {"answer": "a"}, **FILES}, "each say what a row is; give one of them"),
    ({"config": "main", **FILES}, "config, split and revision are of the hub: say `hub: owner/name`"),
    ({"hub": "sums", "split": "train", "test": "test"}, "hub = 'sums': give owner/name"),
    ({"hub": "./sums", "split": "train", "test": "test"}, "hub = './sums': give owner/name"),
    ({"hub": "owner/sums", "split": "train", **FILES}, "train and split both say what train is; give one of them"),
    ({"hub": "owner/sums"}, "the key 'train' is missing"),
    ({"test_split": 0.1, **FILES}, "test and test_split both say what test is"),
    ({"train": "train.jsonl", "test_split": 1.5}, "key test_split = 1.5: must lie in [0.0, 1.0]"),
    ({"validation_size": 3, **FILES}, "validation_size: the entry names no validation rows to draw from"),
    ({"train_size": 0, **FILES}, "key train_size = 0: must lie in [1, inf]"),
    ({"train_size": "many", **FILES}, "key train_size = 'many': give a value of type int"),
    ({"skip_bad_rows": "perhaps", **FILES}, "key skip_bad_rows = 'perhaps': give a value of type bool"),
]


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "train.jsonl", TRAIN)
    write(tmp_path / "test.jsonl", TEST)
    return tmp_path


def test_everything_that_an_entry_may_not_say_is_told_at_once(folder):
    entries = [{"name": f"entry {number}", **entry} for number, (entry, _) in enumerate(BAD_ENTRIES)]
    lines = refusal(mixture_of, folder, *entries).splitlines()
    for number, (_, fragment) in enumerate(BAD_ENTRIES):
        names = (f"(entry {number}): ", f"- entry {number}: ")
        assert any(fragment in line for line in lines if any(name in line for name in names)), fragment


NAMES = st.sampled_from(
    ["question", "answer", "{question}", "{", "train", "train.jsonl", "owner/name/x", "alpaca", "loss"]
)
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | NAMES | st.lists(NAMES, max_size=2)
KEYS = "hub config split revision format columns template train_size test_split validation_split skip_bad_rows metric".split()


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(st.sampled_from([*KEYS, "test"]), VALUES | st.dictionaries(NAMES, VALUES, max_size=2), max_size=4)
)
def test_any_entry_is_read_or_refused(tmp_path_factory, entry):
    folder = tmp_path_factory.getbasetemp() / "any"
    folder.mkdir(exist_ok=True)
    write(folder / "train.jsonl", TRAIN)
    (folder / "any.yaml").write_text(yaml.safe_dump({"sub_datasets": [{"name": "a", "train": "train.jsonl", **entry}]}))
    try:
        assert read_mixture(folder / "any.yaml").names == ["a"]
    except MsftError as error:
        assert str(error)


# the command -----------------------------------------------------------------------------------------------------


def test_mixture_check_says_what_a_run_would_see(tmp_path, model_folder, capsys):
    rows = [*sums(0, 30), *sums(70, 1, rationale="very long " * 300)]
    read(tmp_path, rows, sums(40, 12), ".csv", test_size=10)
    words = ["mixture", "check", str(tmp_path / "mine.yaml"), "--model", str(model_folder), "--max-new-tokens", "12"]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "sums: left out: 1, train example over 512 tokens" in told
    assert "sums: left out: 2, test: not drawn, test_size = 10" in told
    assert told.count("\n-- ") == 3
    assert "<EOS>" in told
    row = next(line.split() for line in told.splitlines() if line.startswith("sums "))
    assert row[2:7] == ["25", "10", "0", "0", "5"]  # train, test, validation, confirmation, shots


def test_mixture_check_refuses_in_one_message(tmp_path, model_folder, capsys):
    write(tmp_path / "train.csv", [{"q": "1", "a": "2"}])
    (tmp_path / "mine.yaml").write_text("sub_datasets: [{name: a, train: train.csv, test: train.csv, test_split: 0.1}]")
    assert main(["mixture", "check", str(tmp_path / "mine.yaml"), "--model", str(model_folder)]) == 2
    told = capsys.readouterr().err
    assert "test and test_split both" in told
    assert main(["mixture", "chekc", str(tmp_path / "mine.yaml"), "--max-tokens", "1"]) == 2
    told = capsys.readouterr().err
    assert "unknown action 'chekc'. Did you mean 'check'?" in told and "max_tokens = 1" in told
    assert main(["mixture"]) == 2
    assert "ACTION is missing" in capsys.readouterr().err
