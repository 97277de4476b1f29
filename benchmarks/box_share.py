"""How much of a search's time is spent in the box, from the runs behind the tables of images.

    python benchmarks/box_share.py [RUNS ...]

RUNS are folders of run directories, benchmarks/runs if none is named. Writes results/box-share.md.
Composing a visual prompt is the box's work and counts as such.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).parent
DATA = ("clothing", "caltech101", "sign-digits")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("runs", nargs="*", type=Path, default=[HERE / "runs"])
    shares: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for folder in parser.parse_args().runs:
        for name in DATA:
            for file in sorted(folder.glob(f"vision-{name}/runs/*/*/*/*/result.json")):
                seconds = json.loads(file.read_text(encoding="utf-8"))["seconds"]
                # Baselines make no search to speak of.
                if seconds["search"] > 20:
                    share = seconds["box"] / seconds["search"]
                    shares[file.parent.parent.name][name].append(share)
    rows = ["| share of the search's time | " + " | ".join(DATA) + " |", "|---" * 4 + "|"]
    for method, by in sorted(shares.items()):
        cells = (f"{min(by[n]):.0%} to {max(by[n]):.0%}" if by[n] else "" for n in DATA)
        rows.append(f"| {method} | {' | '.join(cells)} |")
    text = (
        "`python benchmarks/box_share.py` on the runs of vision-clothing.md, vision-caltech101.md "
        "and vision-sign-digits.md (least and most over seeds; commits there), two busy cores.\n\n"
    )
    (HERE / "results" / "box-share.md").write_text(text + "\n".join(rows) + "\n", encoding="utf-8")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
