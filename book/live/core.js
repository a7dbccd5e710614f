// The networks without a page: solver, exact reverse and attacks, over the kernels of nodelib/solver/kernel.c in
// WebAssembly. One function that refers to nothing outside itself, because a page opened from a file may
// start a worker only from the function's own text.
var NodeLive = globalThis.NodeLive || {};
globalThis.NodeLive = NodeLive;

NodeLive.core = function () {
  "use strict";
  const f32 = Math.fround;
  const SIDE = 28,
    PIXELS = SIDE * SIDE,
    CLASSES = 10,
    STAGES = 7,
    NORMS = 5,
    DOMAIN = 36;
  const MAX_STEPS = 10000;
  const KEPT_BYTES = 128 * 2 ** 20; // activations kept for the reverse; steps beyond are computed again

  // Dormand and Prince (1980), with Shampine's error weights and middle: nodelib/solver/tableau.py says more.
  const A = [
    [],
    [1 / 5],
    [3 / 40, 9 / 40],
    [44 / 45, -56 / 15, 32 / 9],
    [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729],
    [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656],
    [35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84],
  ];
  const B = [...A[6], 0];
  const ERROR = [
    35 / 384 - 1951 / 21600,
    0,
    500 / 1113 - 22642 / 50085,
    125 / 192 - 451 / 720,
    -2187 / 6784 + 12231 / 42400,
    11 / 84 - 649 / 6300,
    -1 / 60,
  ];
  const MIDDLE = [
    6025192743 / 30085553152 / 2,
    0,
    51252292925 / 65400821598 / 2,
    -2691868925 / 45128329728 / 2,
    187940372067 / 1594534317056 / 2,
    -1776094331 / 19743644256 / 2,
    11237099 / 235043384 / 2,
  ];
  const FILTER = [
    [1 / 4, 0, 0],
    [-1 / 6, -1 / 6, -1 / 6],
    [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6],
    [1 / 24, -1 / 12, 1 / 6],
    [0, 0, 1],
  ];

  // Weights w with y(t + x h) = y + h sum_i w_i k_i inside a step.
  function dense(x) {
    if (x === 1) return B;
    const end = x * x * (-5 + x * (14 - 8 * x)),
      middle = 16 * x * x * (1 + x * (x - 2));
    const weights = B.map((b, i) => end * b + middle * MIDDLE[i]);
    weights[0] += x * (1 + x * (-4 + x * (5 - 2 * x)));
    weights[6] += x * x * (1 + x * (2 * x - 3));
    return weights;
  }

  // First step size after Hairer, Norsett and Wanner (1993), section II.4, from the norms of the state and
  // its derivative; change(h) is that of the derivative's change along a step of Euler's method.
  function firstStepSize(d0, d1, change) {
    const h0 = d0 < 1e-5 || d1 < 1e-5 ? 1e-6 : (0.01 * d0) / d1,
      d2 = change(h0) / h0;
    const h1 = d1 <= 1e-15 && d2 <= 1e-15 ? Math.max(1e-6, h0 * 1e-3) : (0.01 / Math.max(d1, d2)) ** (1 / 5);
    return Math.min(100 * h0, h1);
  }

  function nextStepSize(h, ratio) {
    if (ratio === 0) return h * 10;
    return h * Math.min(10, Math.max(0.9 / ratio ** 0.2, ratio < 1 ? 1 : 0.2));
  }

  const check = (good, message) => {
    if (!good) throw new RangeError(message);
  };
  const argmax = (values, without = -1) => {
    let best = -1;
    for (let i = 0; i < values.length; i++)
      if (i !== without && (best < 0 || values[i] > values[best])) best = i;
    return best;
  };

  // Start of the pooling regions along one axis (Graham, 2014), in single precision as torch draws them.
  function regions(sample, input, output, pool) {
    const alpha = f32(f32(input - pool) / f32(output - 1)),
      start = new Int32Array(output);
    const offset = Math.trunc(f32(f32(sample) * alpha));
    for (let i = 0; i < output - 1; i++)
      start[i] = Math.trunc(f32(f32(f32(i) + f32(sample)) * alpha)) - offset;
    start[output - 1] = input - pool;
    return start;
  }

  // Cotangent of the logits for a loss of the logits times `factor`, in single precision like torch's: where
  // the softmax is saturated in it, entries are exactly zero.
  function lossCotangent(logits, label, loss, factor) {
    const bar = new Float32Array(CLASSES);
    if (loss === "margin") {
      bar[argmax(logits, label)] = factor;
      bar[label] = -factor;
      return bar;
    }
    check(loss === "cross-entropy", `loss is ${loss}; it must be "cross-entropy" or "margin"`);
    const scaled = Float32Array.from(logits, (z) => f32(factor) * z),
      top = scaled[argmax(scaled)];
    let sum = 0;
    for (const z of scaled) sum = f32(sum + f32(Math.exp(f32(z - top))));
    const shift = f32(Math.log(sum));
    for (let k = 0; k < CLASSES; k++) {
      const p = f32(Math.exp(f32(f32(scaled[k] - top) - shift)));
      bar[k] = f32(factor) * f32(k === label ? p - 1 : p);
    }
    return bar;
  }

  function softmax(logits) {
    const top = Math.max(...logits),
      e = Array.from(logits, (z) => Math.exp(z - top));
    const sum = e.reduce((a, b) => a + b);
    return e.map((x) => x / sum);
  }

  // The nearest image of the ball of radius epsilon around `image` and, if clip, with pixels in [0, 1].
  function project(found, image, epsilon, clip) {
    check(
      epsilon >= 0 && epsilon < Infinity,
      `epsilon is ${epsilon}; it must be a finite number of at least 0`,
    );
    const out = new Float32Array(found.length);
    for (let i = 0; i < out.length; i++) {
      const v = Math.min(Math.max(found[i], f32(image[i] - f32(epsilon))), f32(image[i] + f32(epsilon)));
      out[i] = clip ? Math.min(1, Math.max(0, v)) : v;
    }
    return out;
  }

  function signStep(at, gradient, size) {
    return Float32Array.from(at, (x, i) => x + f32(size) * Math.sign(gradient[i]));
  }

  // The gradient of a loss from the ten class gradients and the loss's cotangent of the logits.
  function combine(gradients, bar) {
    const out = new Float32Array(PIXELS);
    for (let i = 0; i < PIXELS; i++) {
      let sum = 0;
      for (let k = 0; k < CLASSES; k++) sum += bar[k] * gradients[k * PIXELS + i];
      out[i] = sum;
    }
    return out;
  }

  // Uniform numbers in [0, 1), reproducible (mulberry32).
  function uniform(seed) {
    let state = seed >>> 0;
    return () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let z = Math.imul(state ^ (state >>> 15), state | 1);
      z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
      return ((z ^ (z >>> 14)) >>> 0) / 2 ** 32;
    };
  }

  // A trained network. `header` says the shape, settings and where each tensor lies in `data`, a
  // Float32Array; `module` is the compiled kernel of its shape. Images are Float32Arrays of 784 grey levels
  // in [0, 1].
  class Network {
    constructor(header, data, module) {
      Object.assign(this, { run: header.run, channels: header.channels, side: header.side, t1: header.t1 });
      this.rtol = header.rtol;
      this.atol = header.atol;
      this.size = this.channels * this.side ** 2;
      this.kernel = new WebAssembly.Instance(module, {}).exports;
      this.memory = this.kernel.memory;
      this.top = (this.kernel.__heap_base.value + 63) & ~63;
      const tensor = {};
      let at = 0;
      for (const [name, shape] of header.tensors) {
        const count = shape.reduce((a, b) => a * b, 1);
        tensor[name] = data.subarray(at, (at += count));
      }
      check(
        at === data.length,
        `the weights of ${this.run} hold ${data.length} numbers; their header names ${at}`,
      );
      this._loadStem(tensor, header);
      this._loadDynamics(tensor, header);
      this._loadHead(tensor);
      this.base = this.top; // everything above belongs to the current solve
    }

    // ---- memory of the kernel: a stack of blocks, emptied at every solve ----

    _allocate(floats) {
      const pointer = this.top;
      this.top = (pointer + 4 * floats + 63) & ~63;
      const missing = this.top - this.memory.buffer.byteLength;
      if (missing > 0) this.memory.grow(Math.ceil(Math.max(missing, 2 ** 22) / 2 ** 16));
      return pointer;
    }

    _view(pointer, floats = this.size) {
      return new Float32Array(this.memory.buffer, pointer, floats);
    }

    _store(values) {
      const pointer = this._allocate(values.length);
      this._view(pointer, values.length).set(values);
      return pointer;
    }

    // ---- loading ----

    _loadStem(tensor, header) {
      const c = this.channels;
      this.stemWeight = tensor["conv.weight"];
      this.stemBias = tensor["conv.bias"];
      this.gain = new Float32Array(c);
      this.shift = new Float32Array(c);
      for (let i = 0; i < c; i++) {
        this.gain[i] =
          tensor["norm.weight"][i] / Math.sqrt(f32(tensor["norm.running_var"][i] + f32(header.eps)));
        this.shift[i] = tensor["norm.bias"][i] - tensor["norm.running_mean"][i] * this.gain[i];
      }
      const draw = tensor["pool.samples"];
      this.columns = Array.from({ length: c }, (_, i) => regions(draw[2 * i], SIDE, this.side, 2));
      this.rows = Array.from({ length: c }, (_, i) => regions(draw[2 * i + 1], SIDE, this.side, 2));
    }

    _loadDynamics(tensor, header) {
      const c = this.channels,
        k = this.kernel,
        count = DOMAIN * c * c;
      const pointers = [this._allocate(4 * count), this._allocate(4 * count)];
      for (let l = 0; l < 4; l++) {
        const w = tensor[`block.func.conv${l + 1}.weight`];
        pointers.forEach((pointer, backward) => {
          const out = this._view(pointer + 4 * l * count, count);
          pack(w, c, backward, k.nodelib_columns(), out);
        });
      }
      for (const part of ["weight", "bias"]) {
        const all = new Float32Array(NORMS * c);
        for (let l = 0; l < NORMS; l++) all.set(tensor[`block.func.norm${l}.${part}`], l * c);
        pointers.push(this._store(all));
      }
      this.params = this._allocate(6);
      const words = new DataView(this.memory.buffer, this.params);
      pointers.forEach((pointer, i) => words.setUint32(4 * i, pointer, true));
      words.setFloat32(16, header.eps, true);
      words.setInt32(20, 1, true); // minimal filtering, as nodelib/solver/kernel.py has it at these tolerances
      this.evaluation = k.nodelib_kept();
      this.scratch = this._allocate(k.nodelib_scratch());
      this.matrix = this._allocate(STAGES * STAGES);
      this.errors = this._allocate(STAGES);
      this.stages = this._allocate(5 * this.size);
      this.spare = this._allocate((STAGES - 1) * this.evaluation); // activations of a step computed again
    }

    _loadHead(tensor) {
      const c = this.channels,
        pixels = this.side ** 2,
        w = tensor["linear.weight"];
      this.headBias = tensor["linear.bias"];
      this.headWeight = new Float32Array(w.length); // channels last, like the state
      for (let k = 0; k < CLASSES; k++)
        for (let i = 0; i < c; i++)
          for (let p = 0; p < pixels; p++)
            this.headWeight[k * this.size + p * c + i] = w[k * this.size + i * pixels + p];
    }

    // ---- stem: convolution, batch norm, fractional max pooling by the stored draw ----

    // The initial state, channels last, and which pixel each entry was pooled from.
    stem(image) {
      check(image.length === PIXELS, `the image has ${image.length} pixels; it must have ${PIXELS}`);
      const { channels: c, side } = this,
        x = Float32Array.from(image, (v) => v - 0.5);
      const y = new Float32Array(this.size),
        from = new Int32Array(this.size);
      for (let i = 0; i < c; i++) {
        const w = this.stemWeight.subarray(9 * i, 9 * i + 9);
        for (let py = 0; py < side; py++)
          for (let px = 0; px < side; px++) {
            let best = -Infinity,
              where = -1;
            for (let a = this.rows[i][py]; a < this.rows[i][py] + 2; a++)
              for (let b = this.columns[i][px]; b < this.columns[i][px] + 2; b++) {
                let sum = this.stemBias[i];
                for (let ky = 0; ky < 3; ky++)
                  for (let kx = 0; kx < 3; kx++) {
                    const v = a + ky - 1,
                      u = b + kx - 1;
                    if (v >= 0 && v < SIDE && u >= 0 && u < SIDE) sum += w[3 * ky + kx] * x[SIDE * v + u];
                  }
                const value = f32(f32(sum) * this.gain[i] + this.shift[i]);
                if (value > best) {
                  best = value;
                  where = SIDE * a + b;
                } // the first of equal ones, as torch
              }
            const at = (py * side + px) * c + i;
            y[at] = best;
            from[at] = where;
          }
      }
      return { y, from };
    }

    stemBack(bar, from) {
      const out = new Float64Array(PIXELS),
        c = this.channels;
      for (let at = 0; at < this.size; at++) {
        if (bar[at] === 0) continue;
        const i = at % c,
          g = f32(bar[at] * this.gain[i]),
          a = Math.floor(from[at] / SIDE),
          b = from[at] % SIDE;
        for (let ky = 0; ky < 3; ky++)
          for (let kx = 0; kx < 3; kx++) {
            const v = a + ky - 1,
              u = b + kx - 1;
            if (v >= 0 && v < SIDE && u >= 0 && u < SIDE)
              out[SIDE * v + u] += g * this.stemWeight[9 * i + 3 * ky + kx];
          }
      }
      return Float32Array.from(out);
    }

    head(y) {
      const out = new Float32Array(CLASSES);
      for (let k = 0; k < CLASSES; k++) {
        const w = this.headWeight.subarray(k * this.size, (k + 1) * this.size);
        let sum = this.headBias[k];
        for (let j = 0; j < w.length; j++) sum += w[j] * y[j];
        out[k] = sum;
      }
      return out;
    }

    headBack(bar) {
      const out = new Float32Array(this.size);
      for (let j = 0; j < out.length; j++) {
        let sum = 0;
        for (let k = 0; k < CLASSES; k++) if (bar[k]) sum += bar[k] * this.headWeight[k * this.size + j];
        out[j] = sum;
      }
      return out;
    }

    // ---- the ODE block ----

    _evaluate(y, k, kept) {
      this.kernel.nodelib_evaluate(1, 1, this.params, y, k, kept, this.scratch);
    }

    _setStep(h) {
      const a = this._view(this.matrix, STAGES * STAGES),
        e = this._view(this.errors, STAGES);
      for (let i = 0; i < STAGES; i++) {
        e[i] = h * ERROR[i];
        for (let j = 0; j < STAGES; j++) a[i * STAGES + j] = j < A[i].length ? h * A[i][j] : 0;
      }
    }

    _step(step, kept) {
      this._setStep(step.h);
      return Math.sqrt(
        this.kernel.nodelib_step(
          1,
          1,
          this.params,
          step.y,
          step.k1,
          this.stages,
          step.next,
          step.kNext,
          kept,
          this.matrix,
          this.errors,
          this.rtol,
          this.atol,
          this.scratch,
        ),
      );
    }

    // Root mean square of a / (atol + rtol |y|), or of (a - b) over it.
    _norm(a, y, b = null) {
      let sum = 0;
      for (let i = 0; i < y.length; i++) {
        const q = (b ? a[i] - b[i] : a[i]) / (this.atol + this.rtol * Math.abs(y[i]));
        sum += q * q;
      }
      return Math.sqrt(sum / y.length);
    }

    _firstStep(y, k) {
      const mark = this.top,
        probe = this._allocate(this.size),
        slope = this._allocate(this.size);
      const from = this._view(y),
        along = this._view(k),
        at = this._view(probe);
      const h = firstStepSize(this._norm(from, from), this._norm(along, from), (h0) => {
        for (let i = 0; i < this.size; i++) at[i] = from[i] + f32(h0) * along[i];
        this._evaluate(probe, slope, 0);
        return this._norm(this._view(slope), from, along);
      });
      this.top = mark;
      return h;
    }

    // States at increasing `times` above 0 from y(0), by the controller of nodelib/solver/integrate.py: the same steps.
    // With `keep` the accepted steps stay for one or more reverses, until the next solve.
    solve(y0, times, keep = false) {
      const end = times[times.length - 1];
      check(
        times.length && times[0] > 0 && times.every((t, i) => Number.isFinite(t) && (!i || t > times[i - 1])),
        `the times are ${times}; they must be finite, above 0 and increasing`,
      );
      this.top = this.base;
      const start = {
        y: this._store(y0),
        k1: this._allocate(this.size),
        kept: this._allocate(this.evaluation),
      };
      this._evaluate(start.y, start.k1, start.kept);
      const tape = [],
        steps = [],
        rejected = [],
        states = [];
      let t = 0,
        y = start.y,
        k1 = start.k1,
        h = this._firstStep(y, k1),
        used = 0;
      const kept = 4 * (STAGES - 1) * this.evaluation;
      for (let attempts = 0; ; attempts++) {
        if (attempts === MAX_STEPS) throw new Error(`${MAX_STEPS} steps end at t = ${t}, before ${end}`);
        if (!(t + h > t)) throw new Error(`the step size ${h} underflows at t = ${t}`);
        const mark = this.top;
        const step = {
          t,
          h,
          y,
          k1,
          next: this._allocate(this.size),
          kNext: this._allocate(this.size),
          kept: 0,
          outputs: [],
        };
        if (keep && used + kept <= KEPT_BYTES) step.kept = this._allocate(kept / 4);
        const ratio = this._step(step, step.kept);
        if (Number.isNaN(ratio)) throw new Error(`the state or its derivative is not finite at t = ${t}`);
        if (ratio <= 1) {
          steps.push([t, h, ratio]);
          const after = t + h;
          while (states.length < times.length && times[states.length] <= after) {
            const x = times[states.length] === after ? 1 : (times[states.length] - t) / h;
            step.outputs.push([states.length, x]);
            states.push(this._dense(step, x));
          }
          if (keep) {
            tape.push(step);
            if (step.kept) used += kept;
          }
          t = after;
          y = step.next;
          k1 = step.kNext;
          if (states.length === times.length)
            return { states, steps, rejected, nfe: 2 + 6 * (steps.length + rejected.length), start, tape };
        } else {
          rejected.push([t, h, ratio]);
          this.top = mark;
        }
        h = nextStepSize(h, ratio);
      }
    }

    _dense(step, x) {
      if (x === 1) return this._view(step.next).slice();
      const weights = dense(x).map((w) => f32(w * step.h)),
        y = this._view(step.y),
        out = new Float32Array(this.size);
      const k = [step.k1, ...[0, 1, 2, 3, 4].map((i) => this.stages + 4 * i * this.size), step.kNext].map(
        (p) => this._view(p),
      );
      for (let i = 0; i < out.length; i++) {
        let sum = 0;
        for (let j = 0; j < STAGES; j++) sum += weights[j] * k[j][i];
        out[i] = y[i] + sum;
      }
      return out;
    }

    // Cotangent of y(0) from that of the state at the last time of a kept solve: the exact gradient of the
    // computed solution, steps held constant. `rescale` brings the cotangent near 1 first, as
    // nodelib/solver/kernel.py does; without, a tiny one fades in single precision.
    reverse(solution, bar, rescale = true) {
      let largest = 0;
      for (const v of bar) largest = Math.max(largest, Math.abs(v));
      if (largest === 0) return new Float32Array(this.size);
      const power = rescale ? 2 ** -Math.max(-120, Math.min(120, Math.floor(Math.log2(largest)) + 1)) : 1;
      const cotangent = Float32Array.from(bar, (v) => v * power),
        mark = this.top,
        last = solution.tape.length - 1;
      const pairs = [0, 1].map(() => [this._allocate(this.size), this._allocate(this.size)]);
      const extra = this._allocate(STAGES * this.size),
        given = this._store(cotangent);
      const [, x] = solution.tape[last].outputs[solution.tape[last].outputs.length - 1];
      let yBar = 0,
        kBar = 0;
      for (let s = last; s >= 0; s--) {
        const step = solution.tape[s],
          [yOut, kOut] = pairs[s % 2],
          atEnd = s === last;
        let kept = step.kept;
        if (!kept) {
          this._step(step, this.spare);
          kept = this.spare;
        } else this._setStep(step.h);
        if (atEnd && x !== 1) {
          const all = this._view(extra, STAGES * this.size);
          dense(x).forEach((w, i) => {
            const weight = f32(f32(w) * step.h);
            for (let j = 0; j < this.size; j++) all[i * this.size + j] = weight * cotangent[j];
          });
        }
        this.kernel.nodelib_reverse(
          1,
          1,
          this.params,
          kept,
          atEnd && x === 1 ? given : yBar,
          kBar,
          atEnd && x !== 1 ? extra : 0,
          yOut,
          kOut,
          this.matrix,
          0,
          this.scratch,
        );
        if (atEnd && x !== 1) {
          const out = this._view(yOut);
          for (let j = 0; j < this.size; j++) out[j] += cotangent[j];
        }
        yBar = yOut;
        kBar = kOut;
      }
      const first = this._allocate(this.size);
      this.kernel.nodelib_vjp(1, 1, this.params, kBar, first, solution.start.kept, 0, this.scratch);
      const a = this._view(yBar),
        b = this._view(first),
        out = new Float32Array(this.size);
      for (let j = 0; j < this.size; j++) out[j] = f32(a[j] + b[j]) / power;
      this.top = mark;
      return out;
    }

    // ---- what pages ask for ----

    // {logits, steps, rejected, nfe} of one image; steps are [t, h, error over tolerance].
    logits(image, t1 = this.t1) {
      const { states, steps, rejected, nfe } = this.solve(this.stem(image).y, [t1]);
      return { logits: this.head(states[0]), steps, rejected, nfe };
    }

    // States and derivatives at `times`, channels last, and the logits that the head reads from each.
    trajectory(image, times) {
      const { states, steps, rejected, nfe } = this.solve(this.stem(image).y, times);
      const y = this._allocate(this.size),
        k = this._allocate(this.size);
      const slopes = states.map((state) => {
        this._view(y).set(state);
        this._evaluate(y, k, 0);
        return this._view(k).slice();
      });
      return { states, slopes, logits: states.map((state) => this.head(state)), steps, rejected, nfe };
    }

    // The gradient of the loss at an image, and the forward pass it belongs to.
    gradient(image, label, { t1 = this.t1, loss = "cross-entropy", factor = 1, rescale = true } = {}) {
      check(Number.isInteger(label) && label >= 0 && label < CLASSES, `label is ${label}; it must be 0 to 9`);
      const { y, from } = this.stem(image),
        solution = this.solve(y, [t1], true),
        logits = this.head(solution.states[0]);
      const bar = this.headBack(lossCotangent(logits, label, loss, factor));
      const gradient = this.stemBack(this.reverse(solution, bar, rescale), from);
      return { gradient, logits, steps: solution.steps, rejected: solution.rejected, nfe: solution.nfe };
    }

    // The ten gradients d logit_k / d image, one after the other in `gradients`; any loss's is a combination
    // of them.
    classGradients(image, { t1 = this.t1 } = {}) {
      const { y, from } = this.stem(image),
        solution = this.solve(y, [t1], true),
        gradients = new Float32Array(CLASSES * PIXELS);
      for (let k = 0; k < CLASSES; k++) {
        const bar = new Float32Array(CLASSES);
        bar[k] = 1;
        gradients.set(this.stemBack(this.reverse(solution, this.headBack(bar)), from), k * PIXELS);
      }
      const { steps, rejected, nfe } = solution;
      return { gradients, logits: this.head(solution.states[0]), steps, rejected, nfe };
    }

    fgsm(image, label, { epsilon, clip = true, ...options }) {
      const found = this.gradient(image, label, options);
      const adversarial = project(signStep(image, found.gradient, epsilon), image, epsilon, clip);
      return { adversarial, gradient: found.gradient, ...this.logits(adversarial, options.t1) };
    }

    // Sign steps, each projected back; a generator of the image and logits so far, so that a caller can show
    // or stop them.
    *pgd(image, label, { epsilon, steps, stepSize, clip = true, randomStart = false, seed = 0, ...options }) {
      check(
        Number.isInteger(steps) && steps >= 1,
        `steps is ${steps}; it must be a whole number of at least 1`,
      );
      check(stepSize > 0, `stepSize is ${stepSize}; it must be above 0`);
      let adversarial = Float32Array.from(image);
      if (randomStart) {
        const draw = uniform(seed);
        adversarial = project(
          adversarial.map((x) => x + epsilon * (2 * draw() - 1)),
          image,
          epsilon,
          clip,
        );
      }
      for (let i = 0; i < steps; i++) {
        const { gradient, logits } = this.gradient(adversarial, label, options);
        yield { step: i, of: steps, adversarial, logits };
        adversarial = project(signStep(adversarial, gradient, stepSize), image, epsilon, clip);
      }
      return { adversarial, ...this.logits(adversarial, options.t1) };
    }
  }

  // One convolution's weights [output][input][3][3] in the kernel's order, or transposed and flipped for its
  // reverse.
  function entry(w, c, backward, o, i, ky, kx) {
    return backward ? w[((i * c + o) * 3 + 2 - ky) * 3 + 2 - kx] : w[((o * c + i) * 3 + ky) * 3 + kx];
  }

  function pack(w, c, backward, columns, out) {
    const half = new Float64Array(18);
    for (let o = 0; o < c; o++)
      for (let i = 0; i < c; i++) {
        for (let a = 0; a < 6; a++)
          for (let l = 0; l < 3; l++) {
            half[3 * a + l] = 0;
            for (let k = 0; k < 3; k++) half[3 * a + l] += FILTER[a][k] * entry(w, c, backward, o, i, k, l);
          }
        const target = Math.floor(o / columns) * c * columns + i * columns + (o % columns);
        for (let a = 0; a < 6; a++)
          for (let b = 0; b < 6; b++)
            out[(6 * a + b) * c * c + target] =
              half[3 * a] * FILTER[b][0] + half[3 * a + 1] * FILTER[b][1] + half[3 * a + 2] * FILTER[b][2];
      }
  }

  return {
    Network,
    A,
    ERROR,
    dense,
    firstStepSize,
    nextStepSize,
    lossCotangent,
    combine,
    softmax,
    argmax,
    project,
    signStep,
    PIXELS,
    CLASSES,
  };
};
