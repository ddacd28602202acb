"""One Altair chart a figure, made from findings alone."""
