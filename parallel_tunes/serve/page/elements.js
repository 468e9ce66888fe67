// Elements by hand. Text goes in as text, never as markup: labels and file names are not the page's own.

const SVG = "http://www.w3.org/2000/svg";

export const byId = id => document.getElementById(id);

export function make(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

export function draw(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** A table that scrolls in a box of its own, which the keyboard reaches; columns are {title, isText}. */
export function tabulate(caption, columns, rows) {
  const cell = (name, text, column) => make(name, column.isText ? { class: "text" } : {}, text);
  const head = columns.map(column => cell("th", column.title, column));
  head.forEach(title => title.setAttribute("scope", "col"));
  const body = rows.map(row => make("tr", {}, ...row.map((text, at) => cell("td", text, columns[at]))));
  const table = make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...body));
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, table);
}

/** Calls `take` with the one file that is dropped on an element or chosen by its input; `refuse` says why not. */
export function takeFile(zone, input, take, refuse) {
  const accept = files => {
    if (files.length === 1) take(files[0]);
    else if (files.length) refuse(`${files.length} files at once: give one.`);
    else refuse("That is no file: drop one from your file manager.");
  };
  input.addEventListener("change", () => {
    const files = [...input.files];
    input.value = ""; // so that the same file can be chosen again
    if (files.length) accept(files);
  });
  zone.addEventListener("dragover", event => {
    event.preventDefault();
    zone.classList.add("over");
  });
  zone.addEventListener("dragleave", event => {
    if (!zone.contains(event.relatedTarget)) zone.classList.remove("over");
  });
  zone.addEventListener("drop", event => {
    event.preventDefault();
    zone.classList.remove("over");
    accept([...event.dataTransfer.files]);
  });
}
