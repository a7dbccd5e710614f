// A film of states, or a map of moving digits, with one clock for all that is in it: play, pause, scrub,
// speed, log time. Frames and times come from a sheet (nodelib/publish/animation.py); the GIF stays for
// download.
"use strict";

NodeLive.components.film = async function (body, { film, gif }) {
  const { h, slider, player, select, calm } = NodeLive.widgets;
  const { header, bytes } = await NodeLive.data(`films/${film}`);
  const { times, titles } = header,
    end = times[times.length - 1],
    first = times.find((t) => t > 0),
    SECONDS = 12,
    TICKS = 1000;
  const image = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
  const view = (header.points ? map : frames)(NodeLive.widgets, header, image);
  let at = 0, // the place on the slider, in ticks, as a fraction
    speed = 1,
    logarithmic = Boolean(header.points); // as the map's own GIF

  // The time at a place on the slider, and back: even in time, or in log time from the first one above 0.
  const timeOf = (tick) =>
    logarithmic ? (tick <= 0 ? 0 : first * (end / first) ** (tick / TICKS)) : (end * tick) / TICKS;
  const tickOf = (t) =>
    logarithmic ? (TICKS * Math.log(Math.max(t, first) / first)) / Math.log(end / first) : (TICKS * t) / end;
  const say = (t) => `t = ${t < 9.95 && t > 0 ? t.toFixed(t < 1 ? 2 : 1) : Math.round(t)}`;
  const clock = h("output", { class: "node-live-clock", "aria-hidden": "true" });

  let drawn = -1;
  const show = (redraw = false) => {
    const t = timeOf(at);
    let low = 0,
      high = times.length - 1; // the last frame that is not later
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (times[middle] <= t * (1 + 1e-6)) low = middle;
      else high = middle - 1;
    }
    clock.textContent = say(t);
    if (low !== drawn || redraw) view.show((drawn = low));
  };
  const time = slider("Time", {
    min: 0,
    max: TICKS,
    step: 1,
    value: 0,
    read: (tick) => timeOf(Number(tick)),
    text: say,
    oninput: () => {
      at = Number(time.input.value);
      show();
    },
  });
  const move = (to) => {
    at = to;
    time.set(Math.round(at));
    show();
  };
  const { button, start, pause } = player(time.input, SECONDS, move, () => speed);
  const toggle = h("input", {
    type: "checkbox",
    checked: logarithmic,
    onchange: () => {
      const t = timeOf(at); // stays where it is
      logarithmic = toggle.checked;
      move(Math.min(TICKS, Math.max(0, tickOf(t))));
    },
  });
  body.append(
    view.element,
    h("div", { class: "node-live-controls node-live-time" }, button, time.element, clock),
    h(
      "div",
      { class: "node-live-controls" },
      select(
        "Speed",
        [0.25, 0.5, 1, 2, 4].map((v) => [String(v), `${v} ×`]),
        "1",
        (v) => {
          speed = Number(v);
        },
      ).element,
      h("label", { class: "node-live-check" }, toggle, " Log time"),
      h("a", { href: gif, download: "" }, "Download as GIF"),
    ),
  );
  show();
  let begun = calm();
  return {
    visible(shown) {
      if (!shown) pause();
      else if (!begun) {
        begun = true;
        start();
      }
    },
  };

  // Films of states, each a canvas: {element, show(frame)}.
  function frames({ h, panel }, { width, height, columns }, sheet) {
    const rows = Math.ceil(times.length / columns);
    const canvases = titles.map((title) =>
      h("canvas", { width, height, role: "img", "aria-label": title, class: "node-live-pixels" }),
    );
    return {
      element: h(
        "div",
        { class: "node-live-films" },
        ...titles.map((title, k) => panel(title, canvases[k]).element),
      ),
      show(i) {
        const x = (i % columns) * width,
          y = Math.floor(i / columns) * height;
        canvases.forEach((canvas, k) =>
          canvas
            .getContext("2d", { willReadFrequently: true })
            .drawImage(sheet, x, y + k * rows * height, width, height, 0, 0, width, height),
        );
      },
    };
  }

  // Maps of moving digits; pointing at one, or choosing it, shows its image and marks it in all maps.
  function map({ h, panel, select }, { labels, colours, points, width, height }, sheet) {
    const SIZE = 600,
      TRAIL = 6,
      REACH = 60; // how near a pointer must be, in thousandths of half a map
    const paint = (k, alpha) => `rgba(${colours[labels[k]].join(",")},${alpha})`;
    const place = ([x, y]) => [SIZE / 2 + (0.46 * SIZE * x) / 1000, SIZE / 2 - (0.46 * SIZE * y) / 1000];
    let marked = -1,
      shown = 0,
      zoom = false, // every frame as large as it goes
      scales = [];
    const scale = (m, i) => (zoom ? 1000 / Math.max(1, ...points[m][i].flat().map(Math.abs)) : 1);
    const canvases = titles.map((title) =>
      h("canvas", { width: SIZE, height: SIZE, role: "img", "aria-label": title, class: "node-live-map" }),
    );
    const seen = h("canvas", { width, height, class: "node-live-pixels", "aria-hidden": "true" }),
      words = h("span", { role: "status" }, "Point at a digit to see its image.");
    const mark = (k) => {
      if (k === marked) return;
      marked = k;
      chosen.input.value = String(k);
      const context = seen.getContext("2d", { willReadFrequently: true });
      context.clearRect(0, 0, width, height);
      if (k >= 0) context.drawImage(sheet, 0, k * height, width, height, 0, 0, width, height);
      words.textContent = k < 0 ? "Point at a digit to see its image." : `Image ${k + 1}, class ${labels[k]}`;
      show(shown);
    };
    const chosen = select(
      "Image",
      [["-1", "none"], ...labels.map((label, k) => [String(k), `${k + 1}, class ${label}`])],
      "-1",
      (k) => mark(Number(k)),
    );
    const fit = h("input", {
      type: "checkbox",
      onchange: () => {
        zoom = fit.checked;
        show(shown);
      },
    });
    const show = (i) => {
      shown = i;
      scales = points.map((_, m) => scale(m, i));
      canvases.forEach((canvas, m) => {
        const context = canvas.getContext("2d");
        context.fillStyle = "#000";
        context.fillRect(0, 0, SIZE, SIZE);
        context.font = `bold ${SIZE / 30}px sans-serif`;
        context.textAlign = "center";
        context.textBaseline = "middle";
        context.lineWidth = 2;
        labels.forEach((label, k) => {
          context.strokeStyle = paint(k, k === marked ? 1 : 0.45);
          context.beginPath();
          for (let j = k === marked ? 0 : Math.max(0, i - TRAIL); j <= i; j++)
            context.lineTo(...place(points[m][j][k].map((v) => v * scales[m])));
          context.stroke();
        });
        labels.forEach((label, k) => {
          const [x, y] = place(points[m][i][k].map((v) => v * scales[m]));
          context.fillStyle = paint(k, 1);
          context.fillText(String(label), x, y);
          if (k !== marked) return;
          context.strokeStyle = "#fff";
          context.beginPath();
          context.arc(x, y, SIZE / 36, 0, 2 * Math.PI);
          context.stroke();
        });
      });
    };
    canvases.forEach((canvas, m) => {
      const point = (event) => {
        const box = canvas.getBoundingClientRect();
        const x = (((event.clientX - box.left) / box.width - 0.5) / 0.46) * 1000,
          y = ((0.5 - (event.clientY - box.top) / box.height) / 0.46) * 1000;
        let best = -1,
          least = REACH;
        points[m][shown].forEach(([px, py], k) => {
          const away = Math.hypot(scales[m] * px - x, scales[m] * py - y);
          if (away < least) [best, least] = [k, away];
        });
        if (best >= 0) mark(best);
      };
      canvas.addEventListener("pointermove", point);
      canvas.addEventListener("pointerdown", point);
    });
    return {
      element: h(
        "div",
        {},
        h(
          "div",
          { class: "node-live-films" },
          ...titles.map((title, m) => panel(title, canvases[m]).element),
        ),
        h(
          "div",
          { class: "node-live-row node-live-seen" },
          seen,
          chosen.element,
          h("label", { class: "node-live-check" }, fit, " Zoom to the digits"),
          words,
        ),
      ),
      show,
    };
  }
};
