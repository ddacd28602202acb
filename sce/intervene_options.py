"""The root configuration of python -m sce.intervene, typed. Knows neither Hydra nor torch."""

import math
from dataclasses import dataclass, field, fields
from typing import Any

from sce.commands import RunConfig
from sce.data_options import SPLITS
from sce.options import LoggerOptions, require, require_in, require_used

METHODS = ("knockout", "patch", "baselines")
ABLATIONS = ("zero", "mean", "uniform")
POSITIONS = ("all", "answer")
DIRECTIONS = ("forward", "reverse", "both")
_OF_HEADS = (
    *("ablation", "positions", "calibration", "source", "target", "source_scores"),
    *("target_scores", "direction", "num_controls", "closed_book"),
)
"""Options that are of the other methods alone."""
INTERVENE_OPTIONS = {"direction": ("patch",), "closed_book": ("knockout",)}
"""Options that one method alone has a use for; baselines refuses more, all at once."""
SETS = ("intersection", "complement", "random", "all")
KS = (1, 2, 5, 10, 20)
Names = list[str]


@dataclass
class HeadsOptions:
    """Which heads: of score files the best k or those above tau, or a list."""

    file: Any = None
    """HeadScores JSON, or a list of them, of several scorers for one picture."""
    k: list[int] | None = None
    """Sizes of the sets that are swept; None: 1, 2, 5, 10 and 20, unless tau says otherwise."""
    tau: float | None = None
    """The heads above it; in patching None takes scorer.tau."""
    list: Names = field(default_factory=list)
    """Heads by name, layer-head: ["16-19", "11-15"]."""

    def __post_init__(self) -> None:
        files = self.file if isinstance(self.file, list) else [self.file]
        named = all(name is None or isinstance(name, str) for name in files)
        require(named, f"heads.file must be a file or a list of files, got {self.file}")
        twice = [name for name in self.files if self.files.count(name) > 1]
        require(not twice, f"heads.file: {twice[:1]} is named twice")
        require(self.k is None or bool(self.k), "heads.k: the list is empty; name sizes of sets")
        wrong = [k for k in self.k or () if k < 1]
        require(not wrong, f"heads.k must hold whole numbers >= 1, got {wrong}")
        unique = self.k is None or len(set(self.k)) == len(self.k)
        require(unique, f"heads.k={self.k}: a size stands there twice")
        finite = self.tau is None or math.isfinite(self.tau)
        require(finite, f"heads.tau must be a number, got {self.tau}")
        ways = [self.k is not None, self.tau is not None, bool(self.list)]
        require(sum(ways) <= 1, "heads.k, heads.tau and heads.list exclude each other; give one")

    @property
    def files(self) -> Names:
        """The score files, none or some."""
        if self.file is None:
            return []
        return [self.file] if isinstance(self.file, str) else [str(f) for f in self.file]


@dataclass
class InterveneConfig(RunConfig):
    """python -m sce.intervene."""

    method: str = "knockout"
    """knockout: heads are taken out; patch: they put out what another model's do; baselines:
    documents are left out, and no head is touched."""
    heads: HeadsOptions = field(default_factory=HeadsOptions)
    ablation: str = "zero"
    """What an ablated head puts out: zero, its mean over the calibration split, or uniform: the
    mean of the values it can see."""
    positions: str = "answer"
    """Where heads are ablated: from the last prompt token on (answer), or everywhere (all)."""
    calibration: str = "reference"
    """Split whose examples give the means of ablation=mean."""
    adapter: str | None = None
    """Folder of the adapter whose heads are ablated, or that is asked; None: the untuned model."""
    source: str | None = None
    """Folder of the adapter whose outputs are patched in; None: the untuned model."""
    target: str | None = None
    """Folder of the adapter that is patched; None: the untuned model."""
    source_scores: str | None = None
    """HeadScores JSON of the source."""
    target_scores: str | None = None
    """HeadScores JSON of the target."""
    sets: list[str] = field(default_factory=lambda: list(SETS))
    """Sets to patch: intersection, complement (source's heads that the target lacks), random (as
    many heads as each of the other sets, layer by layer), all, or HeadScores files."""
    direction: str = "forward"
    """forward: source into target; reverse: target into source; or both."""
    split: str = "val"
    """Which split's examples are answered: train, val or reference."""
    num_controls: int = 3
    """Random draws of every kind beside each set; 0: none, and sets must not hold random."""
    closed_book: str | None = "sample"
    """Questions asked without documents while heads are ablated: the sample's, or a JSON Lines file
    with id, question and answers; None: none."""
    out: str = "intervention"
    """Folder to write, new or empty."""
    logger: LoggerOptions = field(default_factory=LoggerOptions)
    study: str | None = None
    """Name that groups runs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_in("method", self.method, METHODS)
        require_in("ablation", self.ablation, ABLATIONS)
        require_in("positions", self.positions, POSITIONS)
        require_in("direction", self.direction, DIRECTIONS)
        require_in("split", self.split, SPLITS)
        require_in("calibration", self.calibration, SPLITS)
        require(self.num_controls >= 0, f"num_controls must be >= 0, got {self.num_controls}")
        require("=" not in self.out, f"out={self.out}: name a folder without = in it")
        checks = {"knockout": self._check_knockout, "patch": self._check_patch}
        checks.get(self.method, self._check_baselines)()
        require_used(self, "method", INTERVENE_OPTIONS)
        require(
            self.calibration == "reference" or self.ablation == "mean",
            f"calibration={self.calibration}: only ablation=mean has means to take; drop it",
        )

    def _check_baselines(self) -> None:
        """Refuse what belongs to the other methods: heads, and who is patched."""
        own = {name: getattr(self, name) for name in _OF_HEADS}
        defaults = {f.name: f.default for f in fields(InterveneConfig) if f.name in own}
        given = [n for n in own if n in defaults and own[n] != defaults[n]]
        heads = self.heads
        if heads.files or heads.list or heads.k or heads.tau is not None or self.sets != list(SETS):
            given.append("heads" if self.sets == list(SETS) else "sets")
        require(
            not given,
            f"method=baselines touches no head; leave out {'=, '.join(given)}=",
        )

    def _check_knockout(self) -> None:
        heads = self.heads
        require(
            bool(heads.files) != bool(heads.list),
            "method=knockout needs heads.file=SCORES.json, or heads.list=[16-19,...], and not both",
        )
        require(
            self.source is None and self.target is None,
            "source= and target= belong to method=patch; the adapter ablated is adapter=FOLDER",
        )
        require(
            self.source_scores is None and self.target_scores is None and self.sets == list(SETS),
            "source_scores=, target_scores= and sets= belong to method=patch; heads to ablate are "
            "given by heads.file= or heads.list=",
        )
        require(
            self.ablation != "mean" or self.calibration != self.split,
            f"calibration={self.calibration} is the split that is answered; heads' means are taken "
            "over another one",
        )

    def _check_patch(self) -> None:
        require(
            self.source is not None or self.target is not None,
            "method=patch needs source=FOLDER and target=FOLDER, two adapters of one base (null: "
            "the untuned model)",
        )
        require(
            self.adapter is None, "adapter= belongs to method=knockout; use source= and target="
        )
        require(
            (self.positions, self.ablation) == ("answer", "zero"),
            "positions= and ablation= belong to method=knockout; patching replaces heads' outputs "
            "at the positions that emit the answer",
        )
        require(
            bool(self.sets), f"sets: the list is empty; choose from {', '.join(SETS)}, or files"
        )
        twice = [name for name in self.sets if self.sets.count(name) > 1]
        require(not twice, f"sets: {twice[:1]} stands there twice")
        for name in self.sets:
            file = name.endswith((".json", ".json.gz"))
            require(file or name in SETS, f"sets: {name}: choose from {', '.join(SETS)}, or files")
        compared = {"intersection", "complement"} & set(self.sets)
        require(
            not compared or (self.source_scores is not None and self.target_scores is not None),
            f"sets=[{','.join(sorted(compared))}] needs source_scores=A.json and "
            "target_scores=B.json",
        )
        require(
            set(self.sets) != {"random"} and set(self.sets) != {"random", "all"},
            "sets=[random] needs a set to be as large as: intersection, complement or a file",
        )
        without = ",".join(name for name in self.sets if name != "random")
        require(
            "random" not in self.sets or self.num_controls > 0,
            f"num_controls=0 draws no random heads, but sets= holds random; say sets=[{without}]",
        )
        given = self.heads.files or self.heads.list or self.heads.k
        require(
            not given, "heads.file, heads.k and heads.list belong to method=knockout; use sets="
        )
