"""A checkpoint out of its run: its export, the model card's head, and what stock transformers says with it."""

from pathlib import Path

import msft
from msft.results.export import export


def exported(run, folder: Path) -> str:
    """The export of a run in a folder, written once; returns its place."""
    place = folder / run.directory.name
    return str(place) if (place / "README.md").is_file() else export(run, place)


def head_of_card(folder: str, sections: int = 2) -> str:
    """The model card down to its first sections."""
    parts = (Path(folder) / "README.md").read_text(encoding="utf-8").split("\n## ")
    return "\n## ".join(parts[:sections])


def answer(folder: str, mixture_file: Path) -> str:
    """What an exported checkpoint says to a test item, by stock transformers alone; a chat where the mixture has one."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    mixture = msft.load_mixture(mixture_file)
    sub = next((sub for sub in mixture if sub.is_chat), mixture.sub_datasets[0])
    item = (sub.test or sub.train)[0]  # a judged sub-dataset may have no test items
    if sub.is_chat:
        messages = [{"role": role, "content": content} for role, content in item.messages[:-1]]
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    else:
        text = msft.test_prompt(sub, item)
    ids = tokenizer(text, add_special_tokens=not sub.is_chat, return_tensors="pt")["input_ids"]
    out = model.generate(ids, attention_mask=ids.new_ones(ids.shape), max_new_tokens=20, do_sample=False)
    said = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
    return f"{sub.name}, first test item: {item.question}\nwanted: {item.answer}\nsaid:   {said.strip()}"
