
const VERTEX = `#version 300 es
precision highp float;
precision highp sampler2D;
precision highp usampler2D;
uniform sampler2D positions, scales, quats, colours;
uniform usampler2D order;  // far to near
uniform mat3 rotation;     // camera from world
uniform vec3 translation;  // camera from world
uniform vec4 intrinsics;   // fx fy cx cy, px
uniform vec2 viewport;     // px
out vec2 corner;  // in standard deviations
flat out vec4 colour;
void main() {
  // One triangle per Gaussian: software drivers take as long for each triangle of a tighter shape.
  int rank = gl_VertexID / 3, part = gl_VertexID % 3;
  int index = int(texelFetch(order, ivec2(rank % ${WIDTH}, rank / ${WIDTH}), 0).x);
  ivec2 texel = ivec2(index % ${WIDTH}, index / ${WIDTH});
  gl_Position = vec4(2.0, 2.0, 2.0, 1.0);
  vec3 p = rotation * texelFetch(positions, texel, 0).xyz + translation;
  colour = texelFetch(colours, texel, 0);
  if (p.z < 0.01 || colour.a < 1.0 / 255.0) return;
  vec4 q = normalize(texelFetch(quats, texel, 0));  // wxyz
  float w = q.x, x = q.y, y = q.z, z = q.w;
  mat3 orientation = mat3(
    1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y + w * z), 2.0 * (x * z - w * y),
    2.0 * (x * y - w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z + w * x),
    2.0 * (x * z + w * y), 2.0 * (y * z - w * x), 1.0 - 2.0 * (x * x + y * y));
  vec3 s = texelFetch(scales, texel, 0).xyz;
  mat3 axes = rotation * orientation * mat3(s.x, 0, 0, 0, s.y, 0, 0, 0, s.z);
  // The affine approximation is clamped outside the image, as in gsplat.
  vec2 limit = 1.3 * 0.5 * viewport / intrinsics.xy;
  vec2 slope = clamp(p.xy / p.z, -limit, limit);
  vec3 jx = vec3(intrinsics.x / p.z, 0.0, -intrinsics.x * slope.x / p.z);
  vec3 jy = vec3(0.0, intrinsics.y / p.z, -intrinsics.y * slope.y / p.z);
  vec3 u = jx * axes, v = jy * axes;  // rows of J W R S
  float a = dot(u, u) + 0.3, b = dot(u, v), c = dot(v, v) + 0.3;
  // The triangle encloses the circle on which alpha falls to the cut; a Cholesky factor of the
  // covariance maps circle and triangle to the image.
  float height = 2.0 * sqrt(2.0 * log(255.0 * colour.a));
  float half_width = 0.8660254;
  corner = height * (part == 0 ? vec2(0.0, 1.0) : vec2(part == 1 ? half_width : -half_width, -0.5));
  float root = sqrt(a), rest = sqrt(max(a * c - b * b, 0.0));
  vec2 offset = vec2(root * corner.x, (b * corner.x + rest * corner.y) / root);
  vec2 pixel = intrinsics.xy * p.xy / p.z + intrinsics.zw + offset;
  vec2 ndc = pixel / viewport * 2.0 - 1.0;
  gl_Position = vec4(ndc.x, -ndc.y, 0.0, 1.0);
}`;
const FRAGMENT = `#version 300 es
precision highp float;
in vec2 corner;
flat in vec4 colour;
out vec4 blended;
void main() {
  float alpha = min(0.999, colour.a * exp(-0.5 * dot(corner, corner)));
  if (alpha < 1.0 / 255.0) discard;
  blended = vec4(colour.rgb * alpha, alpha);
}`;

function makeProgram(gl) {
  const program = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS) && !gl.isContextLost())
      throw gl.getShaderInfoLog(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost())
    throw gl.getProgramInfoLog(program);
  gl.useProgram(program);
  return program;
}

function makeRenderer(gl, gaussians) {
  const { rows, firstRow, firstFading, total, texels } = gaussians;
  const { positions, quats, scales, colours } = gaussians;
  const labels = gaussians.arrays.labels;
  const program = makeProgram(gl), places = {};
  for (const name of ["rotation", "translation", "intrinsics", "viewport"])
    places[name] = gl.getUniformLocation(program, name);
  function texture(unit, name, inside, height, format, kind, data) {
    gl.activeTexture(gl.TEXTURE0 + unit);
    gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
    gl.texImage2D(gl.TEXTURE_2D, 0, inside, WIDTH, height, 0, format, kind, data);
    for (const key of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER])
      gl.texParameteri(gl.TEXTURE_2D, key, gl.NEAREST);
    gl.uniform1i(gl.getUniformLocation(program, name), unit);
  }
  const orderRows = Math.max(Math.ceil(total / WIDTH), 1);
  const order = new Uint32Array(orderRows * WIDTH);
  texture(0, "positions", gl.RGBA32F, rows, gl.RGBA, gl.FLOAT, positions);
  texture(1, "scales", gl.RGBA32F, rows, gl.RGBA, gl.FLOAT, scales);
  texture(2, "quats", gl.RGBA32F, rows, gl.RGBA, gl.FLOAT, quats);
  texture(3, "colours", gl.RGBA32F, rows, gl.RGBA, gl.FLOAT, colours);
  texture(4, "order", gl.R32UI, orderRows, gl.RED_INTEGER, gl.UNSIGNED_INT, order);
  gl.disable(gl.DEPTH_TEST);
  gl.disable(gl.DITHER);
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);

  function upload(unit, data, from) {  // the rows of a texture from one on
    if (from >= rows) return;
    gl.activeTexture(gl.TEXTURE0 + unit);
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, from, WIDTH, rows - from, gl.RGBA, gl.FLOAT, data,
                     4 * from * WIDTH);
  }

  const counts = new Uint32Array(65537), chosen = new Uint32Array(total);
  const zs = new Float32Array(total), depths = new Uint16Array(total);
  const reach = new Float32Array(total);  // of each Gaussian, in scene units
  for (let i = 0; i < total; i++) {
    const at = 4 * texels[i];
    reach[i] = 3.4 * Math.max(scales[at], scales[at + 1], scales[at + 2]);
  }
  function sortAlong(camera, width, height, shown) {  // its axis, far to near: a counting sort
    const [ax, ay, az, bx, by, bz, cx, cy, cz] = camera.rotation, t = camera.translation;
    const [fx, fy, px, py] = camera.intrinsics, [kx, ky, kz] = camera.axis;
    // Planes through the camera and a margin about the image.
    const right = (width - px + 4) / fx, left = (px + 4) / fx;
    const below = (height - py + 4) / fy, above = (py + 4) / fy;
    const lengths = [right, left, below, above].map((slope) => Math.hypot(1, slope));
    let nearest = Infinity, farthest = -Infinity, count = 0;
    for (let i = 0; i < total; i++) {
      const k = texels[i], at = 4 * k;
      if (colours[at + 3] < 1 / 255 || shown[labels[i]] === false) continue;
      const p = positions[at], q = positions[at + 1], r = positions[at + 2];
      const z = cx * p + cy * q + cz * r + t[2];
      if (z < 0.01) continue;
      const x = ax * p + ay * q + az * r + t[0], y = bx * p + by * q + bz * r + t[1], far = reach[i];
      if (x - right * z > far * lengths[0] || -x - left * z > far * lengths[1]
          || y - below * z > far * lengths[2] || -y - above * z > far * lengths[3]) continue;
      const along = kx * p + ky * q + kz * r;
      zs[count] = along;
      chosen[count++] = k;
      if (along < nearest) nearest = along;
      if (along > farthest) farthest = along;
    }
    const scale = 65535 / Math.max(farthest - nearest, 1e-9);
    counts.fill(0);
    for (let i = 0; i < count; i++) {
      depths[i] = (farthest - zs[i]) * scale;
      counts[depths[i] + 1]++;
    }
    for (let i = 0; i < 65536; i++) counts[i + 1] += counts[i];
    for (let i = 0; i < count; i++) order[counts[depths[i]]++] = chosen[i];
    return count;
  }

  return {
    posed() {  // the Gaussians have another time
      upload(0, positions, firstRow);
      upload(2, quats, firstRow);
      if (firstFading < total) upload(3, colours, Math.floor(texels[firstFading] / WIDTH));
    },
    draw(camera, shown) {
      const { width, height } = gl.canvas;
      const count = sortAlong(camera, width, height, shown);
      gl.activeTexture(gl.TEXTURE4);
      gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, WIDTH, Math.ceil(count / WIDTH), gl.RED_INTEGER,
                       gl.UNSIGNED_INT, order);
      gl.viewport(0, 0, width, height);
      gl.clearColor(0, 0, 0, 1);
      gl.clear(gl.COLOR_BUFFER_BIT);
      gl.uniformMatrix3fv(places.rotation, true, camera.rotation);
      gl.uniform3fv(places.translation, camera.translation);
      gl.uniform4fv(places.intrinsics, camera.intrinsics);
      gl.uniform2f(places.viewport, width, height);
      gl.drawArrays(gl.TRIANGLES, 0, 3 * count);
    },
  };
}
