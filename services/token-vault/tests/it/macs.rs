//! MACs that a provider makes with the client's secret.

use aws_lc_rs::hmac;
use common::rpc::CallError;
use common::{Code, Reason};
use contracts::vault::v1::*;

use crate::world::{INGEST, Instance, World};

const ALGORITHMS: [(MacAlgorithm, hmac::Algorithm); 3] = [
    (MacAlgorithm::HmacSha256, hmac::HMAC_SHA256),
    (MacAlgorithm::HmacSha1, hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
    (MacAlgorithm::HmacSha512, hmac::HMAC_SHA512),
];

fn signed(algorithm: hmac::Algorithm, secret: &str, message: &[u8]) -> SignedMessage {
    let key = hmac::Key::new(algorithm, secret.as_bytes());
    SignedMessage {
        message: message.to_vec(),
        mac: hmac::sign(&key, message).as_ref().to_vec(),
    }
}

fn request(
    world: &World,
    algorithm: MacAlgorithm,
    messages: Vec<SignedMessage>,
) -> VerifyMacsRequest {
    VerifyMacsRequest {
        tenant_id: world.tenant.to_string(),
        oauth_client_id: world.client.to_string(),
        algorithm: algorithm as i32,
        messages,
        ..VerifyMacsRequest::default()
    }
}

async fn verify(
    world: &World,
    vault: &Instance,
    request: VerifyMacsRequest,
) -> Result<Vec<bool>, CallError> {
    let mut client = world.vault_as(vault, INGEST);
    Ok(client.verify_macs(request).await?.into_inner().valid)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_message_is_verified_with_either_secret() {
    let _logs = testkit::logs::capture();
    let (world, vault) = World::new().await;
    let rotating = |ends_in: i64| PutOAuthClientRequest {
        oauth_client: Some(OAuthClient {
            previous_client_secret: "older".into(),
            previous_client_secret_expires_at: Some(prost_types::Timestamp {
                seconds: world.deps.now().unix_timestamp() + ends_in,
                nanos: 0,
            }),
            ..world.oauth_client("newer")
        }),
    };
    let mut client = world.vault(&vault);
    client.put_o_auth_client(rotating(3600)).await.unwrap();
    for (algorithm, hash) in ALGORITHMS {
        let good = signed(hash, "newer", b"a message");
        let messages = vec![
            good.clone(),
            signed(hash, "older", b"a message"),
            signed(hash, "another", b"a message"),
            SignedMessage {
                message: b"another message".to_vec(),
                ..good.clone()
            },
            SignedMessage {
                mac: good.mac[..good.mac.len() - 1].to_vec(),
                ..good.clone()
            },
            SignedMessage {
                mac: Vec::new(),
                ..good
            },
        ];
        let valid = verify(&world, &vault, request(&world, algorithm, messages))
            .await
            .unwrap();
        assert_eq!(valid, [true, true, false, false, false, false]);
    }
    client.put_o_auth_client(rotating(-1)).await.unwrap();
    let messages = vec![
        signed(hmac::HMAC_SHA256, "newer", b"m"),
        signed(hmac::HMAC_SHA256, "older", b"m"),
    ];
    let valid = verify(
        &world,
        &vault,
        request(&world, MacAlgorithm::HmacSha256, messages),
    )
    .await
    .unwrap();
    assert_eq!(valid, [true, false]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_without_a_shared_secret_verifies_nothing() {
    let _logs = testkit::logs::capture();
    let (world, vault) = World::new().await;
    let public = OAuthClient {
        auth_method: ClientAuthMethod::None as i32,
        ..world.oauth_client("")
    };
    let put = PutOAuthClientRequest {
        oauth_client: Some(public),
    };
    world.vault(&vault).put_o_auth_client(put).await.unwrap();
    let messages = vec![signed(hmac::HMAC_SHA256, "", b"m")];
    let error = verify(
        &world,
        &vault,
        request(&world, MacAlgorithm::HmacSha256, messages),
    )
    .await
    .expect_err("an empty secret is none");
    assert_eq!(error.reason, Some(Reason::IntegrationMisconfigured));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_wrong_field_is_named_at_once() {
    let _logs = testkit::logs::capture();
    let (world, vault) = World::new().await;
    let message = signed(hmac::HMAC_SHA256, "s", b"m");
    let request = VerifyMacsRequest {
        oauth_client_id: "x".into(),
        ..request(&world, MacAlgorithm::Unspecified, vec![message; 257])
    };
    let error = verify(&world, &vault, request)
        .await
        .expect_err("all is wrong");
    assert_eq!(error.code, Code::InvalidArgument);
    let mut fields: Vec<_> = error.fields.iter().map(|wrong| &wrong.field).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["algorithm", "messages", "oauth_client_id"]);
}
