"""The model: how it is built, how it attends, and how its attention is read."""
