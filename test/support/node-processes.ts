import { readdirSync, readFileSync } from 'node:fs';
import type { NodeFixture } from './node-fixture.ts';

/** A process of a node of a test. */
export interface NodeProcess {
  pid: number;
  command: string;
}

/** CRIU processes and monitors of a node: by its directories on their command lines. */
export function nodeProcesses(node: NodeFixture, kind: 'criu' | 'monitor'): NodeProcess[] {
  const found: NodeProcess[] = [];
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const command = read(`/proc/${name}/cmdline`);
    const words = command.split('\0');
    if (!command.includes(`${node.directory}/`)) continue;
    const isCriu =
      words.some((word) => /(^|\/)criu(-[\w-]+)?$/.test(word)) &&
      words.some((word) => /^(dump|restore|lazy-pages)$/.test(word));
    const isMonitor = words.some(
      (word) => word.endsWith('/units/monitor.ts') || word.endsWith('monitor.mjs'),
    );
    if (kind === 'criu' ? isCriu : isMonitor) found.push({ pid: Number(name), command: words.join(' ') });
  }
  return found;
}

function read(file: string): string {
  try {
    return readFileSync(file, 'latin1');
  } catch {
    return '';
  }
}
