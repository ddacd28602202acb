"""The folder of a study: study.json, which says what is run, and whose it is.

study.json                    options and jobs; what the analysis reads
runs/<task>-<setting>-seed<n> ordinary run folders
reference/<task>.json         the mean of the real-data runs
untuned/<task>.npz            step 0, which all runs share
baselines/ knockout/ patch/   folders of sce.intervene
jobs/                         how each job ended, and its log
report/                       what sce.analysis makes
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sce.errors import InputError
from sce.records import write_json
from sce.score_files import parse_json, read_text
from sce.studies.plan import Job

SCHEMA = "sce.study/1"
FILE = "study.json"


def require_own(folder: Path, options: Mapping[str, Any], jobs: Sequence[Job]) -> bool:
    """Whether a folder holds this very study; False: there is none in it yet.

    Args:
        folder: of the study, there or not.
        options: of the study, in plain types.
        jobs: all of its jobs.

    Raises:
        InputError: the folder was made by another configuration, holds something else, or has a
            name that Hydra would not take as one.
    """
    odd = sorted(set(str(folder)) & set(",=[]{}()'\"#~;"))
    if odd:
        raise InputError(f"dir={folder}: {' '.join(odd)} in a path is read as more; name another")
    if (folder / FILE).is_file():
        theirs, own = _content(folder), _made(options, jobs)
        # What a run takes is an estimate; it changes no run.
        before, now = ({**c["options"], "estimate": None} for c in (theirs, own))
        if lines := differences(before, now):
            more = f" and {len(lines) - 4} more" if len(lines) > 4 else ""
            raise InputError(
                f"{folder} holds a study of another configuration: {'; '.join(lines[:4])}{more}; "
                "give it as it was, or name another folder by dir="
            )
        if theirs["jobs"] != own["jobs"]:
            raise InputError(
                f"{folder} holds a study whose jobs another version of sce planned; go on with "
                "that version, or name another folder by dir="
            )
        return True
    if folder.exists() and (not folder.is_dir() or _precious(folder)):
        raise InputError(f"dir={folder} is not empty and holds no study; name another folder")
    return False


def begin(folder: Path, options: Mapping[str, Any], jobs: Sequence[Job]) -> None:
    """Write study.json, unless the one that is there says the same.

    Raises:
        InputError: as `require_own`, or nothing can be written there.
    """
    if require_own(folder, options, jobs):
        return
    try:
        (folder / "jobs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"dir={folder}: {error.strerror}; name another folder") from None
    write_json(folder / FILE, {**_made(options, jobs), "started_in": str(Path.cwd())})


def _made(options: Mapping[str, Any], jobs: Sequence[Job]) -> dict[str, Any]:
    head = {"schema": SCHEMA, "name": options["name"], "options": options}
    return json.loads(json.dumps({**head, "jobs": [job.to_json() for job in jobs]}))


def _precious(folder: Path) -> bool:
    """Whether there is more than what a study leaves that was killed as it began."""
    return any(
        not (each.suffix == ".tmp" or (each.name == "jobs" and not any(each.iterdir())))
        for each in folder.iterdir()
    )


def started_in(folder: Path) -> Path | None:
    """The working directory that a study's relative paths are meant from; None: this one."""
    if not (folder / FILE).is_file():
        return None
    known = _content(folder).get("started_in")
    return Path(known) if known and Path(known).is_dir() else None


def read_jobs(folder: Path) -> list[Job]:
    """The jobs of a study that was begun.

    Raises:
        InputError: there is none.
    """
    return [Job.from_json(row) for row in _content(folder)["jobs"]]


def _content(folder: Path) -> dict[str, Any]:
    try:
        content = parse_json(read_text(folder / FILE))
    except InputError as error:
        raise InputError(f"{folder / FILE}: {error}, or give another folder by dir=") from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise InputError(f"{folder / FILE}: not a study of schema {SCHEMA}")
    return content


def differences(theirs: Any, own: Any, name: str = "study") -> list[str]:
    """What differs between two plain structures, a line each."""
    if isinstance(theirs, dict) and isinstance(own, dict):
        keys = list(dict.fromkeys([*theirs, *own]))
        return [
            line for k in keys for line in differences(theirs.get(k), own.get(k), f"{name}.{k}")
        ]
    return [] if theirs == own else [f"{name} is {_short(theirs)} there and {_short(own)} here"]


def _short(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
