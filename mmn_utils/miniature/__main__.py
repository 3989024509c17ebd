"""`python -m mmn_utils.miniature train`: the miniature's models again, from nothing. `assets`: its pictures and words
again.
"""

import argparse
from pathlib import Path

import torch

from mmn_utils import wordnet
from mmn_utils.miniature import art, inference, lexicon, stages


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m mmn_utils.miniature", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    train = commands.add_parser(
        "train", help="train every stage that is not finished; goes on where it was interrupted"
    )
    train.add_argument(
        "stages", nargs="*", metavar="STAGE", help=f"some of: {', '.join(stages.STAGES)} (default: all, in this order)"
    )
    train.add_argument("--weights", type=Path, default=stages.WEIGHTS, help="where finished weights go")
    train.add_argument("--work", type=Path, default=Path("build/miniature"), help="where checkpoints go")
    train.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--scale", type=float, default=1.0, help="share of the steps, to try the command out")
    train.add_argument("--again", action="store_true", help="train finished stages again, too")
    assets = commands.add_parser("assets", help="render the sprites and extract the lexicon (build step)")
    assets.add_argument("--icons", type=Path, help="folder with the unpacked npm packages @iconify-json/*, by set name")
    assets.add_argument("--wordnet", type=Path, help="WordNet 3.0's folder of data files")
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    top = parser()
    chosen = top.parse_args(arguments)
    if chosen.command == "assets":
        if not (chosen.icons or chosen.wordnet):
            top.error("assets needs --icons, --wordnet, or both")
        if chosen.icons:
            art.render(chosen.icons)
        if chosen.wordnet:
            lexicon.extract(chosen.wordnet)
            wordnet.extract(chosen.wordnet, inference.vocabulary(), wordnet.SHIPPED)
        return 0
    unknown = [s for s in chosen.stages if s not in stages.STAGES]
    if unknown:
        top.error(f"unknown stage {', '.join(unknown)}; the stages are {', '.join(stages.STAGES)}")
    shop = stages.Workshop(chosen.weights, chosen.work, torch.device(chosen.device), chosen.seed, chosen.scale)
    rows = stages.run(shop, chosen.stages or list(stages.STAGES), again=chosen.again)
    print(table(rows))
    return 0


def table(rows: list[dict]) -> str:
    """Stage, time, loss and held-out scores, as text."""
    lines = [f"{'stage':<18} {'minutes':>7} {'steps':>6} {'loss':>7}  held-out scores"]
    for row in rows:
        first, *rest = [f"{name} {value:.3f}" for name, value in row["scores"].items()] or ["none"]
        lines.append(f"{row['stage']:<18} {row['minutes']:>7} {row['steps']:>6} {row['loss']:>7.3f}  {first}")
        lines += [f"{'':<42} {score}" for score in rest]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
