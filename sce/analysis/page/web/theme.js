// Light and dark: the figures' colours follow those of the page.

const systemDark = matchMedia("(prefers-color-scheme: dark)");
let printing = false;

const DARK = {
  "#222222": "#e7eaee", "#555555": "#b3bcc6", "#888888": "#98a3af", "#777777": "#a5afb9", "#999999": "#87929e",
  "#DDDDDD": "#38424d", "#EEEEEE": "#28303a", "#EDEDED": "#2a333d", "#BBBBBB": "#5a6673", white: "#12171d",
  "#000000": "#f5f7fa", "#0072B2": "#4fb0ea", "#CC79A7": "#e79cc8", "#E69F00": "#f2b134", "#009E73": "#2ecc9b",
  "#D55E00": "#ff8a4c", "#56B4E9": "#7cc9f5", "#9ECAE1": "#2f6a8c", "#F5C5A3": "#9a4f26",
};
const HEAT = {
  light: ["#FFFFFF", "#FEE6A9", "#FDA04D", "#D7301F", "#67000D"],
  dark: ["#1a2129", "#5b2f12", "#b4561b", "#f4a24c", "#fff0c2"],
};

const isDark = () => {
  if (printing) return false;
  const chosen = document.documentElement.dataset.theme ?? "auto";
  return chosen === "auto" ? systemDark.matches : chosen === "dark";
};
const heat = () => HEAT[isDark() ? "dark" : "light"];
/** A colour of the light figures, as it is in the theme at hand. */
const tint = (colour) => (isDark() ? DARK[colour] ?? colour : colour);
const kindColours = () => Object.fromEntries(Object.entries(report.colours).map(([kind, each]) => [kind, tint(each)]));

/** The same spec with its colours in the theme at hand; data are left as they are. */
function themed(spec) {
  if (!isDark()) return spec;
  if (Array.isArray(spec)) return spec.map(themed);
  if (spec && typeof spec === "object") {
    const copy = Object.fromEntries(
      Object.entries(spec).map(([name, value]) => [name, name === "values" ? value : themed(value)]));
    return copy.scheme === "blues" ? { ...copy, reverse: true } : copy;
  }
  return typeof spec === "string" ? DARK[spec] ?? spec : spec;
}

function figureConfig() {
  const ink = tint("#222222");
  const quiet = tint("#555555");
  return {
    aria: false, // a figure is one image with a name; its numbers are in tables
    background: "transparent",
    font: "system-ui, 'Segoe UI', 'DejaVu Sans', Helvetica, Arial, sans-serif",
    view: { stroke: tint("#DDDDDD") },
    axis: {
      labelFontSize: 11, titleFontSize: 12, titleFontWeight: "normal", labelColor: quiet, titleColor: ink,
      gridColor: tint("#EEEEEE"), domainColor: tint("#BBBBBB"), tickColor: tint("#BBBBBB"),
    },
    title: { fontSize: 13, subtitleFontSize: 11, color: ink, subtitleColor: quiet, offset: 8, fontWeight: 600 },
    legend: { labelFontSize: 11, titleFontSize: 11, symbolSize: 70, symbolOpacity: 1, labelColor: quiet, titleColor: ink },
    header: { labelFontSize: 11, titleFontSize: 12, labelColor: quiet, titleColor: ink },
    text: { color: ink },
  };
}

function startTheme() {
  const select = $("theme");
  try {
    select.value = localStorage.getItem("sce-theme") ?? "auto";
  } catch {
    select.value = "auto"; // a browser that keeps nothing
  }
  document.documentElement.dataset.theme = select.value || "auto";
  select.addEventListener("change", () => {
    document.documentElement.dataset.theme = select.value;
    try {
      localStorage.setItem("sce-theme", select.value);
    } catch {
      // a browser that keeps nothing
    }
    changed("theme");
  });
  systemDark.addEventListener("change", () => changed("theme"));
  addEventListener("beforeprint", () => {
    printing = true;
    changed("print");
  });
  addEventListener("afterprint", () => {
    printing = false;
    changed("theme");
  });
}
