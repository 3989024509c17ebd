"""Base forms and synonyms from WordNet's own plain files (Debian: `wordnet-base`)."""

import re
from collections.abc import Collection
from pathlib import Path

from mmn_utils.miniature.concepts import SOURCES
from mmn_utils.miniature.lexicon import PARTS_OF_SPEECH, WordNetFiles

SHIPPED = SOURCES / "wordnet"
"""What `extract` left of WordNet 3.0 for the words of the miniature's sentences, in WordNet's own format."""

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
        names = [name for pos in PARTS_OF_SPEECH for name in (f"data.{pos}", f"index.{pos}", f"{pos}.exc")]
        missing = [name for name in (*names, "cntlist.rev") if not (folder / name).is_file()]
        if missing:
            raise FileNotFoundError(
                f"{folder} is not a whole WordNet folder: {', '.join(missing)} missing (Debian: apt-get install "
                "wordnet-base)"
            )
        self.files = WordNetFiles(folder)
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
        return [place for form in self.base_forms(word, pos) for place in self._senses(form, pos)]

    def _senses(self, form: str, pos: str) -> list[str]:
        return self.files.index[pos][form].split()[-int(self.files.index[pos][form].split()[2]) :]

    def synonyms(self, word: str, *, pos: str | None = None, first_only: bool = False) -> set[str]:
        """The word and the single-word lemmas, lower-cased, of its synsets.

        pos: of one part of speech only. first_only: of its first synset only (nouns before verbs, adjectives, adverbs).
        """
        places = [(p, place) for p in ([pos] if pos else PARTS_OF_SPEECH) for place in self.synsets(word, p)]
        lemmas = {w.lower() for place in places[: 1 if first_only else None] for w in self.files.words(*place)}
        return {word} | {w for w in lemmas if not re.search(r"\s", w)}


def extract(folder: Path | str, words: Collection[str], to: Path) -> None:
    """Write a folder from which a `WordNet` tells of these words what it would tell of them by the whole one.

    folder: the whole WordNet. All senses of the words stay, in their order; other words, pointers and glosses go.
    """
    net = WordNet(folder)
    to.mkdir(parents=True, exist_ok=True)
    (to / "cntlist.rev").write_text("")
    for pos in PARTS_OF_SPEECH:
        senses = {form: net._senses(form, pos) for word in words for form in net.base_forms(word, pos)}
        index = [f"{form} {pos[0]} {len(own)} 0 {len(own)} 0 {' '.join(own)}" for form, own in senses.items()]
        data = [_synset(net, pos, place, words) for place in {place for own in senses.values() for place in own}]
        exceptions = [f"{word} {' '.join(net.exceptions[pos][word])}" for word in words if word in net.exceptions[pos]]
        for name, lines in {f"index.{pos}": index, f"data.{pos}": data, f"{pos}.exc": exceptions}.items():
            (to / name).write_text("".join(f"{line}\n" for line in sorted(lines)), encoding="latin-1")


def _synset(net: WordNet, pos: str, place: str, words: Collection[str]) -> str:
    """Its line, with those of its lemmas that are in `words`."""
    lemmas = [lemma for lemma in net.files.words(pos, place) if lemma.lower() in words]
    return f"{place} 00 {pos[0]} {len(lemmas):02x} {''.join(f'{lemma} 0 ' for lemma in lemmas)}000 |"
