"""The toy box for pictures: it reads a word for how bright one is and answers as for that text."""

from toybox import Vocabulary
from toybox import answer as answer_texts


def word(picture):
    mean = picture.pixels.mean()
    return f"{4 * 'good ' if mean > 127 else 4 * 'bad '} w{int(mean)}"


def answer(prompts, examples):
    return answer_texts(prompts, [word(picture) for picture in examples])


answer.vocabulary = Vocabulary()
