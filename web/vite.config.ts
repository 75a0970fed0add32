// Builds the page into the server's package, which serves it at `/`.
//
// Everything lands in files of its own (no inlined scripts, styles or assets), because the server's content security
// policy allows only what comes from its own address.
import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

export default defineConfig({
  plugins: [react()],
  build: {
    outDir: "../python/runferry/server/static",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: "es2022",
  },
  server: {
    // `npm run dev` shows a real server's runs when one listens here, else those of `npm run mock`.
    proxy: { "/api": "http://127.0.0.1:7070" },
  },
  test: { include: ["src/**/*.test.ts"], environment: "node" },
});
