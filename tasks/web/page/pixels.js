// Arithmetic of pixels: integral images, area pooling, cropping and resizing, equal to the Python program's.
// An image is {data, width, height, channels}: interleaved bytes, of which the first three channels are red, green, blue.

const MEAN = 127.5;
const SCALE = 0.0078125;

/** Sums of all pixels above and to the left, [h + 1, w + 1, 3]. They may wrap around; differences are still correct. */
export class IntegralImage {
  #sums = new Int32Array(0);

  fill({ data, width, height, channels }) {
    this.width = width;
    this.height = height;
    this.stride = (width + 1) * 3;
    const count = this.stride * (height + 1);
    if (this.#sums.length < count) this.#sums = new Int32Array(count);
    const sums = this.#sums;
    sums.fill(0, 0, this.stride);
    for (let y = 0, from = 0; y < height; y++) {
      let red = 0, green = 0, blue = 0;
      let above = y * this.stride;
      let here = above + this.stride;
      sums[here] = sums[here + 1] = sums[here + 2] = 0;
      for (let x = 0; x < width; x++, from += channels) {
        above += 3;
        here += 3;
        sums[here] = sums[above] + (red += data[from]);
        sums[here + 1] = sums[above + 1] + (green += data[from + 1]);
        sums[here + 2] = sums[above + 2] + (blue += data[from + 2]);
      }
    }
  }

  /**
   * Write normalised means of rows x columns windows over the box {x1, y1, x2, y2} (ends exclusive) to
   * out[at...], as three planes. Windows reach from floor(i n / m) to ceil((i + 1) n / m).
   */
  pool({ x1, y1, x2, y2 }, rows, columns, out, at) {
    const sums = this.#sums;
    const [top, bottom] = windows(y1, y2 - y1, rows);
    const [left, right] = windows(x1, x2 - x1, columns);
    const plane = rows * columns;
    for (let i = 0; i < rows; i++) {
      const upper = top[i] * this.stride;
      const lower = bottom[i] * this.stride;
      for (let j = 0; j < columns; j++, at++) {
        const near = left[j] * 3;
        const far = right[j] * 3;
        const share = 1 / ((bottom[i] - top[i]) * (right[j] - left[j]));
        for (let colour = 0; colour < 3; colour++) {
          const total =
            (sums[lower + far + colour] - sums[upper + far + colour] - sums[lower + near + colour] + sums[upper + near + colour]) | 0;
          out[at + colour * plane] = (total * share - MEAN) * SCALE;
        }
      }
    }
  }
}

function windows(first, size, count) {
  const starts = new Int32Array(count);
  const ends = new Int32Array(count);
  for (let i = 0; i < count; i++) {
    starts[i] = first + Math.floor((i * size) / count);
    ends[i] = first + Math.ceil(((i + 1) * size) / count);
  }
  return [starts, ends];
}

/** Return the part of an image that a box [x1, y1, x2, y2] touches, or null if the box lies outside of it. */
export function cropFace({ data, width, height, channels }, [x1, y1, x2, y2]) {
  const left = Math.max(0, Math.floor(x1));
  const top = Math.max(0, Math.floor(y1));
  const right = Math.min(width, Math.ceil(x2));
  const bottom = Math.min(height, Math.ceil(y2));
  if (right <= left || bottom <= top) return null;
  const crop = { data: new Uint8Array((right - left) * (bottom - top) * 3), width: right - left, height: bottom - top, channels: 3 };
  let to = 0;
  for (let y = top; y < bottom; y++) {
    for (let x = left; x < right; x++) {
      const from = (y * width + x) * channels;
      crop.data[to++] = data[from];
      crop.data[to++] = data[from + 1];
      crop.data[to++] = data[from + 2];
    }
  }
  return crop;
}

/** Shrink an image so that its longer side is at most maxSide; never enlarge it. */
export function shrinkTo(image, maxSide) {
  const longest = Math.max(image.width, image.height);
  if (longest <= maxSide) return image;
  const side = (pixels) => Math.max(1, roundHalfToEven((pixels * maxSide) / longest));
  return resizeAntialiased(image, side(image.width), side(image.height));
}

/** Resize an image of three channels to a square, by the filter that a network was trained with. */
export function resizeToSquare(image, size, interpolation) {
  return interpolation === "bilinear" ? resizeAntialiased(image, size, size) : resizeByNearestTwo(image, size);
}

// As Pillow's BILINEAR: coefficients with 22 bits, first columns, then rows, rounded to bytes in between.
const PILLOW_BITS = 22;

function resizeAntialiased(image, width, height) {
  const across = resample(image, antialiasedTaps(image.width, width), width, image.height, 3, image.width * 3);
  const narrow = { data: across, width, height: image.height, channels: 3 };
  const data = resample(narrow, antialiasedTaps(image.height, height), height, width, width * 3, 3);
  return { data, width, height, channels: 3 };
}

/** Resample one axis. `step` and `lineStep`: distance of neighbours in the input, along the axis and across it. */
function resample({ data }, { first, counts, coefficients, most }, size, lines, step, lineStep) {
  const out = new Uint8Array(size * lines * 3);
  const isAcross = step === 3;
  const outStep = isAcross ? 3 : lines * 3;
  const outLineStep = isAcross ? size * 3 : 3;
  for (let line = 0; line < lines; line++) {
    for (let i = 0; i < size; i++) {
      let red = 1 << (PILLOW_BITS - 1), green = red, blue = red;
      let from = line * lineStep + first[i] * step;
      for (let tap = 0; tap < counts[i]; tap++, from += step) {
        const by = coefficients[i * most + tap];
        red += data[from] * by;
        green += data[from + 1] * by;
        blue += data[from + 2] * by;
      }
      const to = line * outLineStep + i * outStep;
      out[to] = red >> PILLOW_BITS;
      out[to + 1] = green >> PILLOW_BITS;
      out[to + 2] = blue >> PILLOW_BITS;
    }
  }
  return out;
}

function antialiasedTaps(length, size) {
  const scale = length / size;
  const support = Math.max(scale, 1);
  const most = Math.ceil(support) * 2 + 1;
  const first = new Int32Array(size);
  const counts = new Int32Array(size);
  const coefficients = new Int32Array(size * most);
  for (let i = 0; i < size; i++) {
    const centre = (i + 0.5) * scale;
    const start = Math.max(Math.trunc(centre - support + 0.5), 0);
    const end = Math.min(Math.trunc(centre + support + 0.5), length);
    const weights = [];
    for (let x = start; x < end; x++) weights.push(Math.max(0, 1 - Math.abs((x - centre + 0.5) / support)));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    weights.forEach((weight, tap) => (coefficients[i * most + tap] = Math.trunc(0.5 + (weight / total) * (1 << PILLOW_BITS))));
    first[i] = start;
    counts[i] = end - start;
  }
  return { first, counts, coefficients, most };
}

// As OpenCV's INTER_LINEAR: the two nearest pixels of each axis, coefficients with 11 bits.
function resizeByNearestTwo(image, size) {
  const columns = nearestTwo(image.width, size);
  const rows = nearestTwo(image.height, size);
  const data = new Uint8Array(size * size * 3);
  let to = 0;
  for (const [above, below, upper, lower] of rows) {
    for (const [before, after, left, right] of columns) {
      for (let colour = 0; colour < 3; colour++) {
        const sum = (row) => {
          const from = row * image.width;
          return (image.data[(from + before) * 3 + colour] * left + image.data[(from + after) * 3 + colour] * right) >> 4;
        };
        data[to++] = (((sum(above) * upper) >> 16) + ((sum(below) * lower) >> 16) + 2) >> 2;
      }
    }
  }
  return { data, width: size, height: size, channels: 3 };
}

function nearestTwo(length, size) {
  const inside = (at) => Math.min(Math.max(at, 0), length - 1);
  return Array.from({ length: size }, (_, i) => {
    const position = Math.fround((i + 0.5) * (1 / (size / length)) - 0.5);
    const before = Math.floor(position);
    const share = Math.fround(position - before);
    const coefficient = (value) => roundHalfToEven(Math.fround(Math.fround(value) * 2048));
    return [inside(before), inside(before + 1), coefficient(1 - share), coefficient(share)];
  });
}

function roundHalfToEven(value) {
  const floor = Math.floor(value);
  const rest = value - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 !== 0) ? floor + 1 : floor;
}
