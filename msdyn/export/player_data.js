"use strict";
// The arrays of the page: see "html" in docs/formats.md.
const header = JSON.parse(document.getElementById("header").textContent);

async function unpack() {
  const element = document.getElementById("data");
  const bytes = Uint8Array.from(atob(element.textContent.trim()), (c) => c.charCodeAt(0));
  element.remove();
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const stored = new Uint8Array(await new Response(stream).arrayBuffer());
  const arrays = {};
  for (const row of header.arrays) arrays[row.name] = numbersOf(row, stored);
  return arrays;
}

function numbersOf(row, stored) {  // the whole numbers of an array, row after row
  const count = row.rows * row.columns, values = new Int32Array(count);
  for (let plane = 0; plane < row.bytes; plane++) {
    const from = row.offset + plane * count;
    for (let i = 0; i < count; i++) values[i] |= stored[from + i] << (8 * plane);
  }
  for (let i = 0; i < count; i++) values[i] = (values[i] >>> 1) ^ -(values[i] & 1);
  const [down, across] = row.differences;
  if (across)
    for (let i = 0; i < count; i++) if (i % row.columns) values[i] += values[i - 1];
  if (down)
    for (let i = down * row.columns; i < count; i++) values[i] += values[i - down * row.columns];
  return values;
}

function locate(time) {  // the stored times before and after, and the fraction between them
  const at = header.times, last = at.length - 1;
  let k = 0;
  while (k < last - 1 && at[k + 1] <= time) k++;
  const next = Math.min(k + 1, last);
  const fraction = next > k ? Math.min(Math.max((time - at[k]) / (at[next] - at[k]), 0), 1) : 0;
  return [k, next, fraction];
}

// Gaussians as texels of WIDTH x rows textures, the moving ones from firstRow on.
const WIDTH = 1024;  // px
class Gaussians {
  constructor(arrays) {
    const { fixed, moving, low, step, colour_step, opacity_step } = header, total = fixed + moving;
    this.arrays = arrays;
    this.firstRow = Math.ceil(fixed / WIDTH);
    this.rows = Math.max(this.firstRow + Math.ceil(moving / WIDTH), 1);
    this.total = total;
    const size = this.rows * WIDTH * 4;
    this.positions = new Float32Array(size);
    this.quats = new Float32Array(size);
    this.scales = new Float32Array(size);
    this.colours = new Float32Array(size);
    this.texels = new Uint32Array(total);
    const [smallest, ratio] = header.log_scale, unit = header.quat_step;
    for (let i = 0; i < total; i++) {
      const texel = i < fixed ? i : this.firstRow * WIDTH + i - fixed, at = 4 * texel;
      this.texels[i] = texel;
      this.colours[at + 3] = opacity_step * arrays.alpha[i];
      for (let j = 0; j < 3; j++) {
        this.scales[at + j] = Math.exp(smallest + ratio * arrays.scales[j * total + i]);
        this.colours[at + j] = colour_step * arrays.colours[j * total + i];
      }
      if (i >= fixed) continue;
      let rest = 1;
      for (let j = 0; j < 3; j++) {
        this.positions[at + j] = low[j] + step * arrays.fixed_positions[j * fixed + i];
        const value = unit * arrays.fixed_quats[j * fixed + i];
        this.quats[at + 1 + j] = value;
        rest -= value * value;
      }
      this.quats[at] = Math.sqrt(Math.max(rest, 0));
    }
    this.firstFading = firstFading(arrays.alpha, total);
    this.pose(0);
  }

  pose(time) {  // interpolates what changes between two stored times
    const { fixed, moving, low, step } = header, { arrays, total } = this;
    const [k, next, fraction] = locate(time);
    const p = arrays.moving_positions, q = arrays.moving_quats, alpha = arrays.alpha;
    const first = 4 * this.firstRow * WIDTH;
    for (let j = 0; j < 3; j++) {
      let a = (3 * k + j) * moving, b = (3 * next + j) * moving, i = first + j;
      for (let g = 0; g < moving; g++, a++, b++, i += 4)
        this.positions[i] = low[j] + step * (p[a] + fraction * (p[b] - p[a]));
    }
    for (let j = 0; j < 4; j++) {
      let a = (4 * k + j) * moving, b = (4 * next + j) * moving, i = first + j;
      for (let g = 0; g < moving; g++, a++, b++, i += 4)
        this.quats[i] = q[a] + fraction * (q[b] - q[a]);
    }
    if (this.firstFading === total) return;
    for (let g = this.firstFading; g < total; g++) {
      const a = alpha[k * total + g], b = alpha[next * total + g];
      this.colours[4 * this.texels[g] + 3] = header.opacity_step * (a + fraction * (b - a));
    }
  }
}

function firstFading(alpha, total) {  // the first Gaussian whose opacity changes, or their number
  let first = total;
  for (let i = total; i < alpha.length; i++)
    if (alpha[i] !== alpha[i % total]) first = Math.min(first, i % total);
  return first;
}
