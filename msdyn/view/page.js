// Runs in viser's page before viser does; see page.py.
"use strict";
(() => {
  // three.js complains of the bounds of viser's Gaussians, whose corners have two coordinates and
  // not three. It is right: their bounds are not those of their corners, and without bounds they
  // are never left out. Nothing else is kept from the console.
  const error = console.error;
  console.error = (...said) => {
    const corners = said[1]?.attributes?.sortedIndex;
    if (corners && String(said[0]).includes("computeBoundingSphere(): Computed radius is NaN"))
      return;
    error.apply(console, said);
  };

  // What follows is for browsers that draw in software, on machines without a GPU. There viser's
  // way of drawing, an instance of two triangles a Gaussian, four samples a pixel, takes two to ten
  // times as long as the same picture made of one triangle a Gaussian in one list.
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

  // viser's vertex shader takes the corner of a square of half a side of 2 and draws the disc of
  // radius 2 within. Ours takes the corner of a triangle around that disc, or around the part of it
  // that is not too faint to be drawn. If the shader is no longer the one we know, it stays as it is.
  const EDITS = [
    ["attribute uint sortedIndex;", ""],
    ["void main () {", `void main () {
      uint sortedIndex = uint(gl_VertexID / 3);
      int place = gl_VertexID % 3;
      vec2 corner = place == 0 ? vec2(0.0, 4.0) : vec2(place == 1 ? 3.4641016 : -3.4641016, -2.0);`],
    ["vPosition = position.xy;", `
      corner *= clamp(sqrt(max(log(vRgba.a / 0.01), 0.0)) / 2.0, 0.0, 1.0);
      vPosition = corner;`],
    ["position.x * v1", "corner.x * v1"],
    ["position.y * v2", "corner.y * v2"],
  ];
  const gl2 = WebGL2RenderingContext.prototype;
  const { shaderSource, bufferData, bufferSubData, drawElementsInstanced } = gl2;
  const ours = { splats: new WeakMap(), meshes: new WeakMap(), order: null, version: 0, draws: 0 };
  window.msdynPage = ours;
  gl2.shaderSource = function (shader, source) {
    if (EDITS.every(([from]) => source.includes(from))) {
      for (const [from, to] of EDITS) source = source.replace(from, to);
      ours.edited = true;
    }
    return shaderSource.call(this, shader, source);
  };

  // The order from far to near comes as the only vertex attribute of whole numbers.
  const keep = (gl, target, data) => {
    if (target !== gl.ARRAY_BUFFER || !(data instanceof Uint32Array)) return;
    ours.order = data;
    ours.version++;
  };
  gl2.bufferData = function (target, data, ...rest) {
    keep(this, target, data);
    return bufferData.call(this, target, data, ...rest);
  };
  gl2.bufferSubData = function (target, at, data, ...rest) {
    keep(this, target, data);
    return bufferSubData.call(this, target, at, data, ...rest);
  };

  function ofSplats(gl) {
    const program = gl.getParameter(gl.CURRENT_PROGRAM);
    if (!ours.splats.has(program))
      ours.splats.set(program, gl.getUniformLocation(program, "textureT_camera_groups") !== null);
    return ours.splats.get(program);
  }
  gl2.drawElementsInstanced = function (mode, count, type, offset, instances) {
    if (!ours.edited || !ofSplats(this))
      return drawElementsInstanced.call(this, mode, count, type, offset, instances);
    if (ours.order?.length !== instances) return undefined;  // of another number of Gaussians
    const before = this.getParameter(this.VERTEX_ARRAY_BINDING);
    if (!ours.meshes.has(this))
      ours.meshes.set(this, { list: this.createVertexArray(), buffer: this.createBuffer() });
    const mesh = ours.meshes.get(this);
    this.bindVertexArray(mesh.list);
    if (mesh.version !== ours.version) {
      const corners = new Uint32Array(3 * instances);
      for (let i = 0, k = 0; i < instances; i++)
        for (let j = 0; j < 3; j++) corners[k++] = 3 * ours.order[i] + j;
      this.bindBuffer(this.ELEMENT_ARRAY_BUFFER, mesh.buffer);
      bufferData.call(this, this.ELEMENT_ARRAY_BUFFER, corners, this.DYNAMIC_DRAW);
      mesh.version = ours.version;
    }
    this.drawElements(mode, 3 * instances, this.UNSIGNED_INT, 0);
    this.bindVertexArray(before);
    ours.draws++;
  };
})();
