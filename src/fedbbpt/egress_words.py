"""The words of an egress statement: what phases are for, what fields say, what never leaves."""

from __future__ import annotations

FOR = {
    "setup": "what a step of the search will cost here",
    "vocabulary": "words and n-grams that at least {quorum} sites hold, to build prompts from",
    "propose": "instructions that a model wrote from examples shown to it here",
    "count": "what the model answers to the examples here, class by class",
    "sharpen": "how well the other sites' counts fit the examples here",
    "learn": "a gradient of what stands behind the model",
    "search": "how the candidates of a round do on the examples here",
    "look": "whether the newest prompt is surely better than the first, or not, to stop early",
    "select": "how the prompts kept on the way do on held-back examples, to choose one",
    "evaluate": "how the same prompts do on test examples, for the report",
    "advertise": "public keys for a sum that shows no single site's part",
    "share": "shares of secrets for that sum, sealed for each of the other sites",
    "answer": "shares of the masks that are left in that sum",
}
"""What a phase is for; of a baseline's own phases its name has to say it."""
ALL = "_all"
"""Behind the name of a phase that also reads examples held back."""

MEANING = {
    ("setup", "step"): "queries that a step costs",
    ("setup", "once"): "queries that the first step costs besides",
    ("setup", "common"): "queries of a step that depend on no example",
    ("vocabulary", "hashes"): "keyed hashes of the n-grams held here",
    ("vocabulary", "counts"): "how often each is seen here",
    ("vocabulary", "words"): "number of words",
    ("vocabulary", "ngrams"): "text of those that enough sites hold: at the most all of them",
    ("propose", "texts"): "instructions that tell of no example; a leak check looks for that",
    ("propose", "rows"): "what was asked when each was written",
    ("propose", "refused"): "how many did not leave, by reason",
    ("count", "counts"): "probabilities of the model's classes, summed for each label",
    ("sharpen", "by_sharpness"): "mean losses over {train}",
    ("learn", "features"): "means over {train}",
    ("learn", "square"): "mean over {train}",
    ("learn", "errors"): "mean error of each label over {train}",
    ("learn", "product"): "means over {train}, for each label",
    ("search", "losses"): "mean loss of each candidate, over {batch}",
    ("search", "centred"): "mean loss of each candidate less that of its step, over {batch}",
    ("search", "loss"): "mean loss of the best point found here, over {batch}",
    ("look", "better"): "of {holdout}, how many are answered better, and how many worse",
    ("look", "short"): "what bets come to that right answers are no surer, over {holdout}",
    ("select", "losses"): "mean loss of each prompt, over {holdout}",
    ("select", "squares"): "mean square of how it differs from the last one's",
    ("select", "answers"): "how many are answered with each label",
    ("select", "labels"): "how many are of each label",
    ("evaluate", "losses"): "mean loss of each prompt, over {test}",
    ("evaluate", "scores"): "what the metric of the task makes of its answers",
    ("evaluate", "squares"): "mean square of how that differs from the first prompt's",
    ("evaluate", "spread"): "how sure that difference is",
    ("evaluate", "gained"): "share that this prompt alone has right, against the first",
    ("evaluate", "lost"): "share that the first prompt alone has right",
    ("evaluate", "joint"): "shares by label, first answer and this answer",
    ("advertise", "share_key"): "public key, new in every round",
    ("advertise", "mask_key"): "public key, new in every round",
    (
        "share",
        "sealed",
    ): "for each site that takes part, taken to be {rows}, a row that it alone opens",
    ("share", "commitment"): "digest of a secret",
    ("answer", "shares"): "for each site that takes part, taken to be {rows}, a row",
}
WORDS = "all of it in one sum: to the server random numbers"
STATE = "of the search's state, after its steps on the examples here"

BESIDES = (
    "the name of this site, and of the run, the phase and the round",
    "the number of examples behind it, as its weight in means",
    "how many queries were charged, shared, paid and left without an answer",
    "the seconds that it took",
)
JOINING = (
    "its name, the number of its examples for training, selection and test, the name of its model, "
    "whether examples are images; the version of fedbbpt; if it cannot do what is asked, the kind "
    "of the error"
)
NEVER = (
    "the text or image of an example",
    "the label of an example, or the model's answer to it, but in the means and counts above",
    "keys and passwords, prices, caps and bills, the ledger of paid replies",
    "the names of files and folders, and the log of what went wrong",
)
