"""The user's errors in one line with exit code 2; bugs keep their traceback.

Knows how Hydra and OmegaConf word what is wrong with an override. Imports nothing heavy.
"""

import dataclasses
import difflib
import functools
import os
import re
import signal
import sys
from collections.abc import Callable
from typing import Any

from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from sce.errors import InputError, StoppedBySignal
from sce.quiet import quiet_libraries


def run(main: Callable[[], Any]) -> None:
    """Run an entry point under `one_line_errors`: for what goes wrong before its body runs."""
    quiet_libraries()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing and exiting
    one_line_errors(main)()


def one_line_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    """The user's errors in one line with exit code 2; bugs keep their traceback and give 1.

    Stands under `hydra.main` too, since Hydra adds a line of its own to whatever leaves a job.
    """

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except BrokenPipeError:
            # The reader of our output (| head) has gone.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except KeyboardInterrupt:  # before or after training, which ends in good order
            sys.stderr.write("sce: stopped by Ctrl-C\n")
            sys.exit(128 + signal.SIGINT)
        except StoppedBySignal as stopped:
            if stopped.exit_code:
                sys.stderr.write(f"sce: {stopped}\n")
            sys.exit(stopped.exit_code)
        except Exception as error:
            message = user_message(error)
            if message is None or _debugging(sys.argv[1:]):
                raise
            sys.stderr.write(f"sce: {message}\n")
            sys.exit(2)

    return wrapped


def _debugging(overrides: list[str]) -> bool:
    """Whether `debug` is on, in any of the words that YAML has for it.

    By the command line, not the config: most errors that it is there for come before there is one.
    """
    yes = ("true", "yes", "on", "1")
    given = [o.partition("=")[2].lower() for o in overrides if o.startswith("debug=")]
    return bool(given) and given[-1] in yes


def user_message(error: BaseException) -> str | None:
    """One line for an error that is the user's; None for a bug."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, InputError):
            return " ".join(str(cause).split())
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return _one_line(error)
    if isinstance(error, ValueError) and str(error).startswith("Config group override must be"):
        return f"{error}; name an option of the group, as in data=mdqa"  # for data=3
    return None


def _one_line(error: HydraException | OmegaConfBaseException) -> str:
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        if re.search(r"Key '.*' (not in|is not in)|not in struct", str(cause)):
            return _unknown_key(cause)
        return f"{cause.full_key}: {str(cause).splitlines()[0]}"
    if isinstance(error, OverrideParseException):
        hint = """an override is key=value; a value with '=' in it has quotes: 'key=["a=b"]'"""
        return " ".join(f"cannot read {error.override}: {_reason(error)}; {hint}".split())
    option = re.search(
        r"Could not find '([^']+)/([^'/]*)'\s+Available options in '[^']+':\n((?:\t.*\n)+)",
        str(error),
    )
    if option:
        options = option[3].split()
        near = _nearest(option[2], options)
        hint = f"did you mean '{near}'? " if near else ""
        return f"{option[1]}={option[2]}: no such option; {hint}choose from: {', '.join(options)}"
    lines = [line.strip() for line in str(error).splitlines()]
    return "; ".join(
        li for li in lines if li and not li.startswith(("See https", "full_key", "Set the"))
    )


def _reason(error: OverrideParseException) -> str:
    lines = str(error).splitlines()  # the reason, or the override once more and the reason
    if lines[0].startswith("LexerNoViableAltException"):
        return "a character needs quotes, or a quote its other"
    return lines[1] if lines[0].startswith("Error parsing override") else lines[0]


def _unknown_key(cause: OmegaConfBaseException) -> str:
    kind, parent = cause.object_type, cause.parent_node
    if dataclasses.is_dataclass(kind):
        keys = [f.name for f in dataclasses.fields(kind)]
    else:
        keys = [str(key) for key in parent] if isinstance(parent, DictConfig) else []
    head, _, leaf = str(cause.full_key).rpartition(".")
    near = _nearest(leaf, keys)
    if near:
        return f"unknown key '{cause.full_key}'; did you mean '{f'{head}.' if head else ''}{near}'?"
    return f"unknown key '{cause.full_key}'; keys here: {', '.join(sorted(keys))}"


def _nearest(word: str, words: list[str]) -> str | None:
    return next(iter(difflib.get_close_matches(word, words, 1, 0.5)), None)
