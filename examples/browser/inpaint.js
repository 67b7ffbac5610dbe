// Inpainting with onnxruntime-web: the model and the photo stay in this browser.
import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.min.mjs";

ort.env.wasm.wasmPaths = new URL("./node_modules/onnxruntime-web/dist/", import.meta.url).href;
ort.env.wasm.numThreads = 1; // more need a cross-origin isolated page

const normal = (count) => Float32Array.from({ length: count }, () =>
  Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random()));

/** Load a file of `sdm export NAME.onnx`; `size` is the side at which its weights were trained. */
export async function load(url, size = 128) {
  const session = await ort.InferenceSession.create(url);
  // The file says its shapes: latent (batch, L), noise (batch, N, 3, "S*rows", "S*columns").
  const shape = (name) => session.inputMetadata.find((input) => input.name === name).shape;
  const latents = shape("latent")[1], noises = shape("noise")[1], stride = parseInt(shape("image")[2]);

  /** Planes (3, h, w) in [-1, 1] and (h, w) with 1 = known to the completed planes. */
  async function run(planes, known, w, h, latent = normal(latents), noise = normal(noises * 3 * w * h)) {
    const tensor = (data, ...dims) => new ort.Tensor("float32", data, [1, ...dims]);
    const outputs = await session.run({
      image: tensor(planes, 3, h, w), mask: tensor(known, 1, h, w),
      latent: tensor(latent, latents), noise: tensor(noise, noises, 3, h, w),
    }, ["completed"]);
    return outputs.completed.data;
  }

  /** Fill an ImageData in place where `hole`, one byte a pixel, is not 0; the rest stays. */
  async function fill(photo, hole) {
    const W = photo.width, at = [...hole.keys()].filter((k) => hole[k]);
    if (!at.length) return;
    const range = (values) => values.reduce(([a, b], x) => [Math.min(a, x), Math.max(b, x + 1)], [Infinity, 0]);
    const [x0, x1] = range(at.map((k) => k % W)), [y0, y1] = range(at.map((k) => Math.floor(k / W)));
    // The hole with half its size around it, and at least what the network was trained at.
    const extent = Math.max(x1 - x0, y1 - y0);
    const margin = Math.max(Math.floor(extent / 2), Math.ceil((size - extent) / 2));
    const left = Math.max(0, x0 - margin), top = Math.max(0, y0 - margin);
    const w = Math.min(W, x1 + margin) - left, h = Math.min(photo.height, y1 + margin) - top;
    const scale = Math.min(1, size / Math.max(w, h)), box = [left, top, w, h];
    const [sw, sh] = [w, h].map((side) => Math.max(1, Math.round(side * scale / stride)) * stride);
    // A transparent hole: a canvas averages the colours of what is not transparent only.
    const seen = new ImageData(photo.data.slice(), W, photo.height), n = sw * sh;
    for (const k of at) seen.data[4 * k + 3] = 0;
    const small = resized(seen, box, sw, sh);
    const known = Float32Array.from({ length: n }, (_, k) => +(small[4 * k + 3] >= 128));
    const planes = Float32Array.from({ length: 3 * n }, (_, i) => small[4 * (i % n) + Math.floor(i / n)] / 127.5 - 1);
    const filled = new ImageData(sw, sh), out = await run(planes, known, sw, sh);
    out.forEach((value, i) => { filled.data[4 * (i % n) + Math.floor(i / n)] = Math.round(value * 127.5 + 127.5); });
    for (let k = 0; k < n; k++) filled.data[4 * k + 3] = 255;
    const large = resized(filled, [0, 0, sw, sh], w, h);
    for (const k of at) { // nothing but the hole changes
      const from = 4 * ((Math.floor(k / W) - top) * w + (k % W) - left);
      photo.data.set(large.subarray(from, from + 3), 4 * k);
    }
  }
  return { fill, run };
}

function resized(picture, [x, y, w, h], toW, toH) {
  const from = new OffscreenCanvas(picture.width, picture.height), to = new OffscreenCanvas(toW, toH);
  from.getContext("2d").putImageData(picture, 0, 0);
  const pen = to.getContext("2d", { willReadFrequently: true });
  pen.imageSmoothingQuality = "high";
  pen.drawImage(from, x, y, w, h, 0, 0, toW, toH);
  return pen.getImageData(0, 0, toW, toH).data;
}
