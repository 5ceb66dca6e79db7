// MTCNN (Zhang et al. 2016, arXiv 1604.02878): P-Net proposes squares on an image pyramid, R-Net and O-Net refine them.
// Thresholds, rounding and suppression are those of the Python program.

import { IntegralImage } from "./pixels.js";

const CROPS_PER_BATCH = 64;

export class FaceDetector {
  #image = new IntegralImage();

  /** `networks`: {pnet, rnet, onet}, functions from a Float32Array and its shape to the outputs by name. */
  constructor(networks, settings) {
    this.networks = networks;
    this.settings = settings;
  }

  /** Return the faces of an image, largest first: {box: [x1, y1, x2, y2], score}. */
  async detect(image) {
    this.#image.fill(image);
    const { settings } = this;
    let boxes = [];
    for (const scale of pyramidScales(image.height, image.width, settings)) boxes.push(...(await this.#propose(scale)));
    boxes = suppress(boxes, settings.merged_nms_iou).map(refineProposal);
    boxes = await this.#accept("rnet", 24, settings.rnet_threshold, boxes);
    boxes = suppress(boxes, settings.merged_nms_iou).map((box) => toSquare(applyShift(box)));
    boxes = await this.#accept("onet", 48, settings.onet_threshold, boxes);
    boxes = suppress(boxes.map(applyShift), settings.final_nms_iomin, true);
    const area = ({ x1, y1, x2, y2 }) => (x2 - x1) * (y2 - y1);
    boxes.sort((a, b) => area(b) - area(a) || b.score - a.score);
    return boxes.map(({ x1, y1, x2, y2, score }) => ({ box: [x1, y1, x2, y2], score }));
  }

  async #propose(scale) {
    const { width, height } = this.#image;
    const { cell_px, stride_px, pnet_threshold, level_nms_iou } = this.settings;
    const rows = Math.trunc(height * scale + 1);
    const columns = Math.trunc(width * scale + 1);
    const level = new Float32Array(3 * rows * columns);
    this.#image.pool({ x1: 0, y1: 0, x2: width, y2: height }, rows, columns, level, 0);
    const { shift, probability } = await this.networks.pnet(level, [1, 3, rows, columns]);
    const [, , cellRows, cellColumns] = probability.dims;
    const count = cellRows * cellColumns;
    const boxes = [];
    const place = (cell, offset) => Math.floor(Math.fround((stride_px * cell + offset) / Math.fround(scale)));
    for (let cell = 0; cell < count; cell++) {
      const score = probability.data[count + cell];
      if (score < pnet_threshold) continue;
      const row = Math.floor(cell / cellColumns);
      const column = cell % cellColumns;
      boxes.push({
        x1: place(column, 1),
        y1: place(row, 1),
        x2: place(column, cell_px),
        y2: place(row, cell_px),
        score,
        shift: [0, 1, 2, 3].map((k) => shift.data[k * count + cell]),
      });
    }
    return suppress(boxes, level_nms_iou);
  }

  /** Return the boxes that R-Net or O-Net accepts, with its scores and shifts. */
  async #accept(network, size, threshold, boxes) {
    const clipped = boxes.map((box) => ({ box, inner: this.#clip(box) })).filter(({ inner }) => inner);
    const accepted = [];
    for (let first = 0; first < clipped.length; first += CROPS_PER_BATCH) {
      const batch = clipped.slice(first, first + CROPS_PER_BATCH);
      const crops = new Float32Array(batch.length * 3 * size * size);
      batch.forEach(({ inner }, i) => this.#image.pool(inner, size, size, crops, i * 3 * size * size));
      const { shift, probability } = await this.networks[network](crops, [batch.length, 3, size, size]);
      batch.forEach(({ box }, i) => {
        const score = probability.data[2 * i + 1];
        if (score > threshold) accepted.push({ ...box, score, shift: shift.data.slice(4 * i, 4 * i + 4) });
      });
    }
    return accepted;
  }

  #clip({ x1, y1, x2, y2 }) {
    const inner = {
      x1: Math.max(Math.trunc(x1), 1) - 1,
      y1: Math.max(Math.trunc(y1), 1) - 1,
      x2: Math.min(Math.trunc(x2), this.#image.width),
      y2: Math.min(Math.trunc(y2), this.#image.height),
    };
    return inner.x2 > inner.x1 && inner.y2 > inner.y1 ? inner : null;
  }
}

/** Return the scales of the pyramid's levels, largest first. */
function pyramidScales(height, width, { cell_px, min_face_px, pyramid_factor }) {
  const scales = [];
  let scale = cell_px / min_face_px;
  for (let side = Math.min(height, width) * scale; side >= cell_px; side *= pyramid_factor) {
    scales.push(scale);
    scale *= pyramid_factor;
  }
  return scales;
}

/** Move a box of P-Net by its shifts, which are fractions of its sides, and widen it to a square. */
function refineProposal({ x1, y1, x2, y2, score, shift }) {
  const width = x2 - x1;
  const height = y2 - y1;
  return toSquare({
    x1: x1 + shift[0] * width,
    y1: y1 + shift[1] * height,
    x2: x2 + shift[2] * width,
    y2: y2 + shift[3] * height,
    score,
  });
}

/** Move a box of R-Net or O-Net by its shifts, which are fractions of its sides in whole pixels (+ 1). */
function applyShift({ x1, y1, x2, y2, score, shift }) {
  const width = x2 - x1 + 1;
  const height = y2 - y1 + 1;
  return {
    x1: x1 + shift[0] * width,
    y1: y1 + shift[1] * height,
    x2: x2 + shift[2] * width,
    y2: y2 + shift[3] * height,
    score,
  };
}

/** Widen a box around its centre to a square. */
function toSquare({ x1, y1, x2, y2, score }) {
  const longest = Math.max(x2 - x1, y2 - y1);
  const left = x1 + (x2 - x1) * 0.5 - longest * 0.5;
  const top = y1 + (y2 - y1) * 0.5 - longest * 0.5;
  return { x1: left, y1: top, x2: left + longest, y2: top + longest, score };
}

/**
 * Greedy non-maximum suppression; return the kept boxes, best score first. Overlap is intersection over union, or
 * intersection over the smaller box with sides in whole pixels (+ 1).
 */
function suppress(boxes, threshold, bySmaller = false) {
  const extra = bySmaller ? 1 : 0;
  const left = [...boxes].sort((a, b) => b.score - a.score);
  const areas = new Map(left.map((box) => [box, (box.x2 - box.x1 + extra) * (box.y2 - box.y1 + extra)]));
  const gone = new Set();
  const kept = [];
  left.forEach((best, place) => {
    if (gone.has(best)) return;
    kept.push(best);
    for (let other = place + 1; other < left.length; other++) {
      const box = left[other];
      if (gone.has(box)) continue;
      const width = Math.min(best.x2, box.x2) - Math.max(best.x1, box.x1) + extra;
      const height = Math.min(best.y2, box.y2) - Math.max(best.y1, box.y1) + extra;
      const shared = Math.max(0, width) * Math.max(0, height);
      const areaOfBest = areas.get(best);
      const area = areas.get(box);
      const whole = bySmaller ? Math.min(areaOfBest, area) : areaOfBest + area - shared;
      if (shared > threshold * whole) gone.add(box);
    }
  });
  return kept;
}
