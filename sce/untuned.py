"""The untuned model's validation, kept in a file: every run of a study begins with the same one.

An adapter changes nothing before its first step, so all runs of one model, on the same examples,
have one step 0; reading it saves a decoding of the whole validation split.
"""

import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sce.errors import InputError
from sce.options import rope_in_use
from sce.outputs import require_writable, whole
from sce.records import RunFacts
from sce.validation import Answer, Place

SCHEMA = "sce.untuned/1"
Scored = tuple[Place, dict[tuple[str, str], torch.Tensor]]
"""Where an example's evidence stands, and (scorer, mode) -> scores [layers, heads]."""


@dataclass(frozen=True)
class Untuned:
    """The file of a run, and what its content must have been made from."""

    file: Path
    """.npz, there or not."""
    identity: dict[str, Any]

    @classmethod
    def of(cls, file: Path, facts: RunFacts, **settings: Any) -> "Untuned":
        """That of a run.

        Args:
            file: .npz, there or not.
            facts: of the run.
            settings: what else answers and scores depend on, in plain types.

        Raises:
            InputError: the file is there, and is of something else or was not written by a run; or
                it could not be written.
        """
        data = ("weights_sha256", "eval_sha256", "reference_sha256", "prompt_sha256")
        plain = {name: getattr(facts, name) for name in (*data, "match", "dtype", "attention")}
        own = {**plain, "versions": dict(facts.versions), **rope_in_use(facts.rope), **settings}
        untuned = cls(file, json.loads(json.dumps(own)))
        if untuned.is_known:
            untuned._content()  # now, not when the weights are there
        else:
            require_writable(f"untuned={file}", file.parent)
        return untuned

    @property
    def is_known(self) -> bool:
        """Whether there is something to read."""
        return self.file.is_file()

    def write(self, answers: Sequence[Answer], scored: Sequence[Scored]) -> None:
        """Write the file whole or not at all.

        Args:
            answers: of the validation split, in the order of the example ids.
            scored: of the reference split, likewise.
        """
        keys = list(scored[0][1]) if scored else []
        content = {
            "schema": SCHEMA,
            "identity": self.identity,
            "answers": [asdict(answer) for answer in answers],
            "places": [asdict(place) for place, _ in scored],
            "keys": keys,
        }
        arrays = {
            f"scores-{n}": np.stack([scores[key].cpu().numpy() for _, scores in scored])
            for n, key in enumerate(keys)
        }
        text = np.array(json.dumps(content))
        with whole(self.file) as part, part.open("wb") as stream:
            np.savez_compressed(stream, allow_pickle=False, content=text, **arrays)

    def read(self) -> tuple[list[Answer], list[Scored]]:
        """Answers and scores as `write` was given them.

        Raises:
            InputError: it is no such file, or of something else: another run may have written it
                since this one began.
        """
        content, arrays = self._content()
        answers = [
            Answer(**{**row, "place": Place(**row["place"]), "answers": tuple(row["answers"])})
            for row in content["answers"]
        ]
        keys = [(scorer, mode) for scorer, mode in content["keys"]]
        scored = [
            (Place(**row), {key: torch.from_numpy(arrays[n][at]) for n, key in enumerate(keys)})
            for at, row in enumerate(content["places"])
        ]
        return answers, scored

    def _content(self) -> tuple[dict[str, Any], list[np.ndarray]]:
        try:
            with self.file.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                content = json.loads(str(stored["content"]))
                arrays = [stored[f"scores-{n}"] for n in range(len(content["keys"]))]
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise InputError(f"untuned={self.file}: no file that a run wrote ({error})") from None
        if content.get("schema") != SCHEMA:
            raise InputError(f"untuned={self.file}: schema {content.get('schema')!r}, not {SCHEMA}")
        theirs = content["identity"]
        differs = [name for name, own in self.identity.items() if theirs.get(name) != own]
        if differs:
            raise InputError(
                f"untuned={self.file}: written for another {', '.join(differs)}; name another "
                "file, or delete it"
            )
        return content, arrays
