"""What the embedded mixtures are made of: one row a sub-dataset, and the levers that set when it over-fits."""

from dataclasses import dataclass

SEED = 20
EOS = "<eos>"
SCIENCE, COMMONSENSE, MATHS = "Science and Knowledge", "Commonsense and Language", "Mathematic and Quantitative"


@dataclass(frozen=True)
class Row:
    """What one sub-dataset is, and the levers that set when it over-fits.

    style: 'letter', 'true/false', 'open' or 'rationale'.  skill: the function of that name in SKILLS.
    topic: the facts asked about, where the skill is about facts.
    wrong: share of what is asked about (entities, verbs, pairs of numbers) whose train labels are all wrong, each in its
        own way, as where a source is out of date; labels of the other parts are never wrong.
    difficulty: how much has to be known: entities, verbs, sentences or the largest number.
    options: how many options a letter is chosen from.
    train, test, confirmation: examples; validation is as large as test.
    known: share of the facts that the base models have met; of the others they have met the words with any answer.
    native: share of the related text that asks in the mixture's own words.
    moved: share of the facts that have another answer than the base models have met, in all parts, as in a later edition;
        such facts are learnt late.
    kept: how many of the drawn train examples the mixture keeps; None: all.
    """

    name: str
    group: str
    style: str
    skill: str
    topic: str
    wrong: float
    difficulty: int
    options: int = 4
    train: int = 96
    test: int = 64
    confirmation: int = 500
    known: float = 1.0
    native: float = 0.2
    moved: float = 0.0
    kept: int | None = None


TABLE = (
    Row("stones", SCIENCE, "letter", "which_value", "stones", 0.5, 24, train=144),
    Row("homes", SCIENCE, "letter", "which_value", "homes", 0.4, 24, train=72),
    Row("herbs", SCIENCE, "open", "open_value", "herbs", 0.0, 40, train=80, known=0.0),
    Row("metals", SCIENCE, "open", "open_value", "metals", 0.0, 64, train=96, known=0.0),
    Row("tools", COMMONSENSE, "letter", "which_value", "tools", 0.4, 32, 5, train=64),
    Row("endings", COMMONSENSE, "letter", "ending", "verbs", 0.25, 32, train=96),
    Row("holders", COMMONSENSE, "letter", "holder", "", 0.25, 8, 2, train=48),
    Row("claims", COMMONSENSE, "true/false", "claim", "owls", 0.3, 40, train=80, known=0.9),
    Row("choices", MATHS, "rationale", "sum_choice", "", 0.0, 6),
    Row("sums", MATHS, "rationale", "two_steps", "", 0.0, 5, train=144, native=0.0),
)
EXTRA = (
    Row("birds", SCIENCE, "letter", "which_value", "birds", 0.20, 16),
    Row("trees", SCIENCE, "open", "open_value", "trees", 0.10, 16, native=0.0),
    Row("kinds", COMMONSENSE, "true/false", "claim", "kinds", 0.30, 24),
    Row("trades", COMMONSENSE, "letter", "which_value", "trades", 0.10, 20, 5),
    Row("single_sums", MATHS, "rationale", "one_step", "", 0.15, 9),
)
# remedies that have all moved, of which few examples tell: (wrong, kept)
_MOVED = {
    "berries": (0.25, 12),
    "clays": (0, 12),
    "ferns": (0.25, 16),
    "honeys": (0, 8),
    "resins": (0, 12),
    "waters": (0.25, 8),
}
_WORST = "balms bulbs crystals fungi lichens oils salts".split()


def _subject(name: str) -> Row:
    wrong, kept = _MOVED.get(name, (0.4 if name in _WORST else 0.25, None))
    moved = float(name in _MOVED)
    return Row(name, "Remedies", "letter", "which_value", name, wrong, 8, train=48, test=32, moved=moved, kept=kept)


SUBJECTS = tuple(
    _subject(name)
    for name in (
        "balms barks berries blooms bulbs clays crystals dews ferns fungi gums honeys leaves lichens mosses "
        "oils pollens resins roots salts waters".split()
    )
)
# what the base models have met in the mixture's own format: other topics, never part of a mixture
DECOYS = (
    Row("games", "", "letter", "which_value", "games", 0.0, 24),
    Row("songs", "", "letter", "which_value", "songs", 0.0, 16, 5),
    Row("dances", "", "letter", "ending", "dances", 0.0, 16),
    Row("toys", "", "true/false", "claim", "toys", 0.0, 16),
    Row("gems", "", "open", "open_value", "gems", 0.0, 16),
    Row("halves", "", "rationale", "rest_choice", "", 0.0, 6),
    Row("callers", "", "letter", "caller", "", 0.0, 8, 2),
)
