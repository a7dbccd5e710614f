// What scrolls sideways in its own box is a stop of the Tab key, so that arrow keys can scroll it in every browser.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const article = document.querySelector(".bd-article");
  if (!article) return;
  const boxes = "figure, p, dd, dt, .math, mjx-container, .output, .pst-scrollable-table-container, .table-wrapper";
  const reach = () => {
    for (const box of article.querySelectorAll(boxes)) {
      const more = box.scrollWidth > box.clientWidth + 1 && /auto|scroll/.test(getComputedStyle(box).overflowX);
      if (more) box.tabIndex = 0;
      if (box.matches("figure, .pst-scrollable-table-container")) box.classList.toggle("scrolls", more);
    }
  };
  new ResizeObserver(reach).observe(article); // at first, when formulas are set, and on another width
});
