"""SST-2 over five nodes on Flower: the same losses as in one process, and what few rounds cost.

    FEDBBPT_DATA=... python benchmarks/over_flower.py [--seeds 5]

Writes results/over-flower.md. First both examples in one process for each seed; then, for the first
seed, examples/sst2-flower.toml on real Flower over TLS on this machine: server and nodes are the
commands a user starts, with one gateway for all. Ports are free ones.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, median, stdev

from label_side import commit
from scipy.stats import t as student

import fedbbpt

HERE = Path(__file__).parent
EXAMPLES = HERE.parent / "examples"
SEEDS = (13, 21, 42, 87, 100)
CASES = {
    "sst2.toml: ten clients, 5 pairs a round": ("sst2.toml", []),
    "sst2.toml with five clients": ("sst2.toml", ["partition.clients=5"]),
    "sst2-flower.toml: five clients, 50 pairs a round": (
        "sst2-flower.toml",
        ["engine.kind=local"],
    ),
}
PORT, GATEWAY = 18431, 18432


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    seeds = SEEDS[: parser.parse_args().seeds]
    lines = [
        "# SST-2 over five nodes on Flower",
        "",
        f"`python benchmarks/over_flower.py --seeds {len(seeds)}`, commit {commit()}; "
        f"4,000 queries, seeds {' '.join(map(str, seeds))}, mean with 95 % interval over seeds; "
        f"all-MiniLM-L6-v2, {os.cpu_count()} cores.",
        "",
        "| in one process | rounds | accuracy | gain over the start |",
        "|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for name, (config, changes) in CASES.items():
            found = [one(place, config, changes, seed) for seed in seeds]
            scores = [r["tuned"]["accuracy"] for r in found]
            gains = [r["tuned"]["accuracy"] - r["baseline"]["accuracy"] for r in found]
            rounds = median(r["rounds"] for r in found)
            lines.append(f"| {name} | {rounds:g} | {spread(scores)} | {spread(gains)} |")
            print(lines[-1], flush=True)
        lines += ["", *over_flower(place, seeds[0]), "", *letters(place)]
    text = "\n".join(lines) + "\n"
    (HERE / "results" / "over-flower.md").write_text(text, encoding="utf-8")
    print(text)


def one(place: Path, config: str, changes: list[str], seed: int) -> dict:
    """A run in this process; rows are shared, which changes no count of the budget."""
    own = [f"run.seed={seed}", f"run.ledger={place / 'ledger.sqlite'}", *changes]
    return fedbbpt.run(at_home(EXAMPLES / config, own), place / "run", overwrite=True).result


def spread(values: list[float]) -> str:
    """Mean and half width of its 95 % interval."""
    if len(values) < 2:
        return f"{values[0]:.3f}"
    half = student.ppf(0.975, len(values) - 1) * stdev(values) / len(values) ** 0.5
    return f"{mean(values):.3f} ± {half:.3f}"


def over_flower(place: Path, seed: int) -> list[str]:
    """The run on Flower beside the same in one process, against the same gateway."""
    config, url = str(EXAMPLES / "sst2-flower.toml"), f"box.url=http://127.0.0.1:{GATEWAY}"
    seeded = ["--set", f"run.seed={seed}", "--set", url]
    children = [
        start(place, "gateway", "serve-model", EXAMPLES / "gateway.toml", "--port", GATEWAY)
    ]
    try:
        wait_for(place / "gateway.log", "serving")
        call("run", config, *seeded, "--set", "engine.kind=local", "--out", place / "here")
        call("split", config, *seeded, "--out", place / "parts")
        names = sorted(file.stem for file in (place / "parts").iterdir())
        invited = [word for name in names for word in ("--nodes", name)]
        # The invitation holds the agreed config, the seed with it.
        agreed = place / "federation.toml"
        text = Path(config).read_text(encoding="utf-8").replace("seed = 0", f"seed = {seed}")
        agreed.write_text(text, encoding="utf-8")
        call("certs", agreed, *invited, "--host", "127.0.0.1", "--out", place / "certs")
        at = f"127.0.0.1:{PORT}"
        began = time.monotonic()
        server = start(
            place, "server", "server", agreed, "--set", url, "--certs", place / "certs",
            "--address", at, "--out", place / "there",
        )  # fmt: skip
        children.append(server)
        for name in names:
            own = ("--data", place / "parts" / f"{name}.csv", "--home", place / "homes" / name)
            box = ("--box", url.removeprefix("box."))
            children.append(
                start(place, name, "node", place / "certs" / name, *own, "--server", at, *box)
            )
        code = server.wait(1800)
        took = time.monotonic() - began
        if code:
            raise SystemExit((place / "server.log").read_text())
        return report(place, seed, len(names), took)
    finally:
        for child in children:
            child.terminate()
            child.wait(60)


def report(place: Path, seed: int, nodes: int, took: float) -> list[str]:
    """Both runs side by side."""
    here, there = (json.loads((place / n / "result.json").read_text()) for n in ("here", "there"))
    losses = [searched(place / name) for name in ("here", "there")]
    if losses[0].keys() != losses[1].keys():
        raise SystemExit("the two runs did not ask the same clients in the same rounds")
    apart = max(abs(losses[0][key] - losses[1][key]) for key in losses[0])
    events = map(json.loads, (place / "there" / "events.jsonl").read_text().splitlines())
    rounds = [e["seconds"] for e in events if e["event"] == "merge"]
    sent = [
        json.loads(line)["bytes"]
        for home in (place / "homes").iterdir()
        for line in (home / "egress.jsonl").read_text().splitlines()
        if json.loads(line)["phase"] == "search"
    ]
    return [
        f"Seed {seed} on Flower over TLS, {nodes} nodes and a gateway for all, beside the same run "
        "in one process:",
        "",
        "| | in one process | on Flower |",
        "|---|---|---|",
        f"| accuracy | {here['tuned']['accuracy']:.4f} | {there['tuned']['accuracy']:.4f} |",
        f"| training queries | {here['queries']['train']} | {there['queries']['train']} |",
        f"| rounds | {here['rounds']} | {there['rounds']} |",
        f"| bytes of arrays up, down | {bytes_of(here)} | {bytes_of(there)} |",
        f"| bytes of a whole update, most | | {max(sent)} |",
        f"| seconds of a round, median and most | {here['seconds']['search'] / here['rounds']:.2f} "
        f"(mean) | {median(rounds):.1f}, {max(rounds):.1f} |",
        f"| seconds in all | {here['seconds']['total']:.0f} | {took:.0f} |",
        "",
        f"Largest difference of a client's mean loss in a round: {apart:.2g}, of {len(losses[0])}.",
    ]


LETTERS = {
    "fedes": ["method.name=fedes", "rounds.max=2"],
    "fedes-few": ["rounds.max=2"],
    "fedbpt, losses (replay)": ["method.name=fedbpt", "method.wire=replay", "rounds.max=2"],
    "fedbpt, states (as published)": ["method.name=fedbpt", "rounds.max=2"],
}
"""Of each method the changes over sst2-flower.toml."""


def letters(place: Path) -> list[str]:
    """Bytes of whole letters of a search round, head and arrays, without Flower's envelope."""
    from fedbbpt.post import Arrived
    from fedbbpt.sites import invitation
    from fedbbpt.sites.agreed import agreed, empty, federated
    from fedbbpt.sites.node import settle
    from fedbbpt.testing.sites import Desk

    lines = [
        "Bytes of the letters of a search round to and from one client, head and arrays:",
        "",
        "| method | down | up |",
        "|---|---|---|",
    ]
    for number, (name, changes) in enumerate(LETTERS.items()):
        sizes: list[tuple[int, ...]] = []

        def weigh(client: str, sent: int, letter: dict, reply: dict, sizes=sizes) -> list:
            if json.loads(letter["head"]).get("phase") == "search":
                both = (letter, reply)
                sizes.append(tuple(sum(len(part) for part in one.values()) for one in both))
            return [Arrived(client, sent, reply)]

        over = federated(at_home(EXAMPLES / "sst2-flower.toml", ["data.test=", *changes]))
        homes = {}
        for file in sorted((place / "parts").iterdir())[:2]:
            folder = place / f"letters-{number}" / file.stem
            folder.mkdir(parents=True)
            invitation.write(folder, invitation.invitation(over))
            homes[file.stem] = settle(folder, folder / "home", file, None, []).home

        desk = Desk(homes, agreed(over), weigh)
        out = place / f"letters-{number}" / "run"
        fedbbpt.run(over, out, split=empty(over), post=desk)
        down, up = max(sizes)
        lines.append(f"| {name} | {down} | {up} |")
        print(lines[-1], flush=True)
    return lines


def at_home(path: Path, changes: list[str]):
    """The example with its model in this process."""
    from fedbbpt.config import resolve
    from fedbbpt.trees import parse

    tree = parse(path, changes)
    tree["box"] = {"kind": "dual_encoder", "model": "minilm"}
    return resolve(tree, path.parent)


def bytes_of(result: dict) -> str:
    """Up and down in a client's round."""
    size = result["bytes"]
    return f"{size['up_per_client_round']:.0f}, {size['down_per_client_round']:.0f}"


def searched(run: Path) -> dict:
    """Each client's mean loss in each round."""
    events = map(json.loads, (run / "events.jsonl").read_text().splitlines())
    told = [e for e in events if e["event"] == "client" and e["phase"] == "search"]
    return {(e["round"], e["client"]): e["loss"] for e in told}


def start(place: Path, log: str, *words: object) -> subprocess.Popen:
    """One of our commands in the background."""
    with (place / f"{log}.log").open("wb") as file:
        return subprocess.Popen(command(*words), cwd=place, stdout=file, stderr=file)


def call(*words: object) -> None:
    """One of our commands, to its end."""
    subprocess.run(command(*words), check=True, stdout=subprocess.DEVNULL)


def command(*words: object) -> list[str]:
    """As a list."""
    return [sys.executable, "-m", "fedbbpt", *map(str, words)]


def wait_for(log: Path, word: str) -> None:
    """Until a program has said something."""
    end = time.monotonic() + 120
    while word not in (log.read_text() if log.exists() else ""):
        if time.monotonic() > end:
            raise SystemExit(f"{log} never said '{word}'")
        time.sleep(0.2)


if __name__ == "__main__":
    main()
