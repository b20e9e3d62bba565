"""Chat rows: exact tokens through the chat template, generation that ends with the turn, every bad row at once."""

import json

import helpers
import pytest
import torch
import yaml
from lm_eval.api.instance import Instance

import msft
from msft import names
from msft.data import chat, metrics, tasks
from msft.data.mixture import Mixture, SubDataset
from msft.data.rows import row_to_example
from msft.data.scoring import decided
from msft.errors import DataError, ModelError
from msft.generation.lm import PrefixCachedLM
from msft.loss import tokens

PLAIN = (
    "{% for m in messages %}{{ m.role }}:\n{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}"
    "{{ '\\n' }}{% endfor %}{% if add_generation_prompt %}assistant:\n{% endif %}"
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
REFUSING = "{% if messages[0].role == 'system' %}{{ raise_exception('no system messages') }}{% endif %}" + PLAIN


def conversation(*contents, system=None):
    roles = ("user", "assistant") * len(contents)
    first = [{"role": "system", "content": system}] if system else []
    return {"messages": first + [{"role": r, "content": c} for r, c in zip(roles, contents, strict=False)]}


def chat_rows(start, count):
    return [conversation(f"{i} + 1?", str(i + 1)) for i in range(start, start + count)]


def write(folder, entries, rows):
    for name, lines in rows.items():
        text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "mine.yaml").write_text(yaml.safe_dump({"name": "mine", "sub_datasets": entries}, sort_keys=False))
    return folder / "mine.yaml"


@pytest.fixture
def chats(tmp_path):
    entry = {"name": "chats", "train": "train.jsonl", "test": "test.jsonl"}
    return write(tmp_path, [entry], {"train.jsonl": chat_rows(0, 12), "test.jsonl": chat_rows(40, 4)})


def with_template(template, special=()):
    tokenizer = helpers.make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    tokenizer.chat_template = template
    return tokenizer


def one(tokenizer, row):
    """(the row's example with the template's texts, the text that ends a turn)."""
    example = row_to_example(row)
    (sub,) = chat.rendered(Mixture("one", [SubDataset("chats", [example], [example], shots=[])]), tokenizer)
    return sub.train[0], sub.stop


def test_prompt_completion_and_loss_are_split_where_the_template_splits_them():
    example, stop = one(with_template(PLAIN), conversation("1?", "2", "3?", "4", system="Count."))
    assert msft.training_text(example) == (
        "system:\nCount.\nuser:\n1?\nassistant:\n2<eos>\nuser:\n3?\nassistant:\n",
        "4<eos>",
    )
    assert (stop, example.answer) == ("<eos>", "4")


@pytest.mark.parametrize("template", [PLAIN, CHATML])
def test_tokens_are_the_template_s_own_and_the_loss_is_on_the_last_message(template):
    tokenizer = with_template(template, ["<|im_start|>", "<|im_end|>"])
    row = conversation("Motto 3: café?", "naïve ☃", "again?", "4 and one")
    example, stop = one(tokenizer, row)
    (encoded,) = tokens.tokenize(tokenizer, [example])
    prompt = tokenizer.apply_chat_template(row["messages"][:-1], add_generation_prompt=True, return_dict=False)
    full = tokenizer.apply_chat_template(row["messages"], return_dict=False)
    assert list(encoded.ids[: encoded.start]) == prompt
    assert list(encoded.ids) == full[: len(encoded.ids)]
    # the line break that the template writes behind the end of the turn is all that is left out
    assert tokenizer.decode(full[len(encoded.ids) :]) == "\n"
    assert tokenizer.decode(encoded.ids[encoded.start :]) == "4 and one" + stop
    assert stop == ("<eos>" if template == PLAIN else "<|im_end|>")


def test_an_answer_ends_where_its_turn_does_even_if_the_template_opens_the_next_one():
    opened = CHATML.replace("{% if add_generation_prompt %}", "").replace("{% endif %}", "")
    tokenizer = with_template(opened, ["<|im_start|>", "<|im_end|>"])
    text = tokenizer.apply_chat_template(conversation("1?", "2")["messages"], tokenize=False)
    assert text.endswith("2<|im_end|>\n<|im_start|>assistant")
    for answer in ("2", "e", "im", "assistant", "1?"):  # letters of the end and of the next turn too
        example, stop = one(tokenizer, conversation("1?", answer))
        assert (example.target, stop) == (f"\n{answer}<|im_end|>", "<|im_end|>")


@pytest.mark.parametrize("answer", ["e", "n", "im", "end", "assistant", "user"])
@pytest.mark.parametrize("before", ["", "<think>\n\n</think>\n\n", "<|channel|>final<|message|>"])
def test_an_answer_of_the_letters_around_it_ends_with_its_turn(answer, before):
    own = CHATML.replace("{{ m.content }}", "{% if m.role == 'assistant' %}" + before + "{% endif %}{{ m.content }}")
    tokenizer = with_template(own, ["<|im_start|>", "<|im_end|>", "<|channel|>", "<|message|>"])
    example, stop = one(tokenizer, conversation("1?", answer))
    assert (example.target, stop) == (f"{before}{answer}<|im_end|>", "<|im_end|>")


def test_turns_without_a_header_keep_their_end():
    tokenizer = with_template("{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}", ["<|im_end|>"])
    example, stop = one(tokenizer, conversation("1?", "2"))
    assert (example.prompt, example.target, stop) == ("1?<|im_end|>", "2<|im_end|>", "<|im_end|>")


def test_an_empty_system_message_reaches_the_template():
    """Templates of the Qwen2 kind write a system message of their own where there is none."""
    own = "{% if messages[0].role != 'system' %}<|im_start|>system\nHelp.<|im_end|>\n{% endif %}" + CHATML
    tokenizer = with_template(own, ["<|im_start|>", "<|im_end|>"])
    row = conversation("1?", "2")
    empty = {"messages": [{"role": "system", "content": ""}, *row["messages"]]}
    for said, system in ((row, "Help."), (empty, "")):
        assert one(tokenizer, said)[0].prompt.startswith(f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user")


def test_a_template_without_an_end_of_turn_gets_the_eos():
    tokenizer = with_template(PLAIN.replace("{{ eos_token }}", ""))
    example, stop = one(tokenizer, conversation("1?", "2"))
    assert (example.target, stop) == ("2<eos>", "<eos>")
    assert tokens.tokenize(tokenizer, [example])[0].ids[-1] == tokenizer.eos_token_id


def test_the_real_qwen_tokenizer_gives_chatml(shared):
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(shared / "tokenizers" / "qwen2_tokenizer_converted.json"), eos_token="<|endoftext|>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHATML
    example, stop = one(tokenizer, conversation("How many?", "Twelve.", system="Be short."))
    assert (
        example.prompt
        == "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\nHow many?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert (example.target, stop) == ("Twelve.<|im_end|>", "<|im_end|>")
    (encoded,) = tokens.tokenize(tokenizer, [example])
    assert [tokenizer.decode([i]) for i in encoded.ids[encoded.start :]] == ["Tw", "elve", ".", "<|im_end|>"]
    assert encoded.ids[:2] == (tokenizer.convert_tokens_to_ids("<|im_start|>"), tokenizer.encode("system")[0])


def test_a_mixture_of_chats_is_zero_shot_and_has_its_texts_from_the_tokenizer(chats):
    bare, sub = msft.load_mixture(chats)["chats"], names.load_mixture(str(chats), with_template(PLAIN))["chats"]
    assert bare.is_chat
    assert bare.shots == sub.shots == []
    assert (len(sub.train), len(sub.test), sub.stop) == (12, 4, "<eos>")
    assert msft.test_prompt(sub, sub.test[0]) == "user:\n40 + 1?\nassistant:\n"


def test_the_template_is_part_of_the_fingerprint(chats):
    plain = names.load_mixture(str(chats), with_template(PLAIN)).fingerprint()
    assert plain == names.load_mixture(str(chats), with_template(PLAIN + "{# no text #}")).fingerprint()
    assert plain != names.load_mixture(str(chats), with_template("x" + PLAIN)).fingerprint()


def test_tokens_of_a_chat_end_with_one_eos(chats):
    tokenizer = with_template(PLAIN)
    rows = tokens.tokenize(tokenizer, names.load_mixture(str(chats), tokenizer)["chats"].train)
    assert all(row.ids.count(tokenizer.eos_token_id) == 1 for row in rows)


# what can be wrong --------------------------------------------------------------------------------------------

BAD = [
    (conversation("1?"), "roles are user;"),
    (conversation("1?", "2", "3?"), "roles are user, assistant, user;"),
    ({"messages": [{"role": "user", "content": "1?"}, {"role": "user", "content": "2?"}]}, "roles are user, user;"),
    ({"messages": [{"role": "assistant", "content": "1"}]}, "roles are assistant;"),
    ({"messages": [{"role": "system", "content": "1"}]}, "roles are system;"),
    (conversation("1?", " "), "message 2: content is empty"),
    ({"messages": [{"role": "user", "content": 1}, {"role": "bot", "content": "2"}]}, "content is of type int"),
    ({"messages": [{"role": "user", "content": "1?"}, {"role": "bot", "content": "2"}]}, "role 'bot'; allowed"),
    ({"messages": [{"role": "user", "contnet": "1?"}]}, "message 1 has no content. Did you mean 'contnet'"),
    ({"messages": ["1?", "2"]}, "message 1 is of type str"),
    ({"messages": "1?"}, "non-empty list"),
    ({"messages": []}, "non-empty list"),
    ({**conversation("1?", "2"), "answer": "2"}, "messages and a question or an answer"),
]


def test_bad_rows_are_all_told_at_once_with_file_and_line(tmp_path):
    first, second = BAD[:7], BAD[7:]
    entry = {"name": "chats", "train": "train.jsonl", "test": "test.jsonl"}
    rows = {"train.jsonl": [row for row, _ in first], "test.jsonl": [row for row, _ in second]}
    with pytest.raises(DataError) as caught:
        msft.load_mixture(write(tmp_path, [entry], rows))
    lines = str(caught.value).splitlines()
    for file, part in (("train.jsonl", first), ("test.jsonl", second)):
        for number, (_, words) in enumerate(part, 1):
            assert any(f"{file}:{number}: " in line and words in line for line in lines), words


def test_questions_and_chats_in_one_sub_dataset_are_an_error(tmp_path):
    entry = {"name": "both", "train": "train.jsonl", "test": "test.jsonl"}
    rows = {"train.jsonl": chat_rows(0, 8), "test.jsonl": [{"question": "1?", "answer": "2"}]}
    with pytest.raises(DataError, match=r"chat rows \(.*train.jsonl:1\) and question rows \(.*test.jsonl:1\)"):
        msft.load_mixture(write(tmp_path, [entry], rows))


def test_shots_of_chats_are_an_error(tmp_path):
    entry = {"name": "chats", "train": "train.jsonl", "test": "test.jsonl", "shots": "shots.jsonl"}
    rows = {"train.jsonl": chat_rows(0, 8), "test.jsonl": chat_rows(20, 2), "shots.jsonl": chat_rows(30, 5)}
    with pytest.raises(DataError, match="take `shots` away"):
        msft.load_mixture(write(tmp_path, [entry], rows))


def test_one_conversation_in_train_and_test_is_an_error(tmp_path):
    entry = {"name": "chats", "train": "train.jsonl", "test": "test.jsonl"}
    rows = {"train.jsonl": chat_rows(0, 8), "test.jsonl": chat_rows(3, 1)}
    with pytest.raises(DataError, match=r"the same question in train \(line 4\) and test \(line 1\)"):
        msft.load_mixture(write(tmp_path, [entry], rows))


def test_a_tokenizer_without_a_template_is_an_error_with_the_way_out(chats):
    with pytest.raises(ModelError, match="chats: .*has no chat template.*tokenizer.chat_template"):
        names.load_mixture(str(chats), helpers.make_tokenizer())


def test_a_tokenizer_may_be_named(chats, tmp_path):
    tokenizer = with_template(PLAIN)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert names.load_mixture(str(chats), str(tmp_path)) == names.load_mixture(str(chats), tokenizer)
    with pytest.raises(ModelError, match="unknown model 'tiny-smook'. Did you mean 'tiny-smoke'"):
        names.load_mixture(str(chats), tokenizer="tiny-smook")


def test_rows_that_a_template_refuses_are_told_with_file_and_line(tmp_path):
    entry = {"name": "chats", "train": "train.jsonl", "test": "test.jsonl"}
    train = [*chat_rows(0, 8), conversation("9?", "9", system="Be short.")]
    path = write(tmp_path, [entry], {"train.jsonl": train, "test.jsonl": [conversation("5?", "5", system="Be.")]})
    with pytest.raises(DataError) as caught:
        names.load_mixture(str(path), with_template(REFUSING))
    assert str(caught.value).count("no system messages") == 2
    assert "train.jsonl:9: " in str(caught.value)
    assert "test.jsonl:1: " in str(caught.value)
    entry["skip_bad_rows"] = True
    path = write(
        tmp_path,
        [entry],
        {"train.jsonl": train, "test.jsonl": [conversation("5?", "5", system="Be."), *chat_rows(40, 2)]},
    )
    sub = names.load_mixture(str(path), with_template(REFUSING))["chats"]
    assert (len(sub.train), len(sub.test)) == (8, 2)
    assert [reason.partition(", ")[0] for reason in sub.left_out] == [
        f"{part}: rows that the chat template does not take" for part in ("train", "test")
    ]


def test_a_template_that_leaves_a_message_out_is_an_error():
    silent = PLAIN.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}")
    assert silent != PLAIN
    with pytest.raises(DataError, match="leaves out or changes what the system message says"):
        one(with_template(silent), conversation("1?", "1", system="Answer in French."))
    # the reasoning before an earlier answer is left out on purpose
    thinking = "{% for m in messages %}<|{{ m.role }}|>{{ m.content.split('</think>')[-1].strip() }}{% endfor %}"
    thinking += "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    example, _ = one(with_template(thinking), conversation("1?", "<think>hm</think> one", "2?", "two"))
    assert example.prompt.endswith("<|assistant|>one<|user|>2?<|assistant|>") and "hm" not in example.prompt


THINKING = (
    "{% for m in messages %}{% set said = m.content.split('</think>') %}<|im_start|>{{ m.role }}\n"
    "{% if loop.last and m.role == 'assistant' %}<think>\n"
    "{{ said[0].split('<think>')[-1].strip() if said | length > 1 }}\n</think>\n\n{% endif %}"
    "{{ said[-1].strip() }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '\\n</think>\\n\\n' }}{% endif %}{% endif %}"
)


def test_an_answer_without_a_thought_stands_behind_the_prompt_that_asks_for_none(caplog):
    """Its own template opens a thought in the generation prompt, and can close it there."""
    tokenizer = with_template(THINKING, ["<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens("\n\n")  # one token, as in real vocabularies: the prompt that opens a thought ends within it
    example, stop = one(tokenizer, conversation("1?", "one"))
    assert example.prompt.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert (example.target, example.answer, stop) == ("one<|im_end|>", "one", "<|im_end|>")
    assert "chats: 2 chats answer without a thought" in caplog.text
    assert "enable_thinking=False" in caplog.text
    example, _ = one(tokenizer, conversation("1?", "<think>\nhm\n</think>\n\none"))
    assert example.prompt.endswith("<|im_start|>assistant\n<think>\n")
    assert (example.target, example.answer) == ("hm\n</think>\n\none<|im_end|>", "one")


def test_a_thought_that_the_prompt_alone_opens_and_one_that_gets_lost_are_errors():
    cut = "{% for m in messages %}<|{{ m.role }}|>{{ m.content.split('</think>')[-1] }}{% endfor %}"
    prompt = "{% if add_generation_prompt %}<|assistant|>THOUGHT{% endif %}"
    with pytest.raises(DataError, match="a thought that the prompt alone opens.*save_pretrained"):
        one(with_template(cut + prompt.replace("THOUGHT", "<think>\n")), conversation("1?", "one"))
    silent = with_template(cut + prompt.replace("THOUGHT", ""))
    assert one(silent, conversation("1?", "<think>hm</think> one", "2?", "two"))[0].target.startswith("two")
    with pytest.raises(DataError, match="leaves out or changes what the assistant message says"):
        one(silent, conversation("1?", "<think>hm</think> one"))


def test_a_template_with_a_clock_writes_the_same_text_on_every_day_and_that_is_said_once(caplog):
    dated = "{{ strftime_now('%d %b %Y') }}" + PLAIN
    assert one(with_template(dated), conversation("1?", "1"))[0].prompt.startswith("26 Jul 2024")
    assert caplog.text.count("the chat template writes today's date; 26 July 2024 stands in its place") == 1
    for others in ({"tool_use": PLAIN, "rag": PLAIN}, 5):
        with pytest.raises(ModelError, match="chat template cannot be chosen"):
            one(with_template(others), conversation("1?", "1"))


def test_a_template_without_an_end_and_a_tokenizer_without_eos_are_an_error():
    tokenizer = with_template(PLAIN)
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="no EOS token and its chat template ends no turn"):
        one(tokenizer, conversation("1?", "1"))


@pytest.mark.parametrize("template", ["{{ messages | length }}" + PLAIN, PLAIN.replace(":\n", ": ")])
def test_a_template_whose_prompt_has_other_tokens_beside_an_answer_is_an_error(template):
    """It rewrites the prompt, or its last blank is one token with the answer's first character."""
    with pytest.raises(DataError, match="cannot be told apart"):
        one(with_template(template), conversation("1?", "and one"))


# training and evaluation ----------------------------------------------------------------------------------------


def test_generation_stops_at_the_end_of_the_turn_as_stock_generation_does():
    """A model that writes the end of a turn, which is not its EOS."""
    tokenizer = with_template(CHATML, ["<|im_start|>", "<|im_end|>"])
    model, end = helpers.make_model(vocabulary=len(tokenizer)), tokenizer.convert_tokens_to_ids("<|im_end|>")
    prompts = [one(tokenizer, row)[0].prompt for row in chat_rows(0, 12)]
    with torch.no_grad():  # often, not always: the row of the head is that of a frequent token
        model.lm_head.weight[end] = 1.5 * model.lm_head.weight[7]
    options = {"until": ["<|im_end|>"], "max_gen_toks": 16, "do_sample": False}
    requests = [Instance("generate_until", {}, (prompt, dict(options)), i) for i, prompt in enumerate(prompts)]
    for request in requests:
        request.task_name = "chats"
    texts = PrefixCachedLM(model, tokenizer, 4, stop_when=decided).generate_until(requests)
    stopped = 0
    for prompt, text in zip(prompts, texts, strict=True):
        ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)["input_ids"]
        mask = torch.ones_like(ids)
        out = model.generate(ids, attention_mask=mask, max_new_tokens=16, do_sample=False, eos_token_id=[1, end])
        new = out[0, ids.shape[1] :]
        stopped += int(new[-1] == end)
        assert text == tokenizer.decode(new, skip_special_tokens=True)
    assert stopped > 0


def test_a_run_on_chats_learns_them(tmp_path, chats):
    """From a local model folder with a template to a finished run; its task files name the end of the turn."""
    tokenizer = with_template(CHATML, ["<|im_start|>", "<|im_end|>"])
    folder = tmp_path / "model"
    helpers.make_model(vocabulary=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    own = {"learning_rate": 3e-3, "batch_size": 4, "precision": "fp32", "max_new_tokens": 4, "eval_batch_size": 8}
    config = msft.RunConfig(
        method="sft", model=str(folder), mixture=str(chats), params={"epochs": 2}, device="cpu", **own
    )
    run = msft.run(config, tmp_path / "runs", progress=False)
    losses = run.history.train_loss.dropna()
    assert losses.iloc[-1] < losses.iloc[0]
    (task,) = run.directory.glob(f"tasks/{tasks.task_name('chats')}.yaml")
    text = task.read_text()
    assert "<|im_end|>" in text
    assert "num_fewshot: 0" in text
    assert run.about["mixture"]["sub_datasets"]["chats"]["stop"] == "<|im_end|>"
    assert metrics.LABELS[run.metrics["chats"]] == "accuracy"
