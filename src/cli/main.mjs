// The one file that is not TypeScript: Node.js would have to load its TypeScript compiler for it, at every call, before the cache of
// compiled files is on. That takes longer than all the rest of most commands.
import { enableCompileCache } from 'node:module';
import { homedir } from 'node:os';
import { join } from 'node:path';

// Not in the directory for temporary files, where others could put their code in our name; and what sudo runs must not trust the home of
// the user.
const cache =
  process.getuid?.() === 0 ? '/var/cache/cairn/compiled' : join(homedir(), '.cache', 'cairn', 'compiled');
enableCompileCache(cache);
// Threads and monitors of the daemon do not inherit it in another way.
process.env.NODE_COMPILE_CACHE ??= cache;

const { runCommandLine } = await import('./run-command-line.ts');
process.exitCode = await runCommandLine(process.argv.slice(2));
