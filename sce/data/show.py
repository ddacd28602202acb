"""One example as people read it: documents numbered, evidence marked, the answer named."""

from rich.console import Group, RenderableType
from rich.text import Text

from sce.data.encode import Encoded
from sce.data.example import Document, Example
from sce.data.prompt import is_labelled

_MARK = "bold black on yellow"
_SHORT = 160


def rendered(example: Example, encoded: Encoded, *, whole: bool) -> RenderableType:
    """The example for a rich console.

    Args:
        example: with its documents in prompt order.
        encoded: the same in token ids.
        whole: show documents without evidence in full, and not their beginning alone.
    """
    lines = [
        Text.assemble(("id        ", "dim"), example.id),
        Text.assemble(
            ("size      ", "dim"),
            f"{len(encoded.prompt_ids):,} prompt tokens, {len(example.documents)} documents, "
            f"{len(encoded.evidence)} evidence tokens, the first at depth {encoded.depth:.2f}",
        ),
        Text.assemble(("question  ", "dim"), (example.question, "bold")),
        Text.assemble(("target    ", "dim"), (example.target, "bold green")),
    ]
    if example.task != "summhay" and len(example.answers) > 1:
        lines.append(Text.assemble(("aliases   ", "dim"), "; ".join(example.answers)))
    for key, value in example.meta.items():
        lines.append(Text.assemble((f"{key:<10}", "dim"), str(value)))
    lines.append(Text())
    for number, document in enumerate(example.documents, start=1):
        lines += _document(example, document, number, whole=whole)
    return Group(*lines)


def _document(example: Example, document: Document, number: int, *, whole: bool) -> list[Text]:
    spans = [(n, s) for n, s in enumerate(example.evidence, 1) if s.document == document.id]
    text = document.text
    if not spans and not whole and len(text) > _SHORT:
        text = f"{text[:_SHORT].rstrip()} ... ({len(document.text):,} characters)"
    body = Text(text, style="" if spans else "dim")
    for _, span in spans:
        body.stylize(_MARK, span.start, span.end)
    if not is_labelled(example.task):
        return [body]
    head = Text(f"Document [{number}]", style="bold cyan")
    if document.title:
        head.append(f" {document.title}", style="cyan")
    for place, _ in spans:
        head.append(f"  evidence {place}", style="bold yellow")
    return [head, body, Text()]
