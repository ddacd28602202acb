"""One example as people read it: documents numbered, evidence marked, the answer named."""

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sce.data.encode import Encoded
from sce.data.example import Document, Example
from sce.data.prompt import is_labelled

_MARK = "bold black on #ffe27a"
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


def snippet(example: Example, around: int = 60) -> Text:
    """Question and answer, and the first needle with some text around it."""
    span = example.evidence[0]
    document = next(d for d in example.documents if d.id == span.document)
    start = max(0, span.start - around)
    end = min(len(document.text), span.end + around)
    body = Text("... " if start else "")
    body.append(document.text[start : span.start], style="dim")
    body.append(example.evidence_texts()[0], style=_MARK)
    body.append(document.text[span.end : end], style="dim")
    body.append(" ..." if end < len(document.text) else "", style="dim")
    more = len(example.evidence) - 1
    return Text.assemble(
        (f"{example.question}\n", "bold"),
        (f"{example.target}\n", "green"),
        body,
        (f"\n+ {more} more needle{'s' * (more > 1)}" if more else "", "yellow"),
    )


def grid(cells: Mapping[tuple[str, str], Example], title: str) -> Table:
    """One example a cell, concept by context."""
    contexts = list(dict.fromkeys(context for _, context in cells))
    table = Table(title=title, show_lines=True)
    table.add_column("concept \\ context")
    for context in contexts:
        table.add_column(context, ratio=1)
    for concept in dict.fromkeys(concept for concept, _ in cells):
        row = [cells.get((concept, context)) for context in contexts]
        texts = [snippet(example) if example else Text("-", style="dim") for example in row]
        table.add_row(Text(concept, style="bold"), *texts)
    return table
