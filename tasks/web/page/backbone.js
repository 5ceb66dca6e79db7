// The backbone: from faces to probabilities of expressions, valence and arousal.

import { cropFace, resizeToSquare, shrinkTo } from "./pixels.js";

const FACES_PER_BATCH = 8;

export class Backbone {
  /** `run`: a function from a Uint8Array [n, px, px, 3] and its shape to the outputs by name. */
  constructor(run, settings) {
    this.run = run;
    this.settings = settings;
  }

  /** Return {probabilities, valence, arousal} of each box; null where the backbone has no such output. */
  async predict(image, boxes) {
    const { input_px: size } = this.settings;
    const predictions = [];
    for (let first = 0; first < boxes.length; first += FACES_PER_BATCH) {
      const batch = boxes.slice(first, first + FACES_PER_BATCH);
      const pixels = new Uint8Array(batch.length * size * size * 3);
      batch.forEach((box, i) => {
        pixels.set(this.#prepare(cropFace(image, box)), i * size * size * 3);
      });
      const { logits } = await this.run(pixels, [batch.length, size, size, 3]);
      const outputs = logits.dims[1];
      batch.forEach((_, i) => predictions.push(this.#decide(logits.data.slice(i * outputs, (i + 1) * outputs))));
    }
    return predictions;
  }

  /** Return the network's input for a face, as the program shrinks and resizes it. */
  #prepare(face) {
    const { input_px, interpolation, max_side_px } = this.settings;
    return resizeToSquare(shrinkTo(face, max_side_px), input_px, interpolation).data;
  }

  #decide(logits) {
    const { expressions, affect } = this.settings;
    const limited = (output) => Math.min(1, Math.max(-1, logits[output]));
    return {
      probabilities: expressions.length ? softmax(expressions.map(({ output }) => logits[output])) : null,
      valence: affect ? limited(affect.valence) : null,
      arousal: affect ? limited(affect.arousal) : null,
    };
  }
}

function softmax(values) {
  const largest = Math.max(...values);
  const powers = values.map((value) => Math.exp(value - largest));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}
