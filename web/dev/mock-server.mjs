// A stand-in for the server while working on the page: `npm run mock`, then `npm run dev`.
//
// It answers as docs/http-api.md says, out of formulas instead of a store, so that every state of the page can be looked at
// without training: running, finished, failed, quiet and lost runs, gaps, NaN, two labels in one chart, a thousand metrics,
// names that look like markup. It also serves the built page under the same content security policy as the real server.

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join } from "node:path";

const PORT = Number(process.env.PORT ?? 7070);
const STATIC = new URL("../../python/runferry/server/static/", import.meta.url).pathname;
const STARTED_MS = Date.now();
const STEPS_PER_S = 40;
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml" };
const POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:";

const noise = (seed) => {
  const wave = Math.sin(seed * 127.1) * 43758.5453;
  return wave - Math.floor(wave) - 0.5;
};
const decay = (step, scale) => Math.exp(-step / scale);
const SERIES = {
  "train/loss": (s) => 0.12 + 2.2 * decay(s, 4000) + 0.25 * noise(s) * (0.2 + decay(s, 6000)),
  "train/accuracy": (s) => 0.97 - 0.8 * decay(s, 3500) + 0.04 * noise(s + 7),
  "train/lr": (s) => 3e-4 * Math.min(1, s / 1000) * (0.5 + 0.5 * Math.cos(s / 9000)),
  "train/grad_norm": (s) => (s % 2711 === 5 ? Number.NaN : 0.4 + Math.abs(noise(s + 3)) * 3 + (s % 997 === 0 ? 25 : 0)),
  "val/loss": (s) => 0.2 + 2 * decay(s, 5000) + 0.02 * noise(s),
  "val/accuracy": (s) => 0.95 - 0.7 * decay(s, 4200) + 0.01 * noise(s),
  epoch: (s) => Math.floor(s / 1500),
  '<b>a/"b"</b>': (s) => Math.sin(s / 700),
};
for (let layer = 0; layer < 12; layer++) SERIES[`layers/${layer}/grad`] = (s) => decay(s, 9000 / (layer + 1)) + 0.1 * noise(s * layer + 1);
const HISTOGRAMS = ["weights/encoder", "weights/decoder", "gradients/encoder"];
const every = (key) => (key.startsWith("val/") ? 250 : 1);
const labels = (key) => (key === "train/loss" ? ["rank0", "rank1"] : [""]);

const run = (id, state, ageS, steps, more = {}) => ({
  entity: "acme", project: "digits", id, name: more.name ?? id, group: more.group ?? "", job_type: "train", notes: more.notes ?? "", tags: more.tags ?? [],
  state, created_at_us: (STARTED_MS - ageS * 1000) * 1000, heartbeat_at_us: Date.now() * 1000,
  finished_at_us: ["finished", "failed"].includes(state) ? (STARTED_MS - ageS * 1000 + steps * 30) * 1000 : null,
  exit_code: state === "finished" ? 0 : state === "failed" ? 1 : null, points: steps * 21, rows: steps, last_step: steps - 1, host: "gpu-node-07",
  writers: 2, gaps: more.gaps ?? 0, duplicates: 0, steps,
  config: { lr: 3e-4, batch_size: 256, model: { depth: 12, width: 768, activation: "gelu" }, optimizer: "adamw", seed: 17, clip: { _type: "float", value: "Infinity" } },
  summary: Object.fromEntries(Object.entries(SERIES).map(([key, at]) => [key, orMarker(at(steps - 1))])),
});
const orMarker = (value) => (Number.isNaN(value) ? { _type: "float", value: "NaN" } : value);
const stepsNow = () => 20_000 + Math.floor(((Date.now() - STARTED_MS) / 1000) * STEPS_PER_S);
const runs = () => [
  run("k3f9a2", "running", 620, stepsNow(), { name: "vit-b16 warmup 1k", group: "warmup", tags: ["baseline"], gaps: 2, notes: "Longer warmup, same data order." }),
  run("p0q8zz", "finished", 9_000, 31_000, { name: "vit-b16 baseline", group: "warmup", tags: ["baseline", "paper"] }),
  run("x77", "failed", 40_000, 812, { name: "lr 3e-2, diverges" }),
  run("m21", "quiet", 3_000, 9_120, { name: "resume after preemption" }),
  run("m20", "lost", 90_000, 4_400, { name: "spot instance" }),
  run("empty", "running", 3, 0, { name: "just started" }),
];

function bucketed(key, label, from, to, count) {
  const points = [];
  for (let step = Math.ceil(from / every(key)) * every(key); step <= to; step += every(key)) points.push(step);
  const columns = { key, label, step_first: [], step_last: [], time_last_us: [], count: [], min: [], max: [], mean: [], last: [], nan_count: [], inf_count: [] };
  const size = Math.max(1, points.length / count);
  for (let start = 0; start < points.length; start += size) {
    const steps = points.slice(Math.floor(start), Math.floor(start + size));
    const values = steps.map((step) => SERIES[key](step + (label === "rank1" ? 0.5 : 0)));
    const finite = values.filter(Number.isFinite);
    columns.step_first.push(steps[0]);
    columns.step_last.push(steps.at(-1));
    columns.time_last_us.push(STARTED_MS * 1000 + steps.at(-1) * 25_000);
    columns.count.push(values.length);
    columns.min.push(finite.length ? Math.min(...finite) : null);
    columns.max.push(finite.length ? Math.max(...finite) : null);
    columns.mean.push(finite.length ? finite.reduce((a, b) => a + b, 0) / finite.length : null);
    columns.last.push(orNull(values.at(-1)));
    columns.nan_count.push(values.filter(Number.isNaN).length);
    columns.inf_count.push(0);
  }
  return { points: points.length, columns };
}
const orNull = (value) => (Number.isFinite(value) ? value : null);

function histograms(key, query, last) {
  const to = Math.min(last, Number(query.get("max_step") ?? last));
  const steps = [];
  for (let step = 0; step <= to; step += 100) steps.push(step);
  const thinned = steps.filter((_, index) => index % Math.max(1, Math.ceil(steps.length / 200)) === 0);
  const answers = thinned.map((step) => {
    const spread = key.startsWith("grad") ? 0.05 + decay(step, 4000) : 0.5 + step / 15_000;
    const edges = Array.from({ length: 65 }, (_, bin) => (bin / 32 - 1) * 3 * spread);
    const counts = edges.slice(1).map((edge) => Math.round(4000 * Math.exp(-((edge / spread) ** 2)) * (1 + 0.2 * noise(edge))));
    return { step, time_us: 0, edges, counts, nan_count: 0, inf_count: 0 };
  });
  return { key, raw_points: steps.length, histograms: answers };
}

function answer(path, query) {
  if (path === "/projects") return { projects: [{ entity: "acme", project: "digits", runs: 6, last_active_us: Date.now() * 1000 }, { entity: "acme", project: "speech large", runs: 214, last_active_us: (Date.now() - 4e8) * 1000 }] };
  if (path === "/runs") return query.get("project") === "digits" ? { runs: runs(), next_cursor: null, total: 6 } : { runs: [], next_cursor: null, total: 0 };
  const [, id, rest] = /^\/runs\/[^/]+\/[^/]+\/([^/]+)(.*)$/.exec(path) ?? [];
  const found = runs().find((one) => one.id === id);
  if (found === undefined) return null;
  const last = found.steps - 1;
  if (rest === "") return found;
  if (rest === "/metrics" && last < 0) return { metrics: [] };
  if (rest === "/metrics") {
    const numbers = Object.keys(SERIES).flatMap((name) => labels(name).map((label) => ({ name, label, kind: "number", points: last, last: orNull(SERIES[name](last)) })));
    const many = id === "p0q8zz" ? Array.from({ length: 1000 }, (_, index) => ({ name: `many/${index}`, label: "", kind: "number", points: 1, last: 0 })) : [];
    return { metrics: [...numbers, ...many, ...HISTOGRAMS.map((name) => ({ name, label: "", kind: "histogram", points: last / 100, last: null })), { name: "phase", label: "", kind: "string", points: 3, last: "fine-tuning" }] };
  }
  if (rest === "/history") {
    const from = Number(query.get("min_step") ?? 0);
    const to = Math.min(last, Number(query.get("max_step") ?? last));
    const series = query.getAll("keys").filter((key) => key in SERIES).flatMap((key) =>
      labels(key).map((label) => {
        const { points, columns } = bucketed(key, label, from, to, Number(query.get("buckets")));
        return { ...columns, raw_points: points, drawn: columns.count.length, exact: columns.count.every((count) => count === 1) };
      }));
    return { cursor: String(last), series };
  }
  if (rest === "/histograms") return histograms(query.get("key"), query, last);
  if (rest === "/writers") {
    const gaps = found.gaps ? [{ seq: 9, count: 1, reason: "ring_full", rows: 120, detail: "disk stalled" }, { seq: 31, count: 4, reason: "thinned", rows: 900, detail: null }] : [];
    return { writers: ["rank0", "rank1"].map((label, index) => ({ writer_id: `9c0ffee${index}`, label, state: found.state, host: "gpu-node-07", pid: 4100 + index, started_us: found.created_at_us, last_seen_us: Date.now() * 1000, duplicates: index, gaps: index ? [] : gaps, lag_s: 0.2, backlog_frames: index, finished: false, exit_code: null })) };
  }
  return null;
}

/** Five deltas a second for the running run; silence for the others. */
function live(request, response, path, query) {
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
  response.write(": here\n\n");
  let cursor = Number(query.get("cursor"));
  const timer = setInterval(() => {
    const [now] = runs();
    if (path === "/live") response.write(`event: runs\ndata: ${JSON.stringify({ runs: [now] })}\n\n`);
    else if (path.includes("/k3f9a2/")) {
      const series = query.getAll("keys").flatMap((key) => (key in SERIES ? labels(key).map((label) => {
        const { points, columns } = bucketed(key, label, cursor + 1, now.steps - 1, 100);
        return { ...columns, raw_points_added: points };
      }) : []));
      cursor = now.steps - 1;
      const { points, rows, last_step, summary } = now;
      response.write(`id: ${cursor}\nevent: delta\ndata: ${JSON.stringify({ cursor: String(cursor), run: { points, rows, last_step, summary }, series, new_keys: [], other_keys: [] })}\n\n`);
    }
  }, 200);
  request.on("close", () => clearInterval(timer));
}

createServer(async (request, response) => {
  const { pathname, searchParams } = new URL(request.url, "http://mock");
  const path = decodeURI(pathname.replace("/api/v1", ""));
  if (pathname.startsWith("/api/v1") && path.endsWith("/live")) return live(request, response, path, searchParams);
  if (pathname.startsWith("/api/")) {
    const found = answer(path, searchParams);
    response.writeHead(found === null ? 404 : 200, { "content-type": "application/json" });
    return response.end(JSON.stringify(found ?? { error: { code: "not_found", message: `${path} does not exist` } }));
  }
  const file = extname(pathname) === "" ? "index.html" : pathname;
  try {
    const content = await readFile(join(STATIC, file));
    response.writeHead(200, { "content-type": TYPES[extname(file)] ?? "application/octet-stream", "content-security-policy": POLICY });
    return response.end(content);
  } catch {
    response.writeHead(404);
    return response.end("not built: npm run build");
  }
}).listen(PORT, "127.0.0.1", () => console.log(`mock server: http://127.0.0.1:${PORT}`));
