// A prompt's tokens: evidence and what is looked at stand open, the rest is folded.

const AROUND = 40; // tokens that stand open on either side
const SHORT_PROMPT = 500; // tokens; a prompt no longer than this is never folded

function drawPrompt(example, places, current) {
  const box = $("prompt");
  const key = `${looking.example}:${[...new Set(places)].sort((a, b) => a - b).join()}`;
  if (box.dataset.key !== key) {
    box.dataset.key = key;
    box.replaceChildren(...pieces(example, places).map((piece) => (piece.open ? stretch(example, piece) : folded(example, piece))));
  }
  const evidence = new Set(example.evidence);
  box.querySelectorAll(".looked, .now").forEach((token) => {
    token.classList.remove("looked", "now");
    token.removeAttribute("title");
  });
  places.forEach((place, index) => {
    const token = place < 0 ? null : box.querySelector(`[data-at="${place}"]`);
    if (!token) return;
    token.classList.add(index === current ? "now" : "looked");
    token.title = `token ${place}${evidence.has(place) ? ", evidence" : ""}`;
    if (index === current) token.classList.remove("looked");
  });
  const now = box.querySelector(".now");
  if (now) box.scrollTop += now.getBoundingClientRect().top - box.getBoundingClientRect().top - box.clientHeight / 2.5;
}

/** [{from, to, open}]: what is near evidence or a place that is looked at is open. */
function pieces(example, places) {
  const count = example.tokens.length;
  if (count <= SHORT_PROMPT) return [{ from: 0, to: count, open: true }];
  const open = new Uint8Array(count);
  for (const at of [...example.evidence, ...places.filter((place) => place >= 0)]) {
    open.fill(1, Math.max(0, at - AROUND), Math.min(count, at + AROUND + 1));
  }
  const found = [];
  for (let from = 0; from < count;) {
    let to = from;
    while (to < count && open[to] === open[from]) to += 1;
    found.push({ from, to, open: Boolean(open[from]) });
    from = to;
  }
  return found.map((piece) => ({ ...piece, open: piece.open || piece.to - piece.from < 8 }));
}

function stretch(example, { from, to }) {
  const evidence = new Set(example.evidence);
  const span = make("span", { class: "stretch" });
  let marked = null;
  for (let at = from; at < to; at += 1) {
    const token = make("span", { "data-at": at, text: example.tokens[at] });
    if (evidence.has(at)) {
      if (!marked) span.append((marked = make("mark", { "aria-label": "evidence" })));
      marked.append(token);
    } else {
      marked = null;
      span.append(token);
    }
  }
  return span;
}

function folded(example, piece) {
  const count = piece.to - piece.from;
  const open = (event) => {
    const whole = stretch(example, piece);
    event.target.replaceWith(whole);
    whole.tabIndex = -1;
    whole.focus();
  };
  return make("button", { type: "button", class: "folded", text: `… ${plural(count, "token")} …`, "aria-expanded": "false", on: { click: open } });
}
