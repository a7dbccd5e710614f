// What scrolls sideways in its own box is a stop of the Tab key, so that arrow keys can scroll it in every browser.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const article = document.querySelector(".bd-article");
  if (!article) return;
  const boxes = "figure, p, dd, dt, .math, mjx-container, .output, .pst-scrollable-table-container, .table-wrapper";
  const reach = () => {
    for (const box of article.querySelectorAll(boxes))
      if (box.scrollWidth > box.clientWidth + 1 && /auto|scroll/.test(getComputedStyle(box).overflowX))
        box.tabIndex = 0;
  };
  new ResizeObserver(reach).observe(article); // at first, when formulas are set, and on another width
});
