import { eventLogContract } from "@tallyhouse/testkit";
import { freshLogOptions, kafkaBrokers, openKafkaUnderTest } from "./kafka-support.ts";

const brokers = kafkaBrokers();

for (const ownership of ["fixed", "group"] as const) {
  eventLogContract(`Kafka, ownership ${ownership}`, ({ partitionCount }) =>
    openKafkaUnderTest({ ...freshLogOptions(brokers, partitionCount), ownership }),
  );
}
