// The sink of the data points: a dataset that writes them to the log of workerd. Contains no assertion.

import type { Service } from '../service/service.ts';

/** A worker whose default export makes the binding METRICS: workerd's own way to wrap one. */
export const SINK = `export default () => ({ writeDataPoint: (point) => console.log('POINT ' + JSON.stringify(point)) });`;

/** A data point, as Analytics Engine receives it. */
export type Point = { indexes: string[]; blobs: string[]; doubles: number[] };

const MARK = 'POINT ';

/** The points that a service with the sink has written. */
export const pointsIn = (service: Service): Point[] =>
  service.logs.filter((line) => line.startsWith(MARK)).map((line) => JSON.parse(line.slice(MARK.length)) as Point);
