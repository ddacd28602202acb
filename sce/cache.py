"""Where what was once built is kept: converted models, built data sets."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """$SCE_CACHE, else sce/ in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("SCE_CACHE") or f"{base}/sce").expanduser()
