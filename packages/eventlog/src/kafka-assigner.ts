import { AssignerProtocol, type PartitionAssigner } from "kafkajs";

const NAME = "tallyhouse-fixed";
const VERSION = 0;

/**
 * Gives every partition to the one member of a private group: manual assignment, which kafkajs does not have. Joining takes
 * milliseconds, and a process that was killed leaves no member behind that its successor would wait for.
 */
export const FIXED_ASSIGNER: PartitionAssigner = ({ cluster }) => ({
  name: NAME,
  version: VERSION,
  assign: async ({ members, topics }) => {
    const assignment = Object.fromEntries(
      topics.map((topic) => [topic, cluster.findTopicPartitionMetadata(topic).map(({ partitionId }) => partitionId)]),
    );
    return members.slice(0, 1).map(({ memberId }) => ({
      memberId,
      memberAssignment: AssignerProtocol.MemberAssignment.encode({
        version: VERSION,
        assignment,
        userData: Buffer.alloc(0),
      }),
    }));
  },
  protocol: ({ topics }) => ({
    name: NAME,
    metadata: AssignerProtocol.MemberMetadata.encode({ version: VERSION, topics, userData: Buffer.alloc(0) }),
  }),
});
