// Tables: sorted by a click on a column's head, filtered like the figures.

/**
 * A table; rows hold text, numbers or [value, low, high, n]. `mark` tells which row is chosen, `leads` which lead on;
 * `order` keeps by which column the reader sorted it, for the next table in its place.
 */
function tableOf({ title, columns, rows, onRow, mark, leads = () => true, order = {} }) {
  const numeric = columns.map((_, index) => rows.some((row) => isNumeric(row[index])));
  const body = make("tbody");
  const fill = (sorted) => {
    body.replaceChildren(...sorted.map((row) => {
      const cells = row.slice(0, columns.length).map((cell, index) =>
        make(index === 0 ? "th" : "td", { scope: index === 0 ? "row" : null, class: numeric[index] ? "number" : null },
          ...(index === 0 && onRow && leads(row) ? [button(row)] : shown(cell))));
      return make("tr", { class: mark?.(row) ? "chosen" : null }, ...cells);
    }));
  };
  const button = (row) => make("button", { type: "button", class: "link", text: row[0], on: { click: () => onRow(row) } });
  const heads = columns.map((text, index) => {
    const button = make("button", { type: "button", class: "sort", text, on: { click: () => sortBy(index) } });
    return make("th", { scope: "col", class: numeric[index] ? "number" : null }, button);
  });
  const sort = () => {
    const { index, up } = order;
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[index].setAttribute("aria-sort", up ? "ascending" : "descending");
    fill([...rows].sort((a, b) => (up ? 1 : -1) * compare(a[index], b[index])));
  };
  const sortBy = (index) => {
    Object.assign(order, { index, up: order.index === index && !order.up });
    sort();
  };
  if (order.index === undefined) fill(rows);
  else sort();
  const caption = title ? make("caption", { text: title }) : null;
  return make("table", {}, caption, make("thead", {}, make("tr", {}, ...heads)), body);
}

function compare(first, second) {
  const [a, b] = [first, second].map((cell) => (Array.isArray(cell) ? cell[0] : cell));
  if (typeof a === "number" && typeof b === "number") return a - b;
  if (a === null || a === undefined) return -1;
  if (b === null || b === undefined) return 1;
  return String(a).localeCompare(String(b), "en", { numeric: true });
}

/** Rows that pass the filters; `by` are the columns of setting and kind, -1 for none. */
const keptRows = ({ rows, by: [setting, kind] }) =>
  rows.filter((row) => keep(setting < 0 ? null : row[setting], kind < 0 ? null : row[kind]));

/** A box that scrolls, reachable by keyboard. */
const tableBox = (table, label) =>
  make("div", { class: "table-box", role: "region", tabindex: 0, "aria-label": label }, table);

/** Fills a <details> with tables once it is opened, and anew when filters change. */
function tablesWithin(details, give) {
  const holder = make("div");
  const orders = {};
  details.append(holder);
  const fill = () => {
    if (!details.open) return;
    refill(holder, ...give().map((table) => {
      const order = (orders[table.title] ??= {});
      return tableBox(tableOf({ ...table, rows: keptRows(table), order }), table.title);
    }));
  };
  details.addEventListener("toggle", fill);
  return fill;
}
