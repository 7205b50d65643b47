import type { Authenticator } from "@tallyhouse/domain";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { authenticate } from "./auth.ts";
import { correctionView } from "./corrections-routes.ts";
import { findEvent, type FindPorts } from "./find-event.ts";
import { queryInvalid, sendProblem } from "./problem.ts";
import { IdentityPartsSchema } from "./raw-rows.ts";

/** Query of `GET /v1/usage/events`; source and id only where the path has none. */
export const FindParameters = IdentityPartsSchema;

/** `GET /v1/usage/events/{source}/{id}`, and the same with source and id in the query, for those that no path can carry. */
export function addFindRoutes(
  app: FastifyInstance,
  ports: FindPorts & { readonly authenticator: Authenticator },
): void {
  const find = async (request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> => {
    const auth = await authenticate(request, ports.authenticator);
    if (auth.kind === "problem") return sendProblem(reply, auth.problem);
    const given = request.query as Readonly<Record<string, unknown>>;
    const path = request.params as Readonly<Record<string, string>>;
    const twice = Object.keys(path).filter((name) => Object.hasOwn(given, name));
    if (twice.length > 0)
      return sendProblem(reply, queryInvalid(twice.map((field) => ({ field, rule: "is in the path already" }))));
    const parts = FindParameters.safeParse({ ...given, ...path });
    if (!parts.success) {
      const problems = parts.error.issues.flatMap((issue) =>
        issue.code === "unrecognized_keys"
          ? issue.keys.map((field) => ({ field, rule: "is no parameter of this request" }))
          : [{ field: issue.path.join("."), rule: issue.message }],
      );
      return sendProblem(reply, queryInvalid(problems));
    }
    const finding = await findEvent(ports, { mode: auth.principal.mode, ...parts.data });
    if (finding.kind === "problem") return sendProblem(reply, finding.problem);
    const { corrections, ...answer } = finding.answer;
    return reply.send({
      ...answer,
      corrections: corrections.map(({ correction, state }) => correctionView(correction, state)),
    });
  };
  app.get("/v1/usage/events/:source/:id", find);
  app.get("/v1/usage/events", find);
}
