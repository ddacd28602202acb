"""A plan's examples in memory, for tests that want to look at them."""

import hashlib
import json
from collections.abc import Iterable
from functools import cached_property

from sce.data.encode import Encoded, Encoder
from sce.data.example import Example
from sce.data.plan import plan_splits
from sce.data.recipe import Recipe
from sce.data_options import SPLITS, DataOptions


class Made:
    def __init__(self, recipe: Recipe, encoder: Encoder) -> None:
        self.recipe, self.encoder, self.cell = recipe, encoder, recipe.cell

    @cached_property
    def examples(self) -> list[Example]:
        return self.recipe.examples()

    @cached_property
    def encoded(self) -> list[Encoded]:
        return [self.encoder.encode(example) for example in self.examples]

    @property
    def sha256(self) -> str:
        text = json.dumps([example.to_json() for example in self.examples], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def make_splits(
    options: DataOptions, encoder: Encoder, seed: int = 0, names: Iterable[str] = SPLITS
) -> dict[str, Made]:
    plan = plan_splits(options, encoder, seed, names)
    return {name: Made(recipe, encoder) for name, recipe in plan.recipes.items()}
