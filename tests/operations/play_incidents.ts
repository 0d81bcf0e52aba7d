// Plays every incident and finds the alerts that fire. Time is compressed: the traffic of an incident takes seconds here, and its
// points get the times of a virtual hour when they are loaded. In each virtual hour, and in the five before, the clean hour's points
// precede the incident, which begins 20 minutes before the end. The alerts are evaluated every 5 minutes, as the runner does, and
// see no point of the future.

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { root } from '../../scripts/paths.ts';
import type { Point } from '../hosts/points.ts';
import { seededChoices } from '../support/seeded_random.ts';
import { type Alert, readAlerts } from './alert_files.ts';
import { type ClickHouse, startClickHouse, type TimedPoint } from './clickhouse.ts';
import { CLEAN, type Incident, INCIDENTS } from './incidents.ts';
import { startTestBed, type TestBed } from './traffic.ts';

/** The end of every virtual hour: 2026-11-28 12:00 UTC. */
export const NOW_S = 1_795_867_200;
const HOUR_S = 3600;
/** The length of an incident. */
export const INCIDENT_S = 20 * 60;
const EVERY_S = 5 * 60;
/** The slow burn's window. */
const HISTORY_HOURS = 6;

export type Played = {
  incident: string;
  /** The alerts of its row in operations/README.md, sorted. */
  expected: string[];
  /** Sorted. */
  fired: string[];
  /** Minutes from the beginning of the incident to the first alert; undefined where none fired. */
  minutes?: number;
  points: TimedPoint[];
};

/** In the order of the table. */
export type Run = { played: Played[] };

/** Plays the clean hour and every incident, each with that many learners. */
export async function playIncidents(learners: number): Promise<Run> {
  const [alerts, expected, clickhouse] = await Promise.all([readAlerts(), incidentTable(), startClickHouse()]);
  const testBeds: TestBed[] = [];
  try {
    const shared = await startTestBed(learners);
    testBeds.push(shared);
    const clean = shuffled(await shared.collect(CLEAN.play));
    const history = Array.from({ length: HISTORY_HOURS }, (_, n) => spread(clean, NOW_S - (n + 1) * HOUR_S, NOW_S - n * HOUR_S)).flat();
    const played: Played[] = [];
    for (const incident of [CLEAN, ...INCIDENTS]) {
      let testBed = shared;
      if (incident.variables !== undefined || incident.prelude !== undefined) testBeds.push((testBed = await startTestBed(learners, incident)));
      const written = incident === CLEAN || incident.play === 'nothing' ? [] : await testBed.collect(incident.play);
      const points = pointsOf(incident, shuffled(written), history);
      const firings = await firingsOf(clickhouse, alerts, points);
      const [first] = firings;
      played.push({
        incident: incident.name,
        expected: (expected.get(incident.name) ?? ['no row in operations/README.md']).toSorted(),
        fired: [...new Set(firings.map(({ alert }) => alert))].sort(),
        ...(first === undefined ? {} : { minutes: (first.at_s - beginningOf(incident)) / 60 }),
        points,
      });
    }
    const rows = [...expected.keys()];
    return { played: played.toSorted((a, b) => rows.indexOf(a.incident) - rows.indexOf(b.incident)) };
  } finally {
    await Promise.all([clickhouse, ...testBeds].map((part) => part.close()));
  }
}

/** The points of the incident's virtual hours. */
function pointsOf(incident: Incident, points: readonly Point[], history: readonly TimedPoint[]): TimedPoint[] {
  if (incident === CLEAN) return [...history];
  const from_s = beginningOf(incident);
  return [...history.filter(({ time_s }) => time_s < from_s), ...spread(points, from_s, NOW_S)];
}

const beginningOf = ({ play }: Incident): number => NOW_S - (play === 'nothing' ? HOUR_S : INCIDENT_S);

/** Every alert that fires in the last hour, oldest first. */
async function firingsOf(clickhouse: ClickHouse, alerts: readonly Alert[], points: readonly TimedPoint[]): Promise<{ alert: string; at_s: number }[]> {
  await clickhouse.load(points);
  const firings: { alert: string; at_s: number }[] = [];
  for (let at_s = NOW_S - HOUR_S + EVERY_S; at_s <= NOW_S; at_s += EVERY_S) {
    for (const { name, query } of alerts) {
      if ((await clickhouse.query(query, at_s)).length > 0) firings.push({ alert: name, at_s });
    }
  }
  return firings;
}

/** Gives the points times at even distances. */
export function spread(points: readonly Point[], from_s: number, to_s: number): TimedPoint[] {
  return points.map(({ blobs, doubles }, n) => ({ time_s: from_s + ((n + 0.5) / points.length) * (to_s - from_s), blobs, doubles }));
}

/** The traffic of one kind is played together, and is not to be in one minute. The same order in each run. */
function shuffled<T>(items: readonly T[]): T[] {
  const choices = seededChoices(1);
  return items.map((item) => ({ item, at: choices.fraction() })).sort((a, b) => a.at - b.at).map(({ item }) => item);
}

/** The rows of the section Incidents of operations/README.md: the incident, and its alerts. */
export async function incidentTable(): Promise<Map<string, string[]>> {
  const readme = await readFile(join(root, 'operations/README.md'), 'utf8');
  const section = readme.split(/^## /m).find((text) => text.startsWith('Incidents')) ?? '';
  const rows = [...section.matchAll(/^\| ([^|]+) \| ([^|]+) \|$/gm)].slice(2);
  return new Map(rows.map(([, incident = '', alerts = '']) => [incident.trim(), [...alerts.matchAll(/`([a-z0-9-]+)`/g)].map(([, alert = '']) => alert)]));
}

/** A line per incident. */
export function reportOf(played: readonly Played[]): string {
  const width = Math.max(...played.map(({ incident }) => incident.length));
  return played
    .map(({ incident, expected, fired, minutes }) => {
      const mark = expected.join() === fired.join() ? '✓' : '✗';
      const after = minutes === undefined ? '' : ` (first after ${minutes} min)`;
      const wanted = mark === '✓' ? '' : `; expected ${expected.join(', ') || 'none'}`;
      return `  ${mark} ${incident.padEnd(width)}  ${fired.join(', ') || 'none'}${after}${wanted}`;
    })
    .join('\n');
}
