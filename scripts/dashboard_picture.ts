/**
 * Draws the panels of operations/dashboard.json from the points of a run: each panel's query runs in ClickHouse, and its result is
 * drawn plainly, without Grafana.
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import { type Row, startClickHouse, type TimedPoint } from '../tests/operations/clickhouse.ts';
import { expanded, INTERVAL_S, type Panel, readPanels } from '../tests/operations/panels.ts';
import { INCIDENT_S, NOW_S, type Played } from '../tests/operations/play_incidents.ts';
import { ensureChromium } from './chromium.ts';
import { root } from './paths.ts';

const [WIDTH, HEIGHT, LEFT, BOTTOM] = [580, 170, 46, 18] as const;
const COLORS = ['#3b7dd8', '#e07b39', '#3a9d5d', '#c0392b', '#8e5bb5', '#c9a227', '#4aa3a2', '#d05a8e', '#7f8c8d', '#6d4c2f', '#111111', '#a8c686'];
const CLEAN_S = 3600;

/** Draws operations/dashboard.png: an hour without an incident, then 20 minutes of each. */
export async function drawDashboard(played: readonly Played[]): Promise<void> {
  const incidents = played.slice(1);
  const from_s = NOW_S - CLEAN_S - incidents.length * INCIDENT_S;
  const moved = (points: readonly TimedPoint[], last_s: number, to_s: number) =>
    points.filter(({ time_s }) => time_s >= NOW_S - last_s).map((point) => ({ ...point, time_s: point.time_s - NOW_S + to_s }));
  const clickhouse = await startClickHouse();
  try {
    await clickhouse.load([
      ...moved(played[0]?.points ?? [], CLEAN_S, from_s + CLEAN_S),
      ...incidents.flatMap(({ incident, points }, n) => (incident === 'no traffic' ? [] : moved(points, INCIDENT_S, from_s + CLEAN_S + (n + 1) * INCIDENT_S))),
    ]);
    const figures: string[] = [];
    for (const panel of await readPanels()) {
      const results = await Promise.all(panel.targets.map(({ query }) => clickhouse.query(expanded(query, from_s, NOW_S), NOW_S)));
      figures.push(figureOf(panel, results, from_s));
    }
    const names = incidents.map(({ incident }, n) => `${n + 1} ${incident}`).join(' · ');
    const caption = `Drawn plainly from the points of a local test run (stand-ins of the model API and the sign-in service), not by Grafana. An hour without an incident, then 20 virtual minutes of each: ${names}.`;
    await writePicture(page(figures, caption));
  } finally {
    await clickhouse.close();
  }
}

async function writePicture(html: string): Promise<void> {
  const browser = await chromium.launch({ executablePath: await ensureChromium(), args: ['--no-sandbox'] });
  try {
    const tab = await browser.newPage({ viewport: { width: 2 * WIDTH + 60, height: 800 } });
    await tab.setContent(html);
    await writeFile(join(root, 'operations/dashboard.png'), await tab.screenshot({ fullPage: true, type: 'png' }));
  } finally {
    await browser.close();
  }
}

const page = (figures: string[], caption: string) => `<!DOCTYPE html><meta charset="utf-8"><style>
  body { margin: 16px; font: 12px "DejaVu Sans", sans-serif; color: #222; } main { display: grid; grid-template-columns: 1fr 1fr; gap: 12px 16px; }
  h2 { font-size: 13px; margin: 0 0 2px; } figure { margin: 0; border: 1px solid #ddd; padding: 8px; } text { font-size: 9px; fill: #555; }
  ul { margin: 2px 0 0; padding: 0; list-style: none; } li { display: inline-block; margin-right: 10px; } b { display: inline-block; width: 9px; height: 9px; margin-right: 3px; }
  td, th { text-align: left; padding: 1px 14px 1px 0; } strong { font-size: 34px; } p { max-width: 1150px; }
</style><h1 style="font-size:17px">ai-sessions</h1><p>${caption}</p><main>${figures.join('')}</main>`;

function figureOf(panel: Panel, results: Row[][], from_s: number): string {
  const body = panel.type === 'timeseries' ? chart(panel, seriesOf(results), from_s) : panel.type === 'table' ? table(results.flat()) : stat(results.flat());
  return `<figure><h2>${panel.title}</h2>${body}</figure>`;
}

type Series = Map<string, Map<number, number>>;

/** As Grafana: a text is the name of a series, else the column's name is. */
function seriesOf(results: Row[][]): Series {
  const series: Series = new Map();
  for (const { t, ...row } of results.flat()) {
    const label = Object.values(row).find((value) => typeof value === 'string' && Number.isNaN(Number(value)));
    for (const [column, value] of Object.entries(row)) {
      if (value === label) continue;
      const name = String(label ?? column);
      series.set(name, (series.get(name) ?? new Map()).set(Number(t) / 1000, Number(value)));
    }
  }
  return series;
}

function chart(panel: Panel & { type: 'timeseries' }, series: Series, from_s: number): string {
  const { custom, unit } = panel.fieldConfig.defaults;
  const stacked = custom?.drawStyle === 'bars';
  const daily = panel.interval === '1d';
  const times = [...new Set([...series.values()].flatMap((values) => [...values.keys()]))].sort((a, b) => a - b);
  const heights = times.map((time) => [...series.values()].map((values) => values.get(time) ?? 0));
  const top = Math.max(...heights.map((values) => (stacked ? values.reduce((sum, value) => sum + value, 0) : Math.max(...values))), 1e-9);
  const x = (time: number) => (daily ? LEFT + 40 : LEFT + ((Math.max(time, from_s) - from_s) / (NOW_S - from_s)) * (WIDTH - LEFT));
  const y = (value: number) => (HEIGHT - BOTTOM) * (1 - value / top);
  const bar = daily ? 60 : (INTERVAL_S / (NOW_S - from_s)) * (WIDTH - LEFT) - 1;
  const below = new Map<number, number>();
  const drawn = [...series.values()].map((values, n) => {
    const color = COLORS[n % COLORS.length];
    if (!stacked) return `<polyline fill="none" stroke="${color}" points="${[...values].map(([time, value]) => `${x(time)},${y(value)}`).join(' ')}"/>`;
    return [...values].map(([time, value]) => {
      const base = below.get(time) ?? 0;
      below.set(time, base + value);
      return `<rect x="${x(time)}" width="${bar}" y="${y(base + value)}" height="${Math.max(y(base) - y(base + value), 0)}" fill="${color}"/>`;
    }).join('');
  });
  const incidents = daily ? [] : Array.from({ length: Math.round((NOW_S - from_s - CLEAN_S) / INCIDENT_S) }, (_, n) => from_s + CLEAN_S + n * INCIDENT_S);
  const marks = incidents.map((time, n) => `<line x1="${x(time)}" x2="${x(time)}" y1="0" y2="${HEIGHT - BOTTOM}" stroke="#ccc" stroke-dasharray="2 3"/><text x="${x(time) + 3}" y="${HEIGHT - 5}">${n + 1}</text>`);
  const scale = [0, top / 2, top].map((value) => `<text x="${LEFT - 4}" y="${Math.max(y(value), 9)}" text-anchor="end">${formatted(value, unit)}</text>`);
  const legend = [...series.keys()].map((name, n) => `<li><b style="background:${COLORS[n % COLORS.length]}"></b>${name}</li>`);
  return `<svg width="${WIDTH}" height="${HEIGHT}">${[...marks, ...drawn, ...scale].join('')}</svg><ul>${legend.join('')}</ul>`;
}

const stat = ([row = {}]: Row[]) => `<strong>${(Number(Object.values(row)[0]) * 100).toFixed(2)} %</strong>`;

function table(rows: Row[]): string {
  const line = (cells: unknown[], tag: string) => `<tr>${cells.map((cell) => `<${tag}>${cell}</${tag}>`).join('')}</tr>`;
  return `<table>${line(Object.keys(rows[0] ?? {}), 'th')}${rows.map((row) => line(Object.values(row), 'td')).join('')}</table>`;
}

function formatted(value: number, unit: string | undefined): string {
  if (unit === 'ms') return value >= 1000 ? `${(value / 1000).toFixed(1)} s` : `${Math.round(value)} ms`;
  return unit === 'currencyUSD' ? `$${value.toPrecision(2)}` : String(Math.round(value * 10) / 10);
}
