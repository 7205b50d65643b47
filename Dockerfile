# One image for every service; docker-compose.yml names the command of each. Not run yet: see the status table of README.md.
#
#   docker build -t tallyhouse .

# What the services need of the workspaces, and a lock file of just that.
FROM node:24-slim AS pruned
WORKDIR /source
COPY . .
RUN npx --yes turbo@2.11.2 prune @tallyhouse/standalone --docker

# The embedded engines are optional dependencies: a server in their place needs none of their 900 MB.
FROM node:24-slim AS installed
WORKDIR /app
COPY .npmrc ./
COPY --from=pruned /source/out/json/ ./
RUN npm ci --omit=dev --omit=optional --ignore-scripts

FROM node:24-slim
ENV NODE_ENV=production
WORKDIR /app
COPY --from=installed /app/ ./
COPY --from=pruned /source/out/full/ ./
COPY infra/clickhouse infra/clickhouse
COPY infra/postgres infra/postgres
COPY examples examples
RUN mkdir /data /compiled && chown node:node /data /compiled
USER node
# Half of a start is stripping types and compiling. `help` loads every service: done once here, read at every start.
ENV NODE_COMPILE_CACHE=/compiled
RUN node services/standalone/bin/tallyhouse.mjs help
CMD ["node", "services/standalone/bin/tallyhouse.mjs", "help"]
