/** The bindings of the peer on each host, and the context of its requests. */
import type { SupabaseClient } from '@supabase/supabase-js';

export type Environment = {
  SUPABASE_URL: string;
  SUPABASE_ANON_KEY: string;
  OPENROUTER_API_KEY: string;
  OPENROUTER_BASE_URL: string;
  ALLOWED_MODELS: string;
  ALLOWED_ORIGINS: string;
  /** Requests of one user in a minute. */
  RATE_LIMIT: string;
};

export type AppContext = {
  Bindings: Environment;
  Variables: { requestId: string; userId: string; token: string; database?: SupabaseClient };
};
