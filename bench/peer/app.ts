/**
 * The endpoint as a good TypeScript developer writes it today: Hono, jose, zod, supabase-js, the AI SDK, and the limiter of its
 * host. `ai-sessions` is compared with it.
 */
import { Hono, type MiddlewareHandler } from 'hono';
import { cors } from 'hono/cors';
import { createMiddleware } from 'hono/factory';
import { requestId } from 'hono/request-id';
import { streamSSE } from 'hono/streaming';
import { z } from 'zod';
import { authenticate } from './authenticate.ts';
import type { AppContext } from './environment.ts';
import { complete, stream } from './model.ts';
import { problem } from './problem.ts';
import { completeSession, databaseOf, type KeptCard, openSession } from './rows.ts';

const newSession = z.strictObject({ input_text: z.string().trim().min(1000).max(10_000), model: z.string() });

const logged = createMiddleware<AppContext>(async (c, next) => {
  const start = Date.now();
  await next();
  const line = { message: 'request', request_id: c.get('requestId'), method: c.req.method, path: c.req.path, status: c.res.status, duration_ms: Date.now() - start };
  console.log(JSON.stringify(line));
});

/** The app behind a limiter, under a base path. */
export function appWith(limit: MiddlewareHandler<AppContext>, basePath: string): Hono<AppContext> {
  const app = new Hono<AppContext>().basePath(basePath);
  app.use(requestId(), logged, cors({ origin: (origin, c) => (c.env.ALLOWED_ORIGINS.split(',').includes(origin) ? origin : null) }));

  app.get('/health', (c) => c.json({ status: 'ok', version: '1.0.0' }));

  app.post('/ai-sessions', authenticate, limit, async (c) => {
    const read = newSession.safeParse(await c.req.json().catch(() => undefined));
    if (!read.success) {
      const errors = read.error.issues.map(({ path, code, message }) => ({ field: path.join('.'), code, message }));
      return problem(c, 400, 'validation_failed', 'the body does not hold', { errors });
    }
    const { input_text, model } = read.data;
    if (!c.env.ALLOWED_MODELS.split(',').includes(model)) return problem(c, 400, 'validation_failed', 'this model is not allowed');

    const id = crypto.randomUUID();
    const database = databaseOf(c);
    await openSession(database, id, model, input_text);
    if (c.req.header('accept')?.includes('text/event-stream')) {
      return streamSSE(c, async (events) => {
        await events.writeSSE({ event: 'session', data: JSON.stringify({ id }) });
        const answer = stream(c.env, model, input_text);
        const cards: KeptCard[] = [];
        for await (const card of answer.cards) {
          const kept = { id: crypto.randomUUID(), ...card };
          await events.writeSSE({ event: 'candidate', id: String(cards.length), data: JSON.stringify({ index: cards.length, ...kept }) });
          cards.push(kept);
        }
        const usage = await answer.usage;
        await completeSession(database, id, cards, usage);
        await events.writeSSE({ event: 'done', data: JSON.stringify({ id, count: cards.length, partial: false, usage }) });
      });
    }
    const answer = await complete(c.env, model, input_text);
    const candidates = answer.cards.map((card) => ({ id: crypto.randomUUID(), ...card }));
    await completeSession(database, id, candidates, answer.usage);
    return c.json({ id, partial: false, candidates }, 201, { location: `/ai-sessions/${id}`, 'cache-control': 'no-store' });
  });

  app.onError((error, c) => {
    console.error(error);
    return problem(c, 500, 'internal', 'something here is broken');
  });

  return app;
}
