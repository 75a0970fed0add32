// Numbers, counts and times as people read them in a dense table: short, aligned, and never shorter than honest.
//
// A count is always written out in full ("1,204,331"), since it is a promise about what stands behind a chart. A value is
// cut to four or five digits, since the exact one is in the scan and the tooltip. Time comes in as an argument.

const COUNT = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const ABSENT = "–";

export function formatCount(count: number): string {
  return COUNT.format(count);
}

/** "1 point", "2,000 points". */
export function formatPlural(count: number, noun: string): string {
  return `${formatCount(count)} ${noun}${count === 1 ? "" : "s"}`;
}

/** At most `digits` significant digits; powers of ten for the very large and the very small. */
export function formatValue(value: number | null | undefined, digits = 5): string {
  if (value === null || value === undefined) return ABSENT;
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e9) return minus(COUNT.format(value));
  if (size >= 1e7 || size < 1e-4) {
    const [mantissa = "0", exponent = "0"] = value.toExponential(digits - 1).split("e");
    return minus(`${trimZeros(mantissa)}e${exponent.replace("+", "")}`);
  }
  return minus(trimZeros(value.toPrecision(digits)));
}

function trimZeros(decimal: string): string {
  return decimal.includes(".") && !decimal.includes("e") ? decimal.replace(/\.?0+$/, "") : decimal;
}

/** The typographic minus is as wide as a digit, so columns stay straight. */
function minus(text: string): string {
  return text.replaceAll("-", "−");
}

/** Labels of axis ticks: all with as many digits as their distance asks for; empty where uPlot asks for none. */
export function formatTicks(ticks: readonly (number | null)[]): string[] {
  const present = ticks.filter((tick): tick is number => tick !== null);
  const largest = Math.max(...present.map(Math.abs), 0);
  const distance = present.length > 1 ? Math.abs((present[1] ?? 0) - (present[0] ?? 0)) : largest;
  return ticks.map((tick) => (tick === null ? "" : formatTick(tick, distance, largest)));
}

const MOST_DECIMALS = 8;
const UNITS: readonly (readonly [number, string])[] = [[1e9, "G"], [1e6, "M"], [1e3, "k"]];

function formatTick(tick: number, distance: number, largest: number): string {
  if (tick === 0) return "0";
  if (largest < 1e-3 || largest >= 1e12) return formatValue(tick, 3);
  for (const [unit, sign] of UNITS) {
    if (largest >= unit * 10) return minus((tick / unit).toFixed(decimalsFor(distance / unit)) + sign);
  }
  return minus(tick.toFixed(decimalsFor(distance)));
}

/** As many decimals as tell neighbouring ticks apart without rounding either: 2 for ticks 0.25 apart. */
function decimalsFor(distance: number): number {
  for (let decimals = 0; decimals < MOST_DECIMALS; decimals++) {
    const scaled = distance * 10 ** decimals;
    // Distances are computed as differences, so 0.3 may come as 0.30000000000000004.
    if (Math.abs(scaled - Math.round(scaled)) < 1e-6 * Math.max(1, scaled)) return decimals;
  }
  return MOST_DECIMALS;
}

/** Labels of a logarithmic axis, where each tick stands for itself. */
export function formatLogTicks(ticks: readonly (number | null)[]): string[] {
  return ticks.map((tick) => (tick === null ? "" : formatValue(tick, 3)));
}

const SECOND_US = 1e6;
const MINUTE_US = 60 * SECOND_US;
const HOUR_US = 60 * MINUTE_US;
const DAY_US = 24 * HOUR_US;

/** "4.2 s", "3 min 05 s", "2 h 14 min", "3 d 4 h". */
export function formatDuration(durationUs: number): string {
  const us = Math.max(0, durationUs);
  if (us < 10 * SECOND_US) return `${(us / SECOND_US).toFixed(1)} s`;
  if (us < MINUTE_US) return `${Math.round(us / SECOND_US)} s`;
  if (us < HOUR_US) return `${Math.floor(us / MINUTE_US)} min ${pad(Math.floor((us % MINUTE_US) / SECOND_US))} s`;
  if (us < DAY_US) return `${Math.floor(us / HOUR_US)} h ${pad(Math.floor((us % HOUR_US) / MINUTE_US))} min`;
  return `${Math.floor(us / DAY_US)} d ${Math.floor((us % DAY_US) / HOUR_US)} h`;
}

function pad(number: number): string {
  return String(number).padStart(2, "0");
}

/** "just now", "5 min ago", "3 h ago", and the date when that says more. */
export function formatAge(timeUs: number, nowUs: number): string {
  const ageUs = nowUs - timeUs;
  if (ageUs < 10 * SECOND_US) return "just now";
  if (ageUs < MINUTE_US) return `${Math.floor(ageUs / SECOND_US)} s ago`;
  if (ageUs < HOUR_US) return `${Math.floor(ageUs / MINUTE_US)} min ago`;
  if (ageUs < DAY_US) return `${Math.floor(ageUs / HOUR_US)} h ago`;
  if (ageUs < 14 * DAY_US) return `${Math.floor(ageUs / DAY_US)} d ago`;
  return formatTime(timeUs).slice(0, 10);
}

/** Local time as "2026-11-21 08:56:29". */
export function formatTime(timeUs: number): string {
  const time = new Date(timeUs / 1000);
  const day = `${time.getFullYear()}-${pad(time.getMonth() + 1)}-${pad(time.getDate())}`;
  return `${day} ${pad(time.getHours())}:${pad(time.getMinutes())}:${pad(time.getSeconds())}`;
}
