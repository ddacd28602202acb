"""One pass over a batch: likelihood of the gold answers, greedy answers, where every head looked.

    prefill [padding | prompt | gold answer]   -> NLL, teacher-forced rows, first greedy token
    cache cropped to the prompt
    one token at a time                        -> greedy answer and its rows, for nothing extra

Batched, for one model on one device, without Lightning. The gold answer rides on the prefill, and
the step that emits the first greedy token is the row that predicts the first gold one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import DynamicCache

from sce.data.batch import IGNORE, Batch
from sce.data.encode import Encoded
from sce.heads import SCORERS, Trace
from sce.model.build import head_shape
from sce.model.capture import Probe, attention_modules, probing

TEACHER_FORCED, GREEDY = "teacher_forced", "greedy"


@dataclass(frozen=True)
class DecodeSettings:
    """What one pass yields.

    `scorers` empty: no head is read. `max_new_tokens` 0: no greedy answer.
    """

    max_new_tokens: int = 16
    end_ids: frozenset[int] = frozenset()
    """Tokens that end an answer, besides each example's own end of turn."""
    scorers: tuple[str, ...] = ("copy",)
    modes: tuple[str, ...] = (TEACHER_FORCED, GREEDY)
    fixed_steps: bool = False
    """Always take max_new_tokens steps, so that all ranks make the same number of passes."""
    canonical: Int[Tensor, " vocabulary"] | None = field(default=None, compare=False)
    """match=surface: token id -> number shared by tokens of equal text; None: match=exact."""


@dataclass(frozen=True)
class Outcome:
    """What came out for one example."""

    example: Encoded
    weight: int
    nll: float
    """Summed negative log-likelihood of the gold answer's tokens and the end of turn, in nats."""
    num_labels: int
    answer_ids: tuple[int, ...]
    """The greedy answer before the end of the turn."""
    scores: Mapping[tuple[str, str], Float[Tensor, "layers heads"]]
    """(scorer, mode) -> score of every head."""


@dataclass
class _Looks:
    """Positions looked at in the padded batch, and the tokens emitted at those steps."""

    positions: Int[Tensor, "batch layers heads steps"]
    tokens: list[list[int]]


@torch.no_grad()
def decode(model: nn.Module, batch: Batch, settings: DecodeSettings) -> list[Outcome]:
    """Run a batch.

    Args:
        model: built by sce.model.build, in eval mode, on the batch's device.
        batch: left-padded, with the gold answers.
        settings: what to do.

    Returns:
        One outcome an example, on the CPU, in the batch's order; examples of weight 0 included.
    """
    reading = bool(settings.scorers)
    layers, _ = head_shape(model)
    modules = attention_modules(model) if reading else []
    with probing(modules) as probe:
        cache = DynamicCache()
        if reading:
            probe.rows = _answer_rows(batch)
        logits = _prefill(model, batch, cache)
        first_looks = probe.take(layers) if reading else None
        probe.rows = None
        nll = _nll(logits, batch.labels)
        answers: list[list[int]] = [[] for _ in batch.examples]
        greedy_looks = None
        if settings.max_new_tokens > 0:
            cache.crop(-(batch.labels.shape[1] - 1))
            looks = _Steps(probe, layers, first_looks[..., :1] if first_looks is not None else None)
            answers = _generate(model, batch, cache, logits[:, 0].argmax(dim=-1), settings, looks)
            greedy_looks = looks.stacked()
    traces = {}
    if first_looks is not None and TEACHER_FORCED in settings.modes:
        gold = [example.target_ids.tolist() for example in batch.examples]
        traces[TEACHER_FORCED] = _Looks(first_looks.cpu(), gold)
    if greedy_looks is not None and GREEDY in settings.modes:
        traces[GREEDY] = _Looks(greedy_looks.cpu(), answers)
    return _outcomes(batch, nll, answers, traces, settings)


def _answer_rows(batch: Batch) -> Int[Tensor, "batch rows"]:
    """Query indices of the steps that emit the answer (the last column: an end of turn at most)."""
    first = batch.num_prompt - 1
    count = max(1, batch.labels.shape[1] - 1)
    rows = torch.arange(first, first + count, device=batch.input_ids.device)
    return rows.expand(len(batch.examples), count)


def _prefill(
    model: nn.Module, batch: Batch, cache: DynamicCache
) -> Float[Tensor, "batch answer vocabulary"]:
    return model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=batch.labels.shape[1],
    ).logits


def _nll(
    logits: Float[Tensor, "batch answer vocabulary"], labels: Int[Tensor, "batch answer"]
) -> Float[Tensor, " batch"]:
    losses = nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORE, reduction="none"
    )
    return losses.view(labels.shape).sum(dim=1)


class _Steps:
    """The probe's findings over the steps of a greedy answer, or nothing if no head is read."""

    def __init__(
        self, probe: Probe, num_layers: int, first: Int[Tensor, "batch layers heads 1"] | None
    ) -> None:
        self._probe, self._num_layers = probe, num_layers
        self._steps = None if first is None else [first]

    def add(self) -> None:
        if self._steps is not None:
            self._steps.append(self._probe.take(self._num_layers))

    def stacked(self) -> Int[Tensor, "batch layers heads steps"] | None:
        return None if self._steps is None else torch.cat(self._steps, dim=-1)


def _generate(
    model: nn.Module,
    batch: Batch,
    cache: DynamicCache,
    token: Int[Tensor, " batch"],
    settings: DecodeSettings,
    looks: _Steps,
) -> list[list[int]]:
    """Greedy decoding; answers are cut before their first end token."""
    ends = [settings.end_ids | {example.end_id} for example in batch.examples]
    emitted = [token]
    size, prompt = len(batch.examples), batch.num_prompt
    mask = None
    if batch.attention_mask is not None:
        ones = batch.attention_mask.new_ones((size, settings.max_new_tokens))
        mask = torch.cat([batch.attention_mask[:, :prompt], ones], dim=1)
    position = batch.position_ids[:, prompt - 1 : prompt]
    done = [token_id in end for token_id, end in zip(token.tolist(), ends, strict=True)]
    for step in range(1, settings.max_new_tokens):
        if all(done) and not settings.fixed_steps:
            break
        position = position + 1
        logits = model(
            input_ids=token[:, None],
            attention_mask=None if mask is None else mask[:, : prompt + step],
            position_ids=position,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        looks.add()
        token = logits[:, -1].argmax(dim=-1)
        emitted.append(token)
        for row, token_id in enumerate(token.tolist()):
            done[row] = done[row] or token_id in ends[row]
    rows = torch.stack(emitted, dim=1).tolist()
    return [_before_end(row, end) for row, end in zip(rows, ends, strict=True)]


def _before_end(row: list[int], ends: frozenset[int] | set[int]) -> list[int]:
    for index, token in enumerate(row):
        if token in ends:
            return row[:index]
    return row


def _outcomes(
    batch: Batch,
    nll: Float[Tensor, " batch"],
    answers: list[list[int]],
    traces: Mapping[str, _Looks],
    settings: DecodeSettings,
) -> list[Outcome]:
    outcomes = []
    for row, example in enumerate(batch.examples):
        scores = {}
        for mode, looks in traces.items():
            trace = _trace(example, looks, row, batch.padding[row], settings.canonical)
            for name in settings.scorers:
                if mode in SCORERS[name].MODES:
                    scores[name, mode] = SCORERS[name].score(trace)
        outcomes.append(
            Outcome(
                example=example,
                weight=batch.weights[row],
                nll=float(nll[row]),
                num_labels=len(example.target_ids) + 1,
                answer_ids=tuple(answers[row]),
                scores=scores,
            )
        )
    return outcomes


def _trace(
    example: Encoded, looks: _Looks, row: int, padding: int, canonical: Tensor | None
) -> Trace:
    """One example's steps, shifted from the padded batch to the example's own positions."""
    tokens = looks.tokens[row]
    prompt = torch.from_numpy(example.prompt_ids).long()
    emitted = torch.tensor(tokens, dtype=torch.long)
    if canonical is not None:
        prompt, emitted = canonical[prompt], canonical[emitted]
    return Trace(
        looked_at=looks.positions[row, ..., : len(tokens)] - padding,
        emitted=emitted,
        prompt=prompt,
        evidence=torch.from_numpy(example.evidence).long(),
    )
