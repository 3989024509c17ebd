"""Every figure, table and scalar that the paper on text-only models prints is made by a cell of Part I."""

from pathlib import Path

import nbformat
import pytest

REPOSITORY = Path(__file__).parents[1]
ITEMS = {
    "Fig. 1": ("03", 'chapter.figure(figure, "schematic"'),
    "Fig. 2": ("03", 'chapter.figure(figure, "six_families"'),
    "Table 1": ("04", 'chapter.table(table.map(str), "table1"'),
    "Fig. 3": ("02", 'chapter.figure(figure, "distributions"'),
    "Table 2": ("02", 'chapter.table(table, "table2"'),
    "Fig. 4": ("05", 'chapter.figure(figure, "most_active"'),
    "Fig. 5": ("05", 'chapter.figure(figure, "by_category"'),
    "Fig. 6, left": ("07", 'chapter.figure(figure, "probability"'),
    "Fig. 6, right": ("07", 'chapter.figure(figure, "one_caption"'),
    "Table S.1": ("03", 'chapter.table(survey.example_rows(pairs, decoded, seven), "table_s1"'),
    "Table S.2": ("02", 'chapter.table(table_s2, "table_s2"'),
    "Fig. S.1": ("05", 'chapter.figure(figure, "eight_images"'),
    "Fig. S.2a": ("06", 'chapter.figure(figure, "matrix"'),
    "Fig. S.2b": ("06", 'chapter.figure(figure, "two_classes"'),
    "Fig. S.3": ("07", 'chapter.figure(figure, "captions"'),
    "Table S.3": ("07", 'chapter.table(table, "bertscore_of_eight"'),
    "Fig. S.4": ("03", 'chapter.figure(figure, "layers"'),
    "half of the units can be read": ("04", '"schwettmann.interpretable_fraction", **vars'),
    "layers 5 to 10 of 28": ("03", '"schwettmann.attribution.mean_depth", **vars'),
    "D = .037, p > .5, and D > .9, p < .001": ("02", 'chapter.number(f"schwettmann.ks.{name}.d"'),
    "80 % at 6400, random next to nothing": ("07", 'f"schwettmann.ablation.probability_drop.{condition}"'),
    "the project page's unit on eight images": ("05", 'chapter.figure(maps.most_active([row]), "one_unit"'),
}


@pytest.mark.parametrize("item", ITEMS)
def test_it_is_regenerated(item):
    chapter, cell = ITEMS[item]
    (path,) = (REPOSITORY / "notebooks").glob(f"{chapter}_*.ipynb")
    cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code" and cell in c.source]
    assert len(cells) == 1, f"{item}: {cell} is in {len(cells)} cells of {path.name}"
