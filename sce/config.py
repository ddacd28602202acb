"""The door to Hydra: schemas registered, composed configs typed.

Only this file, sce.one_line and the entry points know Hydra. Imports neither torch nor Lightning,
so that `--help` and a typo answer at once.
"""

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sce.commands import DatasetConfig, HeadsetConfig, ScoreConfig, TrainConfig
from sce.errors import InputError
from sce.intervene_options import InterveneConfig
from sce.one_line import user_message
from sce.study_options import StudyConfig
from sce.write_options import WriteConfig

CONF = Path(__file__).resolve().parents[1] / "conf"

Schema = TypeVar("Schema")


def register() -> None:
    """Make the schemas and the resolver `sce_conf` (a path inside conf/) known to Hydra."""
    store = ConfigStore.instance()
    for name, node in {
        "train_schema": TrainConfig,
        "score_schema": ScoreConfig,
        "headset_schema": HeadsetConfig,
        "intervene_schema": InterveneConfig,
        "dataset_schema": DatasetConfig,
        "write_schema": WriteConfig,
        "study_schema": StudyConfig,
    }.items():
        store.store(name=name, node=node)
    OmegaConf.register_new_resolver("sce_conf", lambda path: str(CONF / path), replace=True)


def typed(config: DictConfig, schema: type[Schema]) -> Schema:
    """The typed object of a composed config, ~ in paths taken for the user's folder.

    Raises:
        InputError: an unknown key (by `+key=` too), a wrong type, a value out of range.
    """
    plain = _at_home(OmegaConf.to_container(config, resolve=True))
    merged = OmegaConf.merge(OmegaConf.structured(schema), plain)
    return OmegaConf.to_object(merged)  # type: ignore[return-value]


def _at_home(value: Any) -> Any:
    """The same, ~ and ~NAME at a text's beginning expanded: shells leave them alone after a =."""
    if isinstance(value, dict):
        return {key: _at_home(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_at_home(item) for item in value]
    return os.path.expanduser(value) if isinstance(value, str) else value  # noqa: PTH111 - a/ stays


def composed(name: str, overrides: Sequence[str], schema: type[Schema]) -> Schema:
    """What a command would get from its overrides, inside another command or outside of any.

    Args:
        name: of the root config: train, intervene.
        overrides: as they would be typed.
        schema: of that config.

    Raises:
        InputError: an override is wrong.
    """
    register()
    outer = GlobalHydra.instance()
    running, outer.hydra = outer.hydra, None
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return typed(compose(name, overrides=list(overrides)), schema)
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(user_message(error)) from error
    finally:
        GlobalHydra.instance().hydra = running


def check_callbacks_package() -> None:
    """Refuse a package `callbacks` that is not ours: a folder so named in the working directory.

    Raises:
        InputError: names both.
    """
    spec = importlib.util.find_spec("callbacks")
    expected = CONF.parent / "callbacks"
    found = Path(spec.origin).parent if spec and spec.origin else None
    if found is None or found.resolve() != expected.resolve():
        raise InputError(
            f"the package `callbacks` is found at {found}, not at {expected}; run from another "
            "folder, or use the command sce-train"
        )
