"""Checks of every example that a plan makes: what a user would otherwise find out too late."""

from collections.abc import Callable
from dataclasses import dataclass, field

from sce.data.encode import Encoded, Encoder
from sce.data.example import Example
from sce.data.plan import Plan
from sce.data.text import holds_answer

_EDGES = " \n\t.,;:!?\"'()[]`-\u201c\u201d\u2018\u2019\u2013\u2014"
# Tokenizing whole prompts is slow, so only the first of every split are compared with joined ones.
_COMPARED = 50


@dataclass
class Findings:
    """What was checked and what is wrong."""

    num_examples: int = 0
    num_needles: int = 0
    wrong: list[str] = field(default_factory=list)
    """One line a fault, naming split and example."""


def check_plan(
    plan: Plan, encoder: Encoder, advance: Callable[[], None] = lambda: None
) -> Findings:
    """Make every example of every split, encode it and check it.

    Raises:
        InputError: an example cannot be made at all.
    """
    found = Findings()
    for name, recipe in plan.recipes.items():
        for index in range(len(recipe)):
            example = recipe.example(index)
            encoded = encoder.encode(example)
            found.num_examples += 1
            found.num_needles += len(example.evidence)
            faults = [*_faults(plan, encoder, example, encoded)]
            if index < _COMPARED:
                encoder.check_joined(example)
            found.wrong += [f"data.{name}, example {example.id}: {fault}" for fault in faults]
            advance()
    return found


def _faults(plan: Plan, encoder: Encoder, example: Example, encoded: Encoded) -> list[str]:
    faults = []
    for number, needle in enumerate(example.evidence_texts()):
        positions = encoded.evidence[encoded.needles == number]
        if not len(positions):  # it lies within another span
            continue
        ids = encoded.prompt_ids[positions[0] : positions[-1] + 1]
        decoded = str(encoder.tokenizer.decode(ids))
        # Tokenizers that change case or spacing cannot give the very text back.
        if _bare(decoded) != _bare(needle):
            faults.append(f"its evidence decodes to {decoded!r:.60}, not to {needle!r:.60}")
    limit = example.meta.get("length", plan.options.context_tokens)
    if limit is not None and len(encoded.prompt_ids) > int(limit):
        faults.append(f"{len(encoded.prompt_ids)} prompt tokens, over {limit}")
    holding = [
        document
        for document in example.documents
        if document.id not in example.gold_ids
        and not document.id.startswith("decoy-")  # these are about the same subject on purpose
        and holds_answer(f"{document.title} {document.text}", example.secrets)
    ]
    if len(holding) > example.meta.get("own_leaks", 0):
        faults.append(f"a document that was added holds its answer: {holding[0].text!r:.60}")
    return faults


def _bare(text: str) -> str:
    return "".join(text.strip(_EDGES).lower().split())
