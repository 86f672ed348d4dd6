import { release } from 'node:os';
import { CairnError, messageOf, systemCode } from '../errors.ts';
import { findProgram } from '../linux/find-program.ts';
import { lastLines, runProgram } from '../linux/run-program.ts';
import { parseVersion } from '../linux/version.ts';
import { minimumCriu, whyCriuTooOld } from './requirements.ts';

/** The CRIU that is used. */
export interface Criu {
  path: string;
  /** Dotted number, for example `4.2.1`. */
  version: string;
  /** From Cairn's private prefix (`/opt/cairn`), not the distribution's. */
  prefix: boolean;
}

const remedy = 'sudo npm run setup';

// One entry for each setting of the environment: tests change CAIRN_CRIU within one process.
const found = new Map<string, Promise<Criu>>();

/**
 * Finds CRIU: `CAIRN_CRIU`, then the private prefix, then PATH; its version is asked for once.
 *
 * Throws `environment` `criu-missing`, `criu-broken` or `criu-too-old`.
 */
export function findCriu(): Promise<Criu> {
  const key = [process.env.CAIRN_CRIU, process.env.CAIRN_PREFIX, process.env.PATH].join('\n');
  let promise = found.get(key);
  if (promise === undefined) {
    promise = search();
    found.set(key, promise);
    // A failure is not remembered: it goes away when the user mends it while the daemon runs.
    promise.catch(() => found.delete(key));
  }
  return promise;
}

async function search(): Promise<Criu> {
  const program = await locate();
  const version = await criuVersion(program.path);
  const reason = whyCriuTooOld(version, release());
  if (reason !== undefined) {
    throw new CairnError(
      'environment',
      'criu-too-old',
      `${program.path} is CRIU ${version}; Cairn needs ${minimumCriu} or newer, because ${reason}.`,
      { remedy },
    );
  }
  return { path: program.path, version, prefix: program.prefix };
}

async function locate(): Promise<{ path: string; prefix: boolean }> {
  try {
    const program = await findProgram('criu');
    if (program !== undefined) return program;
  } catch (error) {
    if (!(error instanceof CairnError)) throw error;
    throw new CairnError('environment', 'criu-missing', error.message, {
      remedy: error.remedy ?? remedy,
      cause: error,
    });
  }
  throw new CairnError(
    'environment',
    'criu-missing',
    'CRIU is not installed, neither by Cairn nor in PATH.',
    {
      remedy,
    },
  );
}

/** The version of a CRIU program, for example `4.2.1`. Throws `environment` `criu-broken` when it does not tell one. */
export async function criuVersion(path: string): Promise<string> {
  const { code, stdout, stderr } = await run(path, ['--version'], 'its version');
  const version = parseVersion(stdout);
  if (code !== 0 || version === undefined) {
    throw broken(`Asked ${path} for its version: it ended with code ${code} and told none.`, stderr + stdout);
  }
  return version;
}

/** The kernel features that CRIU is asked for by name (`criu check --feature`), and what Cairn does with them. */
export const criuFeatures = {
  pagemap_scan: 'finding out quickly which pages were written',
  pagemap_scan_guard_pages: 'programs with guard pages (MADV_GUARD_INSTALL; newer C libraries)',
  'uffd-noncoop': 'restart --lazy: memory that arrives while the job runs',
  mem_dirty_track: 'incremental dumps by CRIU itself (soft-dirty); Cairn has its own ways',
  timens: 'monotonic clocks that do not jump after a restart',
  userns: 'jobs of any user id in a user namespace',
  overlayfs_maps: 'programs mapped from an overlay file system',
  sockopt_buf_lock: 'socket buffer sizes that a program has fixed',
  network_lock_nftables: 'locking the network of a job with nftables',
  get_rseq_conf: 'restartable sequences (used by the C library)',
  pidfd_store: 'descriptors that refer to processes',
  memfd_hugetlb: 'huge pages in memfd files',
} as const;

export type CriuFeature = keyof typeof criuFeatures;

/** What `criu check` says. */
export interface CriuCheck {
  features: Readonly<Record<CriuFeature, boolean>>;
}

/**
 * Asks CRIU whether this kernel has what it needs, and for each feature by its name. Needs root; takes about 0.5 s.
 *
 * Throws `environment` `criu-broken` with CRIU's last lines when the check fails.
 */
export async function checkCriu(path: string): Promise<CriuCheck> {
  const check = await run(path, ['check'], 'whether it works on this kernel');
  if (check.code !== 0) {
    throw broken(`\`${path} check\` failed with code ${check.code}.`, check.stderr + check.stdout);
  }
  const features = {} as Record<CriuFeature, boolean>;
  for (const name of Object.keys(criuFeatures) as CriuFeature[]) {
    const { code } = await run(path, ['check', '--feature', name], `for the feature ${name}`);
    features[name] = code === 0;
  }
  return { features };
}

async function run(path: string, argv: string[], question: string) {
  try {
    return await runProgram(path, argv, { timeoutMs: 20_000 });
  } catch (error) {
    throw new CairnError(
      'environment',
      'criu-broken',
      `Asked ${path} ${question}, but it could not be run: ${systemCode(error) ?? messageOf(error)}.`,
      { remedy, cause: error },
    );
  }
}

function broken(message: string, output: string): CairnError {
  return new CairnError('environment', 'criu-broken', message, { remedy, lines: lastLines(output) });
}
