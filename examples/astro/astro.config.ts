// Static files that any host can serve. Scripts and styles stay in files of their own, so that the page's
// Content-Security-Policy needs no exception.
import { defineConfig } from 'astro/config';

export default defineConfig({
  output: 'static',
  devToolbar: { enabled: false },
  build: { inlineStylesheets: 'never' },
  vite: { build: { assetsInlineLimit: 0 } },
});
