// Plays learners against the Worker, and collects its data points.

import { type Point, pointsIn, SINK } from '../hosts/points.ts';
import { startAfter, type WorkerdService } from '../hosts/workerd.ts';
import { create, createStream, eventually, NoStream, sendRequest, type SignedIn, signIn, type Variables } from '../service/service.ts';

export type Stage = {
  service: WorkerdService;
  /** The number of learners to play. */
  learners: number;
  user(): Promise<SignedIn>;
  /** A generation, in a response mode that depends on the number. Returns the status of the response. */
  generate(user: SignedIn, n?: number): Promise<number>;
  /** Any other request. Returns its status. */
  request(method: string, path: string, token?: string, body?: unknown): Promise<number>;
  /** What a learner does: a generation, then the list of sessions. */
  learn(n: number): Promise<void>;
};

/** A local world in which incidents are played one after the other. */
export type TestBed = {
  /** Runs `play`, and returns all points that it causes, in the order in which they were written. Afterwards nothing is broken. */
  collect(play: (stage: Stage) => Promise<void>): Promise<Point[]>;
  close(): Promise<void>;
};

export async function startTestBed(learners: number, { variables = {}, prelude = '' }: { variables?: Variables; prelude?: string } = {}): Promise<TestBed> {
  const service = await startAfter(prelude, variables, { METRICS: SINK });
  let sent = 0;
  const stage: Stage = {
    service,
    learners,
    user: () => signIn(service),
    async generate({ token }, n = 0) {
      sent += 1;
      if (n % 3 !== 1) return (await create(service, token)).status;
      try {
        const stream = await createStream(service, token);
        await stream.whole(60_000);
        return 200;
      } catch (error) {
        if (error instanceof NoStream) return error.answer.status;
        throw error;
      }
    },
    async request(method, path, token, body) {
      sent += 1;
      const given = { ...(token === undefined ? {} : { token }), ...(body === undefined ? {} : { body }) };
      return (await sendRequest(service, method, path, given)).status;
    },
    async learn(n) {
      const user = await stage.user();
      await stage.generate(user, n);
      await stage.request('GET', '/ai-sessions', user.token);
    },
  };
  return {
    async collect(play) {
      const earlier = pointsIn(service).length;
      sent = 0;
      await play(stage);
      const points = await eventually('the points of all requests and generations are written', () => {
        const points = pointsIn(service).slice(earlier);
        const requests = points.filter(({ blobs: [kind] }) => kind?.startsWith('/') || kind === 'none');
        const generations = points.filter(({ blobs: [kind] }) => kind === 'generation');
        return requests.length >= sent && generations.length >= requests.filter(hasGeneration).length ? points : undefined;
      }, 30_000);
      service.world.gateway.clearFaults();
      service.world.openrouter.reset();
      return points;
    },
    close: () => service.close(),
  };
}

/** Whether the request was accepted, or made a model call: the point of its generation may follow its own. */
const hasGeneration = ({ blobs: [route, method], doubles: [status = 0, , , , , attempts = 0] }: Point): boolean =>
  route === '/ai-sessions' && method === 'POST' && (status < 400 || attempts > 0);
