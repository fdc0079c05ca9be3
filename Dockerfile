# The program and its runtime dependencies, built apart from what runs. Optional goes too: valibot names the compiler
# as an optional peer, and npm would ship it, five times the size of all the rest.
FROM node:24-bookworm-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev make
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci --ignore-scripts
COPY tsconfig.json ./
COPY src ./src
COPY native ./native
RUN npx tsc --sourceMap false && make -C native && npm prune --omit=dev --omit=optional --ignore-scripts

FROM node:24-bookworm-slim
LABEL org.opencontainers.image.title="dualport" \
      org.opencontainers.image.description="Publishes a program's ports on IPv6 and IPv4 at once" \
      org.opencontainers.image.licenses="MIT"
WORKDIR /app
COPY --from=build /app/package.json ./
COPY --from=build /app/node_modules ./node_modules
COPY --from=build /app/dist/src ./dist/src
COPY --from=build /app/native/build/dualport.node ./native/build/dualport.node
# The admin socket is what the health check asks; with a read-only root file system mount a tmpfs here.
RUN mkdir /run/dualport && chown node:node /run/dualport
ENV NODE_ENV=production DUALPORT_ADMIN=/run/dualport/admin.sock
USER node
ENTRYPOINT ["node", "/app/dist/src/main.js"]
HEALTHCHECK --interval=10s --timeout=6s --start-period=5s CMD ["node", "/app/dist/src/main.js", "status"]
