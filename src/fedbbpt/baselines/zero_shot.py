"""A prompt that nobody learned: the bare class words, or a template written by hand."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fedbbpt.arrays import Arrays
from fedbbpt.baselines import Baseline, Exchange
from fedbbpt.baselines._template import GAPS, mask_in
from fedbbpt.black_box import AtomicBox, BlackBox
from fedbbpt.errors import ConfigError
from fedbbpt.parts import Client, Parts, Phase
from fedbbpt.phases import PHASES, compare
from fedbbpt.senses import Vocabulary
from fedbbpt.types import Job, RenderedPrompt


@dataclass(frozen=True)
class ZeroShot(Baseline):
    """Another template than the config's, with the same label words. Costs no training query.

    Attributes:
        template: ``"bare"`` (default): nothing around the label; on the text side nothing around
            the text but, for a masked model, the mask behind it. ``"manual"``: the config's own,
            so that both entries of the result are the same. Anything else is the template.
    """

    template: str = "bare"

    words = True
    evaluate = "zero_shot"

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The evaluation alone."""
        return (Phase(self.evaluate, "evaluation", PHASES["evaluate"].sends, self._evaluate),)

    def prepare(self, start: RenderedPrompt, box: AtomicBox) -> None:
        """Refuse a template without its gap, and what the box refuses."""
        if self.template not in ("bare", "manual") and "text" not in box.accepts:
            raise ConfigError(
                f"method.baseline.template is '{self.template}', but {box.name} reads no text; "
                "it must be 'bare' or 'manual'"
            )
        prompt, gap = self.prompted(start, box.vocabulary), GAPS[start.side]
        bare = start.side == "image" and not prompt.template  # a classifier's labels are its own
        if prompt.template.count(gap) != 1 and not bare:
            raise ConfigError(
                f"method.baseline.template is '{self.template}'; it must be 'bare', 'manual' or "
                f"hold {gap} once"
            )
        box.prepare(prompt)

    def fit(self, exchange: Exchange) -> Arrays:
        """Nothing is learned."""
        return {}

    def prompted(self, start: RenderedPrompt, vocabulary: Vocabulary | None) -> RenderedPrompt:
        """The starting prompt with the template that is tried."""
        if self.template == "manual":
            return start
        template, mask = self.template, mask_in(start.template, vocabulary)
        if template == "bare":
            template = f"{GAPS[start.side]} {mask}".strip()
        return replace(start, template=template)

    def _evaluate(
        self, parts: Parts, client: Client, job: Job, box: BlackBox
    ) -> tuple[Arrays, float]:
        start = parts.prompt.render(job.arrays["points"])[0]
        both = [start, self.prompted(start, box.vocabulary)]
        return compare(parts, client, box(both, client.test.inputs))
