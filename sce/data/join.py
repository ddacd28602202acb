"""Token ids of a long text, put together from the cached ids of its pieces.

Tokenizing 32,768 tokens takes longer than everything else that makes an example, and the same
documents come back in many contexts. Ids are joined only where encode(a + b) = encode(a) +
encode(b), which is checked at every boundary on the characters around it; where one boundary does
not hold, the caller tokenizes the whole text.

The characters around it decide where the tokenizer's own words end at the boundary. A tokenizer of
the SentencePiece kind may have it inside a word as long as the text, and what is far off may count:
there, ids are joined only if no token of the vocabulary can lie across the boundary.
"""

import re
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from tokenizers import models
from transformers import BatchEncoding, PreTrainedTokenizerBase

from sce.data.prompt import Piece

# Characters on either side of a boundary that decide whether ids may be joined there.
_WINDOW = 24
# Pieces kept; the ids of 200,000 documents of 150 tokens take 120 MB.
_MAX_PIECES = 200_000
# Pieces whose offsets are kept too: those of the example at hand are asked for next.
_MAX_RECENT = 256
# What tokens are merged from: characters, and the bytes that stand for an unknown one.
_SYMBOL = re.compile(r"<0x[0-9A-F]{2}>|.", re.DOTALL)


class Joiner:
    """Joins pieces for one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self._ids: dict[tuple[str, str], np.ndarray | None] = {}
        self._joins: dict[tuple[str, str], bool] = {}
        self._recent: dict[tuple[str, str], tuple[list[int], list[tuple[int, int]]] | None] = {}

    def ids(self, piece: Piece) -> np.ndarray | None:
        """int32 ids of a piece where it stands, or None if it merges with what is before it."""
        key = (piece.before, piece.text)
        try:
            return self._ids[key]
        except KeyError:
            pass
        if len(self._ids) >= _MAX_PIECES:
            self._ids.clear()
        found = self.inside(piece.before, piece.text, piece.after)
        self._ids[key] = None if found is None else np.asarray(found[0], dtype=np.int32)
        if len(self._recent) >= _MAX_RECENT:
            self._recent.clear()
        self._recent[key] = found
        return self._ids[key]

    def offsets(self, piece: Piece) -> list[tuple[int, int]]:
        """Character offsets of the ids of a piece that does not merge with what is before it."""
        found = self._recent.get((piece.before, piece.text))
        found = found or self.inside(piece.before, piece.text, piece.after)
        assert found is not None
        return found[1]

    def inside(
        self, before: str, text: str, after: str
    ) -> tuple[list[int], list[tuple[int, int]]] | None:
        """Ids and offsets of `text` between `before` and `after`; None if it merges with them."""
        encoded = self.tokenizer(
            before + text + after, add_special_tokens=False, return_offsets_mapping=True
        )
        cut, stop = len(before), len(before) + len(text)
        ids, offsets = [], []
        for token, (start, end) in zip(
            encoded["input_ids"], encoded["offset_mapping"], strict=True
        ):
            if start < cut < end or start < stop < end:
                return None
            if start >= cut and end <= stop and (end > cut or cut == 0):
                ids.append(token)
                offsets.append((start - cut, end - cut))
        return ids, offsets

    def join(self, pieces: Sequence[Piece]) -> np.ndarray | None:
        """int32 ids of all pieces, or None if some boundary does not hold."""
        parts = [self.ids(piece) for piece in pieces]
        if any(part is None for part in parts):
            return None
        if not all(self._boundary(left, right) for left, right in pairwise(pieces)):
            return None
        return np.concatenate(parts)  # type: ignore[arg-type]

    def _boundary(self, left: Piece, right: Piece) -> bool:
        # A label counts as "[1]" whatever its number, else every document meets every number.
        tail = "Document [1]" if left.number else left.text[-_WINDOW:]
        head = "Document [1]" if right.number else right.text[:_WINDOW]
        key = (tail, head)
        if key not in self._joins:
            if len(self._joins) >= 2 * _MAX_PIECES:
                self._joins.clear()
            # Where a run of white space is cut depends on whether more of it follows.
            as_thought = head[:1].isspace() == left.after.isspace() and tail.endswith(right.before)
            self._joins[key] = as_thought and self._holds(tail, head, left.after, right.before)
        return self._joins[key]

    def _holds(self, tail: str, head: str, after: str, before: str) -> bool:
        left, right = self.inside("", tail, after), self.inside(before, head, "")
        if not left or not right or not left[0] or not right[0]:
            return False
        both = self.tokenizer(tail + head, add_special_tokens=False)
        if both["input_ids"] != left[0] + right[0]:
            return False
        words, cut = both.word_ids(), len(left[0])
        if words[cut - 1] != words[cut]:  # the model gets the two sides one after the other
            return True
        if not {(tail[-1], head[0]), _seam(both, cut)}.isdisjoint(self._neighbours):
            return False
        model: Any = self.tokenizer.backend_tokenizer.model  # type: ignore[attr-defined]
        if isinstance(model, models.Unigram):
            # What comes before rounds the sums of scores, which may decide between two orders of
            # the same tokens; where no character comes twice in the word there is but one.
            num_tokens = words[cut:].count(words[cut])
            rest = head[: right[1][num_tokens - 1][1]]
            return words[-1] != words[cut] and len(set(rest)) == len(rest)
        return isinstance(model, models.BPE) and not (
            model.continuing_subword_prefix or model.end_of_word_suffix
        )

    @cached_property
    def _neighbours(self) -> set[tuple[str, str]]:
        """Every two symbols that stand side by side in a token of the vocabulary."""
        tokens = self.tokenizer.get_vocab()
        return {pair for token in tokens for pair in pairwise(_SYMBOL.findall(token))}


def _seam(encoded: BatchEncoding, cut: int) -> tuple[str, str]:
    """The symbols on either side of the boundary before token number `cut`."""
    left, right = encoded.tokens()[cut - 1 : cut + 1]
    return _SYMBOL.findall(left)[-1], _SYMBOL.findall(right)[0]
