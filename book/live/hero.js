// A digit, the same attacked, and what the network says to both: the front page in one picture.
"use strict";

NodeLive.components.hero = async function (body, { run = "small-10-seed0", epsilon = "0.3" }) {
  const { h, picture, panel, epsilonSlider, percent } = NodeLive.widgets;
  const { argmax, softmax } = NodeLive.core(),
    digits = await NodeLive.digits(),
    network = await NodeLive.load(run);
  const now = { digit: 0, epsilon: Number(epsilon) };
  let shown = true,
    stale = false,
    stop = new AbortController();
  const views = ["The digit", "Attacked"].map((title) => {
    const view = picture(title),
      words = h("p", { class: "node-live-says" });
    const { element } = panel(title, view.element);
    element.append(words);
    return { element, view, words };
  });

  async function refresh() {
    stop.abort();
    stale = !shown;
    if (stale) return;
    const { signal } = (stop = new AbortController()),
      { image, label } = digits[now.digit];
    try {
      const clean = await network.logits(image, network.t1, { signal });
      const attacked = await network.fgsm(image, label, { epsilon: now.epsilon }, { signal });
      [
        [image, clean],
        [attacked.adversarial, attacked],
      ].forEach(([pixels, { logits }], i) => {
        const p = softmax(logits),
          k = argmax(p);
        views[i].view.show(pixels);
        views[i].words.replaceChildren(`${run.replace(/-seed\d+$/, "")} says `, h("strong", {}, String(k)), `, ${percent(p[k])}`);
        views[i].element.classList.toggle("node-live-wrong", k !== label);
      });
      body.dataset.done = String(Number(body.dataset.done || 0) + 1);
    } catch (error) {
      if (error.name !== "AbortError")
        views[0].words.textContent = `The network could not be run: ${error.message}.`;
    }
  }

  const update = (values) => {
    Object.assign(now, values);
    refresh();
  };
  body.append(
    h(
      "div",
      { class: "node-live-panels", role: "group", "aria-live": "polite" },
      ...views.map(({ element }) => element),
    ),
    h(
      "div",
      { class: "node-live-row" },
      h(
        "button",
        {
          type: "button",
          class: "node-live-button",
          onclick: () => update({ digit: (now.digit + 1) % digits.length }),
        },
        "Another digit",
      ),
      epsilonSlider(now.epsilon, (value) => update({ epsilon: value }), "Change per pixel").element,
    ),
  );
  await refresh();
  return {
    visible(value) {
      shown = value;
      if (shown && stale) refresh();
    },
  };
};
