"""From a batch to what the probe shall read of it, and from what it found to traces to score."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int, Num
from torch import Tensor, nn

from sce.data.batch import Batch
from sce.data.encode import Asked, Encoded
from sce.errors import InputError
from sce.heads import GREEDY, PREFILL, SCORERS, TEACHER_FORCED, Trace
from sce.heads.insight import cited_spans, label_spans, needles_of
from sce.model.build import head_shape
from sce.model.projections import HeadOutputs, head_outputs, require_ungated, unembedding
from sce.model.reads import LookedAt, Mass, Read, Write

Scores = Mapping[tuple[str, str], Float[Tensor, "layers heads"]]
_LOOKED_AT, _WRITTEN, _MASS = "looked_at", "written", "mass"
NULL = "null"
"""Names the pass of the null question, beside the modes."""


@dataclass(frozen=True)
class ScoreSettings:
    """Which scorers, in which modes."""

    scorers: tuple[str, ...] = ("copy",)
    """Empty: no head is read."""
    modes: tuple[str, ...] = (TEACHER_FORCED, GREEDY)
    canonical: Int[Tensor, " vocabulary"] | None = field(default=None, compare=False)
    """match=surface: token id -> number shared by tokens of equal text; None: match=exact."""
    detokenize: Callable[[Sequence[int]], str] | None = field(default=None, compare=False)
    """Text of some tokens, for scorers that read the answer."""
    on_trace: Callable[[Encoded, str, Trace], None] | None = field(default=None, compare=False)
    """Gets what the scorers of a mode got of an example."""

    def wanted(self, mode: str) -> list[str]:
        """The scorers of a mode."""
        return [name for name in self.scorers if mode in SCORERS[name].SPEC.modes]

    @property
    def reads_question(self) -> bool:
        """Whether attention from the question is wanted."""
        return PREFILL in self.modes and any(SCORERS[name].SPEC.question for name in self.scorers)


@dataclass(frozen=True)
class NullPass:
    """The null question of every example of a batch, after its own context."""

    contexts: list[int]
    """Tokens of each prompt that stand before."""
    input_ids: Int[Tensor, "batch null"]
    """Padded on the right."""
    position_ids: Int[Tensor, "batch null"]
    rows: Int[Tensor, "batch rows"]
    """Where the null question's own tokens stand in it."""


class Tracer:
    """Reads one batch, pass by pass, and scores it."""

    def __init__(self, model: nn.Module, batch: Batch, settings: ScoreSettings) -> None:
        self.batch, self.settings = batch, settings
        self.num_layers, self._num_heads = head_shape(model)
        self._model = model
        self._found: dict[tuple[str, str], Tensor] = {}

    # -- what to read -----------------------------------------------------------------------------

    def prefill(self, start: int) -> dict[str, Read]:
        """Reads of the pass over prompt and gold answer, from column `start` on."""
        reads: dict[str, Read] = {}
        rows = self._answer_rows - start
        modes = [mode for mode in self.settings.modes if mode != PREFILL]
        names = {name for mode in modes for name in self.settings.wanted(mode)}
        if any(not SCORERS[name].SPEC.writes for name in names):
            reads[_LOOKED_AT] = LookedAt(rows)
        if any(SCORERS[name].SPEC.writes for name in names):
            reads[_WRITTEN] = Write(rows, self._evidence, self._directions, self._outputs)
        if self.settings.reads_question:
            if start > self.first_row:
                raise ValueError("attention from the question needs its columns in the pass")
            reads[_MASS] = Mass(self._question_rows - start, self._gold(self._padding))
        return reads

    @property
    def first_row(self) -> int:
        """The first column whose attention is read in the pass over prompt and gold answer."""
        first = self.batch.num_prompt - 1
        return min(first, int(self._question_rows.min())) if self.settings.reads_question else first

    @property
    def step(self) -> dict[str, Read]:
        """Reads of a decoding step."""
        argmax = any(not SCORERS[name].SPEC.writes for name in self.settings.wanted(GREEDY))
        return {_LOOKED_AT: LookedAt(None)} if argmax and GREEDY in self.settings.modes else {}

    def null(self, first_row: int, last: int) -> dict[str, Read]:
        """Reads of the null pass: its ids begin at `first_row`, all contexts end before `last`."""
        null = self.null_pass
        moved = [last - count for count in null.contexts]
        return {_MASS: Mass(null.rows + first_row, self._gold(moved))}

    @cached_property
    def _answer_rows(self) -> Int[Tensor, "batch rows"]:
        """Columns of the steps that emit the answer (the last: an end of turn at most)."""
        first = self.batch.num_prompt - 1
        count = max(1, self.batch.labels.shape[1] - 1)
        rows = torch.arange(first, first + count, device=self._device)
        return rows.expand(len(self.batch.examples), count)

    @cached_property
    def _padding(self) -> list[int]:
        return self.batch.padding

    @property
    def _device(self) -> torch.device:
        return self.batch.input_ids.device

    @cached_property
    def _evidence(self) -> Bool[Tensor, "batch columns"]:
        columns = torch.zeros(len(self.batch.examples), self.batch.num_prompt, dtype=torch.bool)
        for row, (example, padding) in enumerate(
            zip(self.batch.examples, self._padding, strict=True)
        ):
            columns[row, torch.from_numpy(example.evidence).long() + padding] = True
        return columns.to(self._device)

    @cached_property
    def _directions(self) -> Float[Tensor, "batch rows hidden"]:
        """Unembedding of the token that each answer row emits."""
        count = self._answer_rows.shape[1]
        ids = torch.zeros(len(self.batch.examples), count, dtype=torch.long)
        for row, example in enumerate(self.batch.examples):
            ids[row, : len(example.target_ids)] = torch.from_numpy(example.target_ids).long()
        weight: Tensor = unembedding(self._model).weight  # type: ignore[assignment]
        return weight[ids.to(weight.device)].detach().float()

    @cached_property
    def _outputs(self) -> dict[int, HeadOutputs]:
        outputs = head_outputs(self._model, self._num_heads)
        require_ungated(outputs)
        return outputs

    def _asked(self, example: Encoded) -> Asked:
        if example.asked is None:
            raise InputError(
                f"example {example.id}: where its question stands is not known, so query_focused "
                "cannot score it; encode it with sce.data.encode.Encoder"
            )
        return example.asked

    @cached_property
    def _question_rows(self) -> Int[Tensor, "batch rows"]:
        spans = [self._asked(example).question.tolist() for example in self.batch.examples]
        pairs = zip(spans, self._padding, strict=True)
        return _rows([(a + shift, b + shift) for (a, b), shift in pairs], self._device)

    def _gold(self, shifts: Sequence[int]) -> Bool[Tensor, "batch columns"]:
        """Columns of the gold documents, where example i's position p stands in p + shifts[i]."""
        columns = torch.zeros(len(shifts), self.batch.num_prompt, dtype=torch.bool)
        for row, (example, shift) in enumerate(zip(self.batch.examples, shifts, strict=True)):
            for first, last in self._asked(example).gold.tolist():
                columns[row, first + shift : last + shift] = True
        return columns.to(self._device)

    @cached_property
    def null_pass(self) -> NullPass:
        """The null questions side by side."""
        asked = [self._asked(example) for example in self.batch.examples]
        contexts = [a.null_start for a in asked]
        longest = max(len(a.null_ids) for a in asked)
        ids = torch.zeros(len(asked), longest, dtype=torch.long)
        for row, a in enumerate(asked):
            ids[row, : len(a.null_ids)] = torch.from_numpy(a.null_ids).long()
        positions = torch.tensor(contexts)[:, None] + torch.arange(longest)
        spans = [(len(a.null_ids) - a.num_null, len(a.null_ids)) for a in asked]
        return NullPass(
            contexts,
            ids.to(self._device),
            positions.to(self._device),
            _rows(spans, self._device),
        )

    # -- what was found ---------------------------------------------------------------------------

    def keep(self, phase: str, found: Mapping[str, Num[Tensor, "batch layers heads rows"]]) -> None:
        """Take what a pass found; a step's columns are put after those of the steps before."""
        for name, tensor in found.items():
            if tensor.shape[2] != self._num_heads:
                raise InputError(
                    f"layers of this model show {tensor.shape[2]} heads and its config says "
                    f"{self._num_heads}: its heads cannot be told apart"
                )
            before = self._found.get((phase, name))
            tensor = tensor.cpu()
            tensor = tensor if before is None else torch.cat([before, tensor], dim=-1)
            self._found[phase, name] = tensor

    def keep_prefill(self, found: Mapping[str, Num[Tensor, "batch layers heads rows"]]) -> None:
        """Take what the pass over prompt and gold answer found.

        The row that emits the first gold token is the step that emits the first greedy one too.
        """
        self.keep(PREFILL, {name: t for name, t in found.items() if name == _MASS})
        self.keep(TEACHER_FORCED, {name: t for name, t in found.items() if name != _MASS})
        if _LOOKED_AT in found and self.step:
            self.keep(GREEDY, {_LOOKED_AT: found[_LOOKED_AT][..., :1]})

    def scores(self, row: int, emitted: Sequence[int]) -> Scores:
        """Every wanted score of example `row`, which greedily emitted these tokens."""
        example = self.batch.examples[row]
        answers = {
            TEACHER_FORCED: example.target_ids.tolist(),
            GREEDY: list(emitted),
            PREFILL: [],
        }
        scored = {}
        for mode in self.settings.modes:
            names = self.settings.wanted(mode)
            if names:
                trace = self._trace(row, mode, answers[mode])
                if self.settings.on_trace is not None:
                    self.settings.on_trace(example, mode, trace)
                scored |= {(name, mode): SCORERS[name].score(trace) for name in names}
        return scored

    def _trace(self, row: int, mode: str, tokens: list[int]) -> Trace:
        """One example's steps, shifted from the padded batch to the example's own positions."""
        example, table = self.batch.examples[row], self.settings.canonical
        prompt = torch.from_numpy(example.prompt_ids).long()
        emitted = torch.tensor(tokens, dtype=torch.long)
        read = self.settings.detokenize
        pieces = () if read is None else tuple(read([token]) for token in tokens)
        looked_at, written = (self._of(row, mode, name) for name in (_LOOKED_AT, _WRITTEN))
        if looked_at is None:
            looked_at = torch.full((self.num_layers, self._num_heads, len(tokens)), -1)
        return Trace(
            looked_at=looked_at[..., : len(tokens)].long() - self._padding[row],
            emitted=emitted if table is None else table[emitted],
            prompt=prompt if table is None else table[prompt],
            evidence=torch.from_numpy(example.evidence).long(),
            needles=needles_of(example),
            cited=self._cited(example, mode, pieces),
            pieces=pieces,
            text=None if read is None else lambda count: read(tokens[:count]),
            answers=example.answers,
            written=None if written is None else written[..., : len(tokens)].float(),
            mass=self._mean_mass(row, PREFILL),
            null_mass=self._mean_mass(row, NULL),
        )

    def _of(self, row: int, phase: str, name: str) -> Num[Tensor, "layers heads rows"] | None:
        found = self._found.get((phase, name))
        return None if found is None else found[row]

    def _cited(
        self, example: Encoded, mode: str, pieces: tuple[str, ...]
    ) -> Int[Tensor, " steps"] | None:
        """What each emitted token cites; the labels to cite are known from the gold answer."""
        if mode == TEACHER_FORCED:
            return torch.from_numpy(example.cited).long()
        read = self.settings.detokenize
        if mode != GREEDY or read is None:
            return None
        spans = label_spans(example, read)
        return torch.tensor(cited_spans(pieces, spans), dtype=torch.long)

    def _mean_mass(self, row: int, phase: str) -> Float[Tensor, "layers heads"] | None:
        """Mean over the question's own rows; those that only fill up come after."""
        mass = self._of(row, phase, _MASS)
        if mass is None:
            return None
        asked = self._asked(self.batch.examples[row])
        first, last = asked.question.tolist()
        count = last - first if phase == PREFILL else asked.num_null
        return mass[..., :count].mean(dim=-1)


def _rows(spans: Sequence[tuple[int, int]], device: torch.device) -> Int[Tensor, "batch rows"]:
    """Positions first..last of every example, its last repeated where another has more."""
    longest = max(last - first for first, last in spans)
    rows = [[min(first + n, last - 1) for n in range(longest)] for first, last in spans]
    return torch.tensor(rows, dtype=torch.long, device=device)
