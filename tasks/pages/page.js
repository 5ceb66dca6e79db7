"use strict";
// Sort a table by the buttons in its header, and show the charts of the page when they come near the screen.
(() => {
  const number = (text) => {
    const found = text.replace(/,/g, "").match(/[-−]?\d+(\.\d+)?(e[-+]?\d+)?/i);
    return found ? Number(found[0].replace("−", "-")) : NaN;
  };
  const compareTexts = new Intl.Collator(undefined, { numeric: true }).compare;

  const sort = (table, column, descending) => {
    const body = table.tBodies[0];
    const isNumeric = table.tHead.rows[0].cells[column].classList.contains("number");
    const rows = [...body.rows].map((row) => {
      const text = (row.cells[column]?.textContent ?? "").trim();
      return { row, key: isNumeric ? number(text) : text, isEmpty: isNumeric ? isNaN(number(text)) : !text || text === "–" };
    });
    const compare = isNumeric ? (a, b) => a - b : compareTexts;
    // Cells without a value stay last in both directions.
    rows.sort((a, b) => a.isEmpty - b.isEmpty || (a.isEmpty ? 0 : (descending ? -1 : 1) * compare(a.key, b.key)));
    body.append(...rows.map((one) => one.row));
  };

  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const before = head.getAttribute("aria-sort");
        // Numbers start with the largest.
        const descending = before ? before === "ascending" : head.classList.contains("number");
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", descending ? "descending" : "ascending");
        sort(table, column, descending);
      });
    });
  }

  const data = document.getElementById("chart-items");
  if (!data) return;
  const items = new Map(JSON.parse(data.textContent).map((item) => [item.target_id, item]));
  const views = [];
  const show = async (target) => {
    const item = items.get(target.id);
    if (!item) return;
    items.delete(target.id);
    views.push(...(await Bokeh.embed.embed_item(item)).roots);
    target.dataset.shown = "";
  };
  const targets = [...document.querySelectorAll(".chart")];
  const observer = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        observer.unobserve(entry.target);
        show(entry.target);
      }
    },
    { rootMargin: "600px" },
  );
  for (const target of targets) observer.observe(target);

  const paint = () => {
    for (const view of views) view.invalidate_layout?.();
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);

  // A page is printed before Bokeh can paint again. So every chart is made while nothing else happens, and paper shows a
  // picture of it in the light colours.
  const whenIdle = window.requestIdleCallback ?? setTimeout;
  const showRest = async () => {
    const target = targets.find((one) => items.has(one.id));
    if (!target) return;
    observer.unobserve(target);
    await show(target);
    whenIdle(showRest);
  };
  whenIdle(showRest);
  const repaint = (view) => {
    for (const child of view.child_views ?? []) repaint(child);
    view.invalidate_painters?.();
    view.repaint?.();
  };
  window.addEventListener("beforeprint", () => {
    document.documentElement.classList.add("paper");
    for (const view of views) {
      repaint(view);
      const { canvas } = view.export("png");
      canvas.className = "printed";
      if (canvas.width) view.el.parentElement.append(canvas);
    }
  });
  window.addEventListener("afterprint", () => {
    document.documentElement.classList.remove("paper");
    for (const one of document.querySelectorAll(".printed")) one.remove();
    paint();
  });
  for (const one of document.querySelectorAll("details")) one.addEventListener("toggle", paint);
})();
