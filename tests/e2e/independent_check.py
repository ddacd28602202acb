"""Works head scores out again from an audit file, without a line of sce.

Decodes step by step with eager attention and scores as Wu et al. (2024) describe: a head copies if
the position it attends to most lies in the evidence and holds the token that is being emitted.

    python independent_check.py MODEL_FOLDER AUDIT.jsonl teacher_forced|greedy MAX_NEW_TOKENS
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM


def check(folder: str, audit: str, mode: str, max_new_tokens: int) -> tuple[int, int]:
    """Compare every head of every example; returns (values compared, values that differ)."""
    model = AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32
    ).eval()
    ends = {model.generation_config.eos_token_id}
    compared = different = 0
    with Path(audit).open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            hits, answer = decode(model, row, mode, max_new_tokens, ends)
            if answer != row["answer_ids"]:
                raise SystemExit(f"{row['id']}: emitted {answer}, not {row['answer_ids']}")
            for layer, expected in enumerate(row["scores"]):
                for head, value in enumerate(expected):
                    compared += 1
                    different += abs(hits[layer][head] / max(1, len(answer)) - value) > 1e-5
    return compared, different


@torch.no_grad()
def decode(model, row, mode, max_new_tokens, ends):
    """Copies of every head, and the answer that was emitted."""
    evidence = set(row["evidence_positions"])
    layers, heads = model.config.num_hidden_layers, model.config.num_attention_heads
    hits = [[0] * heads for _ in range(layers)]
    ids, answer, cache = list(row["prompt_ids"]), [], None
    steps = len(row["answer_ids"]) if mode == "teacher_forced" else max_new_tokens
    for step in range(steps):
        fed = ids if cache is None else ids[-1:]
        out = model(
            torch.tensor([fed]), past_key_values=cache, use_cache=True, output_attentions=True
        )
        cache = out.past_key_values
        token = int(out.logits[0, -1].argmax())
        if mode == "teacher_forced":
            token = row["answer_ids"][step]
        elif token in ends:
            break
        for layer, attention in enumerate(out.attentions):
            for head, looked_at in enumerate(attention[0, :, -1].argmax(dim=-1).tolist()):
                hits[layer][head] += looked_at in evidence and ids[looked_at] == token
        answer.append(token)
        ids.append(token)
    return hits, answer


if __name__ == "__main__":
    total, wrong = check(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
    print(f"{total} scores compared, {wrong} differ")
    sys.exit(wrong != 0)
