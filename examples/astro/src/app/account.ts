/** The signed-in user, and the user's own rows, by Supabase. */
import { createClient, isAuthRetryableFetchError } from '@supabase/supabase-js';
import { ConnectionError } from '../ai-sessions/errors.ts';
import type { Settings } from './settings.ts';

export interface User {
  id: string;
  email: string;
}

export interface Account {
  /** Called with the current user and at every change, in other tabs too; undefined: signed out. */
  watch(changed: (user: User | undefined) => void): void;
  /** Returns the sentence for an error, if there is one. */
  signIn(email: string, password: string): Promise<string | undefined>;
  signUp(email: string, password: string): Promise<string | undefined>;
  signOut(): Promise<void>;
  accessToken(renew: boolean): Promise<string | undefined>;
  /** The stored text of one of the user's sessions, from the user's own rows: the service does not return it. */
  textOf(sessionId: string): Promise<string | undefined>;
}

export function openAccount({ supabaseUrl, supabaseAnonKey }: Settings): Account {
  const supabase = createClient(supabaseUrl, supabaseAnonKey);
  const { auth } = supabase;
  return {
    watch(changed) {
      let lastId: string | undefined | null = null;
      auth.onAuthStateChange((_, session) => {
        const user = session?.user;
        // A renewed token is the same user.
        if (user?.id === lastId) return;
        lastId = user?.id;
        // Outside the callback, in which supabase-js holds its lock.
        setTimeout(() => changed(user === undefined ? undefined : { id: user.id, email: user.email ?? '' }));
      });
    },
    async signIn(email, password) {
      const { error } = await auth.signInWithPassword({ email, password });
      return error === null ? undefined : sentence(error.code, error.message);
    },
    async signUp(email, password) {
      const { data, error } = await auth.signUp({ email, password });
      if (error !== null) return sentence(error.code, error.message);
      return data.session === null ? 'Look into your mail: the address has to be confirmed before you can sign in.' : undefined;
    },
    async signOut() {
      await auth.signOut({ scope: 'local' });
    },
    async accessToken(renew) {
      const { data, error } = renew ? await auth.refreshSession() : await auth.getSession();
      if (isAuthRetryableFetchError(error)) throw new ConnectionError('the sign-in cannot be reached', { cause: error });
      return data.session?.access_token;
    },
    async textOf(sessionId) {
      const rows = supabase.from('ai_generation_sessions').select('input_text').eq('id', sessionId);
      const { data } = await rows.maybeSingle<{ input_text: string }>().throwOnError();
      return data?.input_text;
    },
  };
}

function sentence(code: string | undefined, message: string): string {
  switch (code) {
    case 'invalid_credentials':
      return 'This address and password do not belong together.';
    case 'user_already_exists':
      return 'There is an account with this address: sign in instead.';
    case 'weak_password':
      return 'The password is too short: take at least 6 characters.';
    case undefined:
      return 'The sign-in cannot be reached. Check your connection and try again.';
    default:
      return message;
  }
}
