// Tables: a click on a title sorts, and the field above a table keeps the rows that contain its text.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], rows = [...body.rows];
  const value = (row, column) => { const text = row.cells[column].innerText, number = parseFloat(text); return isNaN(number) ? text : number; };
  [...table.tHead.rows[table.tHead.rows.length - 1].cells].forEach((cell, column) => {
    const button = document.createElement("button");
    button.textContent = cell.textContent;
    if (!button.textContent) return;
    button.onclick = () => {
      const up = cell.getAttribute("aria-sort") !== "ascending";
      for (const other of cell.parentNode.cells) other.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", up ? "ascending" : "descending");
      const order = (a, b) => { const [x, y] = [value(a, column), value(b, column)]; return typeof x === typeof y ? (x > y) - (x < y) : typeof x === "number" ? -1 : 1; };
      [...body.rows].sort((a, b) => up ? order(a, b) : order(b, a)).forEach(row => body.append(row));
    };
    cell.replaceChildren(button);
  });
  if (rows.length < 6) continue;
  const label = document.createElement("label"), input = document.createElement("input");
  label.className = "filter"; label.append("Show rows with ", input);
  input.oninput = () => rows.forEach(row => { row.hidden = !row.innerText.toLowerCase().includes(input.value.toLowerCase()); });
  table.parentNode.before(label);
}
