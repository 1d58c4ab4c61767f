// Tables sort by the column whose head is clicked; each shows itself as LaTeX, which is copied. Nothing is fetched.
"use strict";

const numberIn = (cell) => {
  const found = cell.firstChild?.textContent.replace("−", "-").replaceAll(",", "").match(/-?\d+(\.\d+)?/);
  return found ? parseFloat(found[0]) : null;
};

const textIn = (cell) => {
  const escape = (text) => text.trim().replace(/[&%_#$]/g, "\\$&").replace("−", "$-$").replace("–", "--");
  const note = cell.querySelector("small")?.textContent;
  const main = escape(note ? cell.firstChild.textContent : cell.textContent);
  return (cell.matches(".best") ? `\\textbf{${main}}` : main) + (note ? ` {\\scriptsize ${escape(note)}}` : "");
};

function sortBy(table, column, head) {
  const body = table.tBodies[0];
  const ascending = head.ariaSort === "descending";
  for (const other of table.tHead.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
  head.ariaSort = ascending ? "ascending" : "descending";
  const compare = (one, two) => {
    const [a, b] = [one, two].map((row) => numberIn(row.cells[column]));
    if (column === 0) return one.cells[0].textContent.localeCompare(two.cells[0].textContent);
    return a === null ? -1 : b === null ? 1 : a - b;
  };
  const rows = [...body.rows].sort(compare);
  body.append(...(ascending ? rows : rows.reverse()));
}

function toLatex(table) {
  const line = (row) => [...row.cells].map((cell) =>
    cell.colSpan > 1 ? `\\multicolumn{${cell.colSpan}}{c}{${textIn(cell)}}` : textIn(cell)).join(" & ") + " \\\\";
  const columns = table.tBodies[0].rows[0].cells.length;
  const [heads, rows] = [table.tHead.rows, table.tBodies[0].rows].map((part) => [...part].map(line));
  return [`\\begin{tabular}{l${"c".repeat(columns - 1)}}`, "\\toprule", ...heads, "\\midrule", ...rows, "\\bottomrule",
    "\\end{tabular}"].join("\n");
}

for (const table of document.querySelectorAll("figure > table")) {
  [...table.tHead.rows].at(-1).querySelectorAll("td, th").forEach((head, column) => {
    head.classList.add("sorts");
    head.addEventListener("click", () => sortBy(table, column, head));
  });
  const button = document.createElement("button");
  button.textContent = "LaTeX";
  button.addEventListener("click", () => {
    const shown = table.parentElement.querySelector("pre");
    if (shown) return shown.remove();
    const text = document.createElement("pre");
    text.textContent = toLatex(table);
    table.parentElement.append(text);
    navigator.clipboard?.writeText(text.textContent).catch(() => getSelection().selectAllChildren(text));
  });
  table.parentElement.querySelector("figcaption").append(" ", button);
}
