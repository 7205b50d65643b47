export { compileItemOf, EventsDigest, eventTuple, type EventTuple, type MeteredItem } from "./event-digest.ts";
