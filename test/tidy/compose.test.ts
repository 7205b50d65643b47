import { judge } from "./judge.ts";
import { composeProblems } from "./compose-rules.ts";

const schema = {
  "services/x/src/config.ts": "const ConfigSchema = z.object({\n  /** Port. */\n  HTTP_PORT: z.coerce.number(),\n});\n",
};
const entry = { "services/x/src/main.ts": "\n" };

judge("docker-compose.yml and the schemas", composeProblems, {
  broken: {
    ...schema,
    "docker-compose.yml": [
      "services:",
      "  db: { image: postgres:18 }",
      "  x:",
      "    image: tallyhouse",
      "    command: [node, services/x/src/main.ts]",
      '    environment: { HTTP_PORT: "8080", HTTP_PROT: "1" }',
      '    ports: ["127.0.0.1:8080:8081"]',
      '    volumes: ["data:/data"]',
      "    depends_on: { db: { condition: service_healthy }, gone: {} }",
      "",
    ].join("\n"),
  },
  problems: [
    "docker-compose.yml: x sets HTTP_PROT, which no schema reads",
    "docker-compose.yml: x runs services/x/src/main.ts, which does not exist",
    "docker-compose.yml: x names port 8081, where it does not listen",
    "docker-compose.yml: x has no health check",
    "docker-compose.yml: x waits for the health of db, which has no check",
    "docker-compose.yml: x waits for gone, which does not exist",
    "docker-compose.yml: x mounts data, which is no volume of the file",
  ],
  kept: {
    ...schema,
    ...entry,
    "docker-compose.yml": [
      "services:",
      "  x:",
      "    image: tallyhouse",
      "    command: [node, services/x/src/main.ts]",
      '    environment: { HTTP_PORT: "8080" }',
      '    ports: ["127.0.0.1:80:8080"]',
      "    healthcheck: { test: [CMD, fetch, 'http://127.0.0.1:8080/readyz'] }",
      "",
    ].join("\n"),
  },
});
