// What scrolls sideways in its own box is a stop of the Tab key, so that arrow keys can scroll it in every browser.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const article = document.querySelector(".bd-article");
  if (!article) return;
  const boxes = "figure, p, dd, dt, .math, mjx-container, .output, .pst-scrollable-table-container, .table-wrapper";
  // A short entry stays in one line where its table scrolls anyway, or still fits and grows no taller.
  const whole = () => {
    for (const table of article.querySelectorAll("table")) {
      const box = table.parentElement;
      const over = () => table.scrollWidth > box.clientWidth + 1;
      table.classList.remove("unbroken");
      const before = over(), height = table.offsetHeight;
      table.classList.add("unbroken");
      if (!before && (over() || table.offsetHeight > height)) table.classList.remove("unbroken");
    }
  };
  for (const cell of article.querySelectorAll("td, th")) {
    const length = cell.textContent.trim().length;
    cell.classList.toggle("short", length <= 24);
    cell.classList.toggle("long", length > 60);
  }
  let width = 0;
  const reach = () => {
    if (article.clientWidth !== width) {
      width = article.clientWidth;
      whole();
    }
    for (const box of article.querySelectorAll(boxes)) {
      const more = box.scrollWidth > box.clientWidth + 1 && /auto|scroll/.test(getComputedStyle(box).overflowX);
      if (more) box.tabIndex = 0;
      if (box.matches("figure, p, dd, .pst-scrollable-table-container")) box.classList.toggle("scrolls", more);
    }
  };
  new ResizeObserver(reach).observe(article); // at first, when formulas are set, and on another width
});
