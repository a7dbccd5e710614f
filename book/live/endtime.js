// The end-time slider: one digit's state, its size, speed and direction, and the class scores, at any time
// from 0.1 to 1000, in two networks side by side.
"use strict";

NodeLive.components.endtime = async function (body, { runs = "wide-standard-seed0,wide-adversarial-seed0" }) {
  const { h, picture, panel, slider, player, networks, digitSource, bars, mosaic, range } = NodeLive.widgets;
  const { softmax } = NodeLive.core(),
    FRAMES = 121,
    DECADES = 4;
  const times = Array.from({ length: FRAMES }, (_, i) => 0.1 * 10 ** ((DECADES * i) / (FRAMES - 1)));
  let image = null,
    shown = true,
    stale = false,
    normalised = true;
  const say = (t) => `t = ${Number(t.toPrecision(2))}`,
    round = (v) => Number(v.toPrecision(3)).toString();

  // One network: its film of a digit, and what shows a frame of it.
  const sides = runs.split(",").map((run, place) => {
    const view = picture("The state"),
      classes = bars(["score"]),
      note = h("p", { class: "node-live-cost", role: "status" });
    const cells = ["Norm |y|", "Speed |f|", "Angle of f and y"].map((name) => [name, h("td", {})]);
    const side = { run, film: null, stop: new AbortController(), note };
    side.element = h(
      "div",
      { class: "node-live-side" },
      networks(
        run,
        (value) => {
          side.run = value;
          refresh(side);
        },
        place ? "Network beside it" : "Network",
      ).element,
      panel("State", view.element).element,
      h(
        "table",
        { class: "node-live-numbers" },
        h("tbody", {}, ...cells.map(([name, cell]) => h("tr", {}, h("th", { scope: "row" }, name), cell))),
      ),
      classes.element,
      note,
    );
    side.show = (i) => {
      const { film } = side;
      if (!film) return;
      const y = film.states[i],
        f = film.slopes[i];
      let yy = 0,
        ff = 0,
        yf = 0;
      for (let j = 0; j < y.length; j++) {
        yy += y[j] * y[j];
        ff += f[j] * f[j];
        yf += y[j] * f[j];
      }
      view.show(...mosaic(y, film.channels, film.side, normalised ? range(y) : film.range));
      view.label(`The state at ${say(times[i])}`);
      const angle = (Math.acos(Math.min(1, Math.max(-1, yf / Math.sqrt(yy * ff)))) * 180) / Math.PI;
      [round(Math.sqrt(yy)), round(Math.sqrt(ff)), `${angle.toFixed(1)}°`].forEach((text, k) => {
        cells[k][1].textContent = text;
      });
      classes.show(softmax(film.logits[i]));
    };
    return side;
  });

  async function refresh(side) {
    side.stop.abort();
    if (!image) return;
    stale = !shown;
    if (stale) return;
    const { signal } = (side.stop = new AbortController());
    try {
      if (!side.film || side.film.run !== side.run) side.note.textContent = "Loading the network …";
      const network = await NodeLive.load(side.run);
      const found = await network.trajectory(image, times, { signal });
      // on one scale: that of the last frame, which for a state that grows is the widest
      side.film = {
        ...found,
        run: side.run,
        channels: network.channels,
        side: network.side,
        range: range(found.states[FRAMES - 1]),
      };
      const { steps, nfe } = found;
      side.note.textContent = `Trained at ${say(network.t1)}; ${steps.length} steps, NFE ${nfe} to t = 1000.`;
      side.show(Number(time.input.value));
      body.dataset.done = String(Number(body.dataset.done || 0) + 1);
    } catch (error) {
      if (error.name !== "AbortError")
        side.note.textContent = `The network could not be run: ${error.message}.`;
    }
  }

  const frame = () => sides.forEach((side) => side.show(Number(time.input.value)));
  const time = slider("Time", {
    min: 0,
    max: FRAMES - 1,
    step: 1,
    value: (FRAMES / 4) | 0,
    read: (i) => times[i],
    text: say,
    oninput: () => frame(),
  });
  const { button, pause } = player(time.input, 6, (at) => {
    time.set(Math.round(at));
    frame();
  });
  const toggle = h("input", {
    type: "checkbox",
    checked: true,
    onchange: () => {
      normalised = toggle.checked;
      frame();
    },
  });
  const source = digitSource(await NodeLive.digits(), (chosen) => {
    image = chosen;
    sides.forEach(refresh);
  });
  body.append(
    h(
      "div",
      { class: "node-live-controls node-live-time" },
      button,
      time.element,
      h("label", { class: "node-live-check" }, toggle, " Normalise each frame"),
    ),
    h(
      "div",
      { class: "node-live-stage node-live-two" },
      panel("Your digit", source.element).element,
      ...sides.map(({ element }) => element),
    ),
  );
  source.choose(0);
  return {
    visible(value) {
      shown = value;
      if (!shown) {
        pause();
        sides.forEach(({ stop }) => stop.abort());
        stale = sides.some((side) => !side.film);
      } else if (stale) sides.forEach(refresh);
    },
  };
};
