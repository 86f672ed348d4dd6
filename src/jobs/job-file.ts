import { dirname, resolve } from 'node:path';
import { isCollection, isMap, isNode, LineCounter, parseDocument, type Document } from 'yaml';
import { CairnError } from '../errors.ts';
import { descriptionFaults, type JobDescription, parseDescription } from './description.ts';

/**
 * Reads a job file (YAML, of which JSON is a part). Paths in it that are relative are taken from the directory of the file.
 * Error: `job-file-invalid` with one line `FILE:LINE:COLUMN: what is wrong` for each fault.
 */
export function parseJobFile(text: string, file: string): JobDescription {
  const lineCounter = new LineCounter();
  const document = parseDocument(text, { lineCounter, uniqueKeys: true });
  const place = (offset: number): string => {
    const { line, col } = lineCounter.linePos(offset);
    return `${file}:${line}:${col}`;
  };
  const syntax = document.errors.map((error) => `${place(error.pos[0])}: ${firstLine(error.message)}`);
  if (syntax.length > 0) throw invalid(file, syntax);

  const value: unknown = withAbsolutePaths(document.toJS(), dirname(resolve(file)));
  const faults = descriptionFaults(value);
  if (faults.length > 0) {
    throw invalid(
      file,
      faults.map((fault) => `${place(offsetOf(document, fault.pointer))}: ${fault.message}`),
    );
  }
  return parseDescription(value);
}

function invalid(file: string, lines: string[]): CairnError {
  return new CairnError('argument', 'job-file-invalid', `The job file ${file} is not valid.`, {
    lines,
    remedy: 'Correct these lines; docs/job.schema.json describes what a job file can say.',
  });
}

/** Where in the text a value stands; for a value that is missing, where its parent stands. */
function offsetOf(document: Document.Parsed, pointer: string): number {
  const steps = pointer
    .split('/')
    .slice(1)
    .map((step) => step.replaceAll('~1', '/').replaceAll('~0', '~'));
  let offset = 0;
  let node: unknown = document.contents;
  if (isNode(node) && node.range) offset = node.range[0];
  for (const step of steps) {
    if (!isCollection(node)) break;
    const key = isMap(node)
      ? node.items
          .map((pair) => pair.key)
          .find((candidate) => isNode(candidate) && String(candidate) === step)
      : undefined;
    node = node.get(isMap(node) ? step : Number(step), true);
    if (isNode(key) && key.range) offset = key.range[0];
    else if (isNode(node) && node.range) offset = node.range[0];
  }
  return offset;
}

/** Makes the paths of `rootFileSystem` and `mounts` absolute, where they are text at all. */
function withAbsolutePaths(value: unknown, directory: string): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  const result: Record<string, unknown> = { ...value };
  if (typeof result['rootFileSystem'] === 'string') {
    result['rootFileSystem'] = absoluteRootFileSystem(result['rootFileSystem'], directory);
  }
  if (Array.isArray(result['mounts'])) {
    result['mounts'] = result['mounts'].map((mount: unknown) =>
      typeof mount === 'string' ? absoluteMount(mount, directory) : mount,
    );
  }
  return result;
}

/** `dir:PATH` or `oci:PATH` with the path made absolute; anything else as it is. */
export function absoluteRootFileSystem(text: string, directory: string): string {
  const match = /^(dir|oci):(.+)$/s.exec(text);
  return match?.[2] === undefined ? text : `${match[1]}:${resolve(directory, match[2])}`;
}

/** `SOURCE:TARGET[:ro]` with the source made absolute. */
export function absoluteMount(text: string, directory: string): string {
  const colon = text.indexOf(':');
  return colon <= 0 ? text : resolve(directory, text.slice(0, colon)) + text.slice(colon);
}

function firstLine(text: string): string {
  return text.split('\n', 1)[0] ?? text;
}
