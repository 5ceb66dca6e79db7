// What JPEG with full colour resolution loses: the program stores faces as JPEG before it classifies them, which changes
// probabilities by up to 0.05. The bytes between encoding and decoding lose nothing, so they are not made.

const SIDE = 8;
const BLOCK = SIDE * SIDE;

// Quantization tables of ITU-R T.81, annex K.1.
// prettier-ignore
const LUMINANCE = [
  16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
  18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
];
// prettier-ignore
const CHROMINANCE = [
  17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99,
  ...Array(32).fill(99),
];

// The cosine transform as a matrix: row = frequency, column = place.
const COSINES = Float64Array.from({ length: BLOCK }, (_, at) => {
  const frequency = Math.floor(at / SIDE);
  const place = at % SIDE;
  return (frequency ? 0.5 : Math.SQRT1_2 / 2) * Math.cos(((2 * place + 1) * frequency * Math.PI) / (2 * SIDE));
});

/** Return an image of three channels as JPEG of that quality (50 to 100) gives it back. */
export function throughJpeg(image, quality) {
  const { width, height } = image;
  // Whole blocks: the last column and row are repeated.
  const columns = Math.ceil(width / SIDE) * SIDE;
  const rows = Math.ceil(height / SIDE) * SIDE;
  const planes = toPlanes(image, columns, rows);
  planes.forEach((plane, i) => quantize(plane, columns, rows, scaled(i ? CHROMINANCE : LUMINANCE, quality)));
  return toColours(planes, columns, width, height);
}

function scaled(table, quality) {
  const scale = 200 - 2 * quality;
  return table.map((value) => Math.min(255, Math.max(1, Math.floor((value * scale + 50) / 100))));
}

/** Return luminance and two colour differences, around 0. */
function toPlanes({ data, width, height }, columns, rows) {
  const planes = [0, 1, 2].map(() => new Float64Array(columns * rows));
  for (let y = 0, to = 0; y < rows; y++) {
    const line = Math.min(y, height - 1) * width;
    for (let x = 0; x < columns; x++, to++) {
      const from = (line + Math.min(x, width - 1)) * 3;
      const red = data[from];
      const green = data[from + 1];
      const blue = data[from + 2];
      planes[0][to] = Math.round(0.299 * red + 0.587 * green + 0.114 * blue) - 128;
      planes[1][to] = Math.round(-0.168735892 * red - 0.331264108 * green + 0.5 * blue);
      planes[2][to] = Math.round(0.5 * red - 0.418687589 * green - 0.081312411 * blue);
    }
  }
  return planes;
}

/** Transform each block, round its frequencies to multiples of the table's values, and transform it back. */
function quantize(plane, columns, rows, table) {
  const block = new Float64Array(BLOCK);
  const half = new Float64Array(BLOCK);
  for (let top = 0; top < rows; top += SIDE) {
    for (let left = 0; left < columns; left += SIDE) {
      for (let y = 0; y < SIDE; y++) block.set(plane.subarray((top + y) * columns + left, (top + y) * columns + left + SIDE), y * SIDE);
      multiply(block, half, SIDE, 1);
      multiply(half, block, SIDE, 1);
      for (let at = 0; at < BLOCK; at++) {
        const steps = Math.round(Math.abs(block[at]) / table[at]);
        block[at] = Math.sign(block[at]) * steps * table[at];
      }
      multiply(block, half, 1, SIDE);
      multiply(half, block, 1, SIDE);
      for (let y = 0; y < SIDE; y++) {
        for (let x = 0; x < SIDE; x++) plane[(top + y) * columns + left + x] = limit(Math.round(block[y * SIDE + x]) + 128);
      }
    }
  }
}

/** Multiply each row of `from` with the matrix, or with its transpose, and write the result transposed. */
function multiply(from, to, rowStep, columnStep) {
  for (let line = 0; line < BLOCK; line += SIDE) {
    for (let out = 0; out < SIDE; out++) {
      let sum = 0;
      for (let at = 0; at < SIDE; at++) sum += from[line + at] * COSINES[out * rowStep + at * columnStep];
      to[out * SIDE + line / SIDE] = sum;
    }
  }
}

function toColours([luminance, blueness, redness], columns, width, height) {
  const data = new Uint8Array(width * height * 3);
  for (let y = 0, to = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const at = y * columns + x;
      const light = luminance[at];
      const blue = blueness[at] - 128;
      const red = redness[at] - 128;
      data[to++] = limit(light + Math.round(1.402 * red));
      data[to++] = limit(light + Math.round(-0.344136286 * blue - 0.714136286 * red));
      data[to++] = limit(light + Math.round(1.772 * blue));
    }
  }
  return { data, width, height, channels: 3 };
}

const limit = (value) => Math.min(255, Math.max(0, value));
