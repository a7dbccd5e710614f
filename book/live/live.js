// What a page with live parts loads: it loads everything else when a part comes near the screen.
//
//   <div class="node-live" data-live="draw" data-run="small-10-seed0"> a still picture and a sentence </div>
//
// What stands inside is shown until the part works, and where it cannot. Parts: draw and dial (data-run,
// data-epsilon), endtime (data-runs="one,other"), epsilon, playground; and film, which
// book/_ext/live_parts.py puts around a film's GIF. For other scripts:
//   NodeLive.load(run) -> Promise of a network: run, shape, channels, side, t1, and, each a promise,
//     logits(image, t1), trajectory(image, times), gradient(image, label, options),
//     classGradients(image, options), fgsm(image, label, {epsilon, ...}),
//     pgd(image, label, {epsilon, steps, stepSize, ...}), as core.js describes them.
// The last argument of each may be {progress, signal}: a function of a PGD step so far, an AbortSignal.
var NodeLive = globalThis.NodeLive || {};
globalThis.NodeLive = NodeLive;

(function () {
  "use strict";
  const base = new URL(".", document.currentScript.src).href;
  const scripts = new Map(); // name -> promise that it has run
  const provided = new Map(); // name -> {header, bytes}
  const networks = new Map(); // run -> promise of the network
  NodeLive.components = NodeLive.components || {};

  const script = (name) => {
    if (!scripts.has(name)) {
      scripts.set(
        name,
        new Promise((resolve, reject) => {
          const element = document.createElement("script");
          element.src = `${base}${name}.js`;
          element.onload = resolve;
          element.onerror = () => {
            scripts.delete(name); // so that it can be tried again
            element.remove();
            reject(new Error(`${name}.js could not be loaded`));
          };
          document.head.append(element);
        }),
      );
    }
    return scripts.get(name);
  };

  const decode = (text) => {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
    const raw = atob(text),
      bytes = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
    return bytes;
  };

  // Scripts with binary data call this.
  NodeLive.provide = (name, header, text) => provided.set(name, { header, bytes: decode(text) });

  // {header, bytes} of a data script such as "digits" or "weights/small-10-seed0".
  NodeLive.data = async (name) => {
    await script(name);
    return provided.get(name);
  };

  // Images and labels of the test digits that the pages offer.
  NodeLive.digits = async () => {
    const { header, bytes } = await NodeLive.data("digits");
    return header.labels.map((label, i) => ({
      label,
      image: Float32Array.from(bytes.subarray(784 * i, 784 * (i + 1)), (v) => v / 255),
    }));
  };

  NodeLive.supported =
    typeof WebAssembly === "object" &&
    WebAssembly.validate(
      // a function of 128-bit vectors
      new Uint8Array([
        0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253,
        98, 11,
      ]),
    );

  // ---- the worker ----

  // Runs in the worker, from its own text: loads networks and answers one request after the other.
  function serve(core, port) {
    const networks = new Map(),
      cancelled = new Set();
    const pause = () => new Promise((resolve) => setTimeout(resolve)); // lets a cancellation in
    port.onmessage = async ({ data: { id, name, run, values, load, cancel } }) => {
      if (cancel !== undefined) {
        cancelled.add(cancel);
        return;
      }
      try {
        if (load) {
          const module = await WebAssembly.compile(load.kernel);
          networks.set(run, new core.Network(load.header, new Float32Array(load.weights), module));
          port.postMessage({ id, result: true });
          return;
        }
        await pause();
        if (cancelled.has(id)) throw new DOMException("cancelled", "AbortError");
        let result = networks.get(run)[name](...values);
        if (name === "pgd") {
          const steps = result;
          for (let next = steps.next(); ; next = steps.next()) {
            result = next.value;
            if (next.done) break;
            port.postMessage({ id, progress: result });
            await pause();
            if (cancelled.has(id)) throw new DOMException("cancelled", "AbortError");
          }
        }
        port.postMessage({ id, result });
      } catch (error) {
        port.postMessage({ id, error: { name: error.name, message: error.message } });
      } finally {
        cancelled.delete(id);
      }
    };
  }

  const waiting = new Map();
  let port = null,
    count = 0;

  function receive({ data: { id, result, progress, error } }) {
    const { resolve, reject, onprogress } = waiting.get(id) || {};
    if (!resolve) return;
    if (progress) {
      if (onprogress) onprogress(progress);
      return;
    }
    waiting.delete(id);
    if (error)
      reject(
        error.name === "AbortError" ? new DOMException("cancelled", "AbortError") : new Error(error.message),
      );
    else resolve(result);
  }

  function connect() {
    if (port) return port;
    const text = `(${serve})((${NodeLive.core})(), self)`;
    port = new Worker(URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
    port.onmessage = receive;
    port.onerror = (event) => {
      for (const { reject } of waiting.values()) reject(new Error(event.message || "the worker failed"));
      waiting.clear();
    };
    return port;
  }

  function ask(message, { progress, signal } = {}, transfer = []) {
    return new Promise((resolve, reject) => {
      if (signal && signal.aborted) {
        reject(new DOMException("cancelled", "AbortError"));
        return;
      }
      const id = count++;
      const finish = (result) => {
        if (signal && signal.aborted) reject(new DOMException("cancelled", "AbortError"));
        else resolve(result); // one that was under way when it was cancelled still comes
      };
      waiting.set(id, { resolve: finish, reject, onprogress: progress });
      if (signal)
        signal.addEventListener("abort", () => waiting.has(id) && port.postMessage({ cancel: id }), {
          once: true,
        });
      connect().postMessage({ id, ...message }, transfer);
    });
  }

  NodeLive.load = (run) => {
    if (!networks.has(run)) {
      const loading = (async () => {
        if (!NodeLive.supported) throw new Error("this browser has no WebAssembly with 128-bit vectors");
        const [{ header, bytes }] = await Promise.all([NodeLive.data(`weights/${run}`), script("core")]);
        const kernel = (await NodeLive.data(`kernels/${header.shape}`)).bytes;
        await ask({ run, load: { header, kernel, weights: bytes.buffer } }, {}, [bytes.buffer]);
        const { shape, channels, side, t1 } = header,
          network = { run, shape, channels, side, t1 };
        const call =
          (name, arity) =>
          (...values) =>
            ask({ run, name, values: values.slice(0, arity) }, values[arity]);
        Object.entries({ logits: 2, trajectory: 2, gradient: 3, classGradients: 2, fgsm: 3, pgd: 3 }).forEach(
          ([name, arity]) => {
            network[name] = call(name, arity);
          },
        );
        return network;
      })();
      loading.catch(() => networks.delete(run));
      networks.set(run, loading);
    }
    return networks.get(run);
  };

  // ---- parts of a page ----

  // Mount a component where it stands; its content stays until the component is ready. A component is an
  // async function of (an empty element to fill, the mount's dataset) and may return {visible(shown)}, told
  // when it enters and leaves the screen.
  async function mount(place) {
    const kind = place.dataset.live;
    try {
      if (!NodeLive.supported) throw new Error("this browser has no WebAssembly with 128-bit vectors");
      await Promise.all([script("core"), script("widgets").then(() => script(kind))]);
      const body = document.createElement("div");
      body.className = `node-live-body node-live-${kind}`;
      const part = (await NodeLive.components[kind](body, place.dataset)) || {};
      place.replaceChildren(body);
      place.dataset.state = "ready";
      return part;
    } catch (error) {
      const note = document.createElement("p");
      note.className = "node-live-note";
      note.textContent = `This part is not live here: ${error.message}.`;
      place.append(note);
      place.dataset.state = "failed";
      return {};
    }
  }

  NodeLive.start = () => {
    const parts = new Map();
    const observer = new IntersectionObserver(
      (entries) => {
        for (const { target, isIntersecting } of entries) {
          if (isIntersecting && !parts.has(target)) parts.set(target, mount(target));
          const part = parts.get(target);
          if (part) part.then(({ visible }) => visible && visible(isIntersecting));
        }
      },
      { rootMargin: "100px" },
    );
    document.querySelectorAll(".node-live[data-live]").forEach((place) => observer.observe(place));
  };

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", NodeLive.start);
  else NodeLive.start();
})();
