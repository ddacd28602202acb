"""One pass over a batch: likelihood of the gold answers, greedy answers, what every head did.

    prefill [padding | prompt | gold answer], in chunks where it is long
                                               -> NLL, teacher-forced rows, first greedy token
    cache cropped to the prompt
    one token at a time                        -> greedy answer and its rows, for nothing extra
    cache cropped to the context, null question -> what `query_focused` is held against

Batched, for one model on one device, without Lightning. The gold answer rides on the prefill, and
the step that emits the first greedy token is the row that predicts the first gold one.
"""

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from sce.data.batch import IGNORE, Batch
from sce.data.encode import Encoded
from sce.errors import InputError
from sce.heads import GREEDY
from sce.model.build import base_of
from sce.model.capture import Probe, probing
from sce.model.projections import attention_modules
from sce.model.rope import turns_with_length
from sce.tracing import NULL, Scores, ScoreSettings, Tracer


@dataclass(frozen=True)
class DecodeSettings(ScoreSettings):
    """What one pass yields; `max_new_tokens` 0: no greedy answer."""

    max_new_tokens: int = 16
    end_ids: frozenset[int] = frozenset()
    """Tokens that end an answer, besides each example's own end of turn."""
    fixed_steps: bool = False
    """Always take max_new_tokens steps, so that a measurement's work does not hang on answers."""
    prefill_chunk: int = 8192
    """Columns that are prefilled at a time, so that activations do not grow with the context."""


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
    scores: Scores
    """(scorer, mode) -> score of every head."""


@torch.no_grad()
def decode(
    model: Any, batch: Batch, settings: DecodeSettings, prefix: DynamicCache | None = None
) -> list[Outcome]:
    """Run a batch.

    Args:
        model: built by sce.model.build, in eval mode, on the batch's device; where no head is read,
            anything that can be called like it.
        batch: left-padded, with the gold answers.
        settings: what to do.
        prefix: the batch's own `prefix_cache`, which is not computed again and is left as it was.

    Returns:
        One outcome an example, on the CPU, in the batch's order; examples of weight 0 included.
    """
    tracer = Tracer(model, batch, settings) if settings.scorers else None
    with probing(attention_modules(model)) if tracer else nullcontext(Probe()) as probe:
        run = _Run(model, batch, settings, tracer, probe)
        logits, cache = run.prefill(prefix)
        nll = _nll(logits, batch.labels)
        answers: list[list[int]] = [[] for _ in batch.examples]
        if settings.max_new_tokens > 0:
            answers = run.generate(cache, logits[:, 0].argmax(dim=-1))
        if tracer is not None and settings.reads_question:
            run.null_question(cache)
    if prefix is not None:
        _crop(prefix, batch.num_prompt - 1)
    return [
        Outcome(
            example=example,
            weight=batch.weights[row],
            nll=float(nll[row]),
            num_labels=len(example.target_ids) + 1,
            answer_ids=tuple(answers[row]),
            scores={} if tracer is None else tracer.scores(row, answers[row]),
        )
        for row, example in enumerate(batch.examples)
    ]


@torch.no_grad()
def prefix_cache(model: Any, batch: Batch) -> DynamicCache:
    """Keys and values of every prompt column but the last.

    What does not change while only the answer's steps are meddled with: computed once, it serves
    any number of `decode` calls. Not for models that keep a state (`keeps_state`).
    """
    cache = DynamicCache()
    run = _Run(model, batch, DecodeSettings(scorers=()), None, Probe())
    start = run.begin(cache)
    run.forward(start, batch.num_prompt - 1, cache)
    return cache


def keeps_state(model: Any) -> bool:
    """Whether some layer has a running state instead of keys, which cannot be cropped (hybrids)."""
    if not isinstance(model, nn.Module):
        return False
    layers = DynamicCache(config=base_of(model).config).layers
    # By exact type: a layer with a state beside its keys is a kind of DynamicLayer too.
    return any(type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)


def _crop(cache: DynamicCache, columns: int) -> None:
    cache.crop(min(0, columns - cache.get_seq_length()))


@dataclass
class _Run:
    """The passes of one batch."""

    model: Any
    batch: Batch
    settings: DecodeSettings
    tracer: Tracer | None
    probe: Probe
    keeps_state: bool = field(init=False)

    def __post_init__(self) -> None:
        self.keeps_state = keeps_state(self.model)

    def prefill(
        self, prefix: DynamicCache | None
    ) -> tuple[Float[Tensor, "batch answer vocabulary"], DynamicCache]:
        """Prompt and gold answer; logits of the answer's columns, and the prompt's cache."""
        batch, tracer = self.batch, self.tracer
        cache = DynamicCache() if prefix is None else prefix
        start = self.begin(cache)
        if tracer is not None:
            self.probe.reads = tracer.prefill(start)
        logits = self.forward(start, None, None if self.keeps_state else cache)
        if tracer is not None:
            tracer.keep_prefill(self.probe.take(tracer.num_layers))
            self.probe.reads = {}
        if self.keeps_state:
            cache = DynamicCache(config=base_of(self.model).config)
            if self.settings.max_new_tokens > 0:
                self._refill(cache)
        else:
            _crop(cache, batch.num_prompt)
        return logits, cache

    def begin(self, cache: DynamicCache) -> int:
        """Prefill chunk by chunk up to the columns that are read; how many the cache now has."""
        start, chunk = cache.get_seq_length(), self.settings.prefill_chunk
        read = self.batch.num_prompt - 1 if self.tracer is None else self.tracer.first_row
        turns = isinstance(self.model, nn.Module) and turns_with_length(base_of(self.model).config)
        whole = self.keeps_state or turns
        while not whole and read - start > chunk:
            self.forward(start, start + chunk, cache)
            start += chunk
        return start

    def _refill(self, cache: DynamicCache) -> None:
        """The prompt by itself, for a model whose state cannot be cropped to it."""
        try:
            self.forward(0, self.batch.num_prompt, cache)
        except ValueError as error:  # MiniMax wants a class of its own
            line = " ".join(str(error).split())[:160]
            raise InputError(
                f"{type(base_of(self.model)).__name__} cannot decode with transformers' cache "
                f"({line}); score it with mode=teacher_forced"
            ) from None

    def forward(
        self, first: int, last: int | None, cache: DynamicCache | None
    ) -> Float[Tensor, "batch answer vocabulary"]:
        """The batch's columns first..last, the end where None."""
        batch, mask = self.batch, self.batch.attention_mask
        return self.model(
            input_ids=batch.input_ids[:, first:last],
            attention_mask=None if mask is None else mask[:, :last],
            position_ids=batch.position_ids[:, first:last],
            past_key_values=cache,
            use_cache=cache is not None,
            logits_to_keep=batch.labels.shape[1] if last is None else 1,
        ).logits

    def generate(self, cache: DynamicCache, token: Int[Tensor, " batch"]) -> list[list[int]]:
        """Greedy decoding; answers are cut before their first end token."""
        batch, settings = self.batch, self.settings
        ends = [settings.end_ids | {example.end_id} for example in batch.examples]
        emitted, prompt = [token], batch.num_prompt
        mask = None
        if batch.attention_mask is not None:
            ones = batch.attention_mask.new_ones((len(ends), settings.max_new_tokens))
            mask = torch.cat([batch.attention_mask[:, :prompt], ones], dim=1)
        position = batch.position_ids[:, prompt - 1 : prompt]
        done = [token_id in end for token_id, end in zip(token.tolist(), ends, strict=True)]
        if self.tracer is not None:
            self.probe.reads = self.tracer.step
        for step in range(1, settings.max_new_tokens):
            if all(done) and not settings.fixed_steps:
                break
            position = position + 1
            logits = self.model(
                input_ids=token[:, None],
                attention_mask=None if mask is None else mask[:, : prompt + step],
                position_ids=position,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits
            if self.tracer is not None:
                self.tracer.keep(GREEDY, self.probe.take(self.tracer.num_layers))
            token = logits[:, -1].argmax(dim=-1)
            emitted.append(token)
            for row, token_id in enumerate(token.tolist()):
                done[row] = done[row] or token_id in ends[row]
        rows = torch.stack(emitted, dim=1).tolist()
        return [_before_end(row, end) for row, end in zip(rows, ends, strict=True)]

    def null_question(self, cache: DynamicCache) -> None:
        """A null question after each example's context, whose keys and values are at hand.

        Contexts are moved to the right until all end in one column, so that what follows is as far
        from them as it would be in a prompt of its own. A model that keeps a state runs them anew.
        """
        assert self.tracer is not None
        null, batch = self.tracer.null_pass, self.batch
        before = [0] * len(null.contexts) if self.keeps_state else batch.padding
        ends = [p + n for p, n in zip(before, null.contexts, strict=True)]
        last = max(ends)
        ids, first_row = null.input_ids, 0
        columns = torch.arange(last + ids.shape[1], device=ids.device)
        starts = last - torch.tensor(null.contexts, device=ids.device)[:, None]
        mask, positions = (columns >= starts).long(), (columns - starts).clamp(min=0)
        if self.keeps_state:
            contexts = torch.zeros(len(ends), last, dtype=torch.long, device=ids.device)
            for row, (example, n) in enumerate(zip(batch.examples, null.contexts, strict=True)):
                contexts[row, last - n :] = torch.from_numpy(example.prompt_ids[:n]).long()
            ids, first_row = torch.cat([contexts, ids], dim=1), last
        else:
            _crop(cache, last)
            _move_right(cache, [last - end for end in ends])
        self.probe.reads = self.tracer.null(first_row, last)
        self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions[:, -ids.shape[1] :],
            past_key_values=None if self.keeps_state else cache,
            use_cache=not self.keeps_state,
            logits_to_keep=1,
        )
        self.tracer.keep(NULL, self.probe.take(self.tracer.num_layers))


def _move_right(cache: DynamicCache, shifts: list[int]) -> None:
    """Move each example's keys and values; what leaves on the right comes in as padding."""
    for layer in cache.layers:
        if isinstance(layer, DynamicLayer) and layer.is_initialized:
            for name in ("keys", "values"):
                rows = zip(getattr(layer, name), shifts, strict=True)
                setattr(layer, name, torch.stack([row.roll(n, dims=-2) for row, n in rows]))


def _nll(
    logits: Float[Tensor, "batch answer vocabulary"], labels: Int[Tensor, "batch answer"]
) -> Float[Tensor, " batch"]:
    losses = nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORE, reduction="none"
    )
    return losses.view(labels.shape).sum(dim=1)


def _before_end(row: list[int], ends: frozenset[int] | set[int]) -> list[int]:
    for index, token in enumerate(row):
        if token in ends:
            return row[:index]
    return row
