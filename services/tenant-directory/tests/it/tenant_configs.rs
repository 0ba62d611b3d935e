use common::rpc::CallError;
use common::{Code, Reason};
use contracts::directory::v1::*;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};

use crate::world::{HOST, OPERATOR, World, mask, violated};

fn number(value: f64) -> Value {
    Value {
        kind: Some(Kind::NumberValue(value)),
    }
}

fn text(value: &str) -> Value {
    Value {
        kind: Some(Kind::StringValue(value.into())),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "as fields have it")]
fn object<const N: usize>(fields: [(&str, Value); N]) -> Option<Struct> {
    Some(Struct {
        fields: fields.map(|(key, value)| (key.to_owned(), value)).into(),
    })
}

async fn get(world: &World, tenant_id: &str) -> TenantConfig {
    let request = GetTenantConfigRequest {
        tenant_id: tenant_id.into(),
    };
    world
        .directory(HOST)
        .get_tenant_config(request)
        .await
        .unwrap()
        .into_inner()
        .config
        .unwrap()
}

async fn update(
    world: &World,
    config: TenantConfig,
    paths: &[&str],
) -> Result<TenantConfig, CallError> {
    let request = UpdateTenantConfigRequest {
        config: Some(config),
        update_mask: mask(paths),
    };
    Ok(world
        .directory(HOST)
        .update_tenant_config(request)
        .await?
        .into_inner()
        .config
        .unwrap())
}

#[tokio::test]
async fn req_salesboard_03_configuration_has_defaults_and_one_field_changes_alone() {
    let logs = testkit::logs::capture();
    let world = World::new().await;
    let tenant = world.create("Acme", "acmeco").await.tenant_id;
    let before = get(&world, &tenant).await;
    let stages = Value {
        kind: Some(Kind::ListValue(ListValue {
            values: vec![text("Negotiation"), text("Proposal")],
        })),
    };
    let rules = object([
        ("staleOpportunityDays", number(30.0)),
        ("highRiskStages", stages),
        ("lowEngagementThreshold", number(3.0)),
        ("staleDealWarningDays", number(14.0)),
    ]);
    assert_eq!(before.risk_rules, rules);
    let weights = object([
        ("dealSize", number(0.3)),
        ("closeProximity", number(0.25)),
        ("riskScore", number(0.25)),
        ("engagementLevel", number(0.1)),
        ("strategicValue", number(0.1)),
    ]);
    assert_eq!(before.priority_weights, weights);
    assert_eq!(before.field_mappings, object([]));

    let change = TenantConfig {
        tenant_id: tenant.clone(),
        etag: before.etag.clone(),
        field_mappings: object([
            ("customField", text("Custom__c")),
            ("ignored", text("x")),
            ("Deal.Size", text("Amount")),
        ]),
        priority_weights: object([("dealSize", number(0.5))]),
        ..TenantConfig::default()
    };
    let paths = [
        "field_mappings.customField",
        "field_mappings.`Deal.Size`",
        "priority_weights.dealSize",
    ];
    let after = update(&world, change.clone(), &paths).await.unwrap();
    assert_eq!(
        after.field_mappings,
        object([
            ("customField", text("Custom__c")),
            ("Deal.Size", text("Amount"))
        ])
    );
    assert_eq!(after.risk_rules, rules);
    let after_weights = after.priority_weights.clone().unwrap().fields;
    assert_eq!(
        (after_weights["dealSize"].clone(), after_weights.len()),
        (number(0.5), 5)
    );
    assert_eq!(get(&world, &tenant).await, after);
    let error = update(&world, change, &paths).await.unwrap_err();
    assert_eq!(
        (error.code, error.reason),
        (Code::Aborted, Some(Reason::EtagMismatch))
    );

    // What is cleared is at its default again.
    let nothing = TenantConfig {
        tenant_id: tenant.clone(),
        ..TenantConfig::default()
    };
    let after = update(
        &world,
        nothing,
        &["priority_weights", "field_mappings.customField"],
    )
    .await
    .unwrap();
    assert_eq!(after.priority_weights, weights);
    assert_eq!(
        after.field_mappings,
        object([("Deal.Size", text("Amount"))])
    );
    drop(logs);
}

#[tokio::test]
async fn a_configuration_with_every_field_wrong_is_told_of_each() {
    let world = World::new().await;
    let tenant = world.create("Acme", "acmeco").await.tenant_id;
    let wrong = TenantConfig {
        tenant_id: "acme".into(),
        field_mappings: object([("a\0", text("x"))]),
        risk_rules: object([("own", number(f64::NAN))]),
        priority_weights: object([("own", number(f64::INFINITY))]),
        ..TenantConfig::default()
    };
    let paths = [
        "field_mappings",
        "risk_rules",
        "priority_weights.own",
        "tenant_id",
        "nonsense",
    ];
    let expected = [
        "config.field_mappings",
        "config.priority_weights.own",
        "config.risk_rules",
        "config.tenant_id",
        "update_mask",
        "update_mask",
    ];
    assert_eq!(violated(update(&world, wrong, &paths).await), expected);

    let unusable = TenantConfig {
        tenant_id: tenant.clone(),
        risk_rules: object([
            ("staleOpportunityDays", number(-1.0)),
            ("highRiskStages", text("Proposal")),
        ]),
        priority_weights: object([("dealSize", number(1.5))]),
        ..TenantConfig::default()
    };
    let request = UpdateTenantConfigRequest {
        config: Some(unusable),
        update_mask: None,
    };
    let outcome = world
        .directory(OPERATOR)
        .update_tenant_config(request)
        .await
        .map_err(CallError::from);
    let expected = [
        "config.priority_weights.dealSize",
        "config.risk_rules.highRiskStages",
        "config.risk_rules.staleOpportunityDays",
    ];
    assert_eq!(violated(outcome), expected);
    let unknown = common::TenantKey::new_tenant(&testkit::deps()).to_string();
    let request = GetTenantConfigRequest { tenant_id: unknown };
    let error = world
        .directory(OPERATOR)
        .get_tenant_config(request)
        .await
        .unwrap_err();
    assert_eq!(CallError::from(error).code, Code::NotFound);
}
