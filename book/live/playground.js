// The solver playground: drag where a solution starts, set the tolerance, and see the solver's steps, stages
// and rejected attempts in the field of arrows.
"use strict";

NodeLive.components.playground = async function (body) {
  const { h, drawing, slider, select, timeAxis } = NodeLive.widgets;
  const core = NodeLive.core(),
    WIDTH = 640,
    HEIGHT = 480,
    END = 10;
  // name, f, half the width that is shown, where to start
  const FIELDS = {
    spiral: [
      "a spiral, dy/dt = A y³",
      ([x, y]) => [-0.1 * x ** 3 - 2 * y ** 3, 2 * x ** 3 - 0.1 * y ** 3],
      2.6,
      [2, 0],
    ],
    pendulum: ["a pendulum with friction", ([x, y]) => [y, -3 * Math.sin(x) - 0.2 * y], 4.2, [-2.5, 0]],
    oscillator: ["Van der Pol's oscillator", ([x, y]) => [y, 5 * (1 - x * x) * y - x], 9, [0.5, 0.5]],
  };
  const now = { field: "spiral", start: [...FIELDS.spiral[3]], exponent: -3 };
  let shown = true,
    late = false;

  const svg = drawing("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    role: "img",
    class: "node-live-field-of-arrows",
  });
  const arrows = drawing("g", { class: "node-live-arrows" }),
    path = drawing("g", {});
  const handle = drawing(
    "g",
    { class: "node-live-handle" },
    drawing("circle", { r: 40, class: "node-live-grip" }),
    drawing("circle", { r: 13 }),
  );
  svg.append(arrows, path, handle);
  const axis = timeAxis(),
    cost = h("p", { class: "node-live-cost", role: "status" });

  const say = (y) => `(${y.map((v) => v.toFixed(2)).join(", ")})`;
  const half = () => FIELDS[now.field][2];
  const place = ([x, y]) => [WIDTH / 2 + (x / half()) * (WIDTH / 2), HEIGHT / 2 - (y / half()) * (WIDTH / 2)];
  const back = (px, py) => [
    ((px - WIDTH / 2) / (WIDTH / 2)) * half(),
    ((HEIGHT / 2 - py) / (WIDTH / 2)) * half(),
  ];
  const dot = (at, r, kind) => {
    const [cx, cy] = place(at);
    return drawing("circle", { cx, cy, r, class: kind });
  };
  const line = (points, kind) =>
    drawing("polyline", {
      points: points
        .map((p) =>
          place(p)
            .map((v) => v.toFixed(1))
            .join(),
        )
        .join(" "),
      class: kind,
    });

  function paintField() {
    const f = FIELDS[now.field][1],
      parts = [],
      step = 40;
    for (let py = step / 2; py < HEIGHT; py += step)
      for (let px = step / 2; px < WIDTH; px += step) {
        const [vx, vy] = f(back(px, py)),
          size = Math.hypot(vx, vy) || 1,
          dx = (15 * vx) / size,
          dy = (-15 * vy) / size;
        parts.push(
          drawing("path", {
            d:
              `M${px - dx} ${py - dy}L${px + dx} ${py + dy}l${-0.4 * dx - 0.3 * dy} ${-0.4 * dy + 0.3 * dx}` +
              `M${px + dx} ${py + dy}l${-0.4 * dx + 0.3 * dy} ${-0.4 * dy - 0.3 * dx}`,
          }),
        );
      }
    arrows.replaceChildren(...parts);
  }

  function paint() {
    late = !shown;
    if (late) return;
    const f = FIELDS[now.field][1],
      tolerance = 10 ** now.exponent;
    const found = NodeLive.solvePlain(core, f, now.start, END, tolerance),
      exact = NodeLive.solvePlain(core, f, now.start, END, 1e-10);
    const curve = ({ accepted }, count) =>
      accepted.flatMap(({ dense, part }) =>
        Array.from({ length: count }, (_, i) => dense((part * (i + 1)) / count)),
      );
    path.replaceChildren(
      line([now.start, ...curve(exact, 2)], "node-live-exact"),
      line([now.start, ...curve(found, 10)], "node-live-solution"),
      ...found.accepted.flatMap(({ stages }) => stages.map((y) => dot(y, 2.5, "node-live-stage-point"))),
      ...found.refused.map(({ next }) => {
        const [x, y] = place(next);
        return drawing("path", { d: `M${x - 6} ${y - 6}l12 12m0 -12l-12 12`, class: "node-live-rejected" });
      }),
      ...found.accepted.map(({ next }) => dot(next, 5, "node-live-step-point")),
    );
    handle.setAttribute("transform", `translate(${place(now.start)})`);
    axis.show(found, END, "linear");
    const error = Math.hypot(...found.y.map((v, i) => v - exact.y[i]));
    cost.textContent =
      `${found.steps.length} steps accepted, ${found.rejected.length} rejected (crosses), ` +
      `${found.nfe} evaluations of f; ` +
      `error at t = ${END}: ${error.toExponential(1)}.`;
    svg.setAttribute(
      "aria-label",
      `The field of ${FIELDS[now.field][0]} and a solution from ${say(now.start)} to ${say(found.y)}`,
    );
    body.dataset.done = String(Number(body.dataset.done || 0) + 1);
  }

  const limit = (v) => Math.max(-100, Math.min(100, v));
  const starts = [0, 1].map((i) =>
    slider(["Start, across", "Start, up"][i], {
      min: -100,
      max: 100,
      step: 1,
      value: 0,
      read: (v) => (v / 100) * half() * (i ? HEIGHT / WIDTH : 1),
      text: (v) => v.toFixed(2),
      oninput: (v) => {
        now.start[i] = v;
        paint();
      },
    }),
  );
  const follow = () =>
    starts.forEach((s, i) =>
      s.set(limit(Math.round((now.start[i] / half() / (i ? HEIGHT / WIDTH : 1)) * 100))),
    );

  const drag = (event) => {
    const box = svg.getBoundingClientRect();
    const at = back(
      ((event.clientX - box.left) / box.width) * WIDTH,
      ((event.clientY - box.top) / box.height) * HEIGHT,
    );
    now.start = at.map(
      (v, i) =>
        Math.max(-1, Math.min(1, v / half() / (i ? HEIGHT / WIDTH : 1))) * half() * (i ? HEIGHT / WIDTH : 1),
    );
    follow();
    paint();
  };
  let held = false;
  svg.addEventListener("pointerdown", (event) => {
    // a finger beside the handle scrolls the page
    if (event.button !== 0 || (event.pointerType === "touch" && !handle.contains(event.target))) return;
    held = true;
    svg.setPointerCapture(event.pointerId);
    drag(event);
    event.preventDefault();
  });
  svg.addEventListener("pointermove", (event) => held && drag(event));
  for (const name of ["pointerup", "pointercancel"])
    svg.addEventListener(name, () => {
      held = false;
    });

  const choose = (field) => {
    now.field = field;
    now.start = [...FIELDS[field][3]];
    follow();
    paintField();
    paint();
  };
  body.append(
    h(
      "div",
      { class: "node-live-controls" },
      select(
        "Field",
        Object.entries(FIELDS).map(([key, [name]]) => [key, name]),
        now.field,
        choose,
      ).element,
      slider("Tolerance", {
        min: -8,
        max: 0,
        step: 0.25,
        value: now.exponent,
        text: (v) => (10 ** v).toExponential(1),
        oninput: (v) => {
          now.exponent = v;
          paint();
        },
      }).element,
      ...starts.map(({ element }) => element),
    ),
    svg,
    h(
      "p",
      { class: "node-live-cost" },
      "Drag the ring. Line: the solver's solution, with its steps (large dots), stages (small dots) and " +
        "the attempts it rejected (crosses). Dashes: the exact solution.",
    ),
    cost,
    axis.element,
  );
  choose(now.field);
  return {
    visible(value) {
      shown = value;
      if (shown && late) paint();
    },
  };
};

// dy/dt = f(y) for a few numbers, from y(0) to `end`, by the steps of nodelib/solver/integrate.py in double precision.
// {y, steps, rejected, nfe, accepted, refused}; an entry of the last two has next, the state the step led to,
// its stages, dense(x), the state at a part x of it, and the part that lies before `end`.
NodeLive.solvePlain = function (core, f, start, end, tolerance) {
  const { A, ERROR, dense, firstStepSize, nextStepSize } = core;
  const norm = (v, scale) => Math.sqrt(v.reduce((sum, x, i) => sum + (x / scale[i]) ** 2, 0) / v.length);
  const along = (y, h, weights, k) =>
    y.map((v, i) => v + h * weights.reduce((sum, w, j) => sum + w * k[j][i], 0));
  const scale = start.map((v) => tolerance + tolerance * Math.abs(v));
  let t = 0,
    y = start,
    k1 = f(y);
  let h = firstStepSize(norm(y, scale), norm(k1, scale), (h0) =>
    norm(
      f(along(y, h0, [1], [k1])).map((v, i) => v - k1[i]),
      scale,
    ),
  );
  const steps = [],
    rejected = [],
    accepted = [],
    refused = [];
  while (steps.length + rejected.length < 10000) {
    const k = [k1],
      stages = [];
    for (let i = 1; i < A.length; i++) {
      stages.push(along(y, h, A[i], k));
      k.push(f(stages[i - 1]));
    }
    const next = stages.pop(),
      from = y,
      size = h;
    const error = along(
      y.map(() => 0),
      h,
      ERROR,
      k,
    );
    const ratio = norm(
      error,
      y.map((v, i) => tolerance + tolerance * Math.max(Math.abs(v), Math.abs(next[i]))),
    );
    const step = {
      next,
      stages,
      part: Math.min(1, (end - t) / h),
      dense: (x) => along(from, size, dense(x), k),
    };
    if (ratio <= 1) {
      steps.push([t, h, ratio]);
      accepted.push(step);
      if (t + h >= end) {
        const y1 = step.dense(step.part);
        return { y: y1, steps, rejected, nfe: 2 + 6 * (steps.length + rejected.length), accepted, refused };
      }
      [t, y, k1] = [t + h, next, k[6]];
    } else {
      rejected.push([t, h, ratio]);
      refused.push(step);
    }
    h = nextStepSize(h, ratio);
  }
  throw new Error(`10000 steps end at t = ${t}`);
};
