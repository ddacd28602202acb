"""Wu et al.'s detection of retrieval heads, written anew, without a line of sce.

From their paper (arXiv 2404.15574) and what is known of their code: the prompt but for its last
token is read, then one token is decoded at a time, at most 50. At each step every head's attention
from the last position is looked at: where it is largest, inside the needle, on the token that is
just emitted, the head gets 1 / needle tokens. The steps after the first line do not count, and an
answer counts only if its ROUGE-1 recall of the needle's answering words is above 50.

Beside that score (`wu2024_code`) it gives the share of emitted tokens copied (`copy`) and of needle
tokens copied (`copy_needle`), over all steps up to the end of the turn.

    python wu2024_loop.py MODEL_FOLDER AUDIT.jsonl NEEDLES.jsonl OUT.json
"""

import json
import sys
from pathlib import Path

import torch
from rouge_score.rouge_scorer import RougeScorer
from transformers import AutoModelForCausalLM, AutoTokenizer

STEPS = 50
ROUGE = RougeScorer(["rouge1"], use_stemmer=True)


def read_lines(file: str) -> list[dict]:
    return [json.loads(line) for line in Path(file).read_text(encoding="utf-8").splitlines()]


def find_needle(tokenizer, prompt: list[int], needle: str) -> list[int]:
    """Positions of the prompt's tokens that hold a letter or digit of the needle's text.

    By the prompt's own text and the offsets of its tokens, whatever the audit says of them.
    """
    text = tokenizer.decode(prompt, clean_up_tokenization_spaces=False)
    again = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    assert again["input_ids"] == prompt
    assert text.count(needle) == 1
    first = text.index(needle)
    last = first + len(needle)
    return [
        position
        for position, (start, end) in enumerate(again["offset_mapping"])
        if any(c.isalnum() for c in text[max(start, first) : min(end, last)])
    ]


@torch.no_grad()
def decode(model, prompt: list[int]):
    """The emitted tokens, and for each the position that every head attends to most."""
    end = model.generation_config.eos_token_id
    cache = model(torch.tensor([prompt[:-1]]), use_cache=True, logits_to_keep=1).past_key_values
    token, emitted, looks = prompt[-1], [], []
    for _ in range(STEPS):
        out = model(
            torch.tensor([[token]]), past_key_values=cache, use_cache=True, output_attentions=True
        )
        cache, token = out.past_key_values, int(out.logits[0, -1].argmax())
        if token == end:
            break
        emitted.append(token)
        looks.append([layer[0, :, -1].argmax(dim=-1).tolist() for layer in out.attentions])
    return emitted, looks


def copied_positions(looks, layer: int, head: int, prompt, needle, emitted) -> list[int | None]:
    """Step by step the needle's position that a head copies from; None where it copies nothing."""
    found = []
    for step, token in enumerate(emitted):
        position = looks[step][layer][head]
        hit = position in needle and prompt[position] == token
        found.append(position if hit else None)
    return found


def score(model, tokenizer, row: dict, needles: list[dict]) -> dict:
    """The three scores of every head on one example; no `wu2024_code` where it is not kept."""
    prompt = row["prompt_ids"]
    text = tokenizer.decode(prompt)
    (asked,) = [n for n in needles if n["question"].strip() in text]
    needle = set(find_needle(tokenizer, prompt, asked["needle"].strip()))
    emitted, looks = decode(model, prompt)
    line = len(emitted)
    for step, token in enumerate(emitted):
        if "\n" in tokenizer.decode([token]):
            line = step + 1
            break
    response = tokenizer.decode(emitted[:line], skip_special_tokens=True).strip()
    recall = ROUGE.score(asked["real_needle"], response)["rouge1"].recall * 100
    shape = (model.config.num_hidden_layers, model.config.num_attention_heads)
    scores = {n: [[0.0] * shape[1] for _ in range(shape[0])] for n in ("code", "copy", "needle")}
    for layer in range(shape[0]):
        for head in range(shape[1]):
            found = copied_positions(looks, layer, head, prompt, needle, emitted)
            hits = [p for p in found if p is not None]
            for step in range(line):
                scores["code"][layer][head] += (found[step] is not None) / len(needle)
            scores["copy"][layer][head] = len(hits) / len(emitted) if emitted else 0.0
            scores["needle"][layer][head] = len(set(hits)) / len(needle)
    return {
        "id": row["id"],
        "needle_positions": sorted(needle),
        "answer_ids": emitted,
        "response": response,
        "recall": recall,
        "wu2024_code": scores["code"] if recall > 50 else None,
        "ungated": scores["code"],
        "copy": scores["copy"],
        "copy_needle": scores["needle"],
    }


def main(folder: str, audit: str, needles: str, out: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32
    ).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    sets = read_lines(needles)
    scored = [score(model, tokenizer, row, sets) for row in read_lines(audit)]
    Path(out).write_text(json.dumps(scored), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
