// The panels of operations/dashboard.json, and their queries as Grafana's ClickHouse plugin (Altinity) sends them.

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { root } from '../../scripts/paths.ts';
import type { DashboardInJson } from './dashboard_types.ts';

export const dashboardFile = join(root, 'operations/dashboard.json');

export type Panel = DashboardInJson['panels'][number];

export const readPanels = async (): Promise<Panel[]> => (JSON.parse(await readFile(dashboardFile, 'utf8')) as DashboardInJson).panels;

/** The interval of a point in the panels here, in seconds. */
export const INTERVAL_S = 300;

/** Expands the macros as the plugin's documentation says (https://github.com/Altinity/clickhouse-grafana, "Macros support"). */
export function expanded(query: string, from_s: number, to_s: number): string {
  return query
    .replaceAll('$timeSeries', `(intDiv(toUInt32(timestamp), ${INTERVAL_S}) * ${INTERVAL_S}) * 1000`)
    .replaceAll('$timeFilter', `timestamp >= toDateTime(${from_s}) AND timestamp <= toDateTime(${to_s})`);
}
