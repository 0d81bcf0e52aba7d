// The call of a user object: one crossing at either side.

import { begin } from '../web/operations.js';

/** Sends a command: status 1 with the text and the body of the reply, 0 without a reply, 2 when the object is overloaded. */
export async function execute(id, environment, name, command) {
  const end = begin(id, () => {});
  try {
    // A copy: a view would be sent with all of the module's memory.
    const { text, body } = await environment.USER_SESSIONS.getByName(name).execute(command.slice());
    end(1, String(text), undefined, body);
  } catch (error) {
    end(error?.overloaded ? 2 : 0);
  }
}

/** Resolves the call of a user object with a reply, and bytes as the body of the response. */
export const reply = (resolve, text, body) => resolve({ text, body: body.length > 0 ? body.slice() : null });

/** The same with a stream. */
export const reply_stream = (resolve, text, body) => resolve({ text, body });
