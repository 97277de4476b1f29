"""Data sets of the comparisons as CSV files, from the local test material.

    FEDBBPT_DATA=... python benchmarks/prepare.py        # writes benchmarks/data/*.csv

dev-*: development splits, on which defaults are chosen: half of a training pool, at most 1,000
examples, serves as test. No test split of any table below is in them. SST-2 and AG News: their
training pools; MR: all of it; work: the first ten intents of CLINC150's domain "work".

CR: the usual test split; everything else of the whole set, of which no text is in the test.

Yelp: sentences with the polarity of their review; a pool to draw few shots from and a fixed sample
as test. CLINC-10: the first ten intents of the domain "banking" in the order of the set's own
domains file; its training and validation utterances, and its test utterances.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
from pathlib import Path

import numpy as np

DATA = Path(os.environ["FEDBBPT_DATA"]) / "text"
OUT = Path(__file__).parent / "data"
TEST = 1000


def main() -> None:
    OUT.mkdir(exist_ok=True)
    yelp()
    write("clinc10.train", utterances("banking", "train", "val"))
    write("clinc10.test", utterances("banking", "test"))
    reviews()
    development("dev-sst2", polarity("stsa.binary.train.gz"))
    development("dev-mr", polarity("rt-polarity.all.gz"))
    with (DATA / "ready" / "agnews.train.csv").open(newline="", encoding="utf-8") as file:
        development("dev-agnews", [(row["text"], row["label"]) for row in csv.DictReader(file)])
    development("dev-work", utterances("work", "train", "val"))


def yelp() -> None:
    def sentences(part: str, polarity: int) -> list[str]:
        path = DATA / "yelp_sentences" / f"sentiment.{part}.{polarity}.gz"
        with gzip.open(path, "rt", encoding="utf-8") as file:
            return [line.strip() for line in file if line.strip()]

    names = ("negative", "positive")
    rng = np.random.default_rng(0)
    train, test = [], []
    for polarity, name in enumerate(names):
        train += [(text, name) for text in sentences("dev", polarity)[:5000]]
        pool = sentences("test", polarity)
        test += [(pool[i], name) for i in rng.permutation(len(pool))[: TEST // 2]]
    write("yelp.train", train)
    write("yelp.test", test)


def reviews() -> None:
    """CR: the usual test sentences, and all others of the pool as training pool."""
    with gzip.open(DATA / "fewshot" / "cr" / "test.tsv.gz", "rt", encoding="utf-8") as file:
        test = [(row["sentence"], row["label"]) for row in csv.DictReader(file, delimiter="\t")]
    tested = {bare(text) for text, _ in test}
    pool = [row for row in polarity("custrev.all.gz") if bare(row[0]) not in tested]
    write("cr.test", [(text, ("negative", "positive")[int(label)]) for text, label in test])
    write("cr.train", pool)


def bare(text: str) -> str:
    """Letters and digits alone: the two files differ in spaces and quotes."""
    return "".join(filter(str.isalnum, text.lower()))


def utterances(domain: str, *parts: str) -> list[tuple[str, str]]:
    domains = json.loads((DATA / "clinc150" / "domains.json").read_text("utf-8"))
    intents = domains[domain][:10]
    with gzip.open(DATA / "clinc150" / "data_full.json.gz", "rt", encoding="utf-8") as file:
        full = json.load(file)
    return [(text, name) for part in parts for text, name in full[part] if name in intents]


def polarity(name: str) -> list[tuple[str, str]]:
    with gzip.open(DATA / "pools" / name, "rt", encoding="utf-8", errors="replace") as file:
        lines = [line.strip() for line in file]
    split = [line.split(" ", 1) for line in lines if " " in line]
    return [(text, ("negative", "positive")[int(label)]) for label, text in split]


def development(name: str, rows: list[tuple[str, str]]) -> None:
    order = np.random.default_rng(1).permutation(len(rows))
    count = min(1000, len(rows) // 2)
    write(f"{name}.test", [rows[i] for i in order[:count]])
    write(f"{name}.train", [rows[i] for i in order[count:]])


def write(name: str, rows: list[tuple[str, str]]) -> None:
    with (OUT / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(rows)


if __name__ == "__main__":
    main()
