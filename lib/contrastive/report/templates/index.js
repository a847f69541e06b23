// The index: headings sort, the form filters. Without scripts it is a table, newest report first.
"use strict";
(() => {
  const body = document.querySelector("tbody"), rows = [...body.querySelectorAll("tr[data-status]")];
  const heads = [...document.querySelectorAll("thead th[data-kind]")];
  const [form, search, state, data, count] = [document.querySelector(".filter"),
    ...["search", "status", "data", "count"].map((id) => document.getElementById(id))];
  const order = new Intl.Collator("en", { numeric: true });

  for (const head of heads) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const numbers = head.dataset.kind === "number";
      const was = head.getAttribute("aria-sort");
      const up = was ? was === "descending" : !numbers; // the best and the longest first
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => row.cells[head.cellIndex]?.dataset.sort;
      rows.sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === undefined || y === undefined) return (x === undefined) - (y === undefined); // damaged ones last
        return (up ? 1 : -1) * (numbers ? x - y : order.compare(x, y));
      });
      body.append(...rows);
    });
  }

  function filter() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      const fits = words.every((word) => text.includes(word)) && (!state.value || row.dataset.status === state.value) &&
        (!data.value || row.dataset.data === data.value);
      row.hidden = !fits;
      shown += fits;
    }
    count.textContent = `${shown} of ${rows.length} reports`;
  }

  form.hidden = !rows.length;
  form.addEventListener("input", filter);
  form.addEventListener("submit", (e) => e.preventDefault());
  filter();
})();
