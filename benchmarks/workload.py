"""What a federation costs beside the bare forward passes that it makes, and what it sends.

    FEDBBPT_DATA=... python benchmarks/workload.py [--repeats 5] [--threads 2]
    FEDBBPT_DATA=... python benchmarks/workload.py --profile

Writes results/workload.md. The workload is one that the strongest public code was measured on
(NVFlare research/fed-bpt at f3b7c1b, nvflare 2.9.0, two cores): a RoBERTa of 4 layers of 128 with
random weights and RoBERTa's own vocabulary, 3 clients, 3 rounds, 5 local steps of 20 candidates, 16
examples of 91 tokens, 50 of them inserted by the prompt, and their garbled copies; 31,488 examples
go through the model, 16 at a time (box.rows is 32 unless set, which is a tenth quicker here and
takes 28 MB more). Here these are 3 x 3 x (5 x 20 + 1) x 32 = 29,088 of the search (the one more is
a client's own mean, by whose loss it is ranked), and 4 snapshots on 600 test examples.

``bare`` is plain torch and transformers in a loop: the same batches of the same token ids and
prompts, recorded once from a run of ours, through the body, the head at the mask, and the softmax;
its scores are held to those that were recorded. It need not tokenise, render, draw, merge or write
anything. Each repeat runs the federation and the bare loop in processes of their own, in turns who
is first. ``model`` is a process that loads libraries and model, and nothing else: what of the peak
is nobody's to save. Ratios are those of one repeat; given are their median, least and most.

The search is the preset ``fedbpt-nvflare`` with these numbers, but for two options.
``covariance = "isotropic"``: at d = 500 CMA-ES does not learn its covariance (3 % away from the
identity after 8,000 evaluations), so that 2 MB down need not be sent; ``wire = "replay"``: a client
sends losses, and the server repeats its search. How far from the identity the full matrix gets in
this workload is measured too.
Torch's waiting threads do not spin (``GOMP_SPINCOUNT``), in both: what the package sets for itself
would else look like a gain on a machine that is not quiet.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import platform
import pstats
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from label_side import commit

HERE = Path(__file__).parent
CLIENTS, ROUNDS, STEPS, POPSIZE, EXAMPLES, FINAL = 3, 3, 5, 20, 16, 2400
TOKENS, INSERTED, ROWS, LABELS = 91, 50, 16, {"negative": "bad", "positive": "great"}
PUBLIC = "public code, its own ratio | 1.6 | 2.0 | 4.4 GB | 8.1 MB / 5.2 kB"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch, in both")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="fewer: prints the table only")
    parser.add_argument("--profile", action="store_true", help="only show where the time goes")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        kind, folder = options.one
        print(json.dumps(PROCESSES[kind](Path(folder), options.threads, options.rounds)))
        return
    with tempfile.TemporaryDirectory() as name:
        call = partial(process, Path(name), options.threads, options.rounds)
        call("make")
        if options.profile:
            profile = cProfile.Profile()
            profile.runcall(ours, Path(name), options.threads, options.rounds)
            pstats.Stats(profile).sort_stats("tottime").print_stats(40)
            return
        text = measure(call, options.threads, options.repeats)
    if options.rounds == ROUNDS:
        (HERE / "results" / "workload.md").write_text(text, encoding="utf-8")
    print(text)


def forwards(rounds: int) -> int:
    """Examples that go through the model."""
    return CLIENTS * rounds * (STEPS * POPSIZE + 1) * 2 * EXAMPLES + FINAL


def measure(call: Callable[[str], dict[str, Any]], threads: int, repeats: int) -> str:
    """All processes in turn; the table."""
    call("record")
    full, model = call("full"), call("model")
    pairs = []
    for number in range(repeats):
        order = ("ours", "bare") if number % 2 else ("bare", "ours")
        pairs.append({kind: call(kind) for kind in order})
        print(json.dumps(pairs[-1]), flush=True)
    head = (
        f"`python benchmarks/workload.py --repeats {repeats} --threads {threads}` (what is "
        f"measured: its first lines), commit {commit()}; {repeats} repeats, least to most in "
        f"brackets; {platform.machine()}, {os.cpu_count()} cores, no GPU, load "
        f"{os.getloadavg()[0]:.1f} at the end.\n\n"
    )
    ours = pairs[0]["ours"]

    def ratio(key: str) -> str:
        found = sorted(pair["ours"][key] / pair["bare"][key] for pair in pairs)
        return f"{median(found):.3f} ({found[0]:.3f} to {found[-1]:.3f})"

    def most(kind: str) -> str:
        return f"{max(pair[kind]['peak'] for pair in pairs) / 1000:.3f} GB"

    def typical(key: str, kind: str) -> str:
        return f"{median(pair[kind][key] for pair in pairs):.1f}"

    wire = f"{ours['down']:.0f} B / {ours['up']:.0f} B"
    lines = [
        "| | CPU / bare | wall / bare | peak memory | bytes down / up per client-round |",
        "|---|---|---|---|---|",
        f"| whole process | {ratio('process_cpu')} | {ratio('process_wall')} | {most('ours')} | "
        f"{wire} |",
        f"| from the loaded model on | {ratio('cpu')} | {ratio('wall')} | | |",
        f"| {PUBLIC} |",
        "",
        "| median | CPU s | wall s | peak memory |",
        "|---|---|---|---|",
        *(
            f"| {kind}, from the loaded model on | {typical('cpu', kind)} | "
            f"{typical('wall', kind)} | {most(kind)} |"
            for kind in ("ours", "bare")
        ),
        f"| model: libraries and weights, nothing asked | | | {model['peak'] / 1000:.3f} GB |",
        "",
        f"{ours['forwards']:,} examples through the model in {ours['batches']} batches, in both; "
        f"largest difference of a score from the recorded one: {pairs[0]['bare']['gap']:.1e}. "
        f"Peak memory by what was loaded: python {model['python']:.0f} MB, with torch "
        f"{model['torch']:.0f}, with the model's classes {model['transformers']:.0f}, with the "
        f"model {model['peak']:.0f}. With the full covariance, which ends {full['learned']:.2%} "
        f"of its length away from the identity, {full['down']:,.0f} B would go down.",
    ]
    return head + "\n".join(lines) + "\n"


def process(folder: Path, threads: int, rounds: int, kind: str) -> dict[str, Any]:
    """Figures of a process of its own, with its CPU and wall time from beginning to end."""
    command = [sys.executable, __file__, "--one", kind, str(folder)]
    command += ["--threads", str(threads), "--rounds", str(rounds)]
    settings = {"GOMP_SPINCOUNT": "1000", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    began = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | settings)
    assert child.stdout is not None
    output = child.stdout.read()
    _, status, used = os.wait4(child.pid, 0)
    wall = time.perf_counter() - began
    if status:
        sys.exit(f"{kind} failed: {output}")
    cpu = used.ru_utime + used.ru_stime
    return {**json.loads(output.splitlines()[-1]), "process_cpu": cpu, "process_wall": wall}


def make(folder: Path, threads: int, rounds: int) -> dict[str, Any]:
    """A random model of the family, and the vocabulary of the published one."""
    import torch
    from transformers import AutoTokenizer, RobertaConfig, RobertaForMaskedLM

    source = Path(os.environ["FEDBBPT_DATA"]) / "models" / "roberta_tokenizer"
    tokenizer = AutoTokenizer.from_pretrained(source)
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=512,
        max_position_embeddings=514,
        type_vocab_size=1,
    )
    RobertaForMaskedLM(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return {}


# --- what the processes do ----------------------------------------------------------------------


class Clock:
    """CPU and wall seconds since it was made, and the most memory of the process so far in MB."""

    def __init__(self) -> None:
        self.cpu, self.wall = time.process_time(), time.perf_counter()

    def read(self) -> dict[str, float]:
        """All three."""
        cpu, wall = time.process_time() - self.cpu, time.perf_counter() - self.wall
        return {"cpu": cpu, "wall": wall, "peak": peak()}


def peak() -> float:
    """MB of 1000 kB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1.024 / 1000


def federation(
    folder: Path, threads: int, rounds: int, covariance: str = "isotropic", keep: Any = None
) -> dict[str, Any]:
    """Our run, in a fresh directory; ``keep`` is given the box before it."""
    import numpy as np

    import fedbbpt
    from fedbbpt.boxes.masked_lm import MaskedLm
    from fedbbpt.config import resolve
    from fedbbpt.sharing import share_out, tables

    box = MaskedLm(str(folder / "model"), "float32", "cpu", ROWS, TOKENS, threads)
    rng, words = np.random.default_rng(0), box.vocabulary.ordinary()

    def pairs(count: int) -> list[tuple[str, str]]:
        # Longer than what is left beside the prompt, so that every row is cut to 91 tokens.
        texts = (box.vocabulary.decode(rng.choice(words, 60).tolist()) for _ in range(count))
        return [(text.strip(), sorted(LABELS)[k % 2]) for k, text in enumerate(texts)]

    method: dict[str, Any] = {"name": "fedbpt-nvflare", "wire": "replay", "snapshots": rounds}
    method["optimizer"] = {"name": "cmaes", "popsize": POPSIZE, "covariance": covariance}
    tree = {
        "data": {"train": ""},
        "prompt": {
            "side": "text",
            "template": "{text} It was {mask} .",
            "labels": LABELS,
            "mode": "insert",
            "tokens": INSERTED,
        },
        "method": method,
        "rounds": {"max": rounds, "steps": STEPS, "holdout": 0.0},
        "budget": {"queries": forwards(rounds)},
    }
    config = resolve(tree, Path.cwd())
    owned = {f"client {k}": pairs(EXAMPLES) for k in range(CLIENTS)}
    split = share_out(config, *tables(owned, pairs(FINAL // (rounds + 1)), config.data))
    if keep:
        keep(box)
    clock = Clock()
    with tempfile.TemporaryDirectory() as place:
        result = fedbbpt.run(config, Path(place) / "run", box=box, split=split).result
        figures = clock.read()
        figures["learned"] = learned(Path(place) / "run")
    queries, size = result["queries"], result["bytes"]
    count = queries["train"] + queries["evaluation"]
    assert count == queries["paid"] == forwards(rounds), result
    return {
        **figures,
        "forwards": count,
        "batches": count // ROWS,
        "up": size["up_per_client_round"],
        "down": size["down_per_client_round"],
    }


def learned(run: Path) -> float:
    """How far the server's covariance is from the identity, relative to its length."""
    import numpy as np

    from fedbbpt.checkpoint import load

    saved = load(run / "state")
    assert saved is not None
    covariance = saved[0]["state.cov"]
    if covariance.ndim < 2:
        return 0.0
    identity = np.eye(len(covariance))
    return float(np.linalg.norm(covariance - identity) / np.linalg.norm(identity))


def ours(folder: Path, threads: int, rounds: int) -> dict[str, Any]:
    """The federation."""
    return federation(folder, threads, rounds)


def full(folder: Path, threads: int, rounds: int) -> dict[str, Any]:
    """The federation with the whole covariance."""
    return federation(folder, threads, rounds, "full")


def record(folder: Path, threads: int, rounds: int) -> dict[str, Any]:
    """The federation, all that its model is given and what it says being kept for the bare loop."""
    import numpy as np

    softs: dict[bytes, int] = {}
    given: list[tuple[Any, ...]] = []

    def keep(box: Any) -> None:
        forward = box.network.forward

        def recorded(rows: Any) -> Any:
            scores = forward(rows)
            ids, places, moved = zip(*(row.inputs for row in rows), strict=True)
            assert all((p == np.arange(1, INSERTED + 1)).all() for p in places)
            which = [softs.setdefault(soft.tobytes(), len(softs)) for soft in moved]
            masks = [row.mask for row in rows]
            given.append((np.array(ids), which, masks, np.array(scores), rows[0].choices))
            return scores

        box.network.forward = recorded

    figures = federation(folder, threads, rounds, keep=keep)
    ids, which, masks, scores, choices = zip(*given, strict=True)
    np.savez(
        folder / "batches.npz",
        ids=np.array(ids),
        which=np.array(which),
        masks=np.array(masks),
        scores=np.array(scores),
        choices=np.array(choices[0]),
        soft=np.array([np.frombuffer(soft, np.float32) for soft in softs]),
    )
    assert np.array(ids).shape == (forwards(rounds) // ROWS, ROWS, TOKENS), np.array(ids).shape
    return figures


def bare(folder: Path, threads: int, rounds: int) -> dict[str, Any]:
    """The recorded batches through the model in a loop."""
    import numpy as np
    import torch
    from transformers import AutoModelForMaskedLM

    torch.set_num_threads(threads)
    model = AutoModelForMaskedLM.from_pretrained(folder / "model").float().eval()
    body, head, words = model.roberta, model.lm_head, model.get_input_embeddings()
    kept = {key: torch.from_numpy(a) for key, a in np.load(folder / "batches.npz").items()}
    soft = kept["soft"].reshape(-1, INSERTED, words.embedding_dim)
    every, mask, gap = torch.arange(ROWS), torch.ones(ROWS, TOKENS, dtype=torch.int64), 0.0
    clock = Clock()
    with torch.inference_mode():
        batches = (kept[key] for key in ("ids", "which", "masks", "scores"))
        for ids, which, masks, scores in zip(*batches, strict=True):
            embedded = words(ids.clip(min=0))
            embedded[:, 1 : INSERTED + 1] = soft[which]
            hidden = body(inputs_embeds=embedded, attention_mask=mask).last_hidden_state
            said = head(hidden[every, masks]).log_softmax(1)[:, kept["choices"]]
            gap = max(gap, float((said - scores).abs().max()))
    assert gap < 1e-4, gap
    return {**clock.read(), "gap": gap}


def model(folder: Path, threads: int, rounds: int) -> dict[str, Any]:
    """What libraries and weights take alone."""
    found = {"python": peak()}
    import torch

    found["torch"] = peak()
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    found["transformers"] = peak()
    torch.set_num_threads(threads)
    AutoTokenizer.from_pretrained(folder / "model")
    AutoModelForMaskedLM.from_pretrained(folder / "model").float().eval()
    return {**found, "peak": peak()}


PROCESSES = {f.__name__: f for f in (make, record, full, model, ours, bare)}

if __name__ == "__main__":
    main()
