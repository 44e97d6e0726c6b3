//! Kafka through librdkafka: the source of records, the publisher of alerts, and topic administration.
//!
//! Any librdkafka property may be set by the user, because nobody can foresee every cluster. A few are ours:
//! offsets belong to the manifests and not to the group, and a position that is lost must never be replaced
//! silently. Those are refused with the reason instead of being overridden in secret.

use std::collections::BTreeMap;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;

use crate::error::{Error, Result};

pub mod admin;
pub mod alerts;
pub(crate) mod context;
pub mod contract;
mod delivery;
pub mod early_alerts;
pub mod exchange;
mod fetch;
mod lanes;
mod member;
pub mod register;
pub mod slots;
pub mod source;
mod topic_ids;
mod topics;

/// Properties of librdkafka by name.
pub type Properties = BTreeMap<String, String>;

/// Makes a consumer a static member of its group. It is for the consumer that joins one, and for no other client.
pub(crate) const INSTANCE_ID: &str = "group.instance.id";

/// Says by which protocol the members of a group share out what there is: `classic`, or `consumer` (KIP-848).
pub(crate) const GROUP_PROTOCOL: &str = "group.protocol";

/// Whether a property says how to be a member of a group. A client that joins none goes without: the library looks at these, and
/// refuses some beside others, whether there is a group or not.
pub(crate) fn is_of_member(name: &str) -> bool {
    name == INSTANCE_ID || name.starts_with(GROUP_PROTOCOL) || name == "group.remote.assignor"
}

/// A property that wattline sets and the user may not change.
pub(crate) struct Reserved {
    pub(crate) name: &'static str,
    pub(crate) value: String,
    pub(crate) reason: &'static str,
}

impl Reserved {
    pub(crate) fn new(name: &'static str, value: impl Into<String>, reason: &'static str) -> Self {
        Self { name, value: value.into(), reason }
    }
}

/// Joins defaults, the user's properties and the reserved ones, in this order of growing weight.
pub(crate) fn client_config(
    bootstrap_servers: &str,
    defaults: &[(&str, &str)],
    properties: &Properties,
    reserved: &[Reserved],
) -> Result<ClientConfig> {
    let mut config = ClientConfig::new();
    config.set_log_level(rdkafka::config::RDKafkaLogLevel::Info);
    for (name, value) in defaults {
        config.set(*name, *value);
    }
    for (name, value) in properties {
        let ours = reserved.iter().find(|ours| ours.name == name);
        match ours {
            Some(ours) if ours.value != *value => {
                return Err(Error::ReservedProperty { name: name.clone(), reason: ours.reason });
            }
            Some(_) | None => {
                config.set(name, value);
            }
        }
    }
    if properties.get("bootstrap.servers").is_some_and(|own| own != bootstrap_servers) {
        return Err(Error::ReservedProperty {
            name: "bootstrap.servers".to_owned(),
            reason: "the brokers have a setting of their own",
        });
    }
    config.set("bootstrap.servers", bootstrap_servers);
    for ours in reserved {
        config.set(ours.name, &ours.value);
    }
    Ok(config)
}

/// Turns the refusal of a client configuration into an error that names the property.
pub(crate) fn refused_config(source: KafkaError) -> Error {
    match source {
        KafkaError::ClientConfig(_, reason, name, _) => Error::Property { name, reason },
        KafkaError::ClientCreation(reason) => Error::Property { name: String::new(), reason },
        other => Error::Kafka { doing: "opening a client".to_owned(), source: other },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(pairs: &[(&str, &str)]) -> Properties {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn user_properties_win_over_defaults_and_reserved_ones_are_refused() {
        let reserved = [Reserved::new("enable.auto.commit", "false", "offsets live in the manifests")];
        let config = client_config(
            "localhost:1",
            &[("session.timeout.ms", "10000")],
            &properties(&[("session.timeout.ms", "6000"), ("enable.auto.commit", "false")]),
            &reserved,
        )
        .expect("the same value as ours is harmless");
        assert_eq!(config.get("session.timeout.ms"), Some("6000"));
        let refused = client_config("localhost:1", &[], &properties(&[("enable.auto.commit", "true")]), &reserved);
        assert!(matches!(refused, Err(Error::ReservedProperty { name, .. }) if name == "enable.auto.commit"));
        let twice = client_config("localhost:1", &[], &properties(&[("bootstrap.servers", "other:2")]), &[]);
        assert!(matches!(twice, Err(Error::ReservedProperty { name, .. }) if name == "bootstrap.servers"));
    }
}
