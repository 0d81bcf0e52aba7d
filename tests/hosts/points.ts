// The sink of the data points: a dataset that writes them to the log of workerd. Contains no assertion.

import type { Service, StartService } from '../service/service.ts';
import { startAfter } from './workerd.ts';

/** A worker whose default export makes the binding METRICS: workerd's own way to wrap one. */
export const SINK = `export default () => ({ writeDataPoint: (point) => console.log('POINT ' + JSON.stringify(point)) });`;

/** Starts a service whose data points are in its log, in which no suite may leave a text, a token or a key. */
export const startMeasured: StartService = (variables) => startAfter('', variables, { METRICS: SINK });

/** A data point, as Analytics Engine receives it. */
export type Point = { indexes: string[]; blobs: string[]; doubles: number[] };

const MARK = 'POINT ';

/** The points that a service with the sink has written. */
export const pointsIn = (service: Service): Point[] =>
  service.logs.filter((line) => line.startsWith(MARK)).map((line) => JSON.parse(line.slice(MARK.length)) as Point);
