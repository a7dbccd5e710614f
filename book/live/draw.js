// Draw a digit and attack it: what a chosen network says before and after, its steps, and its state over
// time.
"use strict";

NodeLive.components.draw = async function (body, { run = "small-10-seed0", epsilon = "0.3" }) {
  const {
    h,
    picture,
    panel,
    slider,
    epsilonSlider,
    player,
    choice,
    networks,
    digitSource,
    bars,
    timeAxis,
    mosaic,
    signed,
    percent,
    calm,
  } = NodeLive.widgets;
  const { argmax, softmax } = NodeLive.core(),
    FRAMES = 40;
  const now = { run, image: null, label: null, epsilon: Number(epsilon), attack: "fgsm", steps: 10 };
  let shown = true,
    stale = false,
    stop = new AbortController();

  const seen = picture("The digit as the network sees it"),
    change = picture("The change of every pixel, orange up and blue down"),
    attacked = picture("The attacked digit");
  const clean = picture("The state of the digit"),
    moved = picture("The state of the attacked digit");
  const panels = [
    panel("The network sees", seen.element),
    panel("What the attack adds", change.element),
    panel("Attacked", attacked.element),
  ];
  const classes = bars(["before", "after"]),
    axis = timeAxis(),
    cost = h("p", { class: "node-live-cost" });
  const status = h("p", { class: "node-live-status", role: "status" });
  const busy = h("progress", { max: 1, value: 0, "aria-label": "Progress of the attack", hidden: true });
  const steps = slider("Steps", {
    min: 1,
    max: 40,
    step: 1,
    value: now.steps,
    oninput: (v) => update({ steps: v }),
  });
  steps.element.hidden = true;
  const update = (values) => {
    Object.assign(now, values);
    steps.element.hidden = now.attack !== "pgd";
    refresh();
  };
  const source = digitSource(await NodeLive.digits(), (image, label) => update({ image, label }));

  // ---- the state over time ----
  let film = null;
  const time = slider("Time", {
    min: 0,
    max: FRAMES - 1,
    step: 1,
    value: FRAMES - 1,
    oninput: () => frame(),
    read: (i) => (film ? film.times[i] : 0),
    text: (t) => `t = ${Number(t.toPrecision(2))}`,
  });
  const frame = () => {
    if (!film) return;
    const i = Number(time.input.value);
    [
      [clean, film.clean],
      [moved, film.moved],
    ].forEach(([target, states]) => target.show(...mosaic(states[i], film.channels, film.side)));
  };
  const { button, start, pause } = player(time.input, 2, (at) => {
    time.set(Math.round(at));
    frame();
  });
  const flow = h(
    "div",
    { class: "node-live-flow" },
    h(
      "div",
      { class: "node-live-panels" },
      panel("State of the digit", clean.element).element,
      panel("State, attacked", moved.element).element,
    ),
    h("div", { class: "node-live-row" }, button, time.element),
  );

  // ---- the attack ----
  function show(adversarial, before, after) {
    const radius = now.epsilon || 1;
    change.show(
      adversarial.map((v, i) => (v - now.image[i]) / radius),
      28,
      28,
      signed,
    );
    seen.show(now.image);
    attacked.show(adversarial);
    classes.show(before, after);
  }

  async function refresh() {
    stop.abort();
    if (!now.image) return;
    stale = !shown;
    if (stale) return;
    const { signal } = (stop = new AbortController()),
      { image, run: chosen } = now;
    try {
      if (!body.dataset.run || body.dataset.run !== chosen) status.textContent = "Loading the network …";
      const network = await NodeLive.load(chosen);
      if (signal.aborted) return;
      body.dataset.run = chosen;
      const first = await network.logits(image, network.t1, { signal }),
        before = softmax(first.logits);
      const label = now.label === null ? argmax(first.logits) : now.label;
      busy.hidden = now.attack === "fgsm";
      const progress = ({ step, of, adversarial, logits }) => {
        busy.value = (step + 1) / of;
        show(adversarial, before, softmax(logits));
      };
      const settings = { epsilon: now.epsilon };
      const last =
        now.attack === "fgsm"
          ? await network.fgsm(image, label, settings, { signal })
          : await network.pgd(
              image,
              label,
              { ...settings, steps: now.steps, stepSize: Math.max(1e-6, (2.5 * now.epsilon) / now.steps) },
              { signal, progress },
            );
      busy.hidden = true;
      const after = softmax(last.logits),
        [a, b] = [argmax(before), argmax(after)];
      show(last.adversarial, before, after);
      axis.show(last, network.t1);
      cost.textContent =
        `${last.steps.length} steps accepted (ticks), ${last.rejected.length} rejected (crosses), ` +
        `${last.nfe} evaluations of f on the attacked digit; ${first.nfe} on the digit itself.`;
      const truth = now.label === null ? "" : ` (it is a ${now.label})`;
      status.textContent =
        `The network says ${a}, ${percent(before[a])}${truth}. ` +
        `Attacked, it says ${b}, ${percent(after[b])}: ` +
        (b === label ? "the attack fails." : a === label ? "the attack succeeds." : "it was wrong before.");
      await new Promise((resolve) => setTimeout(resolve, 150)); // no film while a slider is dragged
      if (signal.aborted) return;
      const times = Array.from({ length: FRAMES }, (_, i) => network.t1 * 10 ** (3 * (i / (FRAMES - 1) - 1)));
      const [states, others] = await Promise.all(
        [image, last.adversarial].map((x) => network.trajectory(x, times, { signal })),
      );
      film = {
        times,
        clean: states.states,
        moved: others.states,
        channels: network.channels,
        side: network.side,
      };
      pause();
      time.set(FRAMES - 1);
      frame();
      if (!calm()) start();
      body.dataset.done = String(Number(body.dataset.done || 0) + 1);
    } catch (error) {
      busy.hidden = true;
      if (error.name !== "AbortError") status.textContent = `The network could not be run: ${error.message}.`;
    }
  }

  body.append(
    h(
      "div",
      { class: "node-live-controls" },
      networks(run, (value) => update({ run: value })).element,
      choice(
        "Attack",
        [
          ["fgsm", "FGSM, one step"],
          ["pgd", "PGD"],
        ],
        now.attack,
        (value) => update({ attack: value }),
      ).element,
      epsilonSlider(now.epsilon, (value) => update({ epsilon: value })).element,
      steps.element,
    ),
    status,
    busy,
    h(
      "div",
      { class: "node-live-stage" },
      panel("Your digit", source.element).element,
      h(
        "div",
        { class: "node-live-results" },
        h("div", { class: "node-live-panels" }, ...panels.map(({ element }) => element)),
        classes.element,
      ),
    ),
    axis.element,
    cost,
    flow,
  );
  source.choose(0);
  return {
    visible(value) {
      shown = value;
      if (!shown) {
        stop.abort();
        pause();
        stale = true;
      } else if (stale) refresh();
    },
  };
};
