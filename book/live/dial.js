// The logit dial: multiply the logits, and the cross-entropy's gradient vanishes in single precision, the
// margin's does not.
"use strict";

// What a stored network's records say of many digits at the dial's setting: {element, show({factor, loss})};
// null where there are none.
async function records({ h, picture, percent }, run) {
  const found = await NodeLive.data(`rescaled/${run}`).catch(() => null);
  if (!found) return null;
  const { side, outcomes, n, epsilon } = found.header,
    size = side * side;
  const views = Array.from({ length: found.bytes.length / size }, (_, i) => {
    const view = picture("");
    view.element.setAttribute("aria-hidden", "true");
    view.element.removeAttribute("role");
    view.show(
      Float32Array.from(found.bytes.subarray(size * i, size * (i + 1)), (v) => v / 255),
      side,
      side,
    );
    return view.element;
  });
  const strip = h("div", { class: "node-live-strip", role: "img" }, ...views),
    words = h("figcaption", { class: "node-live-cost" });
  return {
    element: h(
      "figure",
      { class: "node-live-panel" },
      h("p", { class: "node-live-half" }, `Many digits, ${run.replace("-seed0", "")}, from stored records`),
      strip,
      words,
    ),
    show({ factor, loss }) {
      const away = ([at]) => Math.abs(Math.log(at / factor));
      const nearest = outcomes[loss].reduce((best, one) => (away(one) < away(best) ? one : best));
      const [at, share, bits] = nearest;
      views.forEach((view, i) => view.classList.toggle("node-live-broken", bits[i] === "0"));
      const left = [...bits].filter((bit) => bit === "1").length;
      words.textContent =
        `Logits times ${at}, epsilon ${epsilon}. ` +
        `Left of these ${bits.length} test digits: ${left} (blue frames); of all ${n} measured: ` +
        `${percent(share)}.`;
      strip.setAttribute("aria-label", `${left} of ${bits.length} test digits withstand the attack`);
    },
  };
}

NodeLive.components.dial = async function (
  body,
  { run = "small-10-seed0", epsilon = "0.3", stored = "large-100-seed0" },
) {
  const { h, picture, panel, slider, epsilonSlider, choice, networks, digitSource, bars, signed, percent } =
    NodeLive.widgets;
  const { argmax, combine, lossCotangent, project, signStep, softmax, PIXELS } = NodeLive.core();
  const DEPTH = 45; // decades from 1 down to the smallest single-precision number
  const now = { run, image: null, label: null, factor: 1, loss: "cross-entropy", epsilon: Number(epsilon) };
  let shown = true,
    stale = false,
    stop = new AbortController(),
    network = null,
    found = null,
    asked = null,
    busy = false;

  const digit = picture("The digit"),
    slope = picture("The gradient"),
    attacked = picture("The attacked digit");
  const panels = [
    ["The digit", digit],
    ["Its gradient", slope],
    ["After one FGSM step", attacked],
  ].map(([title, { element }]) => panel(title, element));
  const classes = bars(["before", "after"]);
  const status = h("p", { class: "node-live-status", role: "status" }),
    half = h("p", { class: "node-live-half" }),
    cost = h("p", { class: "node-live-cost" });

  const digits = await NodeLive.digits();
  const recorded = await records(NodeLive.widgets, stored);

  // The ten class gradients of a digit, once; everything else is made of them.
  async function refresh() {
    stop.abort();
    if (!now.image) return;
    stale = !shown;
    if (stale) return;
    const { signal } = (stop = new AbortController());
    try {
      found = asked = null;
      if (!network || network.run !== now.run) status.textContent = "Loading the network …";
      const loaded = await NodeLive.load(now.run);
      if (signal.aborted) return; // another one was asked for meanwhile
      network = loaded;
      const result = await network.classGradients(now.image, {}, { signal });
      found = { ...result, label: now.label === null ? argmax(result.logits) : now.label };
      digit.show(now.image);
      turn();
    } catch (error) {
      if (error.name !== "AbortError") status.textContent = `The network could not be run: ${error.message}.`;
    }
  }

  // One FGSM step at the present setting of the dial.
  function attack({ gradients, logits, label, image }) {
    const gradient = combine(gradients, lossCotangent(logits, label, now.loss, now.factor));
    return {
      gradient,
      adversarial: project(signStep(image, gradient, now.epsilon), image, now.epsilon, true),
    };
  }

  // The gradient's own pattern, as bright as the largest entry's place between the smallest single-precision
  // number and 1.
  function light(gradient, largest) {
    const level = largest ? Math.max(0.08, 1 + Math.min(0, Math.log10(largest)) / DEPTH) : 0;
    return gradient.map((g) => (largest ? level * Math.sign(g) * Math.sqrt(Math.abs(g) / largest) : 0));
  }

  function turn() {
    if (!found) return;
    const { logits, label } = found,
      { gradient, adversarial } = attack({ ...found, image: now.image });
    let largest = 0,
      nonzero = 0;
    for (const g of gradient) {
      largest = Math.max(largest, Math.abs(g));
      nonzero += g !== 0;
    }
    slope.show(light(gradient, largest), 28, 28, signed);
    slope.label(
      largest
        ? `The gradient, largest entry ${largest.toExponential(1)}`
        : "The gradient: black, zero everywhere",
    );
    attacked.show(adversarial);
    const gap = now.factor * (logits[label] - Math.max(...logits.filter((_, j) => j !== label)));
    cost.textContent =
      `Gap ${gap.toFixed(1)}: past 16.6 the true class's term is lost, past 104 everything. ` +
      `Largest entry of the gradient: ${largest ? largest.toExponential(1) : "0"}; ` +
      `${nonzero} of ${PIXELS} pixels have one that is not zero.`;
    asked = { adversarial, factor: now.factor, label, before: Float64Array.from(logits) };
    if (!busy) answer();
  }

  // What the network says to the latest attacked digit; at most one question at a time.
  async function answer() {
    busy = true;
    while (asked && shown) {
      const { adversarial, factor, label, before } = asked;
      asked = null;
      try {
        const { logits } = await network.logits(adversarial, network.t1);
        const scaled = (z) => softmax(Array.from(z, (v) => factor * v)),
          [p, q] = [scaled(before), scaled(logits)];
        const [a, b] = [argmax(p), argmax(q)];
        classes.show(p, q);
        panels[0].caption.textContent = `The digit: ${a}`;
        panels[2].caption.textContent = `After one FGSM step: ${b}`;
        if (asked) continue;
        status.textContent =
          `Logits times ${say(factor)}: the network says ${a}, ${percent(p[a])}. Attacked by FGSM on the ` +
          `${now.loss}, it says ${b}: ` +
          (b === label ? "the attack fails." : a === label ? "the attack succeeds." : "it was wrong before.");
        body.dataset.done = String(Number(body.dataset.done || 0) + 1);
      } catch (error) {
        status.textContent = `The network could not be run: ${error.message}.`;
      }
    }
    busy = false;
  }

  const say = (factor) => (factor < 10 ? factor.toFixed(2) : factor.toFixed(0));
  const update = (values, again = turn) => {
    Object.assign(now, values);
    half.textContent = `One digit, ${now.run.replace("-seed0", "")}, run in this page`;
    if (recorded) recorded.show(now);
    again();
  };
  const nothing = new Float32Array(PIXELS);
  const empty = () => {
    stop.abort(); // nothing is attacked until something is drawn
    found = asked = null;
    for (const view of [digit, slope, attacked]) view.show(nothing);
    panels[0].caption.textContent = "The digit";
    panels[2].caption.textContent = "After one FGSM step";
    cost.textContent = "";
    status.textContent = "Draw a digit.";
  };
  const source = digitSource(
    digits,
    (image, label) => update({ image, label }, refresh),
    () => update({ image: null, label: null }, empty),
  );
  const row = (...children) => h("div", { class: "node-live-controls" }, ...children);
  body.append(
    slider("Logits times", {
      min: 0,
      max: 2,
      step: 0.01,
      value: 0,
      read: (v) => 10 ** v,
      text: say,
      oninput: (factor) => update({ factor }),
    }).element,
    row(
      networks(run, (value) => update({ run: value }, refresh)).element,
      choice(
        "Loss of the attack",
        [
          ["cross-entropy", "cross-entropy"],
          ["margin", "margin"],
        ],
        now.loss,
        (loss) => update({ loss }),
      ).element,
    ),
    status,
    h(
      "div",
      { class: recorded ? "node-live-beside" : "" },
      h(
        "div",
        {},
        half,
        h("div", { class: "node-live-panels" }, ...panels.map(({ element }) => element)),
        cost,
      ),
      ...(recorded ? [recorded.element] : []),
    ),
    h(
      "div",
      { class: "node-live-stage" },
      panel("Your digit", source.element).element,
      h(
        "div",
        {},
        row(epsilonSlider(now.epsilon, (value) => update({ epsilon: value })).element),
        classes.element,
      ),
    ),
  );
  if (recorded) recorded.show(now);
  source.choose(0);
  return {
    visible(value) {
      shown = value;
      if (!shown) {
        stop.abort();
        stale = stale || !found;
      } else if (stale) refresh();
      else if (found) turn();
    },
  };
};
