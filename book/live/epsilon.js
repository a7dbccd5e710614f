// Accuracy of the six rows and the pair under the stored attacks, at any epsilon that was measured.
"use strict";

NodeLive.components.epsilon = async function (body) {
  const { h, slider, bars, percent } = NodeLive.widgets;
  const { epsilons, rows } = (await NodeLive.data("swept")).header;
  const names = Object.keys(rows[0].attacks),
    counts = rows.map(({ n }) => n).flat();
  const table = bars(
    names,
    rows.map(({ run }) => run),
    "network",
  );
  const status = h("p", { class: "node-live-status", role: "status" });
  const show = (i) => {
    const columns = names.map((name) => rows.map(({ attacks }) => attacks[name][i]));
    table.show(...columns);
    const worst = columns[names.length - 1],
      left = worst.filter((v, k) => v !== null && !rows[k].run.startsWith("wide-")),
      [least, most] = [percent(Math.min(...left)), percent(Math.max(...left))];
    status.textContent =
      `Epsilon ${epsilons[i]}: ` +
      (left.length
        ? `the worst case leaves ${least} to ${most} of the images in the post's six rows.`
        : "the worst case was not measured.");
    body.dataset.done = String(Number(body.dataset.done || 0) + 1);
  };
  const start = Math.max(0, epsilons.indexOf(0.1));
  body.append(
    slider("Epsilon", {
      min: 0,
      max: epsilons.length - 1,
      step: 1,
      value: start,
      text: (i) => String(epsilons[i]),
      oninput: show,
    }).element,
    status,
    table.element,
    h(
      "p",
      { class: "node-live-cost" },
      `Images left, from stored records: each network at its own end time, ${Math.min(...counts)} to ` +
        `${Math.max(...counts)} test images. The worst case is over every stored attack of no larger ` +
        "epsilon.",
    ),
  );
  show(start);
};
