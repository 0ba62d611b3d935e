// Signs webhooks with what their schemes' authors publish.
//
//   node sign.mjs standard-webhooks SECRET ID SECONDS <BODY     the value of `webhook-signature`
//   node sign.mjs github SECRET <BODY                           the value of `x-hub-signature-256`

import { readFileSync } from "node:fs";
import { Webhooks } from "@octokit/webhooks";
import { Webhook } from "standardwebhooks";

const [scheme, secret, id, seconds] = process.argv.slice(2);
const body = readFileSync(0, "utf8");
const signers = {
  "standard-webhooks": () => new Webhook(secret).sign(id, new Date(seconds * 1000), body),
  github: () => new Webhooks({ secret }).sign(body),
};
process.stdout.write(await signers[scheme]());
