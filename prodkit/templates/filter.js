"use strict";
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
