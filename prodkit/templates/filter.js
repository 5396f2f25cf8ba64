"use strict";
// Sorts each table by the column whose heading is pressed.
const text = (row, column) => row.cells[column].textContent.trim();
const value = (row, column) => parseFloat(text(row, column).replace(/[^\d.-]/g, ""));
for (const head of document.querySelectorAll("thead th")) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => {
    const column = head.cellIndex, down = head.ariaSort === "ascending", numeric = head.classList.contains("number");
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.ariaSort = down ? "descending" : "ascending";
    const body = head.closest("table").tBodies[0], lines = [...body.rows];
    const order = numeric ? (a, b) => (value(a, column) || 0) - (value(b, column) || 0)
      : (a, b) => text(a, column).localeCompare(text(b, column));
    lines.sort((a, b) => (down ? -1 : 1) * order(a, b));
    body.append(...lines);
  });
}
// Filters the table of runs. Only so many rows are laid out at a time: a page of thousands stays quick.
const rows = [...document.querySelectorAll("#runs tbody tr")];
const texts = rows.map((row) => row.textContent.toLowerCase());
const outcomes = rows.map((row) => row.cells[2].textContent.trim());
const [form, words, notebook, outcome, count, more] =
  ["filter", "words", "notebook", "outcome", "count", "more"].map((name) => document.getElementById(name));
const STEP = 200;
function show(most) {
  const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
  if (notebook.value) wanted.push(notebook.value.toLowerCase() + "-");
  let found = 0;
  rows.forEach((row, place) => {
    const fits = (!outcome.value || outcomes[place] === outcome.value) && wanted.every((word) => texts[place].includes(word));
    if (fits) found += 1;
    const hidden = !fits || found > most;
    if (row.hidden !== hidden) row.hidden = hidden;
  });
  const shown = Math.min(found, most);
  count.textContent = `${found} of ${rows.length} runs` + (shown < found ? `; the newest ${shown} are shown.` : ", the newest first.");
  more.hidden = shown === found;
}
for (const field of [words, notebook, outcome]) field.addEventListener("input", () => show(STEP));
form.addEventListener("submit", (event) => event.preventDefault());
more.addEventListener("click", () => show(Infinity));
form.hidden = false;
show(STEP);
