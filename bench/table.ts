/** Formats the figures for a terminal. */
import { judge, median, type Row } from './figures.ts';
import { TARGETS, type TargetName } from './targets.ts';

const WIDTHS = { figure: 38, target: 24, ratio: 11, goal: 7 };

export function table(rows: Row[]): string {
  const targets = TARGETS.filter((name) => rows.some(({ samples }) => samples[name] !== undefined));
  const head = [''.padEnd(WIDTHS.figure), ...targets.map((name) => name.padEnd(WIDTHS.target)), 'ours / peer'.padEnd(WIDTHS.ratio), 'goal'].join(' ');
  const lines = [`${head.trimEnd()}`];
  for (const [work, group] of Map.groupBy(rows, ({ work }) => work)) lines.push('', work, ...group.map((row) => line(row, targets)));
  return lines.join('\n');
}

function line(row: Row, targets: TargetName[]): string {
  const { ratio, reached } = judge(row);
  const bound = row.goal?.is === 'at most' ? '≤' : '≥';
  const over = row.goal?.over === 'floor' ? ' of floor' : row.goal?.over === 'nothing' ? ' itself' : '';
  const cells = [
    `  ${row.figure}`.padEnd(WIDTHS.figure),
    ...targets.map((name) => cell(row, name).padEnd(WIDTHS.target)),
    (ratio === undefined ? '' : ratio.toFixed(2)).padEnd(WIDTHS.ratio),
    row.goal === undefined ? '' : `${bound} ${row.goal.at}${over} ${reached === undefined ? 'not measured' : reached ? '✓' : '✗ not reached'}`,
  ];
  return cells.join(' ').trimEnd();
}

/** The median, and the range where there is one. */
function cell({ samples, unit }: Row, name: TargetName): string {
  const measured = samples[name];
  if (measured === undefined) return '–';
  const range = measured.length > 1 ? ` (${number(Math.min(...measured))}–${number(Math.max(...measured))})` : '';
  return `${number(median(measured))} ${unit}${range}`;
}

/** Rounds to three significant digits. */
export const number = (value: number) => (Math.abs(value) >= 100 ? value.toFixed(0) : Math.abs(value) >= 10 ? value.toFixed(1) : value.toFixed(2));
