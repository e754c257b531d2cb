
const byId = (id) => document.getElementById(id);
const state = {
  time: 0, playing: false, follow: true, shown: {}, ready: false,
  steps: 0,        // drawings so far
  adaptive: true,  // whether a slow browser draws fewer pixels while something moves
  scale: 1,        // pixels of the drawing per pixel of the screen, along each axis
  slow: 1000 / 24,  // ms per drawing beyond which a browser is slow
  view: null,
};
window.player = state;
function showMessage(text, error = false) {
  byId("message").textContent = text;
  byId("message").className = error ? "error" : "";
}

// A view: rotation (rows right, down, forward), camera centre, and distance to the orbited point.
const add = (a, b, s) => [a[0] + s * b[0], a[1] + s * b[1], a[2] + s * b[2]];
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const unit = (a) => { const n = Math.hypot(...a); return a.map((v) => v / n); };
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2],
                         a[0] * b[1] - a[1] * b[0]];
const multiply = (m, v) => [0, 3, 6].map((i) => dot(m.slice(i, i + 3), v));
function rotationAbout(axis, angle) {
  const [x, y, z] = axis, c = Math.cos(angle), s = Math.sin(angle), k = 1 - c;
  return [c + x * x * k, x * y * k - z * s, x * z * k + y * s, y * x * k + z * s, c + y * y * k,
          y * z * k - x * s, z * x * k - y * s, z * y * k + x * s, c + z * z * k];
}
const view = state.view = { rotation: null, centre: null, distance: header.focus_distance };
function inputView(time) {  // of the clip's camera, interpolated
  const [k, next, fraction] = locate(time), a = header.cameras[k], b = header.cameras[next];
  const mix = (p, q) => p.map((v, i) => v + fraction * (q[i] - v));
  const rows = mix(a.rotation, b.rotation), forward = unit(rows.slice(6));
  const right = rows.slice(0, 3), across = unit(add(right, forward, -dot(right, forward)));
  return { rotation: [...across, ...cross(forward, across), ...forward],
           centre: mix(a.centre, b.centre), distance: header.focus_distance };
}
function sortAxis([fx, fy, px, py], width, height) {  // see msdyn/render/order.py
  const own = view.rotation.slice(6), [k, next, fraction] = locate(state.time);
  if (!header.axes) return own;
  const given = unit(header.axes[k].map((v, i) => v + fraction * (header.axes[next][i] - v)));
  const reach = (x, y) => Math.atan(Math.hypot((x - px) / fx, (y - py) / fy));
  const half = Math.max(reach(0, 0), reach(width, 0), reach(0, height), reach(width, height));
  const angle = Math.acos(Math.min(Math.max(dot(own, given), -1), 1));
  const part = Math.min(Math.max(70 * Math.PI / 180 - half, 0), angle);
  if (Math.sin(angle) < 1e-6) return own;
  const mine = Math.sin(angle - part) / Math.sin(angle), its = Math.sin(part) / Math.sin(angle);
  return own.map((v, i) => mine * v + its * given[i]);
}
function orbit(right, down) {
  const target = add(view.centre, view.rotation.slice(6), view.distance);
  const yaw = rotationAbout(header.up, -right);
  const pitch = rotationAbout(view.rotation.slice(0, 3), -down);
  const rows = [0, 3, 6].map(
    (i) => multiply(yaw, multiply(pitch, view.rotation.slice(i, i + 3))));
  view.rotation = rows.flat();
  view.centre = add(target, rows[2], -view.distance);
}
function pan(dx, dy) {  // by px of the screen, at the orbited point
  const canvas = byId("canvas");
  const [fx, fy] = scaledIntrinsics(canvas.clientWidth, canvas.clientHeight);
  view.centre = add(add(view.centre, view.rotation.slice(0, 3), -dx * view.distance / fx),
                    view.rotation.slice(3, 6), -dy * view.distance / fy);
}
function zoom(factor) {
  const distance = view.distance * factor;
  view.centre = add(view.centre, view.rotation.slice(6), view.distance - distance);
  view.distance = distance;
}
function scaledIntrinsics(width, height) {
  const scale = Math.min(width / header.width, height / header.height);
  const [fx, fy, cx, cy] = header.intrinsics;
  return [fx * scale, fy * scale, width / 2 + (cx - header.width / 2) * scale,
          height / 2 + (cy - header.height / 2) * scale];
}
function setFollow(follow) { state.follow = byId("follow").checked = follow; }

function addPointerControls(canvas) {
  const pointers = new Map();  // those that are down: their last and first place
  let lastTap = null;
  canvas.addEventListener("pointerdown", (e) => {
    canvas.setPointerCapture(e.pointerId);
    const place = [e.clientX, e.clientY];
    pointers.set(e.pointerId, { place, first: place, begun: e.timeStamp, alone: !pointers.size });
  });
  canvas.addEventListener("pointerup", (e) => {
    const { first, begun, alone } = pointers.get(e.pointerId) || { first: [1e9, 0] };
    pointers.delete(e.pointerId);
    const near = (p) => Math.hypot(e.clientX - p[0], e.clientY - p[1]) < 24;
    const tap = alone && !pointers.size && near(first) && e.timeStamp - begun < 300;
    const twice = tap && lastTap && e.timeStamp - lastTap.time < 400 && near(lastTap.place);
    lastTap = tap && !twice ? { time: e.timeStamp, place: first } : null;
    if (twice) setFollow(true);
  });
  canvas.addEventListener("pointercancel", (e) => pointers.delete(e.pointerId));
  canvas.addEventListener("pointermove", (e) => {
    const own = pointers.get(e.pointerId);
    if (!own) return;
    const now = [e.clientX, e.clientY], before = own.place, size = canvas.clientHeight;
    const dx = now[0] - before[0], dy = now[1] - before[1];
    if (Math.hypot(now[0] - own.first[0], now[1] - own.first[1]) < 3 && own.place === own.first)
      return;  // a tap, not a drag
    setFollow(false);
    own.place = now;
    if (pointers.size > 1) {
      const other = [...pointers].find(([id]) => id !== e.pointerId)[1].place;
      const gap = (p) => Math.max(Math.hypot(p[0] - other[0], p[1] - other[1]), 1);
      zoom(gap(before) / gap(now));
      pan(dx / 2, dy / 2);
    } else if (e.buttons === 2 || e.shiftKey) pan(dx, dy);
    else orbit(3 * dx / size, 3 * dy / size);
  });
  canvas.addEventListener("wheel", (e) => {
    e.preventDefault();
    setFollow(false);
    zoom(Math.exp(e.deltaY * 0.001));
  }, { passive: false });
  canvas.addEventListener("contextmenu", (e) => e.preventDefault());
}

function addKeys(canvas) {
  const turns = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1],
                  ArrowDown: [0, 0.1] };
  const zooms = { "+": 0.9, "=": 0.9, "-": 1 / 0.9 };
  document.addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    if (e.target !== canvas && e.target !== document.body) return;
    if (e.key === " ") state.playing = !state.playing;
    else if (e.key === "0" || e.key === "Home") setFollow(true);
    else if (turns[e.key]) { setFollow(false); orbit(...turns[e.key]); }
    else if (zooms[e.key]) { setFollow(false); zoom(zooms[e.key]); }
    else return;
    e.preventDefault();
  });
}

function addControls() {
  for (const label of header.labels) {
    const box = document.createElement("label"), input = document.createElement("input");
    input.type = "checkbox";
    input.checked = true;
    input.onchange = (e) => { state.shown[label] = e.target.checked; };
    box.append(input, label ? `object ${label}` : "background");
    byId("objects").append(box);
  }
  byId("play").disabled = false;
  byId("play").onclick = () => { state.playing = !state.playing; };
  byId("reset").onclick = () => setFollow(true);
  byId("follow").onchange = (e) => { state.follow = e.target.checked; };
  byId("slider").oninput = (e) => { state.time = Number(e.target.value); state.playing = false; };
}

function showState() {  // in the controls
  const seconds = (state.time * header.duration).toFixed(2);
  byId("slider").value = state.time;
  byId("slider").setAttribute("aria-valuetext",
                              `${seconds} of ${header.duration.toFixed(2)} seconds`);
  byId("play").textContent = state.playing ? "Pause" : "Play";
  byId("clock").textContent = `${seconds} s`;
}

// Draws fewer pixels while something moves, where the browser is slow; all of them at rest.
const GOAL = 1000 / 30;  // ms per drawing
const SCALES = [1, 0.75, 0.5, 0.35];
const REST = 200;  // ms
let paces = [];
function adapt(spent) {  // ms since the last drawing, 0 if that was no drawing of a movement
  paces = spent ? [...paces, spent] : [];
  const sum = paces.reduce((a, b) => a + b, 0);
  if (paces.length < 3 || sum < 400) return;
  const mean = sum / paces.length, at = SCALES.indexOf(state.scale);
  paces = [];
  if (mean > state.slow && at < SCALES.length - 1) {
    const wanted = state.scale * Math.sqrt(GOAL / mean);
    state.scale = SCALES.find((scale, i) => i > at && scale <= wanted) || SCALES.at(-1);
  } else if (at && mean * (SCALES[at - 1] / state.scale) ** 2 < GOAL) state.scale = SCALES[at - 1];
}

function sized(canvas, scale) {  // gives the canvas its pixels
  const ratio = Math.min(window.devicePixelRatio || 1, 2) * scale;
  const width = Math.max(Math.round(canvas.clientWidth * ratio), 1);
  const height = Math.max(Math.round(canvas.clientHeight * ratio), 1);
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
}

async function main() {
  const canvas = byId("canvas");
  const gl = canvas.getContext("webgl2", { alpha: false, antialias: false, depth: false });
  if (!gl)
    return showMessage("This page needs WebGL 2, which this browser does not offer.", true);
  if (!window.DecompressionStream)
    return showMessage("This page needs a browser of 2023 or later.", true);
  const gaussians = new Gaussians(await unpack());
  let renderer = makeRenderer(gl, gaussians);
  let last = performance.now(), movement = -REST, posed = 0, drawn = "", drew = false;
  canvas.addEventListener("webglcontextlost", (e) => {
    e.preventDefault();
    renderer = null;
    showMessage("The graphics card was taken away; waiting for it.");
  });
  canvas.addEventListener("webglcontextrestored", () => {
    renderer = makeRenderer(gl, gaussians);
    drawn = "";
    showMessage("");
  });
  addControls();
  addPointerControls(canvas);
  addKeys(canvas);
  Object.assign(view, inputView(0));
  state.playing = header.duration > 0 && !matchMedia("(prefers-reduced-motion: reduce)").matches;
  function step(now) {
    requestAnimationFrame(step);
    const elapsed = Math.min((now - last) / 1000, 0.25);
    last = now;
    if (!renderer) return;
    if (state.playing && header.duration > 0) {
      state.time += elapsed * Number(byId("speed").value) / header.duration;
      if (state.time > 1) state.time -= Math.floor(state.time);
    }
    if (state.follow) Object.assign(view, inputView(state.time));
    const scene = [state.time, view.rotation, view.centre, JSON.stringify(state.shown)].join();
    const moves = drawn !== "" && scene !== drawn;
    if (moves) {
      if (state.adaptive) adapt(drew ? 1000 * elapsed : 0);
      movement = now;
    }
    const { width, height } = canvas;
    sized(canvas, state.adaptive && now - movement < REST ? state.scale : 1);
    drew = scene !== drawn || width !== canvas.width || height !== canvas.height;
    if (!drew) return;
    if (posed !== state.time) {
      gaussians.pose(state.time);
      renderer.posed();
      posed = state.time;
    }
    const intrinsics = scaledIntrinsics(canvas.width, canvas.height);
    renderer.draw({ rotation: view.rotation,
                    translation: multiply(view.rotation, view.centre).map((v) => -v),
                    axis: sortAxis(intrinsics, canvas.width, canvas.height), intrinsics },
                  state.shown);
    drawn = scene;
    state.steps++;
    showState();
    if (!state.ready) {
      state.ready = true;
      byId("poster").remove();
      showMessage("");
    }
  }
  requestAnimationFrame(step);
}
main().catch((error) => { showMessage("This page failed: " + error, true); console.error(error); });
