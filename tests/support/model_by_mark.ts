// Lets concurrent tests share one model server: each puts its own mark into the text that it sends, and requests with that
// mark meet its behaviours.

import { randomUUID } from 'node:crypto';
import { goodAnswer, type ModelBehaviour } from './model_answer.ts';
import type { ModelRequest } from './model_request.ts';
import type { ModelServer } from './model_server.ts';

export type MarkedScript = {
  /** Part of the text. A sentence, so that candidates can be made from the text around it. */
  mark: string;
  /** The requests with the mark so far, oldest first. */
  requests: ModelRequest[];
};

const MARK = /Mark [0-9a-f-]{36}\./;

/** From now on each request meets the script of the mark in its text; without one, a good answer. */
export function scriptByMark(server: Pick<ModelServer, 'always'>): (behaviours: ModelBehaviour[]) => MarkedScript {
  const scripts = new Map<string, { behaviours: ModelBehaviour[]; requests: ModelRequest[] }>();
  server.always(async (turn) => {
    const script = scripts.get(turn.request.raw.match(MARK)?.[0] ?? '');
    script?.requests.push(turn.request);
    const nth = (script?.requests.length ?? 1) - 1;
    // The last one is repeated.
    await (script?.behaviours[nth] ?? script?.behaviours.at(-1) ?? goodAnswer)(turn);
  });
  return (behaviours) => {
    const script = { mark: `Mark ${randomUUID()}.`, behaviours, requests: [] };
    scripts.set(script.mark, script);
    return script;
  };
}
