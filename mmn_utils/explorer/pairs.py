"""Part III of the explorer: when each neuron of the pair classifier fires, and which formula says so."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mmn_utils import results
from mmn_utils.compositional import firing
from mmn_utils.data.pairs import LABELS
from mmn_utils.explanations import accuracy_when_firing
from mmn_utils.explorer import Part, Record, address_of, examples, picked
from mmn_utils.profiles import Profile

DEFINITIONS = {
    "formulas": "The formula over concepts of the pair that best meets where the neuron fires, by length, and its "
    "intersection over union (chapter 16). pre: premise; hyp: hypothesis; tok: word; tag: part of speech.",
    "firing": "Share of the pairs on which the activation is above zero.",
    "accuracy": "Share of right answers among the pairs on which it fires (chapter 17), beside that among all pairs.",
    "weights": "What the output layer adds to each answer for one unit of activation.",
}


def part(settings: Profile, *, seed: int) -> Part:
    """The neurons of the head on CLIP's text tower."""
    names = ("pairs", "neurons_clip", "weights_clip")
    pairs, acts, weights = (results.load(settings, "15_two_sentences_and_an_encoder", name) for name in names)
    formulas = results.load(settings, "16_explaining_a_neuron_with_a_formula", "formulas_clip")
    fires, right = firing(acts.to_numpy()), (pairs["guess_clip"] == pairs["label"]).to_numpy()
    accuracy, found = accuracy_when_firing(fires, right), dict(list(formulas.groupby("neuron")))
    records = []
    for unit in range(acts.shape[1]):
        cards = formula_cards(found[unit])
        record = {"address": address_of("nli", unit), "name": f"NLI N{unit}", "formulas": cards}
        record |= {"label": cards[:2][-1]["formula"] if cards else "fires too seldom for a formula"}
        record |= {"firing": fires[:, unit].mean(), "accuracy": accuracy[unit], "accuracy_overall": right.mean()}
        record |= {"weights": weights[str(unit)].to_dict()}
        record |= {"examples": pair_examples(pairs, acts[str(unit)].to_numpy(), seed=[seed, unit])}
        records.append(record)
    return Part(
        key="nli",
        title="Part III: does one sentence follow from another?",
        about="Hidden units of the head that reads pairs of sentences through CLIP's text tower.",
        activation="activation after the ReLU",
        definitions=DEFINITIONS,
        neurons=[records],
        picked=pick(records),
    )


def formula_cards(rows: pd.DataFrame) -> list[Record]:
    """The best formula of each length, as long as a longer one is better. rows: one neuron's of `formula_table`."""
    better = rows.dropna(subset="formula").drop_duplicates("formula")
    return better[["length", "formula", "iou"]].astype({"length": object}).to_dict("records")


def pair_examples(pairs: pd.DataFrame, activations: np.ndarray, *, seed: Sequence[int]) -> list[Record]:
    """Pairs that the neuron answers most, pairs of each quarter of those on which it fires, and random ones."""
    said = np.array(LABELS)
    rows = pairs[["premise", "hypothesis"]].assign(label=said[pairs["label"]], guess=said[pairs["guess_clip"]])
    return [
        {"kind": kind, "title": title, "activation": activations[chosen], "pair": rows.iloc[chosen].to_dict("records")}
        for kind, title, chosen in examples(activations, activations > 0, seed=seed)
        if len(chosen)
    ]


def pick(records: Sequence[Record]) -> list[Record]:
    """Neurons to look at first."""
    table = pd.DataFrame(list(records))
    best, single = (table["formulas"].str[k].str["iou"].astype(float) for k in (-1, 0))
    rules = {
        "well explained": ("of all neurons, the formula that meets its firing best", best),
        "longer is better": ("gains most when the formula may have more than one concept", best - single),
        "badly explained": ("even the best formula that was found for it fits worst", -best),
        "helpful": ("the network is most often right when it fires", table["accuracy"]),
        "silent": ("fires least often", -table["firing"]),
        "typical": ("in the middle of the ranking by formula", -(best - best.median()).abs()),
    }
    return picked(table["address"], rules)
