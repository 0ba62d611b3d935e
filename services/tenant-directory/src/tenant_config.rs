//! A tenant's configuration for the host application: three JSON objects, with defaults.
//!
//! Kept is only what differs from the defaults, so a default that changes reaches every tenant that has not chosen
//! otherwise; and a key that is cleared is at its default again.

use common::TenantKey;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

/// A JSON object.
pub type Object = Map<String, Value>;

/// A tenant's configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct TenantConfig {
    /// Whose it is.
    pub tenant: TenantKey,
    field_mappings: Object,
    risk_rules: Object,
    priority_weights: Object,
    /// Goes up by one with every change.
    pub revision: i64,
    /// When it last changed.
    pub updated_at: OffsetDateTime,
}

/// One of the three objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// The tenant's own field names at a provider, by ours.
    FieldMappings,
    /// When a deal is at risk.
    RiskRules,
    /// How much each thing counts for a deal's priority.
    PriorityWeights,
}

/// A value that is set, replaced, or cleared.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigChange {
    /// In which object.
    pub section: Section,
    /// The keys down to it; none for the whole object.
    pub path: Vec<String>,
    /// `None` clears it.
    pub value: Option<Value>,
}

/// A value that the host application could not work with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its path: `risk_rules.staleOpportunityDays`.
    pub path: String,
    /// What it should be.
    pub description: &'static str,
}

/// So many violations are named, with so much of their keys.
const MOST_NAMED: usize = 20;
const LONGEST_SHOWN: usize = 60;
/// The bytes of a section's JSON at most.
const LARGEST: usize = 64 * 1024;

impl TenantConfig {
    /// All defaults.
    pub fn new(tenant: TenantKey, now: OffsetDateTime) -> Self {
        let empty = Object::new;
        Self {
            tenant,
            field_mappings: empty(),
            risk_rules: empty(),
            priority_weights: empty(),
            revision: 1,
            updated_at: now,
        }
    }

    /// As it was stored, with what differs from the defaults.
    pub fn from_stored(
        tenant: TenantKey,
        sections: [Object; 3],
        revision: i64,
        updated_at: OffsetDateTime,
    ) -> Self {
        let [field_mappings, risk_rules, priority_weights] = sections;
        Self {
            tenant,
            field_mappings,
            risk_rules,
            priority_weights,
            revision,
            updated_at,
        }
    }

    /// What differs from the defaults.
    pub fn chosen(&self, section: Section) -> &Object {
        match section {
            Section::FieldMappings => &self.field_mappings,
            Section::RiskRules => &self.risk_rules,
            Section::PriorityWeights => &self.priority_weights,
        }
    }

    /// What holds: the defaults, and what was chosen instead.
    pub fn effective(&self, section: Section) -> Object {
        let mut object = section.defaults();
        object.extend(self.chosen(section).clone());
        object
    }

    /// The configuration after these changes; `None` where they change nothing.
    pub fn changed(&self, changes: &[ConfigChange], now: OffsetDateTime) -> Option<Self> {
        let mut next = self.clone();
        for change in changes {
            next.apply(change);
        }
        (next != *self).then(|| Self {
            revision: self.revision + 1,
            updated_at: now,
            ..next
        })
    }

    /// Everything that the host application could not work with.
    pub fn violations(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        for section in Section::ALL {
            for (key, value) in self.chosen(section) {
                if let Some(description) = section.objection(key, value) {
                    let key: String = key.chars().take(LONGEST_SHOWN).collect();
                    found.push(Violation {
                        path: format!("{}.{key}", section.as_str()),
                        description,
                    });
                }
            }
            let size =
                serde_json::to_vec(self.chosen(section)).map_or(usize::MAX, |bytes| bytes.len());
            if size > LARGEST {
                found.push(Violation {
                    path: section.as_str().to_owned(),
                    description: "must have at most 64 KiB of JSON",
                });
            }
        }
        found.truncate(MOST_NAMED);
        found
    }

    fn apply(&mut self, change: &ConfigChange) {
        let object = match change.section {
            Section::FieldMappings => &mut self.field_mappings,
            Section::RiskRules => &mut self.risk_rules,
            Section::PriorityWeights => &mut self.priority_weights,
        };
        match (change.path.as_slice(), &change.value) {
            ([], Some(Value::Object(whole))) => {
                object.clone_from(whole);
                object.retain(|_, value| !value.is_null());
            }
            ([], _) => object.clear(),
            (path, Some(value)) if !value.is_null() => set(object, path, value.clone()),
            (path, _) => clear(object, path),
        }
        let defaults = change.section.defaults();
        object.retain(|key, value| defaults.get(key) != Some(value));
    }
}

fn set(object: &mut Object, path: &[String], value: Value) {
    match path {
        [] => {}
        [key] => {
            object.insert(key.clone(), value);
        }
        [key, rest @ ..] => {
            let inner = object.entry(key.clone()).or_insert_with(|| json!({}));
            if !inner.is_object() {
                *inner = json!({});
            }
            if let Value::Object(inner) = inner {
                set(inner, rest, value);
            }
        }
    }
}

fn clear(object: &mut Object, path: &[String]) {
    match path {
        [] => {}
        [key] => {
            object.remove(key);
        }
        [key, rest @ ..] => {
            if let Some(Value::Object(inner)) = object.get_mut(key) {
                clear(inner, rest);
            }
        }
    }
}

impl Section {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::FieldMappings, Self::RiskRules, Self::PriorityWeights];

    /// As the field is called.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FieldMappings => "field_mappings",
            Self::RiskRules => "risk_rules",
            Self::PriorityWeights => "priority_weights",
        }
    }

    /// What holds where nothing was chosen.
    pub fn defaults(self) -> Object {
        let defaults = match self {
            Self::FieldMappings => json!({}),
            Self::RiskRules => json!({
                "staleOpportunityDays": 30,
                "highRiskStages": ["Negotiation", "Proposal"],
                "lowEngagementThreshold": 3,
                "staleDealWarningDays": 14,
            }),
            Self::PriorityWeights => json!({
                "dealSize": 0.3,
                "closeProximity": 0.25,
                "riskScore": 0.25,
                "engagementLevel": 0.1,
                "strategicValue": 0.1,
            }),
        };
        match defaults {
            Value::Object(object) => object,
            _ => unreachable!("each of them is an object"),
        }
    }

    /// What is wrong with a value. Keys that we have no default for are the host application's own.
    fn objection(self, key: &str, value: &Value) -> Option<&'static str> {
        let (holds, description) = match (self, key) {
            (Self::RiskRules, "staleOpportunityDays" | "staleDealWarningDays") => (
                value
                    .as_u64()
                    .is_some_and(|days| (1..=3650).contains(&days)),
                "must be a whole number of days from 1 to 3650",
            ),
            (Self::RiskRules, "lowEngagementThreshold") => (
                value.as_f64().is_some_and(|threshold| threshold >= 0.0),
                "must be a number that is not negative",
            ),
            (Self::RiskRules, "highRiskStages") => {
                let stages = value.as_array();
                (
                    stages.is_some_and(|stages| stages.iter().all(Value::is_string)),
                    "must be a list of the stages' names",
                )
            }
            (Self::PriorityWeights, _) => (
                value
                    .as_f64()
                    .is_some_and(|weight| (0.0..=1.0).contains(&weight)),
                "must be a number from 0 to 1",
            ),
            _ => (true, ""),
        };
        (!holds).then_some(description)
    }
}

#[cfg(test)]
mod tests {
    use common::Deps;
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-03-01 12:00 UTC);

    fn config() -> TenantConfig {
        TenantConfig::new(TenantKey::new_tenant(&Deps::system("test")), NOW)
    }

    fn change(section: Section, path: &[&str], value: Option<Value>) -> ConfigChange {
        ConfigChange {
            section,
            path: path.iter().map(ToString::to_string).collect(),
            value,
        }
    }

    #[test]
    fn req_salesboard_03_one_key_changes_alone_and_goes_back_to_its_default() {
        let set = change(
            Section::RiskRules,
            &["staleOpportunityDays"],
            Some(json!(45)),
        );
        let config = config().changed(&[set], NOW).expect("it is another number");
        assert_eq!(
            config.effective(Section::RiskRules)["staleOpportunityDays"],
            45
        );
        assert_eq!(
            config.effective(Section::RiskRules)["highRiskStages"],
            json!(["Negotiation", "Proposal"])
        );
        let clear = change(Section::RiskRules, &["staleOpportunityDays"], None);
        let config = config.changed(&[clear], NOW).expect("it goes back");
        assert_eq!(
            config.effective(Section::RiskRules),
            Section::RiskRules.defaults()
        );
        assert!(config.chosen(Section::RiskRules).is_empty());
        assert_eq!(config.revision, 3);
    }

    #[test]
    fn a_default_that_is_chosen_changes_nothing() {
        let same = change(
            Section::RiskRules,
            &["staleOpportunityDays"],
            Some(json!(30)),
        );
        assert_eq!(config().changed(&[same], NOW), None);
    }

    #[test]
    fn a_path_goes_down_into_objects() {
        let deep = change(
            Section::FieldMappings,
            &["salesforce", "Deal.Size"],
            Some(json!("Amount__c")),
        );
        let config = config().changed(&[deep], NOW).expect("it is new");
        assert_eq!(
            config.effective(Section::FieldMappings),
            json!({"salesforce": {"Deal.Size": "Amount__c"}})
                .as_object()
                .cloned()
                .unwrap_or_default()
        );
        let clear = change(Section::FieldMappings, &["salesforce", "Deal.Size"], None);
        let config = config.changed(&[clear], NOW).expect("it is gone");
        assert_eq!(
            config.chosen(Section::FieldMappings)["salesforce"],
            json!({})
        );
    }

    #[test]
    fn values_of_known_keys_are_looked_at() {
        let changes = [
            change(
                Section::RiskRules,
                &["staleOpportunityDays"],
                Some(json!(-1)),
            ),
            change(
                Section::RiskRules,
                &["staleDealWarningDays"],
                Some(json!(1.5)),
            ),
            change(
                Section::RiskRules,
                &["lowEngagementThreshold"],
                Some(json!("low")),
            ),
            change(
                Section::RiskRules,
                &["highRiskStages"],
                Some(json!("Proposal")),
            ),
            change(
                Section::RiskRules,
                &["own"],
                Some(json!({"anything": true})),
            ),
            change(Section::PriorityWeights, &["dealSize"], Some(json!(2))),
            change(
                Section::FieldMappings,
                &[],
                Some(json!({"big": "x".repeat(LARGEST)})),
            ),
        ];
        let config = config().changed(&changes, NOW).expect("they are new");
        let paths: Vec<_> = config
            .violations()
            .into_iter()
            .map(|violation| violation.path)
            .collect();
        let expected = [
            "field_mappings",
            "risk_rules.highRiskStages",
            "risk_rules.lowEngagementThreshold",
            "risk_rules.staleDealWarningDays",
            "risk_rules.staleOpportunityDays",
            "priority_weights.dealSize",
        ];
        assert_eq!(paths, expected);
    }

    proptest! {
        #[test]
        fn what_is_set_is_read_and_what_is_cleared_is_gone(keys in prop::collection::vec("[a-z.`]{1,6}", 1..4), value in "\\PC{0,10}") {
            let path: Vec<&str> = keys.iter().map(String::as_str).collect();
            let before = config();
            let set = before.changed(&[change(Section::FieldMappings, &path, Some(json!(value)))], NOW).expect("it is new");
            let found = keys[1..].iter().try_fold(&set.chosen(Section::FieldMappings)[&keys[0]], |at, key| at.get(key));
            prop_assert_eq!(found, Some(&json!(value)));
            let cleared = set.changed(&[change(Section::FieldMappings, &path[..1], None)], NOW).expect("it was there");
            prop_assert_eq!(cleared.effective(Section::FieldMappings), before.effective(Section::FieldMappings));
        }
    }
}
