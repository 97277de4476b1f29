"""What a gateway is sent, as its OpenAPI page shows it."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

Id = Annotated[int, Field(ge=0)]


class PromptIn(BaseModel):
    """A prompt; ``soft`` names float32 matrices (T, H) among the request's arrays. Without labels
    an answer in words is asked for.
    """

    template: str
    labels: list[str]
    side: Literal["label", "text", "image"]
    mode: Literal["add", "insert"] = "add"
    place: Literal["before", "after"] = "before"
    tokens: list[list[Id]] = []
    soft: list[str] = []


class ArrayIn(BaseModel):
    """An example that is an array: its name among the request's arrays."""

    array: str


class PictureIn(BaseModel):
    """An example that is an image: the name of its (H, W, 3) uint8 pixels among the arrays."""

    picture: str


class EvaluateIn(BaseModel):
    """Atoms to evaluate.

    ``atoms`` are (prompt, label, example): places in ``prompts``, in that prompt's labels and in
    ``examples``; -1 for none. ``arrays`` is a safetensors file in base64.
    """

    box: str
    prompts: list[PromptIn]
    examples: list[str | ArrayIn | PictureIn]
    atoms: list[tuple[int, int, int]]
    wanted: list[Id]
    arrays: str = ""


class PrepareIn(BaseModel):
    """A prompt to look at before anything is paid."""

    prompt: PromptIn
    arrays: str = ""


class LabelsIn(BaseModel):
    """Labels of one prompt."""

    labels: tuple[str, ...]


class TextIn(BaseModel):
    """A text to tokenise."""

    text: str


class LayoutIn(BaseModel):
    """A template with a NUL as its gap, and what fills it."""

    template: str
    fill: str


class IdsIn(BaseModel):
    """Ids of the vocabulary."""

    ids: list[Id]
