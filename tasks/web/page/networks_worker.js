// A worker that loads the networks and analyses images, so that the page stays responsive.

import * as ort from "./onnxruntime/ort.wasm.bundle.min.js";
import { Backbone } from "./backbone.js";
import { FaceDetector } from "./cascade.js";

const MOST_THREADS = 4;
let detector;
let backbone;

self.onmessage = async ({ data }) => {
  try {
    if (data.type === "load") await load(data);
    else await analyse(data);
  } catch (error) {
    self.postMessage({ type: "failed", id: data.id, message: String(error?.message ?? error) });
  }
};

async function load({ id, settings }) {
  const { runtime, networks } = settings;
  const files = [runtime, networks.pnet, networks.rnet, networks.onet, networks.backbone];
  const total = files.reduce((sum, file) => sum + file.bytes, 0);
  let done = 0;
  const advance = (bytes) => self.postMessage({ type: "loading", share: Math.min(1, (done += bytes) / total) });
  const [wasm, ...models] = await Promise.all(files.map((file) => download(file.path, advance)));
  ort.env.wasm.wasmBinary = wasm;
  // Browsers allow threads only to isolated pages. The service worker isolates this page from the second visit on.
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(MOST_THREADS, navigator.hardwareConcurrency) : 1;
  const [pnet, rnet, onet, network] = await createSessions(models);
  detector = new FaceDetector({ pnet, rnet, onet }, settings.detector);
  backbone = new Backbone(network, settings.backbone);
  // The first run of a network allocates its memory.
  const { input_px: size } = settings.backbone;
  await network(new Uint8Array(size * size * 3), [1, size, size, 3]);
  self.postMessage({ type: "ready", id, threads: ort.env.wasm.numThreads });
}

async function download(path, advance) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path}: HTTP status ${response.status}`);
  const parts = [];
  for (let reader = response.body.getReader(), read; !(read = await reader.read()).done; ) {
    parts.push(read.value);
    advance(read.value.length);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

async function createSessions(models) {
  const runs = [];
  for (const model of models) {
    const session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"], logSeverityLevel: 3 });
    const [input] = session.inputNames;
    runs.push((values, shape) => {
      const type = values instanceof Uint8Array ? "uint8" : "float32";
      return session.run({ [input]: new ort.Tensor(type, values, shape) });
    });
  }
  return runs;
}

async function analyse({ id, pixels, width, height }) {
  const image = { data: new Uint8ClampedArray(pixels), width, height, channels: 4 };
  const started = performance.now();
  const found = (await detector.detect(image)).filter(({ box: [x1, y1, x2, y2] }) => x2 > 0 && y2 > 0 && x1 < width && y1 < height);
  const detected = performance.now();
  const predictions = await backbone.predict(image, found.map(({ box }) => box));
  const faces = found.map((face, i) => ({ ...face, ...predictions[i] }));
  const milliseconds = { detection: detected - started, backbone: performance.now() - detected };
  self.postMessage({ type: "analysed", id, faces, milliseconds });
}
