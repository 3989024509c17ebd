"""Base forms and synonyms from WordNet's own plain files (Debian: `wordnet-base`)."""

import re
from pathlib import Path

from mmn_utils.miniature.lexicon import PARTS_OF_SPEECH, WordNetFiles

ENDINGS = {
    "noun": (("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"),
             ("men", "man"), ("ies", "y")),
    "verb": (("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),
    "adj": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "adv": (),
}  # fmt: skip
"""WordNet's rules of detachment, its manual's page morphy(7)."""


class WordNet:
    """Words' base forms and synonyms.

    Raises:
        FileNotFoundError: the folder is not a WordNet `dict` folder.
    """

    def __init__(self, folder: Path | str) -> None:
        folder = Path(folder)
        self.files = WordNetFiles(folder)
        missing = [name for pos in PARTS_OF_SPEECH if not (folder / (name := f"{pos}.exc")).is_file()]
        if missing:
            raise FileNotFoundError(f"{folder} is not a whole WordNet folder: {', '.join(missing)} missing")
        self.exceptions = {
            pos: {line.split()[0]: line.split()[1:] for line in (folder / f"{pos}.exc").open(encoding="latin-1")}
            for pos in PARTS_OF_SPEECH
        }

    def base_forms(self, word: str, pos: str) -> list[str]:
        """The word, where WordNet has it as this part of speech, and what it is a form of.

        Irregular forms (men: man) come from the list of exceptions, which goes before the rules.
        """
        cut = [word.removesuffix(end) + new for end, new in ENDINGS[pos] if word.endswith(end) and word != end]
        forms = self.exceptions[pos].get(word, cut)
        return [form for form in dict.fromkeys([word, *forms]) if form in self.files.index[pos]]

    def synsets(self, word: str, pos: str) -> list[str]:
        """Addresses of all synsets of the word's base forms, most frequent sense first."""
        files = self.files
        senses = {form: int(files.index[pos][form].split()[2]) for form in self.base_forms(word, pos)}
        return [files.offset(form, pos, k + 1) for form, n in senses.items() for k in range(n)]

    def synonyms(self, word: str, *, pos: str | None = None, first_only: bool = False) -> set[str]:
        """The word and the single-word lemmas, lower-cased, of its synsets.

        pos: of one part of speech only. first_only: of its first synset only (nouns before verbs, adjectives, adverbs).
        """
        places = [(p, place) for p in ([pos] if pos else PARTS_OF_SPEECH) for place in self.synsets(word, p)]
        lemmas = {w.lower() for place in places[: 1 if first_only else None] for w in self.files.words(*place)}
        return {word} | {w for w in lemmas if not re.search(r"\s", w)}
