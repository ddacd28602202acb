"""From runs on disk to findings, tables and figures; no torch, no transformers, no Hydra."""
