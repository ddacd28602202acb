"""From data options to encoded splits: the grid's cells are made here, expression x haystack.

    source -> questions --+-> split by document -> haystack(real) --+
                          |                                         +-> compose -> encode -> Split
    expression -> needle -+-> haystack(high, low, symbolic) --------+

Example i of a split depends on (seed, i) alone.
"""

import hashlib
import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator

from sce.data.compose import Limits, compose
from sce.data.encode import Encoded, Encoder
from sce.data.example import Example
from sce.data.expressions import EXPRESSIONS
from sce.data.haystacks import HAYSTACKS, RealHaystack
from sce.data.sources import read_questions
from sce.data.splits import check_disjoint, gold_documents, split_by_document
from sce.errors import InputError
from sce.options import DataOptions

SPLITS = ("train", "val", "reference")
SAMPLE = Path(__file__).parent / "sample"
# How one source is shared out among the splits that name none of their own.
_SHARES = {"train": 0.6, "val": 0.2, "reference": 0.2}


@dataclass(frozen=True)
class Split:
    """The encoded examples of one split, and what they are."""

    name: str
    cell: tuple[str, str]
    examples: tuple[Example, ...]
    encoded: tuple[Encoded, ...]

    @property
    def sha256(self) -> str:
        """Identity of the composed examples, text and order."""
        digest = hashlib.sha256()
        for example in self.examples:
            digest.update(json.dumps(example.to_json(), sort_keys=True).encode())
        return digest.hexdigest()

    @property
    def max_prompt_tokens(self) -> int:
        """Length of the longest prompt."""
        return max(len(encoded.prompt_ids) for encoded in self.encoded)


def build_splits(
    options: DataOptions, encoder: Encoder, seed: int, names: Iterable[str] = SPLITS
) -> dict[str, Split]:
    """Build the named splits.

    Args:
        options: what they are made of.
        encoder: tokenizes and counts.
        seed: of the training split; the others use `options.eval_seed`.
        names: the splits to build; whichever they are, all three are checked to share nothing.

    Raises:
        InputError: see the parts; every message names the example, file or split.
    """
    questions = _questions(options)
    check_disjoint(questions)
    splits = {name: _build(name, options, questions[name], encoder, seed) for name in names}
    check_disjoint({name: split.examples for name, split in splits.items()})
    return splits


def _questions(options: DataOptions) -> dict[str, list[Example]]:
    """The real questions of every split: each from its own path, or dealt out of another's."""
    paths = {name: getattr(options, name).path for name in SPLITS}
    if not any(paths.values()):
        files = {name: SAMPLE / f"{name}.jsonl" for name in SPLITS}
        return {name: read_questions(str(file), "nq") for name, file in files.items()}
    owners = [name for name in SPLITS if paths[name]]
    read = {name: read_questions(str(paths[name]), options.format) for name in owners}
    if "train" not in owners:
        if options.cell("train") == ("real", "real"):
            raise InputError("data.concept=real needs questions to train on: name data.train.path")
        # Only counted: a synthetic split is as large as the sample's.
        read["train"] = read_questions(str(SAMPLE / "train.jsonl"), "nq")
    missing = [name for name in SPLITS if name not in read]
    if not missing:
        return read
    shares = {name: _SHARES[name] for name in (owners[0], *missing)}
    dealt = split_by_document(read[owners[0]], shares, options.eval_seed)
    empty = [name for name, examples in dealt.items() if not examples]
    if empty:
        raise InputError(
            f"{paths[owners[0]]}: too few questions on different documents to split; "
            f"nothing is left for data.{empty[0]}; name data.{empty[0]}.path"
        )
    return {**read, **dealt}


def _build(
    name: str, options: DataOptions, questions: Sequence[Example], encoder: Encoder, seed: int
) -> Split:
    split_seed = seed if name == "train" else options.eval_seed
    wanted = getattr(options, f"num_{name}")
    cell = options.cell(name)
    limits = Limits(options.num_documents, options.context_tokens)
    if cell == ("real", "real"):
        examples = _real(name, options, questions, encoder, split_seed)
    else:
        count = len(questions) if wanted is None else wanted
        examples = [
            _synthetic(name, cell, limits, encoder, split_seed, index) for index in range(count)
        ]
    encoded = tuple(encoder.encode(example) for example in examples)
    return Split(name, cell, tuple(examples), encoded)


def _rng(seed: int, index: int, purpose: str) -> Generator:
    return np.random.default_rng([seed, index, zlib.crc32(purpose.encode())])


def _real(
    name: str, options: DataOptions, questions: Sequence[Example], encoder: Encoder, seed: int
) -> list[Example]:
    wanted = getattr(options, f"num_{name}")
    if name == "train" and wanted is not None and wanted > len(questions):
        raise InputError(f"data.num_{name}={wanted}, but the split has {len(questions)} questions")
    order = _rng(seed, 0, f"{name} order").permutation(len(questions))[:wanted]
    golds = {d.text: d for question in questions for d in gold_documents(question)}
    haystack = RealHaystack(list(golds.values()), options.distractors)
    limits = Limits(options.num_documents, options.context_tokens)
    examples = []
    for index in order.tolist():
        rng = _rng(seed, index, name)
        extra = haystack.distractors(questions[index], rng)
        shuffle = rng if options.shuffle_documents else None
        examples.append(compose(questions[index], extra, limits, encoder, shuffle))
    return examples


def _synthetic(
    name: str,
    cell: tuple[str, str],
    limits: Limits,
    encoder: Encoder,
    seed: int,
    index: int,
) -> Example:
    concept, context = cell
    purpose = f"{concept} in {context}"
    rng = _rng(seed, index, purpose if name == "train" else f"{name}: {purpose}")
    needle = EXPRESSIONS[concept](rng)
    document, span = HAYSTACKS[context].host(needle, rng)
    example = Example(
        id=f"{name}-{concept}-{context}-{seed}-{index}",
        task="mdqa",
        documents=(document,),
        question=needle.question,
        answers=(needle.answer,),
        evidence=(span,),
        meta={"relation": needle.relation},
    )
    if not limits.any:
        raise InputError("a synthetic context needs data.num_documents or data.context_tokens")
    return compose(example, HAYSTACKS[context].distractors(rng), limits, encoder, rng)
