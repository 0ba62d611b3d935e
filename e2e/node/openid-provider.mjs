// The certified OpenID provider of the npm package `oidc-provider`, with its own login and consent pages and one client.
//
//   node openid-provider.mjs REDIRECT_URI
//
// Prints `ready ISSUER` once it answers, then an object a line for each thing that a test wants to count.

import { createServer } from "node:http";
import { Provider } from "oidc-provider";

const [redirectUri] = process.argv.slice(2);
const say = (what) => console.log(JSON.stringify(what));

const server = createServer();
server.listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [
      {
        client_id: "hawser",
        client_secret: "a-client-secret-of-the-openid-provider",
        redirect_uris: [redirectUri],
        grant_types: ["authorization_code", "refresh_token"],
        response_types: ["code"],
        token_endpoint_auth_method: "client_secret_basic",
      },
    ],
    claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["name"] },
    cookies: { keys: ["a key that signs cookies"] },
    features: { revocation: { enabled: true } },
    findAccount: (_, sub) => ({
      accountId: sub,
      claims: () => ({ sub, email: `${sub}@example.com`, email_verified: true, name: `User ${sub}` }),
    }),
    pkce: { required: () => true },
    // Each use of a refresh token gives a new one, and the reuse of an old one ends the grant.
    rotateRefreshToken: true,
    ttl: { AccessToken: 600, Grant: 3600, IdToken: 600, Interaction: 600, RefreshToken: 3600, Session: 3600 },
  });
  provider.on("authorization.success", (context) =>
    say({ event: "authorized", pkce: context.oidc.params.code_challenge_method }),
  );
  provider.on("grant.success", (context) =>
    say({
      event: "token",
      grant_type: context.oidc.params.grant_type,
      verified: context.oidc.params.code_verifier !== undefined,
      refresh_token: context.body.refresh_token !== undefined,
    }),
  );
  provider.on("grant.revoked", () => say({ event: "revoked" }));
  for (const failure of ["authorization.error", "grant.error", "revocation.error", "server_error", "userinfo.error"]) {
    provider.on(failure, (_, error) => say({ event: "refused", by: failure, error: error.message, detail: error.error_detail }));
  }
  server.on("request", provider.callback());
  console.log(`ready ${issuer}`);
});
