"""Where characters of a prompt's pieces stand among its tokens, through the offset mapping."""

import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sce.data.join import Joiner
from sce.data.prompt import Piece

Offsets = list[tuple[int, int]]


@dataclass(frozen=True)
class Located(ABC):
    """A prompt's token ids, and which of them cover which characters of a piece."""

    pieces: Sequence[Piece]
    ids: np.ndarray
    """int32 [prompt]."""

    @cached_property
    def documents(self) -> dict[str, int]:
        """Which piece holds a document's text."""
        return {p.document: n for n, p in enumerate(self.pieces) if p.document is not None}

    @abstractmethod
    def offsets(self, index: int) -> tuple[Offsets, int]:
        """(start, end) characters, within piece `index`, of some tokens, and the first's position.

        Tokens of other pieces may be among them; they lie before 0 or past the piece's end.
        """

    @abstractmethod
    def last(self) -> tuple[Piece, np.ndarray]:
        """What the target is appended to, and its own ids."""

    def span(self, index: int, start: int, end: int) -> tuple[int, int]:
        """First position of the tokens that overlap characters of a piece, and one past the last.

        A token of white space before the characters is no part, one that begins with it is.
        """
        offsets, shift = self.offsets(index)
        bounds = np.asarray(offsets, dtype=np.int64).reshape(-1, 2)
        inside = np.flatnonzero((bounds[:, 0] < end) & (start < bounds[:, 1]))
        if len(inside) == 0:
            return shift, shift
        return shift + int(inside[0]), shift + int(inside[-1]) + 1


@dataclass(frozen=True)
class Joined(Located):
    """Put together from the ids of its pieces; only the pieces asked for are looked into."""

    joiner: Joiner

    @cached_property
    def _starts(self) -> np.ndarray:
        lengths = [len(self.joiner.ids(piece)) for piece in self.pieces]  # type: ignore[arg-type]
        return np.cumsum([0, *lengths])

    @cached_property
    def _offsets(self) -> dict[int, Offsets]:
        return {}

    def offsets(self, index: int) -> tuple[Offsets, int]:
        """Of the piece's own tokens."""
        if index not in self._offsets:
            self._offsets[index] = self.joiner.offsets(self.pieces[index])
        return self._offsets[index], int(self._starts[index])

    def last(self) -> tuple[Piece, np.ndarray]:
        """The last piece alone."""
        return self.pieces[-1], self.ids[self._starts[-2] :]


@dataclass(frozen=True)
class Whole(Located):
    """Tokenized as a whole, for tokenizers that merge across pieces."""

    whole: Offsets
    """(start, end) characters of every token in the whole prompt."""

    def offsets(self, index: int) -> tuple[Offsets, int]:
        """Of all tokens, as seen from the piece's first character."""
        begin = sum(len(piece.text) for piece in self.pieces[:index])
        end = begin + len(self.pieces[index].text)
        bounds = np.asarray(self.whole, dtype=np.int64).reshape(-1, 2)
        inside = np.flatnonzero((bounds[:, 0] < end) & (begin < bounds[:, 1]))
        first, last = (int(inside[0]), int(inside[-1]) + 1) if len(inside) else (0, 0)
        return [(a - begin, b - begin) for a, b in self.whole[first:last]], first

    def last(self) -> tuple[Piece, np.ndarray]:
        """The whole prompt."""
        return Piece("".join(piece.text for piece in self.pieces), "", ""), self.ids


def evidence_positions(
    text: str, offsets: list[tuple[int, int]], spans: list[tuple[int, int]]
) -> list[int]:
    """Tokens that overlap a span by more than white space or punctuation, ascending.

    Args:
        text: what was tokenized.
        offsets: (start, end) characters of every token, as the tokenizer gives them.
        spans: (start, end) characters of the evidence.
    """
    bounds = np.asarray(offsets, dtype=np.int64).reshape(-1, 2)
    positions = set()
    for start, end in spans:
        for position in np.flatnonzero((bounds[:, 0] < end) & (start < bounds[:, 1])).tolist():
            overlap = text[max(start, bounds[position, 0]) : min(end, bounds[position, 1])]
            if any(_is_content(character) for character in overlap):
                positions.add(position)
    return sorted(positions)


def _is_content(character: str) -> bool:
    """Neither white space nor punctuation (Unicode categories Z, C and P)."""
    return not character.isspace() and unicodedata.category(character)[0] not in "ZPC"
