"""`python -m benchmarks`: print the table, write `benchmarks/results.json`."""

from pathlib import Path

from benchmarks import compositional, features, neurons
from mmn_utils.results import as_json, write_whole

RESULTS = Path(__file__).parent / "results.json"


def main() -> None:
    results = {
        **compositional.formulas(),  # first: it measures memory
        **neurons.all_benchmarks(),
        **features.all_benchmarks(),
    }
    print(f"{'':50} {'ours':>10} {'theirs':>10} {'ratio':>8} {'n':>4}")
    for key, row in results.items():
        print(f"{key:50} {row['ours']:10.4g} {row['theirs']:10.4g} {row['ratio']:8.3g} {row['n']:4d}  {row['unit']}")
    write_whole(RESULTS, as_json(results))


if __name__ == "__main__":
    main()
