"""Synthetic context extension: train on synthetic long contexts, watch retrieval heads form."""

__version__ = "0.1.0"
