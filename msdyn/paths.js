"use strict";
// Draws paths and points in 3D on the canvas before this script, from the data in between. Dragging
// rotates, the wheel zooms.
(() => {
  const data = document.currentScript.previousElementSibling;
  const canvas = data.previousElementSibling;
  const scene = JSON.parse(data.textContent);
  const all = scene.paths.flatMap((path) => path.points).concat(scene.points);
  const low = [0, 1, 2].map((i) => all.reduce((least, p) => Math.min(least, p[i]), Infinity));
  const high = [0, 1, 2].map((i) => all.reduce((most, p) => Math.max(most, p[i]), -Infinity));
  const middle = low.map((v, i) => (v + high[i]) / 2);
  const size = Math.max(Math.hypot(...high.map((v, i) => v - low[i])), 1e-9);
  let yaw = 0.5, pitch = 0.35, zoom = 1, start = null;
  const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
  function rotate(p) {
    const v = p.map((c, i) => (c - middle[i]) / size);
    let [x, y, z] = scene.rotation.map((row) => dot(row, v));
    [x, z] = [x * Math.cos(yaw) + z * Math.sin(yaw), z * Math.cos(yaw) - x * Math.sin(yaw)];
    [y, z] = [y * Math.cos(pitch) - z * Math.sin(pitch), z * Math.cos(pitch) + y * Math.sin(pitch)];
    return [x / (1 + 0.4 * z), y / (1 + 0.4 * z)];
  }
  // The first view shows all of it.
  const extent = all.map(rotate).reduce(
    (most, p) => most.map((v, i) => Math.max(v, Math.abs(p[i]))), [1e-9, 1e-9]);
  function project(p, width, height) {
    const scale = 0.46 * zoom * Math.min(width / extent[0], height / extent[1]);
    const [x, y] = rotate(p);
    return [width / 2 + x * scale, height / 2 + y * scale];
  }
  function draw() {
    const ratio = window.devicePixelRatio || 1;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    pen.fillStyle = "#8aa0c0";
    for (const point of scene.points) {
      const [x, y] = project(point, width, height);
      pen.fillRect(x, y, 1.5, 1.5);
    }
    pen.lineWidth = 2;
    pen.font = "12px system-ui, sans-serif";
    for (const path of scene.paths) {
      const points = path.points.map((p) => project(p, width, height));
      pen.strokeStyle = pen.fillStyle = path.colour;
      pen.beginPath();
      points.forEach((p, i) => (i ? pen.lineTo(...p) : pen.moveTo(...p)));
      pen.stroke();
      if (!path.name) continue;
      const end = points[points.length - 1];
      pen.beginPath();
      pen.arc(end[0], end[1], 4, 0, 7);
      pen.fill();
      pen.fillStyle = "#1b1f24";
      pen.fillText(path.name, end[0] + 7, end[1] - 6);
    }
  }
  canvas.addEventListener("pointerdown", (e) => {
    start = [e.clientX, e.clientY];
    canvas.setPointerCapture(e.pointerId);
  });
  canvas.addEventListener("pointerup", () => { start = null; });
  canvas.addEventListener("pointermove", (e) => {
    if (!start) return;
    yaw += (e.clientX - start[0]) * 0.01;
    pitch += (e.clientY - start[1]) * 0.01;
    start = [e.clientX, e.clientY];
    draw();
  });
  canvas.addEventListener("wheel", (e) => {
    zoom *= Math.exp(-e.deltaY / 600);
    e.preventDefault();
    draw();
  }, { passive: false });
  window.addEventListener("resize", draw);
  draw();
})();
