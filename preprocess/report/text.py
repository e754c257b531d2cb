"""Template of the report's page, and the script that draws the camera path."""

__all__ = ["PAGE", "SCRIPT"]

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: preprocessing</title>
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; max-width: 1180px; margin: 1.5em auto;
  padding: 0 1em; color: #222; background: #fff }}
h1 {{ font-size: 1.5em; margin-bottom: .2em }} h2 {{ font-size: 1.15em; margin-top: 1.6em }}
table {{ border-collapse: collapse }} .wide {{ overflow-x: auto }}
td, th {{ text-align: left; vertical-align: top; padding: .3em .8em .3em 0;
  border-bottom: 1px solid #ddd }}
.grade {{ padding: .05em .6em; border-radius: 1em; color: #fff; font-size: .9em }}
.good {{ background: #2a8a3e }} .usable {{ background: #b07800 }} .poor {{ background: #c0302c }}
.cure {{ color: #555 }}
.sheet {{ display: grid; grid-template-columns: repeat(6, 1fr); gap: 4px; margin-bottom: 4px }}
figure {{ margin: 0 }} img {{ width: 100%; display: block }}
figcaption {{ font-size: .75em; color: #666 }}
canvas {{ width: 100%; background: #15171c; border-radius: 6px; touch-action: none }}
details {{ margin: .3em 0 }} summary {{ cursor: pointer }}
@media (max-width: 700px) {{ .sheet {{ grid-template-columns: repeat(3, 1fr) }} }}
</style></head><body>
{body}
</body></html>
"""

SCRIPT = """
const canvas = document.getElementById("path"), pen = canvas.getContext("2d");
const all = scene.points.concat(scene.centres);
const mean = [0, 1, 2].map(k => all.reduce((sum, p) => sum + p[k], 0) / all.length);
const away = p => Math.hypot(...p.map((v, k) => v - mean[k]));
const near = scene.points.map(away).sort((a, b) => a - b);
const reach = Math.max(1e-9, near[Math.floor(0.9 * near.length)] || 0, ...scene.centres.map(away));
let yaw = 0.6, pitch = 0.35, zoom = 1;
function place(p) {
  const [x, y, z] = p.map((v, k) => (v - mean[k]) / reach);
  const a = Math.cos(yaw) * x + Math.sin(yaw) * z, b = Math.cos(yaw) * z - Math.sin(yaw) * x;
  const c = Math.cos(pitch) * y - Math.sin(pitch) * b;
  const s = zoom * 0.48 * Math.min(canvas.width, canvas.height);
  return [canvas.width / 2 + s * a, canvas.height / 2 + s * c];
}
function draw() {
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.fillStyle = "#8aa0c0";
  for (const p of scene.points) { const [x, y] = place(p); pen.fillRect(x, y, 1.6, 1.6); }
  const last = scene.centres.length - 1;
  scene.centres.forEach((c, i) => {
    const tip = c.map((v, k) => v + 0.08 * reach * scene.forward[i][k]);
    const [x, y] = place(c), [u, v] = place(tip);
    const t = last ? i / last : 0;
    pen.strokeStyle = pen.fillStyle = `rgb(${60 + 180 * t}, ${220 - 160 * t}, 80)`;
    pen.beginPath(); pen.moveTo(x, y); pen.lineTo(u, v); pen.stroke();
    if (i) {
      const [a, b] = place(scene.centres[i - 1]);
      pen.beginPath(); pen.moveTo(a, b); pen.lineTo(x, y); pen.stroke();
    }
    pen.beginPath(); pen.arc(x, y, i % last ? 1.5 : 4, 0, 7); pen.fill();
  });
}
canvas.addEventListener("pointermove", event => {
  if (!event.buttons) return;
  yaw += event.movementX / 150; pitch += event.movementY / 150; draw();
});
canvas.addEventListener("wheel", event => {
  zoom *= Math.exp(-event.deltaY / 600); draw(); event.preventDefault();
}, { passive: false });
draw();
"""
