// What the parts of a page are built from: elements, pictures, a pad to draw on, bars of the classes, a time
// axis.
var NodeLive = globalThis.NodeLive || {};
globalThis.NodeLive = NodeLive;

NodeLive.widgets = (function () {
  "use strict";
  const SIDE = 28;
  const NAMESPACE = "http://www.w3.org/2000/svg";
  // run, what it is called, megabytes to load
  const NETWORKS = [
    ["small-10-seed0", "small, trained at t = 10", 0.1],
    ["small-random-seed0", "small, random end times", 0.1],
    ["small-100-seed0", "small, trained at t = 100", 0.1],
    ["large-10-seed0", "large, trained at t = 10", 3.5],
    ["large-random-seed0", "large, random end times", 3.5],
    ["large-100-seed0", "large, trained at t = 100", 3.5],
    ["wide-standard-seed0", "wide, trained as usual", 1.1],
    ["wide-adversarial-seed0", "wide, adversarially trained", 1.1],
  ];
  let serial = 0;

  const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
  const percent = (p) => `${(100 * p).toFixed(1)}\u00a0%`;

  // An element; properties that start with "on" are listeners, others attributes (undefined: left out).
  function h(tag, properties = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== undefined && value !== false)
        element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children);
    return element;
  }

  function drawing(tag, attributes, ...children) {
    const element = document.createElementNS(NAMESPACE, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  // Colours of a value, as [red, green, blue]: grey levels from 0 to 1; or orange above zero and blue below,
  // from -1 to 1.
  const grey = (v, out, at) => out.fill(255 * Math.min(1, Math.max(0, v)), at, at + 3);
  const signed = (v, out, at) => {
    const a = Math.min(1, Math.abs(v));
    out[at] = (v >= 0 ? 255 : 60) * a;
    out[at + 1] = (v >= 0 ? 160 : 150) * a;
    out[at + 2] = (v >= 0 ? 40 : 255) * a;
  };

  // A picture of numbers on a black ground, enlarged without smoothing; show(values, width, height, colour).
  function picture(label) {
    const canvas = h("canvas", {
      width: SIDE,
      height: SIDE,
      role: "img",
      "aria-label": label,
      class: "node-live-pixels",
    });
    return {
      element: canvas,
      label: (text) => canvas.setAttribute("aria-label", text),
      show(values, width = SIDE, height = SIDE, colour = grey) {
        canvas.width = width;
        canvas.height = height;
        const context = canvas.getContext("2d", { willReadFrequently: true }),
          pixels = context.createImageData(width, height);
        pixels.data.fill(255);
        for (let i = 0; i < values.length; i++) colour(values[i], pixels.data, 4 * i);
        context.putImageData(pixels, 0, 0);
      },
    };
  }

  // A picture under a line of text.
  function panel(title, content) {
    const caption = h("figcaption", {}, title);
    return { element: h("figure", { class: "node-live-panel" }, caption, content), caption };
  }

  // A slider with its name and value; read() maps the position to what it means, text() says it.
  function slider(name, { min, max, step, value, read = Number, text = String, oninput }) {
    const id = `node-live-${serial++}`,
      output = h("span", { class: "node-live-value", "aria-hidden": "true" });
    const input = h("input", { type: "range", id, min, max, step, value });
    const say = () => {
      output.textContent = text(read(input.value));
      input.setAttribute("aria-valuetext", output.textContent);
    };
    input.addEventListener("input", () => {
      say();
      oninput(read(input.value));
    });
    say();
    return {
      element: h("div", { class: "node-live-field" }, h("label", { for: id }, name), input, output),
      input,
      value: () => read(input.value),
      set(position) {
        input.value = position;
        say();
      },
    };
  }

  // The size of an attack, as every part offers it.
  function epsilonSlider(value, oninput, name = "Epsilon") {
    return slider(name, { min: 0, max: 0.5, step: 0.01, value, text: (v) => v.toFixed(2), oninput });
  }

  // A button that moves a slider to its end in so many seconds, and stops it; place(position) is called with
  // fractions of the slider's steps. Whoever moves the slider stops it too.
  function player(input, seconds, place, speed = () => 1) {
    let frame = 0;
    const button = h(
      "button",
      { type: "button", class: "node-live-button", onclick: () => (frame ? pause() : start()) },
      "Play",
    );
    const pause = () => {
      cancelAnimationFrame(frame);
      frame = 0;
      button.textContent = "Play";
    };
    const start = () => {
      const last = Number(input.max);
      let at = Number(input.value) % last,
        before = performance.now();
      button.textContent = "Pause";
      const tick = (now) => {
        at = Math.min(last, at + (Math.max(0, now - before) * speed() * last) / (1000 * seconds));
        before = now;
        place(at);
        if (at < last) frame = requestAnimationFrame(tick);
        else pause();
      };
      cancelAnimationFrame(frame);
      frame = requestAnimationFrame(tick);
    };
    input.addEventListener("input", pause);
    return { button, start, pause };
  }

  function select(name, options, value, onchange) {
    const id = `node-live-${serial++}`;
    const input = h(
      "select",
      { id, onchange: () => onchange(input.value) },
      ...options.map(([key, text]) => h("option", { value: key, selected: key === value }, text)),
    );
    return { element: h("div", { class: "node-live-field" }, h("label", { for: id }, name), input), input };
  }

  // A few choices, one of them taken: native radio buttons.
  function choice(name, options, value, onchange) {
    const group = `node-live-${serial++}`;
    const buttons = options.map(([key, text]) =>
      h(
        "label",
        {},
        h("input", {
          type: "radio",
          name: group,
          value: key,
          checked: key === value,
          onchange: () => onchange(key),
        }),
        ` ${text}`,
      ),
    );
    const title = h("span", { id: group, class: "node-live-name" }, name);
    return {
      element: h(
        "div",
        { role: "radiogroup", "aria-labelledby": group, class: "node-live-choice" },
        title,
        ...buttons,
      ),
    };
  }

  function networks(value, onchange, name = "Network") {
    return select(
      name,
      NETWORKS.map(([run, text, size]) => [run, size > 1 ? `${text} (${size} MB)` : text]),
      value,
      onchange,
    );
  }

  // The strokes of a pad as MNIST has its digits: 20 pixels long, the centre of mass in the middle.
  function normalise(canvas) {
    const { width, height } = canvas,
      ink = canvas.getContext("2d").getImageData(0, 0, width, height).data;
    let left = width,
      right = -1,
      top = height,
      bottom = -1;
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++)
        if (ink[4 * (y * width + x)] > 40) {
          left = Math.min(left, x);
          right = Math.max(right, x);
          top = Math.min(top, y);
          bottom = Math.max(bottom, y);
        }
    if (right < 0) return null;
    const scale = 20 / Math.max(right - left + 1, bottom - top + 1, width / 10);
    const wide = (right - left + 1) * scale,
      high = (bottom - top + 1) * scale;
    const place = (x, y) => {
      const small = h("canvas", { width: SIDE, height: SIDE }),
        context = small.getContext("2d");
      context.imageSmoothingQuality = "high";
      context.drawImage(canvas, left, top, right - left + 1, bottom - top + 1, x, y, wide, high);
      return Float32Array.from({ length: SIDE * SIDE }, (_, i) => i).map(
        (
          (data) => (i) =>
            (data[4 * i] * data[4 * i + 3]) / 255 / 255
        )(context.getImageData(0, 0, SIDE, SIDE).data),
      );
    };
    const x = (SIDE - wide) / 2,
      y = (SIDE - high) / 2,
      first = place(x, y);
    let mass = 0,
      mx = 0,
      my = 0;
    first.forEach((v, i) => {
      mass += v;
      mx += v * ((i % SIDE) + 0.5);
      my += v * (Math.floor(i / SIDE) + 0.5);
    });
    return place(Math.round(x + SIDE / 2 - mx / mass), Math.round(y + SIDE / 2 - my / mass));
  }

  // Where a digit comes from: a pad for mouse, pen and finger, and buttons with test images for every other
  // way. onchange(image, label): label is null for what was drawn.
  function digitSource(digits, onchange, onclear = () => {}) {
    const size = 280;
    const canvas = h("canvas", { width: size, height: size, class: "node-live-pad", role: "img" });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    const buttons = digits.map(({ image, label }, i) => {
      const small = picture("");
      small.element.setAttribute("aria-hidden", "true");
      small.show(image);
      return h(
        "button",
        {
          type: "button",
          "aria-pressed": "false",
          "aria-label": `Test image ${i + 1}, a ${label}`,
          onclick: () => choose(i),
        },
        small.element,
      );
    });
    const name = (text) =>
      canvas.setAttribute("aria-label", `${text}. Draw a digit here, or take a test image below.`);
    const press = (chosen) => buttons.forEach((b, i) => b.setAttribute("aria-pressed", String(i === chosen)));
    const clear = () => {
      context.fillStyle = "#000";
      context.fillRect(0, 0, size, size);
    };
    const fill = (image) => {
      const small = picture("");
      small.show(image);
      context.imageSmoothingEnabled = false;
      context.drawImage(small.element, 0, 0, size, size);
    };
    const choose = (i) => {
      drawn = false;
      press(i);
      fill(digits[i].image);
      name(`A test image of a ${digits[i].label}`);
      onchange(digits[i].image, digits[i].label);
    };
    let drawn = false,
      last = null;
    const point = (event) => {
      const box = canvas.getBoundingClientRect();
      return [
        ((event.clientX - box.left) / box.width) * size,
        ((event.clientY - box.top) / box.height) * size,
      ];
    };
    const stroke = (event) => {
      const to = point(event);
      context.strokeStyle = "#fff";
      context.lineWidth = 22;
      context.lineCap = context.lineJoin = "round";
      context.beginPath();
      context.moveTo(...last);
      context.lineTo(...to);
      context.stroke();
      last = to;
    };
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      if (!drawn) {
        clear(); // a test image makes room for what is drawn
        drawn = true;
        press(-1);
      }
      canvas.setPointerCapture(event.pointerId);
      last = point(event);
      stroke(event);
      event.preventDefault();
    });
    canvas.addEventListener("pointermove", (event) => last && stroke(event));
    const lift = () => {
      if (!last) return;
      last = null;
      const image = normalise(canvas);
      name("Your drawing");
      if (image) onchange(image, null);
    };
    canvas.addEventListener("pointerup", lift);
    canvas.addEventListener("pointercancel", lift);
    const wipe = h(
      "button",
      {
        type: "button",
        class: "node-live-button",
        onclick: () => {
          clear();
          drawn = true;
          press(-1);
          name("Empty");
          onclear();
        },
      },
      "Clear and draw",
    );
    return {
      element: h(
        "div",
        { class: "node-live-source" },
        canvas,
        wipe,
        h("div", { class: "node-live-digits", role: "group", "aria-label": "Test images" }, ...buttons),
      ),
      choose,
    };
  }

  // A table of the ten classes, or other things, with a bar for each name; show(before, after, ...) takes for
  // each a list of shares or null, where a share may be null too.
  function bars(names, things = Array.from({ length: 10 }, (_, k) => String(k)), title = "class") {
    const rows = things.map((thing) => {
      const cells = names.map((_, i) => {
        const bar = h("span", { class: `node-live-bar node-live-bar-${i}`, "aria-hidden": "true" }),
          text = h("span", {});
        return { cell: h("td", {}, bar, text), bar, text };
      });
      return {
        row: h("tr", {}, h("th", { scope: "row" }, thing), ...cells.map(({ cell }) => cell)),
        cells,
      };
    });
    const head = h(
      "tr",
      {},
      h("th", { scope: "col" }, title),
      ...names.map((name) => h("th", { scope: "col" }, name)),
    );
    return {
      element: h(
        "table",
        { class: "node-live-bars" },
        h("thead", {}, head),
        h("tbody", {}, ...rows.map(({ row }) => row)),
      ),
      show(...columns) {
        columns.forEach((values, i) => {
          const top = values ? values.indexOf(Math.max(...values)) : -1;
          rows.forEach(({ cells }, k) => {
            const known = values && values[k] !== null;
            cells[i].bar.style.transform = `scaleX(${known ? values[k] : 0})`;
            cells[i].text.textContent = known ? percent(values[k]) : values ? "–" : "";
            cells[i].cell.classList.toggle("node-live-top", k === top);
          });
        });
      },
    };
  }

  // The steps of a solve on a logarithmic time axis: ticks where accepted steps end, crosses where rejected
  // ones would have.
  function timeAxis() {
    const width = 640,
      height = 58,
      ground = 34;
    const svg = drawing("svg", {
      viewBox: `0 0 ${width} ${height}`,
      role: "img",
      "aria-label": "The steps of the solver",
      class: "node-live-axis",
    });
    return {
      element: svg,
      show({ steps, rejected, nfe }, t1, scale = "logarithmic") {
        const linear = scale === "linear",
          place = linear ? (t) => t : Math.log,
          [low, high] = [linear ? 0 : Math.log(Math.min(steps[0][1], t1 / 10) / 1.5), place(t1)];
        const x = (t) => 14 + (width - 28) * Math.min(1, Math.max(0, (place(t) - low) / (high - low)));
        const decades = Math.floor(high / Math.LN10 + 1e-9) - Math.ceil(low / Math.LN10) + 1;
        const marks = linear
          ? [0, 1, 2, 3, 4].map((i) => (i * t1) / 4)
          : Array.from({ length: decades }, (_, i) => 10 ** (Math.ceil(low / Math.LN10) + i));
        const parts = [
          drawing("line", { x1: 14, x2: width - 14, y1: ground, y2: ground, class: "node-live-line" }),
        ];
        for (const t of marks) {
          parts.push(
            drawing("line", { x1: x(t), x2: x(t), y1: ground, y2: ground + 5, class: "node-live-line" }),
            drawing(
              "text",
              { x: x(t), y: ground + 20, "text-anchor": "middle" },
              String(Number(t.toPrecision(3))),
            ),
          );
        }
        for (const [t, size] of steps)
          parts.push(
            drawing("line", {
              x1: x(t + size),
              x2: x(t + size),
              y1: ground,
              y2: ground - 24,
              class: "node-live-accepted",
            }),
          );
        for (const [t, size] of rejected) {
          const at = x(t + size);
          parts.push(drawing("path", { d: `M${at - 5} 6l10 10m0 -10l-10 10`, class: "node-live-rejected" }));
        }
        const many = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;
        svg.setAttribute(
          "aria-label",
          `Time from 0 to ${t1}, ${scale}: ${many(steps.length, "accepted step")}, ` +
            `${many(rejected.length, "rejected step")}, ${nfe} evaluations of f.`,
        );
        svg.replaceChildren(...parts);
      },
    };
  }

  // Smallest and largest entry of a state.
  function range(state) {
    let low = Infinity,
      high = -Infinity;
    for (const v of state) {
      low = Math.min(low, v);
      high = Math.max(high, v);
    }
    return [low, high];
  }

  // A state, channels last, as a mosaic of its channels, grey from `low` to `high`.
  function mosaic(state, channels, side, [low, high] = range(state)) {
    const across = 2 ** Math.ceil(Math.log2(channels) / 2),
      down = channels / across;
    const width = across * (side + 1) - 1,
      height = down * (side + 1) - 1,
      values = new Float32Array(width * height);
    state.forEach((v, i) => {
      const c = i % channels,
        p = Math.floor(i / channels);
      const y = Math.floor(c / across) * (side + 1) + Math.floor(p / side),
        x = (c % across) * (side + 1) + (p % side);
      values[y * width + x] = 0.12 + (0.88 * (v - low)) / (high - low || 1);
    });
    return [values, width, height];
  }

  return {
    h,
    picture,
    panel,
    slider,
    epsilonSlider,
    player,
    select,
    choice,
    networks,
    digitSource,
    bars,
    timeAxis,
    mosaic,
    range,
    drawing,
    grey,
    signed,
    percent,
    calm,
  };
})();
