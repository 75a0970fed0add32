// Histograms over steps as a grid of colours: one column per histogram, value upwards, share of the count as colour.
//
// Each logged histogram brings its own edges, so the counts of all are spread over one shared grid of value rows, each bin
// by how far it overlaps a row. Colour shows the share of that histogram's values, not the bare count: a batch that is twice
// as large is not twice as dark. The square root makes thin tails visible beside a peak.

export interface Histogram {
  readonly step: number;
  readonly edges: readonly number[];
  readonly counts: readonly number[];
  readonly nanCount: number;
  readonly infCount: number;
}

export interface HeatGrid {
  readonly columns: number;
  readonly rows: number;
  readonly valueMin: number;
  readonly valueMax: number;
  /** Row by row from the lowest value, 0 to 1; the largest share anywhere is 1. */
  readonly heat: Float64Array;
}

export function heatGrid(histograms: readonly Histogram[], rows: number): HeatGrid {
  const { valueMin, valueMax } = valueRange(histograms);
  const columns = histograms.length;
  const heat = new Float64Array(columns * rows);
  const rowHeight = (valueMax - valueMin) / rows;
  let largest = 0;
  histograms.forEach((histogram, column) => {
    const total = histogram.counts.reduce((sum, count) => sum + count, 0);
    if (total <= 0) return;
    histogram.counts.forEach((count, bin) => {
      const low = histogram.edges[bin];
      const high = histogram.edges[bin + 1];
      if (count <= 0 || low === undefined || high === undefined) return;
      spread(low, high, count / total, (row, share) => {
        const cell = row * columns + column;
        heat[cell] = (heat[cell] ?? 0) + share;
        largest = Math.max(largest, heat[cell] ?? 0);
      });
    });
  });
  if (largest > 0) heat.forEach((share, cell) => (heat[cell] = Math.sqrt(share / largest)));
  return { columns, rows, valueMin, valueMax, heat };

  function spread(low: number, high: number, share: number, add: (row: number, share: number) => void): void {
    const from = Math.min(rows - 1, Math.max(0, Math.floor((low - valueMin) / rowHeight)));
    const to = Math.min(rows - 1, Math.max(from, Math.ceil((high - valueMin) / rowHeight) - 1));
    const width = high - low;
    for (let row = from; row <= to; row++) {
      const rowLow = valueMin + row * rowHeight;
      const overlap = Math.min(high, rowLow + rowHeight) - Math.max(low, rowLow);
      // A bin without width (all values equal) lies in one row, and there with all it has.
      add(row, width > 0 ? share * Math.max(0, overlap / width) : share);
      if (width <= 0) return;
    }
  }
}

/** All edges that enclose a count; a span of 1 around a lone value, so that there is something to draw on. */
function valueRange(histograms: readonly Histogram[]): { valueMin: number; valueMax: number } {
  let valueMin = Number.POSITIVE_INFINITY;
  let valueMax = Number.NEGATIVE_INFINITY;
  for (const { edges, counts } of histograms) {
    counts.forEach((count, bin) => {
      if (count <= 0) return;
      valueMin = Math.min(valueMin, edges[bin] ?? valueMin);
      valueMax = Math.max(valueMax, edges[bin + 1] ?? valueMax);
    });
  }
  if (valueMin > valueMax) return { valueMin: 0, valueMax: 1 };
  return valueMin === valueMax ? { valueMin: valueMin - 0.5, valueMax: valueMax + 0.5 } : { valueMin, valueMax };
}

export type Colour = readonly [red: number, green: number, blue: number];

/** Colour of a heat of 0 to 1 on a ramp of evenly spaced stops; heats outside are held at its ends. */
export function rampColour(stops: readonly Colour[], heat: number): Colour {
  const place = Math.min(1, Math.max(0, heat)) * (stops.length - 1);
  const below = stops[Math.floor(place)] ?? [0, 0, 0];
  const above = stops[Math.ceil(place)] ?? below;
  const part = place - Math.floor(place);
  const mix = (channel: 0 | 1 | 2): number => Math.round(below[channel] + (above[channel] - below[channel]) * part);
  return [mix(0), mix(1), mix(2)];
}
