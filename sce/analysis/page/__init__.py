"""The report: one HTML file that shows findings to anyone who opens it."""

from sce.analysis.page.html import write
from sce.analysis.page.looks import looks_of

__all__ = ["looks_of", "write"]
