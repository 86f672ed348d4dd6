import { EventBus } from '../jobs/event-bus.ts';
import { createServer } from './server.ts';
import type { ServedNode } from './served-node.ts';

/** The OpenAPI description of the API, as `docs/openapi.json` has it. No node is needed for it. */
export async function openApiDocument(): Promise<Record<string, unknown>> {
  const nobody = { events: new EventBus() } as unknown as ServedNode;
  const app = await createServer(nobody, { version: '1' });
  try {
    return JSON.parse(JSON.stringify(app.swagger())) as Record<string, unknown>;
  } finally {
    await app.close();
  }
}
