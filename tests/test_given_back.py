"""A right answer can score: golds are compared in the form in which tokenizer and chat template give them back."""

import json
import re
import unicodedata

import helpers
import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import msft
from msft import names
from msft.data import scoring, tasks
from msft.data.example import Example, documents
from msft.data.given_back import check_room, given_back
from msft.data.mixture import Mixture, SubDataset
from msft.errors import DataError, ModelError
from msft.loss.tokens import fit_mixture
from msft.names import load_mixture

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\nBEFORE{{ m.content }}AFTER<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_tokenizer(normalizer=None):
    """Bytes, so that nothing but the normalizer changes a text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({char: i for i, char in enumerate(["<pad>", "<eos>", *alphabet])}, []))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    if normalizer is not None:
        inner.normalizer = normalizer
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>")


def letter_tokenizer(unknown="<unk>"):
    """Letters a to z and digits alone; what is missing becomes a token, or nothing."""
    letters = ["<pad>", "<eos>", *"abcdefghijklmnopqrstuvwxyz0123456789# :", *([unknown] if unknown else [])]
    inner = Tokenizer(models.WordLevel({letter: i for i, letter in enumerate(letters)}, unk_token=unknown or "<eos>"))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Split("", "isolated"), decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", unk_token=unknown)


def back(tokenizer, answer, metric="", rationale=""):
    example = Example("?", f"{rationale}#### {answer}", answer)
    return given_back(tokenizer, example, metric)


def best_text(tokenizer, example):
    """What a model that learnt the target by heart says."""
    ids = tokenizer(example.target, add_special_tokens=False)["input_ids"]
    return tokenizer.decode(ids, skip_special_tokens=True)


NORMALIZERS = {
    "none": None,
    "NFC": normalizers.NFC(),
    "NFKC": normalizers.NFKC(),
    "NFD": normalizers.NFD(),
    "accents": normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()]),
    "lower": normalizers.Lowercase(),
    "blanks": normalizers.Replace(" ", ""),
    "bert": normalizers.BertNormalizer(),
}


@pytest.mark.parametrize("metric", ["", "exact_match"])
@pytest.mark.parametrize("name", NORMALIZERS)
@pytest.mark.parametrize("answer", ["café", "Ünder ﬁne", "Việt", "한국", "x  y"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_what_a_normalizer_changes_is_compared_as_it_comes_back(answer, form, name, metric):
    tokenizer, answer = byte_tokenizer(NORMALIZERS[name]), unicodedata.normalize(form, answer)
    example = back(tokenizer, answer, metric)
    assert scoring.is_right(best_text(tokenizer, example), {"answer": example.answer, "metric": metric})
    if name == "none":
        assert example.answer == answer


@settings(max_examples=200, deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1),
    st.sampled_from(sorted(NORMALIZERS)),
)
def test_any_gold_scores_as_it_comes_back_or_is_refused(answer, name):
    tokenizer, answer = byte_tokenizer(NORMALIZERS[name]), answer.strip()
    assume(answer.strip(".").strip() and "#" not in answer and answer.lower() != "nan")
    try:
        example = back(tokenizer, answer)
    except DataError as error:
        assert name != "none"
        assert "could never be right" in str(error)
        return
    assert scoring.score(best_text(tokenizer, example), example.answer)


@pytest.mark.parametrize("tokenizer", [letter_tokenizer(), letter_tokenizer(None)], ids=["unknown", "lost"])
def test_a_gold_that_loses_characters_is_refused(tokenizer):
    assert back(tokenizer, "abc 12").answer == "abc 12"
    for answer in ("☃", "a☃", "A"):
        with pytest.raises(DataError, match="could never be right"):
            back(tokenizer, answer)
    back(tokenizer, "abc", rationale="☃ ")  # what is not scored may be lost


def test_a_number_that_comes_back_in_pieces_is_refused():
    tokenizer = byte_tokenizer(normalizers.Replace(".", ". "))
    assert back(tokenizer, "Mt.St").answer == "Mt. St"
    with pytest.raises(DataError, match="gives the answer '3.5' back as '3. 5'"):
        back(tokenizer, "3.5", "number_match")
    assert back(tokenizer, "35", "number_match").answer == "35"


# in a mixture -----------------------------------------------------------------------------------------------------


def write(folder, test, metric="", chat=False):
    def row(i, answer):
        if chat:
            turns = [{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": answer}]
            return {"messages": turns}
        return {"question": f"{i}?", "answer": answer}

    train = [row(i, test[i % len(test)]) for i in range(12)]
    files = {"train": train, "test": [row(100 + i, answer) for i, answer in enumerate(test)]}
    for part, rows in files.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{part}.jsonl").write_text(text, encoding="utf-8")
    entry = {"name": "own", "train": "train.jsonl", "test": "test.jsonl", **({"metric": metric} if metric else {})}
    (folder / "mine.yaml").write_text(yaml.safe_dump({"name": "mine", "sub_datasets": [entry]}))
    return folder / "mine.yaml"


def test_every_row_that_could_never_be_right_is_named(tmp_path):
    path = write(tmp_path, ["abc", "☃", "cab", "é"])
    with pytest.raises(DataError) as caught:
        load_mixture(path, letter_tokenizer())
    assert [line.split(": ")[1].rpartition("/")[2] for line in str(caught.value).splitlines()[1:]] == [
        "test.jsonl:2",
        "test.jsonl:4",
    ]
    load_mixture(write(tmp_path, ["abc", "☃"], metric="loss"), letter_tokenizer())


def test_where_bad_rows_are_skipped_those_that_could_never_be_right_are_left_out_and_counted(tmp_path):
    path = write(tmp_path, ["abc", "☃", "cab"])
    path.write_text(path.read_text() + "  skip_bad_rows: true\n")
    sub = load_mixture(path, letter_tokenizer())["own"]
    assert [example.answer for example in sub.test] == ["abc", "cab"]
    (reason,) = sub.left_out
    assert "test: answers that could never be right, such as" in reason and "test.jsonl:2: the tokenizer" in reason
    with pytest.raises(DataError, match="a right answer to these rows could never score"):
        load_mixture(write(tmp_path, ["☃"]), letter_tokenizer())


def test_special_tokens_in_rows_are_named(tmp_path, caplog):
    path = write(tmp_path, ["4", "5"], chat=True)
    rows = (tmp_path / "train.jsonl").read_text().replace("3?", "3?<|im_end|>\\n<|im_start|>assistant")
    (tmp_path / "train.jsonl").write_text(rows)
    load_mixture(path, with_template())
    assert "own: 1 of 14 rows hold special tokens, which the tokenizer reads as such: '<|im_end|>' (" in caplog.text


@pytest.mark.parametrize(("chat", "mark"), [(True, "<|im_end|>"), (False, "<eos>")])
def test_an_answer_that_holds_its_own_end_is_refused(tmp_path, caplog, chat, mark):
    """The model would learn to end there, and be scored for nothing."""
    path = write(tmp_path, ["4", "5"], chat=chat)
    for part in ("train", "test"):
        rows = [json.loads(line) for line in (tmp_path / f"{part}.jsonl").read_text().splitlines()]
        if chat:
            rows[0]["messages"][-1]["content"] = f"<think>so {mark} it ends</think>4"
        else:
            rows[0]["rationale"] = f"so {mark} it ends"
        (tmp_path / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=r"test.jsonl:1: its answer, or the thought .* holds '" + re.escape(mark)):
        load_mixture(path, with_template())
    assert "1 of " in caplog.text and "train answers" in caplog.text


def test_train_answers_that_lose_characters_are_named(tmp_path, caplog):
    path = write(tmp_path, ["abc", "cab"])
    rows = (tmp_path / "train.jsonl").read_text().replace('"abc"', '"☃"')
    (tmp_path / "train.jsonl").write_text(rows)
    with caplog.at_level("WARNING"):
        load_mixture(path, letter_tokenizer())
    assert "own: 1 of 7 train answers are not what the tokenizer gives back" in caplog.text
    assert "the tokenizer gives the answer '☃' back as '<unk>'" in caplog.text or "☃" in caplog.text


@pytest.mark.parametrize("answers", [("resume", "résumé"), ("résumé", "resume")])
def test_golds_that_come_back_alike_are_refused(tmp_path, answers):
    with pytest.raises(
        DataError, match=r"test.jsonl:2: the tokenizer gives the answers .* \(.*test.jsonl:1\) back alike"
    ):
        load_mixture(write(tmp_path, answers), byte_tokenizer(NORMALIZERS["accents"]))
    assert load_mixture(write(tmp_path, answers), byte_tokenizer()).names == ["own"]


@pytest.mark.parametrize("name", ["NFC", "NFD", "none"])
@pytest.mark.parametrize("other", [unicodedata.normalize("NFD", "café au lait"), "café\u00a0au\u2009lait"])
def test_one_gold_in_two_forms_is_one_answer(tmp_path, other, name):
    tokenizer = byte_tokenizer(NORMALIZERS[name])
    items = load_mixture(write(tmp_path, [other, "café au lait"]), tokenizer)["own"].test
    for said in items:  # what is trained in one form is right for an item in the other
        assert [scoring.score(best_text(tokenizer, said), item.answer) for item in items] == [True, True]


def test_the_paper_s_mixtures_leave_such_items_out_and_count_them(tmp_path):
    from test_paper_mixtures import FIVE, made
    from test_paper_mixtures import write as write_hub

    for name in FIVE:
        write_hub(tmp_path, name, made(name, "train", 40), made(name, "test", 8))
    lossy = byte_tokenizer(normalizers.Replace("A", "a"))
    whole = msft.load_mixture("paper-5", data_dir=tmp_path, tokenizer=lossy, max_tokens=9999, max_prompt_tokens=9999)
    assert all(len(sub.test) == 8 for sub in whole)  # another case is no loss
    lossy = byte_tokenizer(normalizers.Replace("B", ""))
    some = msft.load_mixture("paper-5", data_dir=tmp_path, tokenizer=lossy, max_tokens=9999, max_prompt_tokens=9999)
    reason = "answer that the tokenizer cannot give back"
    assert sum(sub.left_out.get(reason, 0) for sub in some) > 0
    for sub, other in zip(some, whole, strict=True):
        assert len(sub.test) + len(sub.validation) + sub.left_out.get(reason, 0) == len(other.test) + len(
            other.validation
        )
        assert not {example.answer for example in sub.test} & {"B"}


# chat templates ---------------------------------------------------------------------------------------------------


def with_template(before="", after="", specials=("<|im_start|>", "<|im_end|>")):
    tokenizer = helpers.make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": list(specials)})
    last = "{% if loop.last and m.role == 'assistant' %}"
    tokenizer.chat_template = CHATML.replace("BEFORE", f"{last}{before}{{% endif %}}").replace(
        "AFTER", f"{last}{after}{{% endif %}}"
    )
    return tokenizer


AROUND = [
    ("", ""),
    ("<think>\n\n</think>\n\n", ""),
    ("Answer: ", ""),
    ("", " (end)"),
    ("Answer 1: ", ".\n[turn 2]"),
    ("#### ", ""),
]


@pytest.mark.parametrize("metric", ["", "exact_match", "number_match"])
@pytest.mark.parametrize(("before", "after"), AROUND)
def test_a_right_answer_is_right_whatever_the_template_writes_around_it(tmp_path, before, after, metric):
    tokenizer = with_template(before, after)
    sub = load_mixture(write(tmp_path, ["4", "1/2"], metric, chat=True), tokenizer)["own"]
    assert [example.answer for example in sub.test] == ["4", "1/2"]
    for row, example in zip(documents(sub.test, metric), sub.test, strict=True):
        text = best_text(tokenizer, example)
        assert before in text
        assert scoring.process_results(row, [text]) == {"acc": 1.0}
        assert scoring.process_results(row, [example.answer]) == {
            "acc": 1.0
        }  # as a model says it that knows no template
        assert scoring.process_results(row, [text.replace(example.answer, "7")]) == {"acc": 0.0}
        assert scoring.process_results(row, [""]) == {"acc": 0.0}


def test_task_files_score_as_the_run_does(tmp_path):
    from lm_eval.tasks import TaskManager, get_task_dict

    mixture = load_mixture(write(tmp_path, ["4", "5"], chat=True), with_template("<think>\n\n</think>\n\n"))
    tasks.write_tasks(tmp_path / "tasks", mixture, 8)
    manager = TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False)
    (task,) = get_task_dict(["msft_task_own"], manager).values()
    for doc, row in zip(task.test_docs(), documents(mixture["own"].test), strict=True):
        assert doc == row
        assert task.process_results(doc, ["<think>\n\n</think>\n\n" + doc["answer"]]) == {"acc": 1.0}
        assert task.process_results(doc, ["<think>\n\n</think>\n\n7"]) == {"acc": 0.0}


def test_a_tokenizer_that_adds_what_the_template_does_not_write(tmp_path):
    from tokenizers import processors

    tokenizer = with_template(specials=("<|im_start|>", "<|im_end|>", "<s>"))
    bos = tokenizer.convert_tokens_to_ids("<s>")
    tokenizer.bos_token = "<s>"
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", bos)]
    )
    path = write(tmp_path, ["4", "5"], chat=True)
    with pytest.raises(ModelError) as caught:
        names.load_mixture(path, tokenizer)
    assert "adds special tokens (<s>)" in str(caught.value)
    assert "'{{ bos_token }}' + tokenizer.chat_template" in str(caught.value)
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    assert names.load_mixture(path, tokenizer)["own"].test[0].prompt.startswith("<s>")


@pytest.mark.parametrize(("limit", "cut"), [(1, None), (3, 5), (7, 5), (8, 0)])
def test_targets_that_are_cut_are_counted_and_a_set_without_any_right_answer_is_refused(
    mixture_file, tokenizer, limit, cut, caplog
):
    """A target of eight tokens, three without its rationale."""
    mixture = load_mixture(str(mixture_file))
    if cut is None:
        with pytest.raises(
            DataError, match=r"adding: max_new_tokens = 1 cuts 5 of the 5 test targets.*8 tokens: raise"
        ):
            check_room(mixture, tokenizer, limit)
        return
    check_room(mixture, tokenizer, limit)
    assert f"adding: max_new_tokens = {limit} cuts {cut} of the 5" in caplog.text or not cut
    assert bool(caplog.messages) == bool(cut)
    assert "zebras" not in caplog.text


@pytest.mark.parametrize("missing", ["", "é"])
def test_texts_that_the_model_sees_a_part_of_as_unknown_are_named_with_their_number(missing, caplog):
    plain = [Example(f"where is it {n}?", f"#### {n}", str(n)) for n in range(8)]
    odd = Example(f"where is the caf{missing} 8?", "#### 8", "8")
    letters = {char: n for n, char in enumerate(sorted({*"\n", *(chr(code) for code in range(32, 127))}))}
    inner = Tokenizer(models.WordLevel({**letters, "<unk>": 96, "<eos>": 97}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    letters_alone = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>", unk_token="<unk>")
    sub = SubDataset("places", [*plain[5:7], odd], plain[7:], shots=plain[:5])
    fit_mixture(letters_alone, Mixture("one", [sub]), 512, 512)
    said = "places: 1 of 3 train rows have characters that the tokenizer does not know; the model sees <unk> for them"
    assert [record.getMessage() for record in caplog.records] == ([said] if missing else [])
