// The retrieval viewer: one example, one head, and the token of the answer that is being emitted.

const looking = { example: 0, head: { layer: 0, head: 0 }, token: 0 };
let lookView = null;

function startLooks() {
  if (!report.looks.length) {
    $("to-retrieval").remove();
    return;
  }
  $("retrieval").hidden = false;
  const options = report.looks.map((look, index) => [String(index), `${look.task}: ${look.id}, ${look.model}`]);
  $("look-controls").append(
    labelledSelect("example", "Example", options, "0", (index) => showLook(Number(index))),
    make("div", { id: "look-head", class: "controls" }));
  $("answer-tokens").addEventListener("keydown", stepAnswer);
  on("theme print width", drawLookMap);
  on("filter", offerLooks);
  new IntersectionObserver((entries, observer) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    drawLookMap();
  }, { rootMargin: "600px" }).observe($("retrieval"));
  showLook(0);
}

/** Examples of the chosen task alone, where there are any. */
function offerLooks() {
  const options = [...$("example").options];
  options.forEach((option) => {
    option.hidden = state.task !== "" && report.looks[Number(option.value)].task !== state.task;
  });
  if (options[looking.example].hidden) {
    const first = options.find((option) => !option.hidden);
    if (first) showLook(Number(first.value));
  }
}

const look = () => report.looks[looking.example];

function showLook(index) {
  looking.example = index;
  looking.token = 0;
  $("example").value = String(index);
  const { map, heads } = look();
  const best = bestHeads(1)[0] ?? 0;
  looking.head = { layer: Math.floor(best / heads), head: best % heads };
  drawLookControls(map);
  lookView = null;
  $("look-map").mapKey = null;
  if (drawn.get($("look-map").querySelector(".plot"))) drawLookMap();
  drawLook();
}

/** Indices of the heads that score highest in this example. */
function bestHeads(count) {
  const { map } = look();
  return map.map((score, index) => [score ?? 0, index]).sort((a, b) => b[0] - a[0]).slice(0, count).map(([, index]) => index);
}

function drawLookControls() {
  const { layers, heads, map } = look();
  const options = bestHeads(24).map((index) => [String(index), `${Math.floor(index / heads)}-${index % heads} (${fixed(map[index])})`]);
  const choose = (index) => chooseLookHead(Math.floor(index / heads), index % heads);
  const best = labelledSelect("best-head", "Heads that score highest here", options, "", (value) => choose(Number(value)));
  $("look-head").replaceChildren(best,
    labelledNumber("look-layer", "Layer", looking.head.layer, layers - 1, (value) => chooseLookHead(value, looking.head.head)),
    labelledNumber("look-number", "Head", looking.head.head, heads - 1, (value) => chooseLookHead(looking.head.layer, value)));
}

function chooseLookHead(layer, head) {
  looking.head = { layer, head };
  drawLook();
  lookView?.data("ring", [looking.head]).run();
}

async function drawLookMap() {
  const { layers, heads, map } = look();
  const top = Math.max(1e-9, ...map.map((score) => score ?? 0));
  lookView = await headMap($("look-map"), {
    title: "scores in this example", words: "choose a head", map, above: [], layers, heads, top,
    showPlace: () => looking.head, choose: chooseLookHead, preview: null,
  });
  lookView?.data("ring", [looking.head]).run();
}

const placesNow = () => look().looked_at[looking.head.layer]?.[looking.head.head] ?? [];

function stepAnswer(event) {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (step === undefined) return;
  event.preventDefault();
  const count = look().answer.length;
  looking.token = (looking.token + step + count) % count;
  drawLook();
  $("answer-tokens").querySelector("[aria-checked=true]")?.focus();
}

function drawLook() {
  const { answer, heads } = look();
  const { layer, head } = looking.head;
  const places = placesNow();
  const evidence = new Set(look().evidence);
  $("answer-tokens").replaceChildren(...answer.map((text, index) => {
    const own = index === looking.token;
    const found = places[index] >= 0 && evidence.has(places[index]);
    return make("button", {
      type: "button", role: "radio", "aria-checked": String(own), tabindex: own ? 0 : -1,
      class: found ? "found" : null, text: visible(text),
      on: { click: () => { looking.token = index; drawLook(); $("answer-tokens").children[index].focus(); } },
    });
  }));
  $("best-head").value = String(layer * heads + head);
  for (const [id, value] of [["look-layer", layer], ["look-number", head]]) {
    if (document.activeElement !== $(id)) $(id).value = value;
  }
  $("look-words").textContent = lookWords(places);
  drawPrompt(look(), places, looking.token);
}

function lookWords(places) {
  const { answer, tokens, evidence } = look();
  if (!answer.length) return "There is no answer to step through.";
  const { layer, head } = looking.head;
  const at = places[looking.token] ?? -1;
  const inside = places.filter((place) => evidence.includes(place)).length;
  const where = at < 0
    ? "looks outside the prompt"
    : `looks at token ${at}, “${visible(tokens[at])}”, ${evidence.includes(at) ? "in the evidence" : "not in the evidence"}`;
  return `Emitting “${visible(answer[looking.token])}” (${looking.token + 1} of ${answer.length}), layer ${layer}, head ${head} ${where}. ` +
    `In the evidence for ${inside} of ${plural(answer.length, "token")}.`;
}

/** A token's text without the spaces around it; one that is nothing else is shown as signs. */
const visible = (text) => text.replaceAll("\n", "⏎").replaceAll("\t", "⇥").trim() || "␣".repeat(text.length || 1);
