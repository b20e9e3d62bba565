"""What there is to regenerate: the paper's figures and tables, and the notebooks in their order."""

import re

# notebook -> module of paper_figures.figures whose needs(page) names its runs; None: it needs none.
# The order is that of the report and of execution.
NOTEBOOKS = {
    "00_quickstart": "quickstart",
    "01_heterogeneous_overfitting": "overfitting",
    "02_optimal_compute_shift": "shift",
    "03_main_results": "main_results",
    "04_consistency": "main_results",
    "05_ablations": "ablations",
    "06_scale_and_budget": "scale",
    "07_medmcqa_granularity": "granularity",
    "08_forgetting": "forgetting",
    "09_training_loss": "training_loss",
    "10_seeds": "seeds",
    "11_flops": "compute",
    "12_storage": "storage",
    "13_ies_exclusions": "exclusions",
    "14_selection": "selection",
    "15_real_model": "real_model",
    "16_sft_share": None,
    "data_card": None,
    "your_mixture": "your_mixture",
}

# every figure and table of the paper; which is 5, 6, 8 and 9, and what tells 16 to 18 apart, is read between its lines
# (DIFFERENCES.md)
PAPER_ITEMS = {
    "Fig. 1": "share of SFT in the training compute of OLMo 2",
    "Fig. 2": "accuracy of each sub-dataset against epoch under SFT, peaks marked, and their distance from the mixture's",
    "Fig. 3": "shift of the optimal compute when the first over-fitted sub-dataset is left out",
    "Fig. 4": "standard deviation across benchmarks, count of first places",
    "Fig. 5": "mixtures of 5, 10 and 15 sub-datasets",
    "Fig. 6": "compute budget C: overhead, savings and net FLOPs over SFT, gain in accuracy",
    "Fig. 7": "MedMCQA's sub-categories: gain over SFT of mSFT and IES",
    "Fig. 8": "gain of mSFT split into forgetting and prevented over-fitting (Eq. 4)",
    "Fig. 9": "training loss of SFT and mSFT",
    "Fig. 10": "the same as Fig. 2, the other models",
    "Fig. 11": "the same as Fig. 2, the other models",
    "Fig. 12": "shift of the optimal compute, the other models",
    "Fig. 13": "IES: cumulative share of examples left out",
    "Fig. 14": "the same as Fig. 9, the other models",
    "Fig. 15": "the same as Fig. 9, the other models",
    "Fig. 16": "model copies on disk against epochs trained; here by model",
    "Fig. 17": "the same as Fig. 16; here by size of the mixture",
    "Fig. 18": "the same as Fig. 16; here by compute budget C",
    "Table 1": "compute allocation of released models",
    "Table 2": "main results: accuracy by method, model and group",
    "Table 3": "ablation: SRO and Soft SRO",
    "Table 4": "training compute of OLMo 2 by phase",
    "Table 5": "settings",
    "Table 6": "three seeds: mean, standard deviation, p-value",
    "Table 7": "FLOPs by method and model",
}

_LISTS = re.compile(r"\b(Fig|Table)(?:ure)?s?\.?\s*(\d+(?:(?:\s*,\s*|\s*and\s*|\s*to\s*|\s*[-–]\s*)\d+)*)")


def paper_items(text: str) -> list[str]:
    """The paper's items that a text names: "Fig. 2, 10 and 11" and "Fig. 16 to 18" are three each."""
    items = []
    for kind, numbers in _LISTS.findall(text):
        for first, last in re.findall(r"(\d+)(?:\s*(?:to|[-–])\s*(\d+))?", numbers):
            label = "Fig." if kind == "Fig" else "Table"
            items += [f"{label} {number}" for number in range(int(first), int(last or first) + 1)]
    return list(dict.fromkeys(items))
