/** Formats the figures for a terminal. */
import { judge, median, ratioOver, type Row } from './figures.ts';

const WIDTHS = { figure: 38, target: 24, ratio: 11, goal: 7 };

/** `targets`: the columns; `builds`: those among them that are other builds of this service. */
export function table(rows: Row[], targets: string[], builds: string[]): string {
  const columns = targets.filter((name) => rows.some(({ samples }) => samples[name] !== undefined));
  const over = [...builds, 'peer'];
  const head = [''.padEnd(WIDTHS.figure), ...columns.map((name) => name.padEnd(WIDTHS.target)), ...over.map((name) => ratioHead(name)), 'goal'].join(' ');
  const lines = [`${head.trimEnd()}`];
  for (const [work, group] of Map.groupBy(rows, ({ work }) => work)) lines.push('', work, ...group.map((row) => line(row, columns, builds)));
  return lines.join('\n');
}

const ratioHead = (name: string) => `ours / ${name}`.padEnd(WIDTHS.ratio);

function line(row: Row, columns: string[], builds: string[]): string {
  const { ratio, reached } = judge(row);
  const bound = row.goal?.is === 'at most' ? '≤' : '≥';
  const over = { peer: '', nothing: ' itself', floor: ' of floor', 'floor-with-promises': ' of floor-with-promises' }[row.goal?.over ?? 'peer'];
  const cells = [
    `  ${row.figure}`.padEnd(WIDTHS.figure),
    ...columns.map((name) => cell(row, name).padEnd(WIDTHS.target)),
    ...[...builds.map((name) => ratioOver(name, row.samples)), ratio].map(ratioCell),
    row.goal === undefined ? '' : `${bound} ${row.goal.at}${over} ${reached === undefined ? 'not measured' : reached ? '✓' : '✗ not reached'}`,
  ];
  return cells.join(' ').trimEnd();
}

const ratioCell = (ratio: number | undefined) => (ratio === undefined ? '' : ratio.toFixed(2)).padEnd(WIDTHS.ratio);

/** The median, and the range where there is one. */
function cell({ samples, unit }: Row, name: string): string {
  const measured = samples[name];
  if (measured === undefined) return '–';
  const range = measured.length > 1 ? ` (${number(Math.min(...measured))}–${number(Math.max(...measured))})` : '';
  return `${number(median(measured))} ${unit}${range}`;
}

/** Rounds to three significant digits. */
export const number = (value: number) => (Math.abs(value) >= 100 ? value.toFixed(0) : Math.abs(value) >= 10 ? value.toFixed(1) : value.toFixed(2));
