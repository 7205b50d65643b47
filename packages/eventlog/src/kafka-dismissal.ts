import kafkajs, { type Cluster, type GroupDescription } from "kafkajs";

/** The two requests that kafkajs 2.2.4 has and its types leave out, or leave untyped. */
interface Coordinator {
  describeGroups(request: { groupIds: string[] }): Promise<{ groups: GroupDescription[] }>;
  leaveGroup(request: { groupId: string; memberId: string }): Promise<unknown>;
}

/**
 * Ends the membership of everybody in the group whose client id is `namesake`: the coordinator takes a LeaveGroup for any
 * member from anybody who may read the group. Whoever still lives is told UNKNOWN_MEMBER_ID at its next heartbeat, and joins
 * again. Safe to repeat: yes.
 * @returns the ids of the dismissed members.
 * @see https://kafka.apache.org/protocol#The_Messages_LeaveGroup (read 2026-11)
 * @throws {KafkaJSError} some members may have been dismissed; among others while a broker that has just started loads the group.
 */
export async function dismissNamesakes(
  cluster: Cluster,
  { groupId, namesake }: { groupId: string; namesake: string },
): Promise<string[]> {
  const coordinator = (await cluster.findGroupCoordinator({ groupId })) as unknown as Coordinator;
  const { groups } = await coordinator.describeGroups({ groupIds: [groupId] });
  const memberIds = groups
    .flatMap(({ members }) => members)
    .filter(({ clientId }) => clientId === namesake)
    .map(({ memberId }) => memberId);
  for (const memberId of memberIds) await dismiss(coordinator, { groupId, memberId });
  return memberIds;
}

async function dismiss(coordinator: Coordinator, member: { groupId: string; memberId: string }): Promise<void> {
  try {
    await coordinator.leaveGroup(member);
  } catch (error) {
    // Its session has ended meanwhile.
    if (!(error instanceof kafkajs.KafkaJSProtocolError && error.type === "UNKNOWN_MEMBER_ID")) throw error;
  }
}
