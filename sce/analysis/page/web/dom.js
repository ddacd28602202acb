// Elements: text always goes in as text, never as markup.

const $ = (id) => document.getElementById(id);

/** make("p", {class: "quiet", text: "..."}, child, ...): an element. `on` holds listeners. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "text") element.textContent = value;
    else if (name === "on") {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    } else if (name === "checked" || name === "value" || name === "selected") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Puts other children into a holder; what had the focus in it has it again, by its id or what it says. */
function refill(holder, ...children) {
  const focused = holder.contains(document.activeElement) ? document.activeElement : null;
  const says = (each) => [each.tagName, each.textContent, each.type === "number" ? "" : each.value].join("\n");
  const same = (each) => (focused.id ? each.id === focused.id : says(each) === says(focused));
  holder.replaceChildren(...children);
  if (focused && focused !== holder) [...holder.querySelectorAll("button, input, select, summary")].find(same)?.focus();
}

/** A select with its label. `options` are [value, text] or {label, options}. */
function labelledSelect(id, label, options, value, onChange) {
  const option = ([each, text]) => make("option", { value: each, text });
  const items = options.map((each) =>
    Array.isArray(each) ? option(each) : make("optgroup", { label: each.label }, ...each.options.map(option)));
  const select = make("select", { id, on: { change: () => onChange(select.value) } }, ...items);
  select.value = value;
  return make("label", { class: "field" }, make("span", { text: label }), select);
}

/** A whole number with its label, within ends. */
function labelledNumber(id, label, value, most, onChange) {
  const change = () => {
    const number = Math.round(Number(input.value));
    if (input.value !== "" && number >= 0 && number <= most) onChange(number);
  };
  const input = make("input", { id, type: "number", min: 0, max: most, step: 1, value, on: { input: change } });
  return make("label", { class: "field" }, make("span", { text: label }), input);
}

/** Runs a listener once things have been quiet for a moment. */
function later(listener, wait = 150) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => listener(...given), wait);
  };
}
