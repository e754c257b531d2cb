// Runs in viser's page before viser does; see page.py.
"use strict";
(() => {
  // The cookie has the token by now: the address bar, the history and bookmarks need not.
  const address = new URL(location.href);
  if (address.searchParams.has("token")) {
    address.searchParams.delete("token");
    history.replaceState(null, "", address);
  }

  // three.js reports a NaN bounding sphere for viser's Gaussians, because their corners have two
  // coordinates instead of three. It is harmless: without bounds they are never culled. Only this
  // message is suppressed.
  const error = console.error;
  console.error = (...messages) => {
    const corners = messages[1]?.attributes?.sortedIndex;
    if (corners && String(messages[0]).includes("computeBoundingSphere(): Computed radius is NaN"))
      return;
    error.apply(console, messages);
  };

  // The rest is for browsers that render in software, without a GPU. There, viser's instances of two
  // triangles per Gaussian with four samples per pixel take two to ten times as long as the same
  // image drawn with one triangle per Gaussian in one index list.
  const scratch = document.createElement("canvas").getContext("webgl2");
  if (!scratch) return;
  const names = scratch.getExtension("WEBGL_debug_renderer_info");
  const renderer = scratch.getParameter(names ? names.UNMASKED_RENDERER_WEBGL : scratch.RENDERER);
  scratch.getExtension("WEBGL_lose_context")?.loseContext();
  if (!/llvmpipe|softpipe|swiftshader|software|basic render/i.test(renderer)) return;

  const getContext = HTMLCanvasElement.prototype.getContext;
  HTMLCanvasElement.prototype.getContext = function (kind, options) {
    const changed = kind === "webgl2" ? { ...options, antialias: false } : options;
    return getContext.call(this, kind, changed);
  };

  // viser's vertex shader takes the corner of a square with side 4 and draws the inscribed disc of
  // radius 2. The edited one takes the corner of a triangle around that disc, or around the part of
  // it above the opacity cut. A shader that lacks the expected lines is left unchanged.
  const EDITS = [
    ["attribute uint sortedIndex;", ""],
    ["void main () {", `void main () {
      uint sortedIndex = uint(gl_VertexID / 3);
      int part = gl_VertexID % 3;
      vec2 corner = part == 0 ? vec2(0.0, 4.0) : vec2(part == 1 ? 3.4641016 : -3.4641016, -2.0);`],
    ["vPosition = position.xy;", `
      corner *= clamp(sqrt(max(log(vRgba.a / 0.01), 0.0)) / 2.0, 0.0, 1.0);
      vPosition = corner;`],
    ["position.x * v1", "corner.x * v1"],
    ["position.y * v2", "corner.y * v2"],
  ];
  const gl2 = WebGL2RenderingContext.prototype;
  const { shaderSource, bufferData, bufferSubData, drawElementsInstanced } = gl2;
  const patch = { splats: new WeakMap(), meshes: new WeakMap(), order: null, version: 0, draws: 0 };
  window.msdynPage = patch;
  gl2.shaderSource = function (shader, source) {
    if (EDITS.every(([from]) => source.includes(from))) {
      for (const [from, to] of EDITS) source = source.replace(from, to);
      patch.edited = true;
    }
    return shaderSource.call(this, shader, source);
  };

  // The order from far to near is the only vertex attribute of integers.
  const storeOrder = (gl, target, data) => {
    if (target !== gl.ARRAY_BUFFER || !(data instanceof Uint32Array)) return;
    patch.order = data;
    patch.version++;
  };
  gl2.bufferData = function (target, data, ...rest) {
    storeOrder(this, target, data);
    return bufferData.call(this, target, data, ...rest);
  };
  gl2.bufferSubData = function (target, at, data, ...rest) {
    storeOrder(this, target, data);
    return bufferSubData.call(this, target, at, data, ...rest);
  };

  function drawsSplats(gl) {
    const program = gl.getParameter(gl.CURRENT_PROGRAM);
    if (!patch.splats.has(program))
      patch.splats.set(program, gl.getUniformLocation(program, "textureT_camera_groups") !== null);
    return patch.splats.get(program);
  }
  gl2.drawElementsInstanced = function (mode, count, type, offset, instances) {
    if (!patch.edited || !drawsSplats(this))
      return drawElementsInstanced.call(this, mode, count, type, offset, instances);
    if (patch.order?.length !== instances) return undefined;  // the order is not up to date
    const before = this.getParameter(this.VERTEX_ARRAY_BINDING);
    if (!patch.meshes.has(this))
      patch.meshes.set(this, { list: this.createVertexArray(), buffer: this.createBuffer() });
    const mesh = patch.meshes.get(this);
    this.bindVertexArray(mesh.list);
    if (mesh.version !== patch.version) {
      const corners = new Uint32Array(3 * instances);
      for (let i = 0, k = 0; i < instances; i++)
        for (let j = 0; j < 3; j++) corners[k++] = 3 * patch.order[i] + j;
      this.bindBuffer(this.ELEMENT_ARRAY_BUFFER, mesh.buffer);
      bufferData.call(this, this.ELEMENT_ARRAY_BUFFER, corners, this.DYNAMIC_DRAW);
      mesh.version = patch.version;
    }
    this.drawElements(mode, 3 * instances, this.UNSIGNED_INT, 0);
    this.bindVertexArray(before);
    patch.draws++;
  };
})();
