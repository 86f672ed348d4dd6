import { CairnError, type ErrorClass, fullDiskError, messageOf } from '../errors.ts';

/** An error as it crosses from a worker. */
export interface PortableError {
  message: string;
  class?: ErrorClass;
  code?: string;
  remedy?: string;
  lines?: readonly string[];
  stack?: string;
}

export function portableError(thrown: unknown): PortableError {
  const error = fullDiskError(thrown) ?? thrown;
  if (error instanceof CairnError)
    return {
      message: error.message,
      class: error.class,
      code: error.code,
      lines: error.lines,
      ...(error.remedy === undefined ? {} : { remedy: error.remedy }),
    };
  return {
    message: messageOf(error),
    ...(error instanceof Error && error.stack !== undefined ? { stack: error.stack } : {}),
  };
}

export function reviveError(error: PortableError): Error {
  if (error.class === undefined || error.code === undefined) {
    const plain = new Error(error.message);
    if (error.stack !== undefined) plain.stack = error.stack;
    return plain;
  }
  return new CairnError(error.class, error.code, error.message, {
    ...(error.remedy === undefined ? {} : { remedy: error.remedy }),
    ...(error.lines === undefined ? {} : { lines: error.lines }),
  });
}
