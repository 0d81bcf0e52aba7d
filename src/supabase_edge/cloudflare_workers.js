// The class that the output of worker-build extends, which only Cloudflare has.
export class WorkerEntrypoint {}
