"""The data card: its numbers are those of the mixture that a run would train on."""

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import pytest

import msft
from msft.data.example import Example, training_text
from msft.data.mixture import Mixture, SubDataset
from msft.names import load_tokenizer
from paper_figures import output, study, style
from paper_figures.figures import data_card


def test_counts_are_those_of_the_tiny_mixture(model_folder):
    card = data_card.load("tiny", model=str(model_folder))
    mixture, tokenizer = msft.load_mixture("tiny"), load_tokenizer(str(model_folder))
    table = data_card.counts(card)
    assert list(table.index) == [*mixture.names, "all"]
    assert card.problem == ""
    total = 0
    for sub in mixture:
        lengths = [len(tokenizer("".join(training_text(e)))["input_ids"]) + 1 for e in sub.train]
        row = table.loc[sub.name]
        assert row["group"] == sub.group
        for part in ("train", "test", "validation", "shots"):
            assert row[part] == len(getattr(sub, part))
        assert row["tokens an epoch"] == sum(lengths)
        assert row["longest"] == max(lengths)
        assert row["mean tokens"] == pytest.approx(sum(lengths) / len(lengths))
        total += sum(lengths)
    assert table.loc["all", "tokens an epoch"] == total
    assert table.loc["all", "train"] == sum(len(sub.train) for sub in mixture)
    assert table.loc["all", "mean tokens"] == pytest.approx(total / table.loc["all", "train"])


def test_limits_of_a_run_are_kept_and_counted(model_folder):
    whole = data_card.load("tiny", mixture="tiny-5", model=str(model_folder))
    limit = sorted(length for lengths in whole.lengths.values() for length in lengths)[-10]
    card = data_card.load("tiny", mixture="tiny-5", model=str(model_folder), max_tokens=limit)
    out = data_card.left_out(card)
    dropped = {name: sum(n > limit for n in lengths) for name, lengths in whole.lengths.items()}
    assert sum(dropped.values()) > 0
    assert out.total.to_dict() == dropped
    before, after = data_card.counts(whole).train, data_card.counts(card).train
    assert (before - after).drop("all").to_dict() == dropped
    for sub in card.mixture:
        assert len(card.lengths[sub.name]) == len(sub.train)


def small_card(problem=""):
    examples = [Example(f"{i}?", f"work {i} #### {i}", str(i)) for i in range(9)]
    subs = [
        SubDataset("first", examples[:4], examples[4:5], examples[:5], left_out={"train: duplicate question": 3}),
        SubDataset(
            "a_rather_long_name_of_a_second",
            examples[:2],
            examples[4:5],
            examples[:5],
            left_out={"test: unlabelled": 1, "train: duplicate question": 2},
            source={"hub_id": "owner/second", "test_split": "validation", "licence": "MIT"},
        ),
    ]
    lengths = {"first": [5, 5, 5, 600], "a_rather_long_name_of_a_second": [2000, 7]}
    return data_card.Card(Mixture("small", subs), lengths, 512, problem)


def test_what_was_left_out_is_a_column_a_reason():
    table = data_card.left_out(small_card())
    assert table.to_dict("index") == {
        "first": {"train: duplicate question": 3, "test: unlabelled": 0, "total": 3},
        "a_rather_long_name_of_a_second": {"train: duplicate question": 2, "test: unlabelled": 1, "total": 3},
    }
    with_problem = data_card.left_out(small_card("too long"))
    assert with_problem["train: over 512 tokens, shown here"].tolist() == [1, 1]


def test_nothing_left_out_is_a_table_too(model_folder):
    card = data_card.load("smoke", model=str(model_folder))
    assert data_card.left_out(card).to_dict("list") == {"total": [0] * len(card.mixture)}


def test_licences_say_what_is_not_known():
    table = data_card.licences(small_card())
    assert table.loc["first", ["source", "licence"]].tolist() == ["one's own files", "not stated"]
    assert table.loc["a_rather_long_name_of_a_second"].tolist() == ["owner/second", "–", "–", "validation", "–", "MIT"]


def test_rendered_examples_are_the_training_texts():
    text = data_card.rendered(small_card(), count=3)
    assert text.count("-- ") == 3 + 2
    assert "== first\n-- 1 (5 tokens, answer 0)\n  Q: 0?\n  A:\n> work 0 #### 0<EOS>\n" in text


def test_rendered_lines_are_broken_but_keep_their_words():
    question = "word " * 60 + "two  blanks\n\n  indented"
    subs = [SubDataset("long", [Example(question, "#### x", "x")] * 2, [Example("q", "#### x", "x")], [None] * 5)]
    card = data_card.Card(Mixture("long", subs), {"long": [70, 70]}, 512)
    lines = data_card.rendered(card, count=1, width=80).splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.split().count("word") for line in lines) == 60
    assert any("two  blanks" in line for line in lines)
    assert "    indented" in lines


def test_histogram_counts_every_example(tmp_path):
    style.use_style()
    card = small_card()
    axis = data_card.length_histogram(card)
    # a row each, short ones first; on a scale of its own: 3 and 1 of four, 1 and 1 of two
    drawn = [[-bar.get_height() for bar in bars if bar.get_height()] for bars in axis.containers]
    assert drawn == [pytest.approx([0.75, 0.25]), pytest.approx([0.75, 0.75])]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["first", "a rather long name of a second"]
    assert [text.get_text() for text in axis.texts] == ["1 longer, up to 2000"]
    figure = axis.figure
    assert "tokens" in axis.get_xlabel()
    assert output.save_figure(figure, tmp_path, "lengths").stat().st_size > 10_000
    plt.close(figure)


def test_histogram_draws_on_given_axes():
    figure, axis = plt.subplots()
    assert data_card.length_histogram(small_card(), axis) is axis
    plt.close(figure)


def test_a_card_of_real_records_names_sources_and_why_no_run_can_start(shared, model_folder):
    """A tokenizer of 400 tokens cuts the texts into more than a prompt may have."""
    folder = str(shared / "benchmarks")
    card = data_card.load("smoke", mixture="paper-5", model=str(model_folder), data_dir=folder)
    assert "cannot be drawn" in card.problem
    sources = data_card.licences(card)
    assert sources.loc["gsm8k", ["source", "revision", "licence"]].tolist() == ["openai/gsm8k", "local", "MIT"]
    counts = data_card.counts(card)
    for sub in card.mixture:
        assert counts.loc[sub.name, "train"] == len(sub.train) == len(card.lengths[sub.name])
    assert data_card.left_out(card)["train: over 512 tokens, shown here"].max() > 0


def test_missing_data_is_an_error_still(tmp_path, model_folder):
    with pytest.raises(msft.errors.DataError, match="missing"):
        data_card.load("smoke", mixture="paper-5", model=str(model_folder), data_dir=str(tmp_path))


def test_a_card_needs_no_runs(tmp_path):
    page = study.Study("data_card", "smoke", str(tmp_path), settings="max_tokens=256")
    assert data_card.needs(page) == {}
    assert page.settings == {"max_tokens": "256"}
    assert data_card.load("smoke", mixture=page.mixture, model=page.focus, **page.settings).max_tokens == 256
