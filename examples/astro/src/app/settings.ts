/** The URLs of the services, from the page's head, so that one build can be used with any of them. */

export interface Settings {
  aiSessionsUrl: string;
  supabaseUrl: string;
  supabaseAnonKey: string;
}

export function readSettings(): Settings {
  return { aiSessionsUrl: meta('ai-sessions-url'), supabaseUrl: meta('supabase-url'), supabaseAnonKey: meta('supabase-anon-key') };
}

function meta(name: string): string {
  const content = document.querySelector<HTMLMetaElement>(`meta[name="${name}"]`)?.content;
  if (!content) throw new Error(`the page was built without ${name}: see .env.example`);
  return content.replace(/\/+$/, '');
}
