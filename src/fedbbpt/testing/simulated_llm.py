r"""A stand-in for a chat model that follows and writes instructions, without any model.

What it is: a server that speaks OpenAI's chat API and takes an instruction for the one of its
skills (plain Python functions: list the letters, add two numbers, ...) whose written paraphrases
are nearest to it in a sentence embedding. Unclear instructions are followed for some inputs and
refused for others, those between two skills mix them up, and those near to nothing are refused
(:data:`UNSURE`). Asked what the instruction was, it proposes good ones, wrong ones, vague ones and
ones that quote a demonstration. What it is not: a language model. It cannot do what no skill does,
takes a negation or a condition for nothing, and understands by likeness alone. A result on it shows
that the machinery finds a good instruction among candidates, not that a real LLM would follow it.

::

    with SimulatedLlm(seed=0) as model:
        box = OpenaiHttp(model.url, model.name)
        examples("letters_list", 20, seed=0)        # [("cat", ["c a t"]), ...]

or ``python -m fedbbpt.testing.simulated_llm --port 8000``. What it is asked is read from the
messages (``Input:`` and ``Output:`` begin a line, in any case of letters):

* to follow: the system message is the instruction and the user's the input; or one message
  ``{instruction}\n\nInput: {input}\nOutput:``. Demonstrations in between are passed over.
* to propose: pairs of ``Input:`` and ``Output:``, all complete, and the word "instruction" around
  them or in the system message ("I gave a friend an instruction ... The instruction was to").
* to vary: "variation of the following instruction" (or paraphrase, rephrase, reword) before
  ``Input: {instruction}\nOutput:``.

The writer gives one instruction in each of the ``n`` choices; asked for "10 instructions" or "5
different variations", so many lines. The same seed and request have the same reply to the byte,
whoever asked before; at temperature 0 all choices are equal, above it they differ, as they do with
the request's ``seed``. A token is up to six letters or one mark.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from types import TracebackType

from fedbbpt.errors import ConfigError, FedbbptError
from fedbbpt.testing._simulated_chat import Asked, read, reply, texts
from fedbbpt.testing._simulated_http import Door
from fedbbpt.testing._simulated_mind import UNABLE, UNSURE, Mind
from fedbbpt.testing._simulated_writer import Writer
from fedbbpt.testing._skills import SKILLS, Skill, examples, table_skill
from fedbbpt.types import digest

# As sorted() has it, which tests/test_house.py asks for.
__all__ = [  # noqa: RUF022
    "SKILLS",
    "SimulatedLlm",
    "Skill",
    "UNABLE",
    "UNSURE",
    "examples",
    "table_skill",
]


class SimulatedLlm:
    """The server, on 127.0.0.1, to be used in a ``with`` statement.

    Args:
        seed: other seeds, other mistakes and other proposals.
        embedding: ``"minilm"`` (all-MiniLM-L6-v2, which needs ``fedbbpt[minilm]``), ``"ngrams"``
            (TF-IDF of runs of characters, which needs nothing), or ``"auto"``: the first if it is
            installed.
        skills: what it can do.
        key: a bearer key that is asked for, else 401; none by default.
        port: 0: any free one.

    Attributes:
        name: of the model, with the embedding and the seed: ``simulated-minilm-0``.
        mind, writer: what answers, to be asked without HTTP: ``mind.follow(instruction, input)``
            and ``writer.propose(demonstrations)`` say what the first choice of a request without
            a seed says.
        counts: requests answered, by what they asked for: "follow", "propose", "vary".

    Raises:
        ConfigError: there is no such embedding; no skills, or one of them twice; the port is taken.
        MissingExtra: MiniLM was asked for and torch or transformers is not installed.
    """

    def __init__(
        self,
        seed: int = 0,
        embedding: str = "auto",
        skills: Sequence[Skill] = tuple(SKILLS.values()),
        key: str = "",
        port: int = 0,
    ) -> None:
        self.mind = Mind(skills, embedding, seed)
        self.writer = Writer(self.mind)
        self.name = f"simulated-{self.mind.embedding.name}-{seed}"
        self.key, self.counts, self.broken = key, Counter[str](), list[BaseException]()
        self._port, self._lock = port, threading.Lock()
        self._door: Door
        self._thread: threading.Thread

    @property
    def url(self) -> str:
        """Where the paths begin: ``http://127.0.0.1:PORT/v1``."""
        return f"http://127.0.0.1:{self._door.server_address[1]}/v1"

    def __enter__(self) -> SimulatedLlm:
        try:
            self._door = Door(self, self._port)
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"port {self._port} cannot be used ({error}); give another, or 0 for any free one"
            ) from error
        self._thread = threading.Thread(target=self._door.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop; what went wrong in a skill is raised here, unless something else was."""
        self._door.stop()
        self._thread.join()
        if self.broken and error is None:
            raise self.broken[0]

    def answer(self, body: bytes) -> bytes:
        """The body of the reply to the body of a chat request.

        Raises:
            Refusal: it is not one that this server understands.
        """
        asked = read(body, [self.name])
        with self._lock:
            self.counts[asked.does] += 1
        number = f"chatcmpl-{digest(self.name, body).hex()}"
        said = texts(asked, lambda salt: self._line(asked, salt))
        return json.dumps(reply(asked, said, self.name, number), ensure_ascii=False).encode()

    def _line(self, asked: Asked, salt: str) -> str:
        if asked.does == "propose":
            return self.writer.propose(asked.shown, salt)
        if asked.does == "vary":
            return self.writer.vary(asked.instruction, salt)
        return self.mind.follow(asked.instruction, asked.text, salt)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until interrupted; prints the URL and the model's name."""
    parser = argparse.ArgumentParser(
        prog="python -m fedbbpt.testing.simulated_llm",
        description="A simulated chat model for trying things out: it follows and writes "
        "instructions by likeness to a few written skills, and says nothing about a real LLM.",
    )
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--seed", type=int, default=0, help="other seeds, other mistakes")
    parser.add_argument("--embedding", default="auto", help="minilm, ngrams or auto")
    parser.add_argument("--key-env", default="", help="environment variable with a bearer key")
    given = parser.parse_args(arguments)
    try:
        key = os.environ[given.key_env] if given.key_env else ""
        with SimulatedLlm(given.seed, given.embedding, key=key, port=given.port) as model:
            print(model.url, model.name, sep="\n", flush=True)
            threading.Event().wait()
    except KeyboardInterrupt:
        return 0
    except KeyError:
        print(f"the environment variable {given.key_env} is not set", file=sys.stderr)
    except FedbbptError as error:
        print(error, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
