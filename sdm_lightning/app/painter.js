// Paint, erase or box a hole over a photo. The hole is the opaque part of the canvas `hole`, which
// has the size of the reduced photo; `element.hole()` returns it as a PNG data URL.
const view = element.querySelector("canvas");
const hint = element.querySelector(".stage p");
const undo = element.querySelector("[data-action=undo]");
const size = element.querySelector("[data-size]");
const hole = document.createElement("canvas");
const pen = hole.getContext("2d", { willReadFrequently: true });
const UNDO_STEPS = 20;
const PAINT = "#ff2bd6";
let photo = null, tool = "brush", before = [], from = null, to = null, pointer = null;

// Whole pixels: half a pixel would not be filled.
function box(ink) {
  const [left, right] = [from.x, to.x].sort((a, b) => a - b);
  const [top, bottom] = [from.y, to.y].sort((a, b) => a - b);
  const [x, y] = [Math.floor(left), Math.floor(top)];
  ink.fillStyle = PAINT;
  ink.fillRect(x, y, Math.ceil(right) - x, Math.ceil(bottom) - y);
}

function draw() {
  const ink = view.getContext("2d");
  ink.globalAlpha = 1;
  ink.drawImage(photo, 0, 0);
  ink.globalAlpha = 0.6;
  ink.drawImage(hole, 0, 0);
  if (tool === "box" && from && to) box(ink);
  ink.globalAlpha = 1;
  undo.disabled = before.length === 0;
}

function remember() {
  before.push(pen.getImageData(0, 0, hole.width, hole.height));
  if (before.length > UNDO_STEPS) before.shift();
}

function place(event) {
  const frame = view.getBoundingClientRect();
  return {
    x: ((event.clientX - frame.left) * view.width) / frame.width,
    y: ((event.clientY - frame.top) * view.height) / frame.height,
  };
}

function stroke(a, b) {
  pen.globalCompositeOperation = tool === "erase" ? "destination-out" : "source-over";
  pen.strokeStyle = PAINT;
  pen.lineCap = "round";
  // The slider is in pixels of a photo 1024 pixels long, so that a brush is as large on any; a
  // narrower one than two pixels would not cover half of any pixel at some places.
  pen.lineWidth = Math.max(2, (Number(size.value) * Math.max(hole.width, hole.height)) / 1024);
  pen.beginPath();
  pen.moveTo(a.x, a.y);
  pen.lineTo(b.x, b.y);
  pen.stroke();
  pen.globalCompositeOperation = "source-over";
}

view.addEventListener("pointerdown", (event) => {
  if (!photo || pointer !== null || event.button > 0) return;
  pointer = event.pointerId;
  view.setPointerCapture(pointer);
  remember();
  from = to = place(event);
  if (tool !== "box") stroke(from, from);
  draw();
});
view.addEventListener("pointermove", (event) => {
  if (event.pointerId !== pointer) return;
  const events = event.getCoalescedEvents?.() ?? [];
  for (const part of events.length ? events : [event]) {
    const next = place(part);
    if (tool !== "box") stroke(to, next);
    to = next;
  }
  draw();
});
view.addEventListener("pointerup", (event) => {
  if (event.pointerId !== pointer) return;
  if (tool === "box") box(pen);
  from = to = pointer = null;
  draw();
});
// A second finger zooms the page: the browser cancels the first, and its stroke is taken back.
view.addEventListener("pointercancel", (event) => {
  if (event.pointerId !== pointer) return;
  from = to = pointer = null;
  pen.putImageData(before.pop(), 0, 0);
  draw();
});

const actions = {
  undo() {
    if (before.length) pen.putImageData(before.pop(), 0, 0);
  },
  invert() {
    remember();
    pen.globalCompositeOperation = "xor";
    pen.fillStyle = PAINT;
    pen.fillRect(0, 0, hole.width, hole.height);
    pen.globalCompositeOperation = "source-over";
  },
  clear() {
    remember();
    pen.clearRect(0, 0, hole.width, hole.height);
  },
};

function act(name) {
  if (!photo || pointer !== null) return; // a stroke that is cancelled takes its own step back
  actions[name]();
  draw();
}

element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button?.dataset.tool) {
    tool = button.dataset.tool;
    for (const other of element.querySelectorAll("[data-tool]"))
      other.setAttribute("aria-pressed", String(other === button));
  } else if (button) act(button.dataset.action);
});
document.addEventListener("keydown", (event) => {
  if (event.target.matches("textarea, input:not([type=range])")) return; // it has an undo itself
  if (photo && event.key === "z" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    act("undo");
  }
});

function picture(url) {
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = reject;
    image.src = url;
  });
}

// The server sends {photo, hole}: data URLs; without a photo only the hole changes.
async function load() {
  if (!props.value) return;
  const sent = JSON.parse(props.value);
  const drawn = sent.hole ? await picture(sent.hole) : null;
  if (sent.photo) {
    photo = await picture(sent.photo);
    view.width = hole.width = photo.width;
    view.height = hole.height = photo.height;
    // As large as there is room for: a small photo could not be painted otherwise.
    view.style.width = `min(100%, ${(70 * photo.width) / photo.height}vh)`;
    before = [];
    view.hidden = false;
    hint.hidden = true;
  } else {
    remember();
    pen.clearRect(0, 0, hole.width, hole.height);
  }
  if (drawn) {
    pen.drawImage(drawn, 0, 0);
    pen.globalCompositeOperation = "source-in";
    pen.fillStyle = PAINT;
    pen.fillRect(0, 0, hole.width, hole.height);
    pen.globalCompositeOperation = "source-over";
  }
  draw();
}
watch("value", load);
load();

window.sdmHole = () => (photo ? hole.toDataURL("image/png") : "");
