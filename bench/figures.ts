/** Median, and the spread around it, of measurements that were taken in turns. */
export interface Figure {
  median: number;
  least: number;
  most: number;
  values: readonly number[];
}

export function figure(values: readonly number[]): Figure {
  const sorted = values.toSorted((a, b) => a - b);
  const at = (i: number) => sorted[i] ?? Number.NaN;
  const middle = (sorted.length - 1) / 2;
  return {
    median: (at(Math.floor(middle)) + at(Math.ceil(middle))) / 2,
    least: at(0),
    most: at(sorted.length - 1),
    values,
  };
}

/** One line of the table. */
export interface Row {
  what: string;
  ours: string;
  beside: string;
  /** What is compared with the wanted value; `undefined` where nothing was wanted. */
  ratio: number | undefined;
  wanted: number | undefined;
  /** How `ratio` and `wanted` are written: `×` for a ratio. */
  unit: string;
}

export function milliseconds(f: Figure): string {
  return `${f.median.toFixed(0)} ms (${f.least.toFixed(0)}–${f.most.toFixed(0)})`;
}

export function mebibytes(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}

/** The table as Markdown. */
export function table(rows: readonly Row[]): string {
  const head = ['', 'Cairn', 'beside', 'measured', 'wanted', ''];
  const lines = rows.map(({ what, ours, beside, ratio, wanted, unit }) => [
    what,
    ours,
    beside,
    ratio === undefined ? '' : `${ratio.toFixed(2)} ${unit}`,
    wanted === undefined ? '' : `≤ ${wanted} ${unit}`,
    ratio === undefined || wanted === undefined ? '' : ratio <= wanted ? 'reached' : 'missed',
  ]);
  const all = [head, ...lines];
  const widths = head.map((_, column) => Math.max(...all.map((line) => (line[column] ?? '').length), 3));
  const row = (line: readonly string[]) =>
    `| ${line.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(' | ')} |`;
  return [row(head), row(widths.map((width) => '-'.repeat(width))), ...lines.map(row)].join('\n');
}
