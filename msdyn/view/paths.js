"use strict";
// Draws the paths of objects and camera in 3D; dragging turns them.
(() => {
  const canvas = document.getElementById("paths");
  if (!canvas) return;
  const scene = @PATHS@;
  const all = scene.lines.flatMap((line) => line.points);
  const low = [0, 1, 2].map((i) => Math.min(...all.map((p) => p[i])));
  const high = [0, 1, 2].map((i) => Math.max(...all.map((p) => p[i])));
  const middle = low.map((v, i) => (v + high[i]) / 2);
  const size = Math.max(Math.hypot(...high.map((v, i) => v - low[i])), 1e-9);
  let yaw = 0.5, pitch = 0.35, start = null;
  const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
  function project(p, width, height) {
    const v = p.map((c, i) => (c - middle[i]) / size);
    let [x, y, z] = scene.turn.map((row) => dot(row, v));
    [x, z] = [x * Math.cos(yaw) + z * Math.sin(yaw), z * Math.cos(yaw) - x * Math.sin(yaw)];
    [y, z] = [y * Math.cos(pitch) - z * Math.sin(pitch), z * Math.cos(pitch) + y * Math.sin(pitch)];
    const scale = Math.min(1.6 * height, width) / (1 + 0.4 * z);
    return [width / 2 + x * scale, height / 2 + y * scale];
  }
  function draw() {
    const ratio = window.devicePixelRatio || 1;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    pen.lineWidth = 2;
    pen.font = "12px system-ui, sans-serif";
    for (const line of scene.lines) {
      const points = line.points.map((p) => project(p, width, height));
      pen.strokeStyle = pen.fillStyle = line.colour;
      pen.beginPath();
      points.forEach((p, i) => (i ? pen.lineTo(...p) : pen.moveTo(...p)));
      pen.stroke();
      const end = points[points.length - 1];
      pen.beginPath();
      pen.arc(end[0], end[1], 4, 0, 7);
      pen.fill();
      pen.fillStyle = "#1b1f24";
      pen.fillText(line.name, end[0] + 7, end[1] - 6);
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
  window.addEventListener("resize", draw);
  draw();
})();
