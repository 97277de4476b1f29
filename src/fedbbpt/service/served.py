"""What a gateway does for its callers, request by request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fedbbpt.arrays import Array
from fedbbpt.black_box import AtomicBox
from fedbbpt.boxes import _packed
from fedbbpt.boxes._forms import Form, Pairs, check_asked
from fedbbpt.errors import BoxError, ConfigError, FedbbptError
from fedbbpt.senses import Vocabulary
from fedbbpt.service._around import Refused
from fedbbpt.service.cache import Durable, Memory
from fedbbpt.service.completions import Asked, Completions
from fedbbpt.service.door import Meters, owner
from fedbbpt.service.messages import (
    EvaluateIn,
    IdsIn,
    LabelsIn,
    LayoutIn,
    PrepareIn,
    TextIn,
)
from fedbbpt.service.settings import Gateway
from fedbbpt.service.worker import Call, Evaluate, Task, Worker
from fedbbpt.types import Atom, RenderedPrompt


class Service:
    """What the gateway does for its callers; its methods are the routes.

    Args:
        load: makes the box, in the thread that will ask it. A box that does not tell its form is
            asked for pairs of prompt and example.
        table: the settings.
    """

    def __init__(self, load: Callable[[], AtomicBox], table: Gateway) -> None:
        self.meters = Meters(lambda: self.worker.waiting)
        path = Path(table.ledger)
        self.cache = Durable(path) if table.ledger else Memory(table.memory_mb << 20)
        self.worker = Worker(
            self.cache,
            table.quota,
            table.max_batch,
            table.wait_ms / 1000,
            self.meters.batch.observe,
        )
        box: AtomicBox = self.worker.submit(Task(load, "", 0)).result()
        self.box, form = box, getattr(box, "form", None)
        known = isinstance(form, Form)
        self.form: Form = form if isinstance(form, Form) else Pairs(box.name)
        self.gives = box.gives - {"gradients"} if known else frozenset({"scores"})
        self.worker.evaluate = _guarded(box.name, box.evaluate if known else _by_grid(box))
        self.completions = Completions(box)

    def close(self) -> None:
        """Answer what is in the queue, and end."""
        self.worker.close()
        self.cache.close()

    # --- the box -----------------------------------------------------------------------------

    def info(self) -> dict[str, Any]:
        """What a client has to know of the box to make the same atoms."""
        words = self.box.vocabulary
        return {
            "protocol": _packed.PROTOCOL,
            "box": self.box.name,
            "accepts": sorted(self.box.accepts - {"image"}),  # pixels are prompted at home
            "sides": sorted(self.box.sides),
            "gives": sorted(self.gives),
            "max_tokens": self.box.max_tokens,
            "form": {"kind": self.form.kind, **self.form.facts()},
            "vocabulary": None if words is None else {"hidden": words.hidden, "std": words.std},
        }

    async def evaluate(self, body: EvaluateIn) -> dict[str, Any]:
        """Rows of the wanted atoms: ``rows`` and ``lengths`` in a safetensors file in base64."""
        call = await asyncio.to_thread(self._call, body)
        answer = await asyncio.to_thread(self.worker.known, call)
        if answer is None:
            self.worker.submit(call)
            answer = await asyncio.wrap_future(call.answer)
        cached = len(answer.rows) - answer.queries
        self.meters.queries.labels(call.owner).inc(answer.queries)
        self.meters.cached.labels(call.owner).inc(cached)
        rows = await asyncio.to_thread(_packed.pack_rows, answer.rows)
        return {"rows": rows, "queries": answer.queries, "cached": cached}

    def prepare(self, body: PrepareIn) -> dict[str, Any]:
        """Refuses a prompt that the box cannot use."""
        arrays = _packed.unpack_arrays(body.arrays)
        prompt = _packed.unpack_prompt(body.prompt.model_dump(), arrays)
        self._fits(prompt)
        self.box.prepare(prompt)
        return {}

    def shares(self, body: LabelsIn) -> dict[str, Any]:
        """What rows of these labels are multiplied by before the softmax over classes."""
        shares = getattr(self.form, "shares", None)
        if shares is None:
            raise Refused(f"{self.box.name} has no shares")
        return {"shares": [float(share) for share in shares(body.labels)]}

    def _call(self, body: EvaluateIn) -> Call:
        if body.box != self.box.name:
            raise Refused(f"this gateway serves {self.box.name}, not {body.box}")
        atoms, wanted = _packed.unpack(self.form, body.model_dump())
        for prompt in {id(p): p for p, _, _ in map(self.form.content, atoms) if p}.values():
            self._fits(prompt)
        return Call(atoms, wanted, owner.get())

    def _fits(self, prompt: RenderedPrompt) -> None:
        box, words = self.box, self.box.vocabulary
        check_asked(box.name, self.gives, [prompt])
        if prompt.kind not in box.accepts or prompt.side not in box.sides:
            raise ConfigError(
                f"{box.name} takes {', '.join(sorted(box.accepts))} prompts on the "
                f"{' or '.join(sorted(box.sides))} side, not {prompt.kind} on the {prompt.side}"
            )
        if words is not None and any(m.shape[1] != words.hidden for m in prompt.soft):
            raise ConfigError(f"a soft prompt's matrices must have {words.hidden} columns")

    # --- its vocabulary ----------------------------------------------------------------------

    def tokenise(self, body: TextIn) -> dict[str, Any]:
        """Ids of a text, without special tokens."""
        return {"ids": list(map(int, self._words.tokenise(body.text)))}

    def layout(self, body: LayoutIn) -> dict[str, Any]:
        """Ids of the template with its gap filled, and each id's place in the template."""
        if "\0" not in body.template:
            raise Refused("the template must hold a NUL where its gap is")
        ids, slots = self._words.layout(body.template, body.fill)
        return {"ids": list(map(int, ids)), "slots": list(map(int, slots))}

    def embed(self, body: IdsIn) -> dict[str, Any]:
        """Input embeddings: ``rows`` in a safetensors file in base64."""
        rows = self._looked_up(lambda: self._words.embed(body.ids))
        return {"arrays": _packed.pack_arrays({"rows": rows})}

    def decode(self, body: IdsIn) -> dict[str, Any]:
        """The text of these ids."""
        return {"text": self._looked_up(lambda: self._words.decode(body.ids))}

    def ordinary(self) -> dict[str, Any]:
        """Ids that stand for ordinary words or pieces."""
        return {"ids": self._words.ordinary().tolist()}

    @property
    def _words(self) -> Vocabulary:
        if self.box.vocabulary is None:
            raise Refused(f"{self.box.name} has no vocabulary")
        return self.box.vocabulary

    def _looked_up(self, look_up: Callable[[], Any]) -> Any:
        try:
            return look_up()
        except (IndexError, OverflowError) as error:
            raise Refused("ids holds one that the vocabulary does not have") from error

    # --- OpenAI ------------------------------------------------------------------------------

    def models(self) -> dict[str, Any]:
        """The one model there is."""
        model = {"id": self.box.name, "object": "model", "created": 0, "owned_by": "fedbbpt"}
        return {"object": "list", "data": [model]}

    async def complete(self, body: Asked) -> dict[str, Any]:
        """OpenAI's completions: the likeliest continuation of a text, or the word at its mask."""
        self.completions.refuse(body)
        who, count = owner.get(), len(body.prompts)
        task = Task(lambda: self.completions.answer(body), who, count)
        reply: dict[str, Any] = await asyncio.wrap_future(self.worker.submit(task))
        self.meters.queries.labels(who).inc(count)
        return reply

    def health(self) -> dict[str, Any]:
        """Whether the gateway is up; asks nothing of the model."""
        return {"status": "ok", "box": self.box.name, "waiting": self.worker.waiting}


def _guarded(name: str, evaluate: Evaluate) -> Evaluate:
    """With whatever else a model raises as an error of the box, as the local engine has it."""

    def guarded(atoms: Sequence[Atom], wanted: Sequence[int]) -> list[Array]:
        try:
            return evaluate(atoms, wanted)
        except FedbbptError:
            raise
        except Exception as error:
            raise BoxError(f"{name} raised {type(error).__name__}: {error}") from error

    return guarded


def _by_grid(box: AtomicBox) -> Evaluate:
    """Rows of pairs from a box whose own atoms are unknown: one call for each prompt."""

    def evaluate(atoms: Sequence[Atom], wanted: Sequence[int]) -> list[Array]:
        groups: dict[int, list[int]] = {}
        for i in wanted:
            groups.setdefault(id(atoms[i].data[0]), []).append(i)
        rows: dict[int, Array] = {}
        for group in groups.values():
            reply = box([atoms[group[0]].data[0]], [atoms[i].data[1] for i in group])
            rows.update(zip(group, reply.scores[0], strict=True))
        return [rows[i] for i in wanted]

    return evaluate
