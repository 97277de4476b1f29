"""Any server that speaks OpenAI's API: chat, completions, or typed choices."""

from __future__ import annotations

from fedbbpt.boxes._openai import OpenaiApi


class OpenaiHttp(OpenaiApi):
    """A model behind an OpenAI-compatible server (OpenAI, vLLM, llama.cpp, Ollama, TGI, ...).

    Args:
        url: where the paths begin, such as ``http://127.0.0.1:8000/v1``; a query such as Azure's
            ``?api-version=...`` is kept.
        model: as the server names it.
        api: ``"chat"``; ``"completions"``, where the prompt is text to go on with; or
            ``"systemone"``, typed choices with a probability for each (transformers serve).
        scores: ``"logprobs"``, ``"labels"`` (read from the reply's words), or ``"auto"``:
            log-probabilities.
        key_env: environment variable that holds the key, if the server wants one.
        system: a system message for chat.
        top_logprobs: how many tokens the server shall list; 0 for the most that OpenAI gives, 20
            for chat and 5 for completions.
        reply_tokens: most tokens of a reply; 0 for 16 where it names a label and 128 where the
            prompt has no labels, as InstructZero has it. Scores by log-probabilities take one.
        extra: further keys of the request's body, as the server wants them.
        max_concurrency: requests on the way at once.
        requests_per_minute, tokens_per_minute: the account's limits; 0 for none.
        deadline: seconds for one request with all its tries.
        timeout: seconds for one try.
        prices: dollars for a million tokens, ``{input = ..., output = ...}``, or a TOML file with
            such a table for each model.

    Raises:
        ConfigError, MissingExtra: an option, the URL or the price table is at fault.
    """

    kind = "openai_http"
