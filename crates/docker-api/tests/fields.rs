//! Values of another type than Docker's, in every field of every body that a request may have: each is refused by the
//! field's name, in few words.

use docker_api::types::{self, Wire};
use serde_json::{Value, json};
use std::path::Path;
use testkit::hostile::{self, Kind, put};

/// *Limit* of what is said of a value, however long it is. *Unit:* bytes.
const WORDS_MAX: usize = 400;

fn refusal<T: Wire>(json: &[u8]) -> Option<String> {
    types::parse::<T>(json).err().map(|error| error.to_string())
}

type Reader = fn(&[u8]) -> Option<String>;

#[test]
fn a_value_of_another_type_is_refused_by_its_fields_name() {
    let bodies: [(&str, Reader); 22] = [
        ("ApplyStack", refusal::<types::ApplyStack>),
        ("AuthConfig", refusal::<types::AuthConfig>),
        ("ConfigSpec", refusal::<types::ConfigSpec>),
        ("ContainerCreate", refusal::<types::ContainerCreate>),
        ("ContainerUpdate", refusal::<types::ContainerUpdate>),
        ("ExecCreate", refusal::<types::ExecCreate>),
        ("ExecStart", refusal::<types::ExecStart>),
        ("NetworkConnect", refusal::<types::NetworkConnect>),
        ("NetworkCreate", refusal::<types::NetworkCreate>),
        ("NetworkDisconnect", refusal::<types::NetworkDisconnect>),
        ("NewUserToken", refusal::<types::NewUserToken>),
        ("NodeSpec", refusal::<types::NodeSpec>),
        ("SecretSpec", refusal::<types::SecretSpec>),
        ("ServiceSpec", refusal::<types::ServiceSpec>),
        ("SwarmInit", refusal::<types::SwarmInit>),
        ("SwarmJoin", refusal::<types::SwarmJoin>),
        ("SwarmSpec", refusal::<types::SwarmSpec>),
        ("UnlockKey", refusal::<types::UnlockKey>),
        ("UserCertificateRequest", refusal::<types::UserCertificateRequest>),
        ("UserLogin", refusal::<types::UserLogin>),
        ("UserSpec", refusal::<types::UserSpec>),
        ("VolumeCreate", refusal::<types::VolumeCreate>),
    ];
    let words = hostile::vocabulary(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/types"));
    let long = Value::String("x".repeat(100_000));
    let mut faults = Vec::new();
    let mut found = 0;
    for (body, refusal) in bodies {
        for field in hostile::fields(&|json| refusal(json).is_none(), &words) {
            found += 1;
            let wrong =
                Kind::ALL.into_iter().filter(|kind| !field.kinds.contains(kind)).map(|kind| match kind {
                    Kind::Text => long.clone(),
                    other => other.harmless(),
                });
            for value in wrong {
                let mut json = json!({});
                put(&mut json, &field.path, value.clone());
                let said = refusal(json.to_string().as_bytes()).unwrap_or_default();
                let is_named = said.to_lowercase().contains(&field.name().to_lowercase());
                if !is_named || said.len() > WORDS_MAX {
                    faults.push(format!("{body}{field} = {:.40}: {said:.400}", value.to_string()));
                }
            }
        }
    }
    assert!(found > 700, "only {found} fields are found");
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// Numbers of no type that JSON's readers have, and texts of numbers: none becomes another number.
#[test]
fn what_is_no_such_number_is_not_read_as_one() {
    for number in ["1e400", "-1e400", "NaN", "Infinity", "0x10", "01", "1.5", "9223372036854775808", "\"5\""]
    {
        let body = format!(r#"{{"HostConfig":{{"Memory":{number}}}}}"#);
        assert!(types::parse::<types::ContainerCreate>(body.as_bytes()).is_err(), "{number}");
    }
    for number in ["-1", "1.5", "18446744073709551616", "1e3"] {
        let body = format!(r#"{{"Mode":{{"Replicated":{{"Replicas":{number}}}}}}}"#);
        assert!(types::parse::<types::ServiceSpec>(body.as_bytes()).is_err(), "{number}");
    }
}
